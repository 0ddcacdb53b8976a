"""Folders of photos, a folder a class: what is in them, and which of them are held out."""

import collections
import hashlib
import os
import pathlib
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from training.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png")
HELD_OUT = ("train", "val")  # the splits of a folder that has none itself


class Photo(NamedTuple):
    """A file and its class."""

    path: str
    label: str


class Holdout(NamedTuple):
    """How a folder without splits of its own is split.

    Attributes:
        fraction: Share of each class that is held out as `val`, between 0 and 1.
        seed: Another one holds out other photos.
    """

    fraction: float = 0.2
    seed: int = 0


def list_photos(root: pathlib.Path, holdout: Holdout) -> dict[str, tuple[Photo, ...]]:
    """Lists the JPEGs and PNGs below a folder by split, in an order that is the same wherever the folder lies.

    Args:
        root: `<split>/<class>/*.jpg`, or `<class>/*.jpg` to be split here.
        holdout: How, in the second case. A photo's place depends on its own name and class, so that most photos stay
            where they are when others are added.

    Raises:
        InputError: There are no photos, both layouts at once, a single class, a class without a training photo, or
            without more than one where one must be held out.
    """
    splits = _with_splits(root)
    photos = {label: found for label, found in _classes(root).items() if found}
    if splits and photos:
        raise InputError(
            f"{root} holds photos both at <split>/<class>, as {next(iter(splits))}/..., and at <class>, as "
            f"{next(iter(photos))}: keep to one of the two"
        )
    if not splits and not photos:
        raise InputError(
            f"{root} holds no images at <split>/<class>/*.jpg or <class>/*.jpg (or .png), such as train/cat/1.jpg"
        )
    splits = splits or _split(root, _classes(root), holdout)
    _check(root, splits)
    return {split: _shuffled(split, classes) for split, classes in splits.items()}


def class_names(splits: dict[str, tuple[Photo, ...]]) -> tuple[str, ...]:
    """All classes, sorted."""
    return tuple(sorted({photo.label for photos in splits.values() for photo in photos}))


_Classes = dict[str, list[str]]  # the files of each class


def _with_splits(root: pathlib.Path) -> dict[str, _Classes]:
    splits = {folder.name: _classes(folder) for folder in _folders(root)}
    return {split: classes for split, classes in splits.items() if any(classes.values())}


def _classes(root: pathlib.Path) -> _Classes:
    return {folder.name: sorted(_photo_files(folder)) for folder in _folders(root)}


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
    with os.scandir(root) as entries:
        return sorted(pathlib.Path(each) for each in entries if each.is_dir() and not each.name.startswith("."))


def _photo_files(folder: pathlib.Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (each.path for each in entries if each.name.lower().endswith(SUFFIXES) and not each.is_dir())


def _split(root: pathlib.Path, classes: _Classes, holdout: Holdout) -> dict[str, _Classes]:
    train, val = {}, {}
    for label, files in classes.items():
        if len(files) == 1:
            raise InputError(
                f"the class {label!r} in {root} has a single photo: it needs two, one of them to be held out"
            )
        ranked = sorted(files, key=lambda file: _rank(holdout.seed, label, file))
        count = min(max(1, round(holdout.fraction * len(files))), len(files) - 1)
        val[label], train[label] = sorted(ranked[:count]), sorted(ranked[count:])
    return dict(zip(HELD_OUT, (train, val), strict=True))


def _rank(seed: int, label: str, file: str) -> bytes:
    return hashlib.sha256(f"{seed}/{label}/{os.path.basename(file)}".encode()).digest()


def _check(root: pathlib.Path, splits: dict[str, _Classes]) -> None:
    trained = max(splits.values(), key=lambda classes: sum(map(len, classes.values())))
    labels = {label for classes in splits.values() for label in classes}
    if len(labels) == 1:
        raise InputError(f"{root} has one class, {labels.pop()!r}: there must be at least two")
    empty = sorted(label for label in labels if not trained.get(label))
    if empty:
        raise InputError(
            f"the class {empty[0]!r} in {root} has no photo to train on: add some, or remove its folder everywhere"
        )


def _shuffled(split: str, classes: _Classes) -> tuple[Photo, ...]:
    """The classes mixed, for a shuffle that sees only part of them at once; the order of tensorflow-datasets."""
    photos = [Photo(file, label) for label in sorted(classes) for file in classes[label]]
    random.Random(split).shuffle(photos)
    return tuple(photos)


def count_by_class(photos: Sequence[Photo]) -> dict[str, int]:
    """How many photos each class has."""
    return dict(collections.Counter(photo.label for photo in photos))
