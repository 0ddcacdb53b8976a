"""Keeps what native libraries print while they start off the screen."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

from training.extras import check_packages

_PACKAGES = (
    "tensorflow",
    "tensorflow_datasets",
    "importlib_resources",
    "PIL",
    "sklearn",
    "tensorboard",
    "tensorflow_serving",
    "tqdm",
)


@contextlib.contextmanager
def native_messages_held() -> Iterator[None]:
    """Holds standard error back while a block runs, and shows it only if the block fails.

    TensorFlow 2.21 prints lines about oneDNN and CUDA when it is imported, whatever TF_CPP_MIN_LOG_LEVEL says.
    """
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(screen, held.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)


def start_tensorflow() -> None:
    """Imports TensorFlow and has it find its GPUs, without a word; warnings of its C++ code stay off the screen.

    Raises InputError where a package of the extra `training` is missing, before the seconds that the import takes.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("absl").setLevel(logging.ERROR)  # tensorflow-datasets warns of each folder it finds empty
    check_packages("the trainer", _PACKAGES, "training")
    with native_messages_held():
        import tensorflow as tf

        tf.config.list_physical_devices("GPU")
