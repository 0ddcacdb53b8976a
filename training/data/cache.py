"""Encoded images kept in memory or on disk, where reading them anew each epoch is slow."""

import contextlib
import fcntl
import hashlib
import pathlib
import shutil
from collections.abc import Callable, Iterator

import tensorflow as tf

from training.config import Config
from training.data.image_set import ImageSet
from training.errors import InputError

Load = Callable[[tf.Tensor], tf.Tensor]
_READERS = 16  # files read at a time


def cached_references(images: ImageSet, config: Config, split: str) -> tuple[tf.data.Dataset, Load]:
    """A split's (reference, label, name) triples, and what makes an encoded image of a reference.

    Without a cache these are the set's own. A cache's references are the encoded images, those of the whole split in
    each process: as pixels a photo would take five times the memory, and a crop decodes only what it needs of it.

    Raises:
        InputError: The cache's folder cannot be written.
    """
    references = images.references(split)
    if config.cache == "":
        return references, images.load
    loaded = references.interleave(
        lambda *example: _loaded(images, *example),
        cycle_length=_READERS,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return (loaded.cache() if config.cache == "memory" else _on_disk(loaded, images, config, split)), tf.identity


def _loaded(images: ImageSet, reference: tf.Tensor, label: tf.Tensor, name: tf.Tensor) -> tf.data.Dataset:
    """One example with its encoded image, which is empty where it cannot be read."""
    image = tf.data.Dataset.from_tensors(reference).map(images.load).ignore_errors()
    return image.concatenate(tf.data.Dataset.from_tensors("")).take(1).map(lambda encoded: (encoded, label, name))


def _on_disk(loaded: tf.data.Dataset, images: ImageSet, config: Config, split: str) -> tf.data.Dataset:
    """The examples out of a folder below `cache_dir` that appears whole or not at all."""
    fingerprint = hashlib.sha256(images.version(split).encode()).hexdigest()[:16]
    folder = pathlib.Path(config.cache_dir).expanduser() / f"{images.name}-{fingerprint}"
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f"{folder.name}.lock")):
            if not folder.exists():
                shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
                loaded.save(str(unfinished))
                unfinished.rename(folder)
    except (OSError, tf.errors.OpError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"{folder.parent} cannot hold a cache: {reason}; name another cache_dir") from None
    return tf.data.Dataset.load(str(folder))


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Waits until no other process holds the lock; one that is killed holds it no more."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
