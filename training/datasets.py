"""Where images come from: tensorflow-datasets, for its own sets, for a folder of photos and for the bundled digits."""

import contextlib
import dataclasses
import io
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from training.config import nearest
from training.errors import InputError

_IMAGE_FOLDER = "image_folder"


class Digits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 handwritten digits that scikit-learn ships, so that nothing is downloaded: 8x8 pixels, ten classes.

    Every fifth image in scikit-learn's order is in the test split, so that both splits have digits of all writers.
    Pixels are its counts 0..16 scaled to 0..255.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        return self.dataset_info_from_configs(
            description="Optical recognition of handwritten digits, as scikit-learn ships them.",
            homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
        is_test = np.arange(len(images)) % 5 == 4
        return {
            "train": self._generate_examples(images[~is_test], digits.target[~is_test]),
            "test": self._generate_examples(images[is_test], digits.target[is_test]),
        }

    def _generate_examples(self, images: Any, labels: Any) -> Any:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": image, "label": int(label)}


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A prepared classification set: encoded images with their labels, split by split."""

    builder: Any
    image_key: str
    label_key: str

    def input_shape(self, image_size: int) -> tuple[int, int, int]:
        """Height, width and channels that a network sees.

        Args:
            image_size: Height and width to bring images to; 0 for the size that all of them have.

        Raises:
            InputError: 0, where the images' sizes vary.
        """
        height, width, channels = self.builder.info.features[self.image_key].shape
        if image_size:
            return image_size, image_size, channels
        if height is None or width is None:
            raise InputError(
                f"the images of {self.builder.name} vary in size: image_size must say what to bring them to"
            )
        return height, width, channels

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, in the order of their numbers."""
        return tuple(self.builder.info.features[self.label_key].names)

    def num_examples(self, split: str) -> int:
        """How many images a split has.

        Raises:
            InputError: There is no such split, or no image in it.
        """
        splits = self.builder.info.splits
        try:
            count = int(splits[split].num_examples)
        except (KeyError, ValueError):
            raise InputError(
                f"{self.builder.name} has no split {split!r}; it has {', '.join(sorted(splits))}"
            ) from None
        if count == 0:
            raise InputError(f"the split {split!r} of {self.builder.name} holds no image")
        return count

    def encoded(self, split: str) -> tf.data.Dataset:
        """The split's (encoded image, label) pairs, always in the same order."""
        examples = self.builder.as_dataset(split=split, decoders={self.image_key: tfds.decode.SkipDecoding()})
        return examples.map(lambda example: (example[self.image_key], example[self.label_key]))


def open_image_set(name: str, data_dir: str = "") -> ImageSet:
    """Opens a classification set by its tensorflow-datasets name.

    Args:
        name: `digits` (prepared on the spot), `image_folder`, or any other name that tensorflow-datasets knows, whose
            data must have been prepared.
        data_dir: Where prepared data lies; empty for TFDS_DATA_DIR or tensorflow-datasets' own default. For
            `image_folder` the folder of photos, `<split>/<class>/*.jpg`.

    Raises:
        InputError: An unknown name, data that is not there, or a set that is not one of images with a class each.
    """
    tfds.disable_progress_bar()
    builder = _image_folder(data_dir) if name == _IMAGE_FOLDER else _prepared(name, data_dir)
    image_key, label_key = builder.info.supervised_keys or ("", "")
    features = dict(builder.info.features)
    if not isinstance(features.get(image_key), tfds.features.Image) or not isinstance(
        features.get(label_key), tfds.features.ClassLabel
    ):
        raise InputError(f"{name} is not a set of images with a class each, which is what can be trained on")
    return ImageSet(builder, image_key, label_key)


def _image_folder(folder: str) -> Any:
    root = pathlib.Path(folder).expanduser()
    if not folder or not root.is_dir():
        raise InputError(f"image_folder needs a --data_dir with <split>/<class>/*.jpg in it; {folder!r} is not one")
    builder = tfds.folder_dataset.ImageFolder(str(root))
    if not builder.info.splits:
        raise InputError(f"{root} holds no images at <split>/<class>/*.jpg or .png, such as train/cat/1.jpg")
    return builder


def _prepared(name: str, data_dir: str) -> Any:
    if data_dir and not pathlib.Path(data_dir).expanduser().is_dir():
        raise InputError(f"data_dir is {data_dir!r}, which is no folder; name one that is there")
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR", "")
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except (tfds.core.registered.DatasetNotFoundError, ValueError):
        names = [*tfds.list_builders(), _IMAGE_FOLDER]
        raise InputError(
            f"tensorflow-datasets knows no dataset {name!r}{nearest(name, names)}; for photos take {_IMAGE_FOLDER}"
        ) from None
    if isinstance(builder, Digits):
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of a download of unknown size, and there is none
            builder.download_and_prepare()
    elif not builder.is_prepared():
        raise InputError(
            f"{name} is not prepared in {builder.data_dir}; prepare it with `tfds build {name}"
            f"{f' --data_dir {data_dir}' if data_dir else ''}`, or name another --data_dir or TFDS_DATA_DIR"
        )
    return builder
