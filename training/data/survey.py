"""Surveys a set of images: splits, classes, sizes, unreadable images, and a sheet of training images."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw

from training.config import Config
from training.data.augmentation import check_augmentation
from training.data.image_set import ImageSet
from training.data.parallel import CALLS
from training.data.pipeline import train_batches
from training.data.preprocessing import decode_any
from training.errors import InputError

SHEET_IMAGES = 64
_NAMED = 5  # unreadable images
_LISTED = 20  # classes


@dataclasses.dataclass(frozen=True)
class SplitSurvey:
    """Facts about a split, from reading it once.

    Attributes:
        split: Its name.
        class_counts: Images of each class, unreadable ones among them.
        heights: Of the images that can be read, in pixels.
        widths: Likewise.
        mean: Of each channel over all pixels of the images that can be read, 0..255.
        unreadable: The names of those that cannot.
        unlabelled: How many have a label that is no class.
    """

    split: str
    class_counts: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    mean: np.ndarray
    unreadable: tuple[str, ...]
    unlabelled: int


@tf.autograph.experimental.do_not_convert
def survey(images: ImageSet, split: str) -> SplitSurvey:
    """Reads every image of a split."""
    channels, part = images.shape[2], images.open(split)

    def measure(index: tf.Tensor, string: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pixels = decode_any(part.load(index, string), channels)
        means = tf.reduce_mean(tf.cast(pixels, tf.float32), axis=[0, 1])
        return index, tf.shape(pixels)[:2], means

    measured = part.examples().map(measure, num_parallel_calls=CALLS).ignore_errors()
    rows = list(measured.as_numpy_iterator())
    readable = {int(index) for index, _, _ in rows}
    counts = part.class_counts(len(images.labels))
    sizes = np.array([size for _, size, _ in rows], float).reshape(-1, 2)
    means = np.array([mean for _, _, mean in rows], float).reshape(-1, channels)
    areas = sizes.prod(axis=1)
    return SplitSurvey(
        split,
        counts,
        sizes[:, 0],
        sizes[:, 1],
        np.average(means, axis=0, weights=areas) if len(rows) else np.zeros(channels),
        tuple(part.describe(index) for index in range(part.num_examples) if index not in readable),
        part.num_examples - int(counts.sum()),
    )


def describe(images: ImageSet) -> Iterator[str]:
    """Yields lines about a dataset that matter before training on it, as soon as each is known."""
    sizes = ", ".join(f"{split} {count:,}" for split, count in images.splits.items())
    yield f"{images.name}: {sizes} images, {len(images.labels)} classes"
    for split, count in images.splits.items():
        if count:
            yield from _lines(images, survey(images, split))


def write_training_sheet(images: ImageSet, config: Config, path: pathlib.Path) -> None:
    """Writes the first training images of a run as one picture, augmented and all.

    Raises:
        InputError: The config does not fit the images, or the file cannot be written.
    """
    shape = images.input_shape(config.image_size)
    check_augmentation(config, shape)
    config = dataclasses.replace(config, batch_size=SHEET_IMAGES)
    (batch,) = train_batches(images, config, shape, 1, 0).take(1)
    shown = batch["weights"].numpy() > 0
    captions = [images.labels[label] for label in batch["labels"].numpy()[shown]]
    if not captions:
        raise InputError(f"none of the first {SHEET_IMAGES} images of {config.train_split} can be read")
    write_sheet(path, batch["images"].numpy()[shown], captions)


def _lines(images: ImageSet, found: SplitSurvey) -> Iterator[str]:
    yield ""
    yield f"{found.split}: {found.class_counts.sum():,} images with a class"
    if len(found.heights):
        for name, values in (("height", found.heights), ("width", found.widths)):
            yield f"  {name:<12}{values.min():.0f} to {values.max():.0f} pixels, median {np.median(values):.0f}"
        yield f"  {'mean':<12}{', '.join(f'{value:.1f}' for value in found.mean)} of 255"
    unreadable, named = len(found.unreadable), ", ".join(found.unreadable[:_NAMED])
    if unreadable:
        yield f"  unreadable  {unreadable:,}: {named}{', ...' if unreadable > _NAMED else ''}"
    if found.unlabelled:
        yield f"  no class    {found.unlabelled:,}: their labels are not 0 to {len(images.labels) - 1}"
    counts = found.class_counts
    if len(counts) > _LISTED:
        yield f"  classes     {counts.min():,} to {counts.max():,} images each, median {np.median(counts):,.0f}"
        return
    for label, count in zip(images.labels, counts, strict=True):
        yield f"  {label:<12}{count:,}"


_COLUMNS = 8
_LEAST_SIDE = 64  # pixels; smaller images are enlarged by whole numbers
_CAPTION = 14  # pixels
_GAP = 4
_BACKGROUND = "white"


def write_sheet(path: pathlib.Path, images: np.ndarray, captions: list[str]) -> None:
    """Writes images with their captions as one image, in the format of the path's suffix.

    Args:
        path: A file, replaced if it is there.
        images: `(number, height, width, channels)`, values 0..255; what lies beyond is cut off.
        captions: One for each, cut where it is longer than its image.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        _sheet(images, captions).save(path)
    except (OSError, ValueError) as error:  # ValueError: an ending that Pillow does not know
        raise InputError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from None


def _sheet(images: np.ndarray, captions: list[str]) -> Image.Image:
    factor = max(1, math.ceil(_LEAST_SIDE / min(images.shape[1:3])))
    height, width = images.shape[1] * factor, images.shape[2] * factor
    columns = min(_COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    size = (columns * (width + _GAP) + _GAP, rows * (height + _CAPTION + _GAP) + _GAP)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        left = _GAP + index % columns * (width + _GAP)
        top = _GAP + index // columns * (height + _CAPTION + _GAP)
        sheet.paste(_picture(pixels).resize((width, height), Image.Resampling.NEAREST), (left, top))
        draw.text((left, top + height), _shortened(draw, caption, width), fill="black")
    return sheet


def _picture(pixels: np.ndarray) -> Image.Image:
    values = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return Image.fromarray(values.squeeze(-1) if values.shape[-1] == 1 else values).convert("RGB")


def _shortened(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    while text and draw.textlength(text) > width:
        text = text[:-1]
    return text
