"""Keeps what native libraries print while they start off the screen."""

import contextlib
import logging
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator

from training.errors import check_packages

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
def native_messages_held() -> Iterator[Callable[[], str]]:
    """Holds standard error back while a block runs, and shows it only if the block fails.

    TensorFlow 2.21 prints lines about oneDNN and CUDA when it is imported, whatever TF_CPP_MIN_LOG_LEVEL says.

    Yields:
        A function that returns what has been held back so far.
    """
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)

        def messages() -> str:
            held.seek(0)
            return held.read().decode(errors="replace")

        try:
            yield messages
        except Exception:
            held.seek(0)
            os.write(screen, held.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)


def start_tensorflow(devices: pathlib.Path = pathlib.Path("/dev")) -> None:
    """Imports TensorFlow and has it find its GPUs; warnings of its C++ code stay off the screen.

    Where the machine has an NVIDIA GPU that TensorFlow does not find, this prints a warning and all that TensorFlow
    said: training would go on, on the CPU. `CUDA_VISIBLE_DEVICES` that names none hides the GPUs on purpose.

    Args:
        devices: The folder of the device files.

    Raises:
        InputError: A package of the extra `training` is missing; this takes none of the import's seconds.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("absl").setLevel(logging.ERROR)  # tensorflow-datasets warns of each folder it finds empty
    check_packages("the trainer", _PACKAGES, "training")
    with native_messages_held() as messages:
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU")
        said = messages()
    nvidia = sorted(devices.glob("nvidia[0-9]*"))
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    if nvidia and not found and not hidden:
        print(
            f"{said}training: warning: this machine has {nvidia[0]}, but TensorFlow finds no GPU and uses the CPU; "
            "install the CUDA libraries with `pip install 'tensorflow[and-cuda]'` (TF_CPP_MIN_LOG_LEVEL=0 shows what "
            "TensorFlow misses), or set CUDA_VISIBLE_DEVICES=-1",
            file=sys.stderr,
        )
