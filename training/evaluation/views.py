"""Scores of a split: by one crop of each image, by ten crops, or by every window of the whole image."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from training.classifier import Classifier, DenseClassifier, crop_centre, decode_whole
from training.data.image_set import ImageSet
from training.data.parallel import CALLS
from training.errors import InputError

VIEWS = ("centre", "ten", "dense")
_BATCH = {"centre": 128, "ten": 16, "dense": 8}  # images
_PAPER_SIZE = 224
_PAPER_SCALES = {"centre": (), "ten": (256,), "dense": (256, 384, 480)}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The way in which a network sees a split.

    Attributes:
        views: `centre`, one crop as in training's evaluations; `ten`, the four corners and the centre, and their
            mirror images; `dense`, every window of the whole image and of its mirror image. A network that was not
            trained with mirrored images sees none.
        scales: Sizes of an image's shorter side for `ten` and `dense`, over which scores are averaged. Empty for those
            of the paper, in proportion to the network's input.
        split: In tensorflow-datasets' notation; empty for the config's `test_split`.
    """

    views: str = "centre"
    scales: tuple[int, ...] = ()
    split: str = ""

    @property
    def name(self) -> str:
        """The name in tables: `dense 256,384,480`."""
        return " ".join([self.views, ",".join(map(str, self.scales))]).strip()

    def for_shape(self, image_shape: tuple[int, int, int]) -> "Protocol":
        """This protocol, with the paper's scales in place of empty ones.

        Raises:
            InputError: A scale below the network's input, or one for a single crop.
        """
        smaller, larger = sorted(image_shape[:2])
        if self.views == "centre" and self.scales:
            raise InputError("scales are for ten and dense views; the centre's is the config's test_scale")
        for scale in self.scales:
            if scale < larger:
                raise InputError(f"scale {scale} is below what the network sees, {larger} pixels: name a larger one")
        scales = self.scales or tuple(round(smaller * scale / _PAPER_SIZE) for scale in _PAPER_SCALES[self.views])
        return dataclasses.replace(self, scales=tuple(max(scale, larger) for scale in scales))


@dataclasses.dataclass(frozen=True)
class Scored:
    """A network's scores of the readable images of a split, in the split's order.

    Attributes:
        scores: float32 `[images, classes]`.
        labels: int64 `[images]`.
        positions: int64 `[images]`, each image's number in the split.
        num_unreadable: Images that could not be read, and are in none of these.
    """

    scores: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    num_unreadable: int


def score(classifier: Classifier, images: ImageSet, protocol: Protocol) -> Scored:
    """Scores a split on all devices of the current tf.distribute strategy.

    Raises:
        InputError: There is no such split, an image has no label, or the protocol does not fit the network.
    """
    protocol = protocol.for_shape(classifier.image_shape)
    split = protocol.split or classifier.config.test_split
    num_images = images.num_examples(split)
    if protocol.views == "dense":
        classifier = classifier.dense()
    passes = [make_view(classifier, protocol.views, scale) for scale in protocol.scales or (0,)]
    score_views = on_all_devices(classifier)
    sums: np.ndarray = np.zeros((num_images, len(classifier.labels)), np.float32)
    labels: np.ndarray = np.full(num_images, -1, np.int64)
    readable = np.zeros(num_images, bool)
    with tqdm(total=num_images * len(passes), unit=" images", disable=None, leave=False) as bar:
        for view in passes:
            for positions, batch, batch_labels in view_batches(images, split, view, _BATCH[protocol.views]):
                sums[positions] += score_views(batch)
                labels[positions] = batch_labels
                readable[positions] = True
                bar.update(len(positions))
    if not np.isin(labels[readable], range(len(classifier.labels))).all():
        raise InputError(f"{split} of {images.name} has images without a label, which cannot be evaluated")
    positions = np.flatnonzero(readable)
    return Scored(sums[positions] / len(passes), labels[positions], positions, num_images - len(positions))


@tf.autograph.experimental.do_not_convert
def view_batches(images: ImageSet, split: str, view: Callable[[tf.Tensor], tf.Tensor], size: int) -> tf.data.Dataset:
    """Views of the readable images of a split, in batches of images whose views have one shape.

    Batches come in no particular order, and the last ones of each shape are smaller.

    Returns:
        Dataset of positions int64 `[N]`, views float32 `[N, views, H, W, C]` and labels `[N]`.
    """

    def shape_key(position: tf.Tensor, views: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        height, width = tf.unstack(tf.shape(views, tf.int64)[1:3])
        return height * (1 << 32) + width

    part = images.open(split)

    def seen(position: tf.Tensor, string: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return position, view(part.load(position, string)), part.label(position, string)

    views = part.examples().map(seen, num_parallel_calls=CALLS).ignore_errors()
    return views.group_by_window(shape_key, lambda _, group: group.batch(size), window_size=size).prefetch(2)


def make_view(classifier: Classifier, views: str, scale: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes the function from an encoded image to its views, float32 `[views, H, W, C]`, at one scale."""
    height, width, channels = classifier.image_shape
    stride = classifier.stride() if isinstance(classifier, DenseClassifier) else (1, 1)

    def view(encoded: tf.Tensor) -> tf.Tensor:
        if views == "centre":
            return classifier.decode(encoded)[None]
        image = decode_whole(encoded, channels, scale)
        if views == "ten":
            shown = five_crops(image, height, width)
        else:
            shown = covered_by_windows(image, (height, width), stride)[None]
        return tf.concat([shown, shown[:, :, ::-1]], axis=0) if classifier.config.flip else shown

    return view


def five_crops(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Crops the corners and the centre of an image `[H, W, C]`, upper left first: `[5, height, width, C]`."""
    bottom, right = tf.shape(image)[0] - height, tf.shape(image)[1] - width
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = [image[top : top + height, left : left + width] for top, left in corners]
    return tf.ensure_shape(tf.stack(crops), (5, height, width, image.shape[-1]))


def covered_by_windows(image: tf.Tensor, window: tuple[int, int], stride: tuple[int, int]) -> tf.Tensor:
    """The middle of an image that windows cover whole, less than a stride smaller than the image on each side.

    As many windows of size `(height, width)` at a distance of `(down, across)` fit into it as fit into the image, while
    images of many sizes come down to few: on a GPU, TensorFlow tunes its convolutions anew for each size.
    """
    size = tf.shape(image)[:2]
    return crop_centre(image, size - (size - window) % tf.constant(stride))


def on_all_devices(classifier: Classifier) -> Callable[[tf.Tensor], np.ndarray]:
    """Makes the function from views `[N, views, H, W, C]` to each image's mean scores over its views, `[N, classes]`.

    Each replica of the current strategy scores an equal share; the last share is filled up with blank images. The
    function is traced once, for views of any size where the classifier is dense.
    """
    strategy = tf.distribute.get_strategy()
    num_replicas = strategy.num_replicas_in_sync
    height, width, channels = classifier.image_shape
    size = [None, None] if isinstance(classifier, DenseClassifier) else [height, width]

    def mean_scores(views: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(views)
        each = classifier.scores(tf.reshape(views, [-1, shape[2], shape[3], channels]))
        return tf.reduce_mean(tf.reshape(each, [shape[0], shape[1], -1]), axis=1)

    @tf.function(input_signature=[tf.TensorSpec([None, None, *size, channels], tf.float32)], autograph=False)
    def scores(views: tf.Tensor) -> tf.Tensor:
        count = tf.shape(views)[0]
        share = -(-count // num_replicas)
        filled = tf.pad(views, [[0, share * num_replicas - count]] + [[0, 0]] * 4)

        def replica_scores() -> tf.Tensor:
            first = share * tf.distribute.get_replica_context().replica_id_in_sync_group
            return mean_scores(filled[first : first + share])

        results = strategy.experimental_local_results(strategy.run(replica_scores))
        return tf.concat(results, axis=0)[:count]

    return lambda views: scores(views).numpy()
