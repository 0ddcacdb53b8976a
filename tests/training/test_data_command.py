import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.__main__ import main
from training.data.datasets import open_image_set
from training.data.survey import survey, write_sheet
from training.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """Two classes of photos between 10 and 40 pixels high, and one that cannot be read."""
    for index, height in enumerate((10, 20, 30, 40)):
        path = tmp_path / "photos/train" / ("dark", "light")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(np.full((height, 50, 3), 60 * index, np.uint8)).numpy())
    (tmp_path / "photos/train/dark/bad.jpg").write_bytes(b"no image")
    return tmp_path / "photos"


def test_survey_counts_and_measures(folder):
    found = survey(open_image_set("image_folder", str(folder)), "train")
    np.testing.assert_array_equal(found.class_counts, [3, 2])
    np.testing.assert_array_equal(sorted(found.heights), [10, 20, 30, 40])
    assert set(found.widths) == {50}
    np.testing.assert_allclose(found.mean, [(60 * 20 + 120 * 30 + 180 * 40) / 100] * 3)
    assert [name.rpartition("/")[2] for name in found.unreadable] == ["bad.jpg"]
    assert found.unlabelled == 0


@pytest.mark.slow
def test_data_tells_what_is_in_a_folder_and_draws_it(folder, tmp_path, capfd):
    sheet = tmp_path / "sheet.png"
    command = (
        f"data image_folder --data_dir {folder} --test_split train --image_size 32 --sheet {sheet} --max_unreadable 1"
    )
    assert main(command.split()) == 0
    out = capfd.readouterr().out
    assert "image_folder: train 5 images, 2 classes" in out
    assert "  height      10 to 40 pixels, median 25" in out
    assert f"  unreadable  1: {folder}/train/dark/bad.jpg" in out
    assert "  light       2" in out
    with Image.open(sheet) as picture:
        assert picture.size == (4 * (64 + 4) + 4, 64 + 14 + 4 + 4)


@pytest.mark.slow
def test_data_takes_a_recipe_by_its_name(capfd, tmp_path):
    assert main(["data", "digits", "--sheet", str(tmp_path / "digits.png")]) == 0
    assert "train: 1,438 images with a class" in capfd.readouterr().out
    assert (tmp_path / "digits.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("digit", "knows no dataset 'digit' (did you mean digits?)"),
        ("cifar10", "cifar10 is not prepared in"),
        ("digits --flipp true", "Unknown option: --flipp. Did you mean --flip?"),
        ("image_folder --data_dir /nowhere", "image_folder needs a --data_dir"),
        ("imagenet2012 --download", "imagenet2012 cannot be downloaded and prepared: "),
        ("digits --sheet /nowhere/sheet.png", "/nowhere/sheet.png cannot be written: No such file or directory"),
        ("digits --scale_min 6 --scale_max 9", "scale_min is 6, but must be at least 8"),
    ],
)
def test_what_cannot_work_is_one_line_and_status_2(arguments, message, capfd, tmp_path):
    if "--scale_min" in arguments:
        arguments += f" --sheet {tmp_path / 'sheet.png'}"
    assert main(["data", *arguments.split()]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


def test_sheet_shows_images_enlarged_in_rows_of_eight(tmp_path):
    images = np.zeros((9, 16, 16, 1), "float32")
    images[8] = 300.0  # colours may lie beyond 255
    write_sheet(tmp_path / "sheet.png", images, ["a"] * 9)
    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.array(picture)
    assert pixels.shape == (2 * (64 + 14 + 4) + 4, 8 * (64 + 4) + 4, 3)
    assert not pixels[4:68, 4:68].any()
    assert (pixels[4 + 82 : 68 + 82, 4:68] == 255).all()


def test_unknown_kind_of_picture_is_named(tmp_path):
    with pytest.raises(InputError, match=r"sheet\.xyz cannot be written: unknown file extension: \.xyz"):
        write_sheet(tmp_path / "sheet.xyz", np.zeros((1, 8, 8, 3)), ["a"])
