"""How test images are shown to a trained network, and the scores that it gives them."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_prelu.networks.fully_convolutional import fully_convolutional
from training.classifier import load_network
from training.config import Config
from training.data.datasets import open_images_of
from training.data.image_set import ImageSet
from training.data.preprocessing import decode_any, decode_image
from training.errors import InputError
from training.run.folder import Run

VIEWS = ("centre", "ten", "dense")
_BATCH = {"centre": 128, "ten": 16}
_PAPER_SIZE = 224
_PAPER_SCALES = {"ten": (256,), "dense": (256, 384, 480)}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How images are shown.

    Attributes:
        views: `centre`, one crop as in training's evaluations; `ten`, the four corners and the centre, and the same
            mirrored; `dense`, every window of the whole image and of its mirror image. A network that was not trained
            with mirrored images is shown none.
        scales: What an image's shorter side becomes, for `ten` and `dense`; scores are averaged over several. Empty for
            those of the paper, in proportion to the network's input.
        split: In tensorflow-datasets' notation; empty for the config's `test_split`.
        data_dir: Where the data lies; empty for where it lay in training.
    """

    views: str = "centre"
    scales: tuple[int, ...] = ()
    split: str = ""
    data_dir: str = ""

    @property
    def name(self) -> str:
        """As tables name it: `dense 256,384,480`."""
        return " ".join([self.views, ",".join(map(str, self.scales))]).strip()

    def for_shape(self, image_shape: tuple[int, int, int]) -> "Protocol":
        """Itself with the scales that an empty `scales` stands for.

        Raises:
            InputError: A scale below the network's input, or one for a single crop.
        """
        smaller, larger = sorted(image_shape[:2])
        if self.views == "centre" and self.scales:
            raise InputError("scales are for ten and dense views; the centre's is the config's test_scale")
        for scale in self.scales:
            if scale < larger:
                raise InputError(f"scale {scale} is below what the network sees, {larger} pixels: name a larger one")
        scales = self.scales or tuple(
            round(smaller * scale / _PAPER_SIZE) for scale in _PAPER_SCALES.get(self.views, ())
        )
        return dataclasses.replace(self, scales=tuple(max(scale, larger) for scale in scales))


@dataclasses.dataclass(frozen=True)
class Scored:
    """A network's scores of a split.

    Attributes:
        scores: float32 `[images, classes]`.
        labels: `[images]`.
        names: Of the classes.
        num_unreadable: Images that could not be read, and are in neither.
    """

    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    num_unreadable: int


def score_run(run: Run, protocol: Protocol) -> Scored:
    """Scores a split with the network of a run.

    Raises:
        InputError: The folder holds no run that has saved, the data is not there, or the protocol does not fit.
    """
    config, names, image_shape = run.read()
    protocol = protocol.for_shape(image_shape)
    model = load_network(run)
    images = open_images_of(config, protocol.data_dir)
    split = protocol.split or config.test_split
    num_images = images.num_examples(split)
    batches = _scored_batches(model, images.encoded(split), config, image_shape, protocol)
    with tqdm(total=num_images, unit=" images", disable=None, leave=False) as bar:
        scores, labels = zip(*_followed(batches, bar), strict=True)
    labels = np.concatenate(labels)
    if not np.isin(labels, range(len(names))).all():
        raise InputError(f"{split} of {images.name} has images without a label, which cannot be judged")
    return Scored(np.concatenate(scores), labels, names, num_images - len(labels))


def _followed(batches: Iterator[tuple[np.ndarray, np.ndarray]], bar: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for scores, labels in batches:
        bar.update(len(labels))
        yield scores, labels


def _scored_batches(
    model: keras.Model,
    encoded: tf.data.Dataset,
    config: Config,
    image_shape: tuple[int, int, int],
    protocol: Protocol,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if protocol.views == "dense":
        return _score_whole_images(model, encoded, config.flip, protocol.scales, image_shape[2])
    views = _crops(config, image_shape, protocol)
    score = score_crops(model)
    shown = encoded.map(lambda image, label: (views(image), label), num_parallel_calls=tf.data.AUTOTUNE)
    batches = shown.ignore_errors().batch(_BATCH[protocol.views]).prefetch(2)
    return ((score(batch).numpy(), labels.numpy()) for batch, labels in batches)


def _crops(config: Config, image_shape: tuple[int, int, int], protocol: Protocol) -> Callable[[tf.Tensor], tf.Tensor]:
    height, width, channels = image_shape

    def centre(encoded: tf.Tensor) -> tf.Tensor:
        return decode_image(encoded, image_shape, config.test_scale)[None]

    def ten(encoded: tf.Tensor) -> tf.Tensor:
        image = decode_any(encoded, channels)
        crops = tf.concat([five_crops(_scaled(image, scale), height, width) for scale in protocol.scales], axis=0)
        return mirrored_too(crops) if config.flip else crops

    return centre if protocol.views == "centre" else ten


def _score_whole_images(
    model: keras.Model, encoded: tf.data.Dataset, flip: bool, scales: tuple[int, ...], channels: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    try:
        score = score_windows(model)
    except ValueError as error:
        raise InputError(f"this network cannot be moved over whole images: {error}") from None

    def at_scales(image: tf.Tensor, label: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
        whole = decode_any(image, channels)
        images = [_scaled(whole, scale)[None] for scale in scales]
        return tuple(mirrored_too(each) if flip else each for each in images), label

    for images, label in encoded.map(at_scales, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors().prefetch(4):
        yield np.mean([score(each).numpy() for each in images], axis=0)[None], label.numpy()[None]


def _scaled(image: tf.Tensor, shorter_side: int) -> tf.Tensor:
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    scaled = tf.cast(tf.round(size * shorter_side / tf.reduce_min(size)), tf.int32)
    return tf.image.resize(image, scaled, antialias=True)


def images_by_place(images: ImageSet, split: str, places: list[int]) -> dict[int, tf.Tensor]:
    """The encoded images at these places of a split."""
    wanted = set(places)
    found = {}
    for place, (encoded, _) in enumerate(images.encoded(split).ignore_errors()):
        if place in wanted:
            found[place] = encoded
    return found


def five_crops(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """The four corners and the centre of an image.

    Args:
        image: `[H, W, C]`, at least as large as a crop.
        height: Of a crop.
        width: Of a crop.

    Returns:
        `[5, height, width, C]`: upper left, upper right, lower left, lower right, centre.
    """
    bottom, right = tf.shape(image)[0] - height, tf.shape(image)[1] - width
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = [image[top : top + height, left : left + width] for top, left in places]
    return tf.ensure_shape(tf.stack(crops), (5, height, width, image.shape[-1]))


def mirrored_too(images: tf.Tensor) -> tf.Tensor:
    """Images `[N, H, W, C]`, and after them the same seen in a mirror."""
    return tf.concat([images, images[:, :, ::-1]], axis=0)


def score_crops(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes the function from `[N, views, H, W, C]` to `[N, classes]`: the mean score over an image's views."""

    @tf.function(reduce_retracing=True)
    def scores(views: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(views, tf.concat([[-1], tf.shape(views)[2:]], axis=0))
        flat = tf.ensure_shape(flat, (None, *views.shape[2:]))
        each = tf.nn.softmax(tf.cast(model(flat, training=False), tf.float32))
        return tf.reduce_mean(tf.reshape(each, (-1, tf.shape(views)[1], each.shape[-1])), axis=1)

    return scores


def score_windows(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes the function from images `[N, H, W, C]` of any one size to `[classes]`.

    It is the mean score over all windows of all of them, as the paper tests its networks (section 3): the
    convolutions run once over the whole images.

    Raises:
        ValueError: A network that cannot be moved over an image.
    """
    dense = fully_convolutional(model)

    @tf.function(reduce_retracing=True)
    def scores(images: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.nn.softmax(tf.cast(dense(images, training=False), tf.float32)), axis=(0, 1, 2))

    return scores
