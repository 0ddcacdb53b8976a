"""What the trainer asks of a set of images with a class each, wherever they lie."""

import abc
import contextlib
import dataclasses
import os
import pathlib
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from training.data.image_folder import Holdout, Photo, class_names, list_photos
from training.errors import InputError

IMAGE_FOLDER = "image_folder"


@dataclasses.dataclass(frozen=True)
class ImageSet(abc.ABC):
    """A classification set: encoded images with their labels, split by split.

    Attributes:
        name: As the config names it.
        labels: The classes' names, in the order of their numbers.
        shape: Height, width and channels of its images; None for a height or width that varies.
        splits: The splits' names and sizes.
    """

    name: str
    labels: tuple[str, ...]
    shape: tuple[int | None, int | None, int]
    splits: dict[str, int]

    def input_shape(self, image_size: int) -> tuple[int, int, int]:
        """Height, width and channels that a network sees.

        Args:
            image_size: Height and width to bring images to; 0 for the size that all of them have.

        Raises:
            InputError: 0, where the images' sizes vary.
        """
        height, width, channels = self.shape
        if image_size:
            return image_size, image_size, channels
        if height is None or width is None:
            raise InputError(f"the images of {self.name} vary in size: image_size must say what to bring them to")
        return height, width, channels

    def num_examples(self, split: str) -> int:
        """How many images a split has.

        Args:
            split: A split's name, or parts of splits in tensorflow-datasets' notation, as `train[:90%]`.

        Raises:
            InputError: There is no such split, or no image in it.
        """
        try:
            count = self._count(split)
        except (KeyError, ValueError):
            there = ", ".join(sorted(self.splits))
            raise InputError(f"{self.name} has no split {split!r}; it has {there}") from None
        if count == 0:
            raise InputError(f"the split {split!r} of {self.name} holds no image")
        return count

    @abc.abstractmethod
    def _count(self, split: str) -> int: ...

    @abc.abstractmethod
    def references(self, split: str) -> tf.data.Dataset:
        """The split's (reference, label, name) triples, always in the same order.

        A reference is what `load` takes, a scalar string; the name tells a person which image it is.
        """

    def load(self, reference: tf.Tensor) -> tf.Tensor:
        """The encoded image, a scalar string; fails where it cannot be read."""
        return reference

    def encoded(self, split: str) -> tf.data.Dataset:
        """The split's (encoded image, label) pairs, always in the same order."""
        return self.references(split).map(lambda reference, label, _: (self.load(reference), label))

    @abc.abstractmethod
    def version(self, split: str) -> str:
        """A text that is another one as soon as the split's images, labels or names are others."""

    def held_out(self, holdout: Holdout) -> "ImageSet":
        """The same images split by a holdout, where the set has no splits of its own."""
        return self


@dataclasses.dataclass(frozen=True)
class PreparedSet(ImageSet):
    """A set that tensorflow-datasets has prepared; its references are the encoded images themselves."""

    builder: Any
    image_key: str
    label_key: str

    def references(self, split: str) -> tf.data.Dataset:
        """Encoded images, named by their number in the split."""
        examples = self.builder.as_dataset(split=split, decoders={self.image_key: tfds.decode.SkipDecoding()})

        def triple(number: tf.Tensor, example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            name = tf.strings.join(["image ", tf.strings.as_string(number), f" of {split}"])
            return example[self.image_key], example[self.label_key], name

        return examples.enumerate().map(triple)

    def version(self, split: str) -> str:
        """The set's name and version, and where it lies."""
        return f"{self.builder.info.full_name} {split} in {self.builder.data_dir}"

    def _count(self, split: str) -> int:
        return int(self.builder.info.splits[split].num_examples)


@dataclasses.dataclass(frozen=True)
class FolderSet(ImageSet):
    """A folder of photos, read where they lie; its references are paths, and a file is read when it is due."""

    root: pathlib.Path
    holdout: Holdout
    photos: dict[str, tuple[Photo, ...]]

    def references(self, split: str) -> tf.data.Dataset:
        """Paths, with the paths as names."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        photos = self._photos(split)
        paths = tf.constant([photo.path for photo in photos])
        labels = tf.constant([numbers[photo.label] for photo in photos], tf.int64)
        return tf.data.Dataset.from_tensor_slices((paths, labels, paths))

    def load(self, reference: tf.Tensor) -> tf.Tensor:
        """Reads the file."""
        return tf.io.read_file(reference)

    def version(self, split: str) -> str:
        """The files with their dates and sizes."""
        return "\n".join(f"{photo} {_date_and_size(photo.path)}" for photo in self._photos(split))

    def held_out(self, holdout: Holdout) -> ImageSet:
        """The same folder, split by another holdout if it has no splits of its own."""
        return self if holdout == self.holdout else open_folder(self.root, holdout)

    def _count(self, split: str) -> int:
        return len(self._photos(split))

    def _photos(self, split: str) -> list[Photo]:
        sizes = [tfds.core.SplitInfo(name=name, shard_lengths=[n], num_bytes=0) for name, n in self.splits.items()]
        parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(tfds.core.SplitDict(sizes))
        return [photo for part in parts for photo in self.photos[part.splitname][part.from_ : part.to]]


def _date_and_size(path: str) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):  # it is gone since the folder was listed
        found = os.stat(path)
        return found.st_mtime_ns, found.st_size
    return None


def open_folder(root: pathlib.Path, holdout: Holdout) -> FolderSet:
    """Opens a folder of photos.

    Raises:
        InputError: What `list_photos` tells of.
    """
    photos = list_photos(root, holdout)
    sizes = {split: len(each) for split, each in photos.items()}
    return FolderSet(IMAGE_FOLDER, class_names(photos), (None, None, 3), sizes, root, holdout, photos)
