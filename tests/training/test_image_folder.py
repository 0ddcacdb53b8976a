import pathlib

import pytest

from training.config import Config
from training.data.datasets import open_image_set, open_images_of
from training.data.image_folder import Holdout, list_photos
from training.errors import InputError


def write(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def names(photos):
    return sorted(pathlib.Path(photo.path).name for photo in photos)


def test_splits_and_classes_are_folders(tmp_path):
    write(tmp_path, "train/cat/1.jpg", "train/cat/2.PNG", "train/dog/3.jpeg", "val/cat/4.jpg", "train/dog/notes.txt")
    images = open_image_set("image_folder", str(tmp_path))
    assert images.splits == {"train": 3, "val": 1}
    assert images.labels == ("cat", "dog")
    split = images.open("train")
    labels = [int(split.label(*example)) for example in split.examples()]
    examples = {(pathlib.Path(split.describe(index)).name, label) for index, label in enumerate(labels)}
    assert examples == {("1.jpg", 0), ("2.PNG", 0), ("3.jpeg", 1)}


def test_parts_of_splits_are_in_tensorflow_datasets_notation(tmp_path):
    write(tmp_path, *(f"train/{label}/{index}.jpg" for label in "ab" for index in range(10)))
    images = open_image_set("image_folder", str(tmp_path))
    parts = [
        [path for _, path in images.open(split).examples().as_numpy_iterator()]
        for split in ("train[:75%]", "train[15:]", "train")
    ]
    assert images.num_examples("train[:75%]") == 15
    assert parts[0] + parts[1] == parts[2]


@pytest.fixture
def one_folder(tmp_path):
    write(tmp_path, *(f"{label}/{index}.jpg" for label in "ab" for index in range(50)))
    return tmp_path


def test_folder_without_splits_holds_out_a_share_of_each_class(one_folder):
    splits = list_photos(one_folder, Holdout(fraction=0.3))
    assert {split: len(photos) for split, photos in splits.items()} == {"train": 70, "val": 30}
    assert sum(photo.label == "a" for photo in splits["val"]) == 15
    assert not set(splits["train"]) & set(splits["val"])


def test_another_seed_holds_out_other_photos(one_folder):
    held_out = [set(list_photos(one_folder, Holdout(seed=seed))["val"]) for seed in (0, 0, 1)]
    assert held_out[0] == held_out[1] != held_out[2]


def test_photos_stay_in_their_split_when_others_are_added(one_folder):
    before = set(list_photos(one_folder, Holdout())["val"])
    write(one_folder, *(f"a/new-{index}.jpg" for index in range(5)))
    assert len(before - set(list_photos(one_folder, Holdout())["val"])) <= 1


def test_order_does_not_depend_on_where_the_folder_lies(tmp_path):
    for root in ("here", "far/away"):
        write(tmp_path / root, *(f"train/{label}/{index}.jpg" for label in "ab" for index in range(9)))
    orders = [
        [
            pathlib.Path(photo.path).relative_to(tmp_path / root)
            for photo in list_photos(tmp_path / root, Holdout())["train"]
        ]
        for root in ("here", "far/away")
    ]
    assert orders[0] == orders[1] != sorted(orders[0])


def test_config_decides_what_is_held_out(one_folder):
    images = open_images_of(Config(dataset="image_folder", data_dir=str(one_folder), holdout=0.5))
    assert images.splits == {"train": 50, "val": 50}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "holds no images at <split>/<class>/\\*.jpg or <class>/\\*.jpg"),
        (["1.jpg"], "holds no images"),
        (["train/cat/1.jpg", "train/cat/2.jpg"], "has one class, 'cat': there must be at least two"),
        (["cat/1.jpg", "cat/2.jpg"], "has one class, 'cat'"),
        (["train/cat/1.jpg", "train/dog/2.jpg", "train/eel/x.txt"], "the class 'eel' in .* has no photo to train on"),
        (["train/cat/1.jpg", "train/dog/2.jpg", "val/eel/3.jpg"], "the class 'eel' in .* has no photo to train on"),
        (["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"], "the class 'dog' in .* has a single photo"),
        (
            ["cat/1.jpg", "train/cat/1.jpg"],
            "holds photos both at <split>/<class>, as train/..., and at <class>, as cat",
        ),
    ],
    ids=["empty", "no-class", "one-class", "one-class-unsplit", "class-empty", "class-in-val", "one-photo", "both"],
)
def test_folder_that_cannot_be_trained_on_is_named(tmp_path, paths, message):
    write(tmp_path, *paths)
    with pytest.raises(InputError, match=message):
        open_image_set("image_folder", str(tmp_path))


def test_split_that_is_not_there_is_named(one_folder):
    images = open_image_set("image_folder", str(one_folder))
    with pytest.raises(InputError, match="image_folder has no split 'test'; it has train, val"):
        images.num_examples("test")


@pytest.mark.parametrize("data_dir", ["", "/nowhere"])
def test_missing_folder_is_named(data_dir):
    with pytest.raises(InputError, match=f"image_folder needs a --data_dir .* {data_dir!r} is not one"):
        open_image_set("image_folder", data_dir)
