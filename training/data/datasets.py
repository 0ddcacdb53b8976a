"""Opens sets of images by name: tensorflow-datasets' own, a folder of photos, the bundled digits."""

import contextlib
import io
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from training.config import Config, nearest
from training.data.image_folder import Holdout, class_names, list_photos
from training.data.image_set import IMAGE_FOLDER, FolderSet, ImageSet, PreparedSet
from training.errors import InputError

DEFAULT_HOLDOUT = Holdout()


def open_image_set(
    name: str, data_dir: str = "", download: bool = False, holdout: Holdout = DEFAULT_HOLDOUT
) -> ImageSet:
    """Opens a classification set by its tensorflow-datasets name.

    Args:
        name: `digits` (prepared on the spot), `image_folder`, or any other name that tensorflow-datasets knows, whose
            data must have been prepared.
        data_dir: Where prepared data lies; empty for TFDS_DATA_DIR or tensorflow-datasets' own default. For
            `image_folder` the folder of photos, `<split>/<class>/*.jpg`, or `<class>/*.jpg` to be split here.
        download: Whether a set that is not prepared may be downloaded and prepared.
        holdout: How a folder without splits of its own is split.

    Raises:
        InputError: An unknown name, data that is not there, or a set that is not one of images with a class each.
    """
    if name == IMAGE_FOLDER:
        return _image_folder(data_dir, holdout)
    tfds.disable_progress_bar()
    builder = _prepared(name, data_dir, download)
    image_key, label_key = builder.info.supervised_keys or ("", "")
    features = dict(builder.info.features)
    if not isinstance(features.get(image_key), tfds.features.Image) or not isinstance(
        features.get(label_key), tfds.features.ClassLabel
    ):
        raise InputError(f"{name} is not a set of images with a class each, which is what can be trained on")
    sizes = {split: int(info.num_examples) for split, info in builder.info.splits.items()}
    labels, shape = tuple(features[label_key].names), features[image_key].shape
    return PreparedSet(builder.name, labels, shape, sizes, builder, image_key, label_key)


def open_images_of(config: Config, data_dir: str = "", download: bool = False) -> ImageSet:
    """Opens what a config trains on, split as it says.

    Args:
        config: The experiment.
        data_dir: Where the data lies now; empty for where the config says.
        download: As for `open_image_set`.

    Raises:
        InputError: As for `open_image_set`.
    """
    holdout = Holdout(config.holdout, config.holdout_seed)
    return open_image_set(config.dataset, data_dir or config.data_dir, download, holdout)


def _image_folder(folder: str, holdout: Holdout) -> ImageSet:
    root = pathlib.Path(folder).expanduser()
    if not folder or not root.is_dir():
        raise InputError(
            f"image_folder needs a --data_dir with <split>/<class>/*.jpg or <class>/*.jpg in it; {folder!r} is not one"
        )
    photos = list_photos(root, holdout)
    sizes = {split: len(each) for split, each in photos.items()}
    return FolderSet(IMAGE_FOLDER, class_names(photos), (None, None, 3), sizes, photos)


def _prepared(name: str, data_dir: str, download: bool) -> Any:
    if data_dir and not pathlib.Path(data_dir).expanduser().is_dir():
        raise InputError(f"data_dir is {data_dir!r}, which is no folder; name one that is there")
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR", "")
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except (tfds.core.DatasetNotFoundError, ValueError):
        names = [*tfds.list_builders(), IMAGE_FOLDER]
        raise InputError(
            f"tensorflow-datasets knows no dataset {name!r}{nearest(name, names)}; for photos take {IMAGE_FOLDER}"
        ) from None
    if isinstance(builder, Digits):
        with contextlib.redirect_stdout(io.StringIO()):  # it announces a download of unknown size, and there is none
            builder.download_and_prepare()
    elif not builder.is_prepared() and download:
        _download(builder)
    elif not builder.is_prepared():
        raise InputError(
            f"{name} is not prepared in {builder.data_dir}; prepare it with `tfds build {name}"
            f"{f' --data_dir {data_dir}' if data_dir else ''} --file_format=array_record`, or name another --data_dir "
            "or TFDS_DATA_DIR"
        )
    return builder


def _download(builder: Any) -> None:
    try:
        builder.download_and_prepare(file_format=tfds.core.FileFormat.ARRAY_RECORD)  # which is read by index
    except (OSError, AssertionError, ValueError) as error:  # AssertionError: what must be fetched by hand is not there
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{builder.name} cannot be downloaded and prepared: {reason}") from None


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
