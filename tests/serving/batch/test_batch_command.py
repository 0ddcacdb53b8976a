"""`keras-prelu batch`: what goes into the parts, and what is refused in one line."""

import json
import resource
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from filelock import FileLock
from tensorflow.core.example import example_pb2

pytestmark = pytest.mark.xdist_group("serving")


@pytest.fixture(scope="module")
def expected(colours, encoded):
    """The scores of the model, as TensorFlow itself runs it."""
    model = tf.saved_model.load(str(colours / "3"))
    return model.signatures["image_bytes"](image_bytes=tf.constant(encoded))["scores"].numpy()


@pytest.fixture
def write_records(tmp_path, encoded):
    def write(name="images.tfrecord", compression=None, feature="image/encoded"):
        path = tmp_path / name
        with tf.io.TFRecordWriter(str(path), compression) as writer:
            for image in encoded:
                example = example_pb2.Example()
                example.features.feature[feature].bytes_list.value.append(image)
                writer.write(example.SerializeToString())
        return path

    return write


@pytest.fixture
def write_table(tmp_path):
    def write(columns, **options):
        pq.write_table(pa.table(columns), tmp_path / "images.parquet", **options)
        return tmp_path / "images.parquet"

    return write


def scores_of(rows):
    return np.array([row["output_scores"] for row in rows])


def parts_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def test_folder(batch, rows, colours, photos, expected):
    assert batch(colours, photos, "--signature=image_bytes", "--top=2", "--batch_size=4") == (0, "")
    np.testing.assert_allclose(scores_of(rows()), expected, rtol=1e-6)
    first, best = rows()[0], np.argsort(-expected[0])[:2]
    assert first["id"] == str(photos / "a" / "0.png")
    assert first["labels"] == [("red", "green", "blue")[index] for index in best]
    assert (first["label"], first["score"]) == (first["labels"][0], first["scores"][0])
    assert (first["output_classes"], first["version"], first["error"]) == (best[0], 3, None)


def test_signature_that_gives_labels_is_chosen(batch, rows, colours, photos, expected):
    assert batch(colours, photos) == (0, "")
    assert [row["label"] for row in rows()] == [("red", "green", "blue")[index] for index in expected.argmax(1)]


def test_pixels(batch, rows, colours, photos, expected):
    assert batch(colours, photos, "--signature=serving_default") == (0, "")
    np.testing.assert_allclose(scores_of(rows()), expected, rtol=1e-6)


def test_pixels_of_another_size(batch, rows, colours, tmp_path):
    (tmp_path / "large.png").write_bytes(tf.io.encode_png(np.zeros((9, 9, 3), np.uint8)).numpy())
    batch(colours, tmp_path / "large.png", "--signature=serving_default", "--max_unreadable=1")
    assert rows()[0]["error"].startswith("the image is 9x9x3, and signature serving_default takes 8x8x3 alone")


@pytest.mark.parametrize("signature", ["classify", "image_bytes"])
def test_records(batch, rows, colours, write_records, expected, signature):
    path = write_records()
    assert batch(colours, path, f"--signature={signature}", "--part_rows=4") == (0, "")
    assert [row["id"] for row in rows()] == [f"{path}#{number}" for number in range(10)]
    np.testing.assert_allclose([row["score"] for row in rows()], expected.max(1), rtol=1e-6)


def test_compressed_records(batch, rows, colours, write_records):
    assert batch(colours, write_records("images.tfrecord.gz", "GZIP")) == (0, "")
    assert len(rows()) == 10


def test_named_feature(batch, rows, colours, write_records):
    assert batch(colours, write_records(feature="photo"), "--signature=image_bytes", "--column=photo") == (0, "")
    assert len(rows()) == 10


def test_record_with_a_wrong_checksum_ends_the_rows_that_can_be_read(batch, rows, colours, write_records):
    path = write_records()
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    path.write_bytes(content)
    assert batch(colours, path, "--max_unreadable=1") == (0, "")
    errors = [row["error"] for row in rows()]
    assert errors[:7] == [None] * 7
    assert all("cannot be read: corrupted record" in error for error in errors[7:])


@pytest.mark.parametrize("row_group_size", [3, 100])
def test_column_of_bytes(batch, rows, colours, write_table, encoded, expected, row_group_size):
    table = write_table({"key": list(range(10)), "photo": encoded}, row_group_size=row_group_size)
    assert batch(colours, table, "--part_rows=4") == (0, "")
    np.testing.assert_allclose([row["score"] for row in rows()], expected.max(1), rtol=1e-6)


def test_images_of_hugging_face(batch, rows, colours, write_table, encoded, expected):
    images = [{"bytes": image, "path": None} for image in encoded]
    assert batch(colours, write_table({"image": images})) == (0, "")
    np.testing.assert_allclose([row["score"] for row in rows()], expected.max(1), rtol=1e-6)


def test_null_is_unreadable(batch, rows, colours, write_table, encoded):
    batch(colours, write_table({"photo": [encoded[0], None]}), "--max_unreadable=0.5")
    assert [row["error"] for row in rows()] == [None, "the row is null"]


@pytest.fixture
def damaged(tmp_path, photos):
    """Ten photos, one of which is no image, and the path of one that is missing."""
    shutil.copytree(photos, tmp_path / "damaged")
    (tmp_path / "damaged/a/3.png").write_bytes(b"no image")
    listed = [*sorted((tmp_path / "damaged").rglob("*.png")), tmp_path / "missing.png"]
    (tmp_path / "list.txt").write_text("\n".join(map(str, listed)))
    return f"@{tmp_path / 'list.txt'}"


def test_unreadable_images_are_rows_with_an_error(batch, rows, colours, damaged, tmp_path):
    assert batch(colours, damaged, "--max_unreadable=0.2", "--batch_size=4") == (0, "")
    errors = {number: row["error"] for number, row in enumerate(rows()) if row["error"]}
    assert list(errors) == [3, 10]
    assert errors[10] == "No such file or directory"
    assert rows()[3]["label"] is rows()[3]["output_scores"] is None
    assert json.loads((tmp_path / "out/_manifest.json").read_text())["counts"] == {"rows": 11, "unreadable": 2}


def test_too_many_unreadable_images(batch, colours, damaged, tmp_path):
    status, told = batch(colours, damaged)
    assert status == 1
    assert told.startswith("keras-prelu batch: 2 of 11 images cannot be read, the last ")
    assert told.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".lock", "_manifest.json"]


def test_a_run_goes_on_with_the_parts_that_are_missing(batch, colours, photos, tmp_path):
    assert batch(colours, photos, "--part_rows=3") == (0, "")
    whole = parts_of(tmp_path / "out")
    manifest = (tmp_path / "out/_manifest.json").read_bytes()
    kept, gone, cut = (tmp_path / "out" / name for name in list(whole)[:3])
    gone.unlink()
    cut.write_bytes(whole[cut.name][:100])
    written_at = kept.stat().st_mtime_ns
    assert batch(colours, photos, "--part_rows=3") == (0, "")
    assert parts_of(tmp_path / "out") == whole
    assert (tmp_path / "out/_manifest.json").read_bytes() == manifest
    assert kept.stat().st_mtime_ns == written_at


def other_inputs(colours, photos, folder):
    return colours, photos / "a"


def other_settings(colours, photos, folder):
    return colours, photos, "--batch_size=3"


def other_model(colours, photos, folder):
    shutil.copytree(colours / "3", folder / "m/4")
    return folder / "m", photos


@pytest.mark.parametrize(
    ("change", "differs"), [(other_inputs, "inputs"), (other_settings, "settings"), (other_model, "model")]
)
def test_another_run_in_the_folder(batch, colours, photos, tmp_path, change, differs):
    assert batch(colours, photos) == (0, "")
    whole = parts_of(tmp_path / "out")
    refused = f"keras-prelu batch: {tmp_path}/out holds a run of other {differs}: name another --output\n"
    assert batch(*change(colours, photos, tmp_path)) == (2, refused)
    assert parts_of(tmp_path / "out") == whole


def test_second_process_in_the_folder(batch, colours, photos, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out/.lock"):
        refused = f"another process writes into {tmp_path}/out: wait until it ends, or name another --output"
        assert batch(colours, photos) == (1, f"keras-prelu batch: {refused}\n")


def test_full_disk(batch, colours, photos, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # more than the manifest, and less than a part
    try:
        status, told = batch(colours, photos / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (status, told) == (1, f"keras-prelu batch: {tmp_path / 'out'}: File too large\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".lock", "_manifest.json"]


def no_export(colours, photos, folder):
    return (photos, photos), "is no export: give a folder with a SavedModel"


def no_version(colours, photos, folder):
    return (colours, photos, "--version=4"), "--version=4 is none of the versions in"


def no_signature(colours, photos, folder):
    return (colours, photos, "--signature=x"), "--signature=x is none of the model's: classify, image_bytes"


def no_model(colours, photos, folder):
    (folder / "m/1").mkdir(parents=True)
    return (folder / "m", photos), "Could not find SavedModel .pb or .pbtxt"


def no_images(colours, photos, folder):
    (folder / "empty").mkdir()
    return (colours, folder / "empty"), "names no images"


def no_column(colours, photos, folder):
    pq.write_table(pa.table({"key": [1], "a": [b""], "b": [b""]}), folder / "t.parquet")
    return (
        colours,
        folder / "t.parquet",
        "--column=image",
    ), "has no column image of bytes: --column must name one of a"


def several_columns(colours, photos, folder):
    pq.write_table(pa.table({"a": [b""], "b": [b""]}), folder / "t.parquet")
    return (colours, folder / "t.parquet"), "has 2 columns of bytes: --column must name one of a, b"


def no_parquet(colours, photos, folder):
    (folder / "t.parquet").write_bytes(b"nonsense")
    return (colours, folder / "t.parquet"), "is no Parquet file, or a damaged one"


def no_records(colours, photos, folder):
    (folder / "t.tfrecord").write_bytes(b"nonsense")
    return (colours, folder / "t.tfrecord"), "holds no whole TFRecord after the first 0"


def no_list(colours, photos, folder):
    return (colours, f"@{folder}/list"), "list: No such file or directory"


REFUSED = [
    *(no_export, no_version, no_signature, no_model, no_images, no_column, several_columns, no_parquet, no_records),
    no_list,
]


@pytest.mark.parametrize("make", REFUSED, ids=[make.__name__ for make in REFUSED])
def test_refused_in_one_line(batch, colours, photos, tmp_path, make):
    arguments, reason = make(colours, photos, tmp_path)
    status, told = batch(*arguments)
    assert status in (1, 2)
    assert told.startswith("keras-prelu batch: ")
    assert reason in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_signature_without_an_image(batch, zoo_path, photos):
    status, told = batch(zoo_path, photos, "--signature=identity")
    assert status == 2
    assert 'Inputs of signature "identity": x: float [?]' in told


def test_signature_without_a_row_per_image(batch, tmp_path, photos):
    module = tf.Module()
    module.count = tf.function(lambda x: {"n": tf.size(x)}, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path / "m/1"), module.count)
    refused = "signature serving_default has no output with a row per image: name another"
    assert batch(tmp_path / "m", photos) == (2, f"keras-prelu batch: {refused}\n")


def test_texts_of_a_signature_without_scores(batch, rows, zoo_path, tmp_path):
    (tmp_path / "a.png").write_bytes(b"abc")
    assert batch(zoo_path, tmp_path / "a.png", "--signature=strings") == (0, "")
    assert (rows()[0]["label"], rows()[0]["output_text"], rows()[0]["version"]) == (None, b"ABC", 123)
