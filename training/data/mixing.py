"""mixup and CutMix within a global batch, the same however many replicas share it."""

import tensorflow as tf

from training.batch import Batch
from training.config import Config
from training.errors import InputError

_CHOICE, _WEIGHT, _AREA, _PLACE = (number << 48 for number in range(8, 12))  # as in training.data.augmentation


def check_mixing(config: Config, num_classes: int, num_replicas: int) -> None:
    """Checks that the images of a config's batches can be mixed in pairs, if it asks for that.

    Raises:
        InputError: There is one class, or a replica's part of a batch holds half a pair.
    """
    if not (config.mixup_alpha or config.cutmix_alpha):
        return
    name = "mixup_alpha" if config.mixup_alpha else "cutmix_alpha"
    if num_classes < 2:
        raise InputError(f"{name} mixes images of different classes, but {config.dataset} has one: set it to 0")
    if config.batch_size % (2 * num_replicas):
        raise InputError(
            f"batch_size is {config.batch_size}, but with {name}, which mixes pairs, must be a multiple of "
            f"{2 * num_replicas}, a pair for each device"
        )


def mix(batch: Batch, seeds: tf.Tensor, config: Config) -> Batch:
    """Mixes each image with its neighbour, the first with the second, the third with the fourth.

    mixup takes a weighted mean of the two, CutMix replaces a rectangle by the neighbour's. Both images of a pair are
    mixed with one draw of the weight or rectangle. With both alphas each pair takes one of the two at random.

    Args:
        batch: A replica's part of a global batch: an even number of images.
        seeds: int64 `(N, 2)`, the images' seeds; those of a global batch count on from a multiple of `batch_size`.
        config: `mixup_alpha`, `cutmix_alpha` and `batch_size` are read.

    Returns:
        The batch with `other_labels` and `mix`. An image next to one of weight 0 is not mixed. A class's weight in the
        loss goes with its label: `weights` are the means of both labels' weights, and `mix` the own label's part.

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2017.
        Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", 2019.
    """
    height, width = batch["images"].shape[1:3]
    present = tf.reduce_min(_pairs(batch["weights"]), axis=1) > 0
    kept = _kept(seeds, config, (height, width))  # of each pair, the own image's share of each pixel
    kept = tf.where(present[:, None, None], kept, 1.0)
    own = tf.repeat(tf.reduce_mean(kept, axis=[1, 2]), 2)
    shares = tf.repeat(kept, 2, axis=0)[..., None]
    images = shares * batch["images"] + (1 - shares) * _swapped(batch["images"])
    weights = own * batch["weights"], (1 - own) * _swapped(batch["weights"])
    return {
        "images": images,
        "labels": batch["labels"],
        "weights": weights[0] + weights[1],
        "other_labels": _swapped(batch["labels"]),
        "mix": tf.where(batch["weights"] > 0, tf.math.divide_no_nan(weights[0], weights[0] + weights[1]), 1.0),
    }


def _kept(seeds: tf.Tensor, config: Config, sides: tuple[int, int]) -> tf.Tensor:
    """Each pair's own share of each pixel, `(pairs, height, width)` or `(pairs, 1, 1)`, drawn for all replicas."""
    row = seeds[0, 1] % config.batch_size
    first = tf.stack([seeds[0, 0], seeds[0, 1] - row])  # the seed of the global batch
    own_pairs = tf.cast(row // 2, tf.int32) + tf.range(tf.shape(seeds)[0] // 2)
    pairs = config.batch_size // 2

    def drawn(values: tf.Tensor) -> tf.Tensor:
        return tf.gather(values, own_pairs)

    def salted(number: int) -> tf.Tensor:
        return first + tf.constant([number, 0], first.dtype)

    if not config.cutmix_alpha:
        return drawn(_beta(pairs, salted(_WEIGHT), config.mixup_alpha))[:, None, None]
    place = drawn(tf.random.stateless_uniform([pairs, 2], salted(_PLACE)))
    outside = _outside(drawn(_beta(pairs, salted(_AREA), config.cutmix_alpha)), place, sides)
    if not config.mixup_alpha:
        return outside
    mixed = drawn(_beta(pairs, salted(_WEIGHT), config.mixup_alpha))[:, None, None]
    takes_mixup = drawn(tf.random.stateless_uniform([pairs], salted(_CHOICE))) < 0.5
    return tf.where(takes_mixup[:, None, None], mixed, outside)


def _beta(count: int, seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """Draws of Beta(alpha, alpha), float32; in float64, for with a small alpha float32 would have many zeros."""
    first, second = tf.unstack(tf.random.stateless_gamma([2, count], seed, alpha, dtype=tf.float64))
    return tf.cast(tf.math.divide_no_nan(first, first + second), tf.float32)


def _outside(share: tf.Tensor, place: tf.Tensor, sides: tuple[int, int]) -> tf.Tensor:
    """1 outside of a rectangle and 0 inside, `(pairs, height, width)`.

    Args:
        share: `(pairs,)`, the share of the area outside; a rectangle over the border is cut, and leaves more.
        place: `(pairs, 2)`, the rectangle's centre, from 0 up to 1.
        sides: The images' height and width.
    """
    inside = []
    for axis, length in enumerate(sides):
        half = tf.floor(tf.sqrt(1 - share) * length / 2)[:, None]
        centre = tf.floor(place[:, axis, None] * length)
        pixels = tf.range(length, dtype=tf.float32)
        inside.append((pixels >= centre - half) & (pixels < centre + half))
    return 1 - tf.cast(inside[0][:, :, None] & inside[1][:, None, :], tf.float32)


def _pairs(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(values, [-1, 2, *values.shape[1:]])


def _swapped(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.reverse(_pairs(values), axis=[1]), tf.shape(values))
