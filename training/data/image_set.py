"""Sets of images with a class each, wherever they lie: each image can be read by its index."""

import abc
import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from training.data.image_folder import Photo
from training.data.parallel import without_autotune
from training.errors import InputError

IMAGE_FOLDER = "image_folder"
_FETCHED = 64  # examples fetched at a time when a split is read in order


class Split(NamedTuple):
    """A split, or part of one, whose images are read by index.

    Attributes:
        name: As the config names it.
        num_examples: How many images it has.
        fetch: From indices, int64 `(n,)`, to a string for each, read together: a path, an encoded image or a serialized
            example. It does not fail: what cannot be read is an empty string.
        load: From an index and its string to the encoded image, a scalar string; fails where it cannot be read.
        label: From an index and its string to the label, a scalar int64; may fail where `load` does.
        describe: From an index to the image's name, for people.
    """

    name: str
    num_examples: int
    fetch: Callable[[tf.Tensor], tf.Tensor]
    load: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    label: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    describe: Callable[[int], str]

    def examples(self) -> tf.data.Dataset:
        """The index and the string of each image, in order."""
        indices = tf.data.Dataset.range(self.num_examples).batch(_FETCHED)
        fetched = indices.map(lambda each: (each, self.fetch(each))).prefetch(2)
        return without_autotune(fetched.unbatch())  # which holds for all that is made of them

    def read(self, index: int) -> tf.Tensor:
        """The encoded image at an index; fails where it cannot be read."""
        indices = tf.constant([index], tf.int64)
        return self.load(indices[0], self.fetch(indices)[0])

    def class_counts(self, num_classes: int) -> np.ndarray:
        """Images of each class; labels that are no class do not count."""
        counts = np.zeros(num_classes, np.int64)
        for label in self.examples().map(self.label).ignore_errors().as_numpy_iterator():
            if 0 <= label < num_classes:
                counts[label] += 1
        return counts


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
    _opened: dict[str, Split] = dataclasses.field(default_factory=dict, init=False, repr=False)

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

    def open(self, split: str) -> Split:
        """Opens a split, or parts of splits, for reading by index.

        Raises:
            InputError: As for `num_examples`; or the split can only be read as a whole, and that is too large.
        """
        self.num_examples(split)
        if split not in self._opened:
            self._opened[split] = self._open(split)
        return self._opened[split]

    def encoded(self, split: str) -> tf.data.Dataset:
        """The split's (encoded image, label) pairs, always in the same order."""
        part = self.open(split)
        return part.examples().map(lambda *example: (part.load(*example), part.label(*example)))

    @abc.abstractmethod
    def _count(self, split: str) -> int: ...

    @abc.abstractmethod
    def _open(self, split: str) -> Split: ...


@dataclasses.dataclass(frozen=True)
class PreparedSet(ImageSet):
    """A set that tensorflow-datasets has prepared.

    What is prepared as ArrayRecord is read by index. The encoded images of a split that is prepared in another format
    are held in memory.
    """

    builder: Any
    image_key: str
    label_key: str

    def _count(self, split: str) -> int:
        return int(self.builder.info.splits[split].num_examples)

    def _open(self, split: str) -> Split:
        try:
            raw = tfds.decode.DeserializeMethod.RAW_BYTES
            source = self.builder.as_data_source(split, deserialize_method=raw)
        except NotImplementedError:  # a format that has no index
            return self._in_memory(split)
        return self._by_index(split, source)

    @property
    def _decoders(self) -> dict[str, Any]:
        return {self.image_key: tfds.decode.SkipDecoding()}

    def _by_index(self, split: str, source: Any) -> Split:
        features = self.builder.info.features

        def fetch(indices: tf.Tensor) -> tf.Tensor:
            records = tf.numpy_function(functools.partial(_records, source), [indices], tf.string, stateful=False)
            return tf.ensure_shape(records, indices.shape)

        def example(record: tf.Tensor) -> dict[str, tf.Tensor]:
            return features.deserialize_example(record, decoders=self._decoders)

        return Split(
            split,
            len(source),
            fetch,
            lambda _, record: example(record)[self.image_key],
            lambda _, record: tf.cast(example(record)[self.label_key], tf.int64),
            lambda index: f"image {index} of {split}",
        )

    def _in_memory(self, split: str) -> Split:
        count, info = self._count(split), self.builder.info
        num_bytes = info.dataset_size * count / sum(self.splits.values())
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
        if num_bytes > limit:
            raise InputError(
                f"{split} of {self.name} takes {num_bytes / 1e9:,.0f} GB, more than half of this machine's memory, and "
                f"is prepared without an index: prepare it with `tfds build {self.name} --file_format=array_record`"
            )
        in_order = tfds.ReadConfig(interleave_cycle_length=1)  # as by index
        examples = self.builder.as_dataset(
            split=split, batch_size=-1, decoders=self._decoders, read_config=in_order, shuffle_files=False
        )
        with tf.device("CPU"):
            images, labels = examples[self.image_key], tf.cast(examples[self.label_key], tf.int64)
        return Split(
            split,
            count,
            lambda indices: tf.gather(images, indices),
            lambda _, image: image,
            lambda index, _: tf.gather(labels, index),
            lambda index: f"image {index} of {split}",
        )


def _records(source: Any, indices: np.ndarray) -> np.ndarray:
    """The serialized examples, read at once, or one by one where one of them is damaged."""
    try:
        records = source.__getitems__(indices.tolist())
    except Exception:  # ArrayRecord raises what it will; without its cause it is an image that cannot be read
        records = [_record(source, index) for index in indices.tolist()]
    return np.array(records, object)


def _record(source: Any, index: int) -> bytes:
    try:
        return bytes(source[index])
    except Exception:
        return b""


@dataclasses.dataclass(frozen=True)
class FolderSet(ImageSet):
    """A folder of photos, read where they lie."""

    photos: dict[str, tuple[Photo, ...]]

    def _count(self, split: str) -> int:
        return len(self._photos(split))

    def _open(self, split: str) -> Split:
        numbers = {label: number for number, label in enumerate(self.labels)}
        photos = self._photos(split)
        with tf.device("CPU"):
            paths = tf.constant([photo.path for photo in photos])
            labels = tf.constant([numbers[photo.label] for photo in photos], tf.int64)
        return Split(
            split,
            len(photos),
            lambda indices: tf.gather(paths, indices),
            lambda _, path: tf.io.read_file(path),
            lambda index, _: tf.gather(labels, index),
            lambda index: photos[index].path,
        )

    def _photos(self, split: str) -> list[Photo]:
        sizes = [tfds.core.SplitInfo(name=name, shard_lengths=[n], num_bytes=0) for name, n in self.splits.items()]
        parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(tfds.core.SplitDict(sizes))
        return [photo for part in parts for photo in self.photos[part.splitname][part.from_ : part.to]]
