"""The environment that TensorFlow starts in: its messages, its memory and its GPUs."""

import contextlib
import ctypes
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
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
DEVICES = pathlib.Path("/dev")


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


def start_tensorflow(onednn: bool | None = None, devices: pathlib.Path = DEVICES) -> None:
    """Imports TensorFlow and has it find its GPUs; warnings of its C++ code stay off the screen.

    On a GPU TensorFlow takes memory as it needs it, so that two processes can share one. Where the machine has an
    NVIDIA GPU that TensorFlow does not find, this prints a warning and all that TensorFlow said, since training would
    use the CPU. `CUDA_VISIBLE_DEVICES` that names none hides the GPUs on purpose.

    Args:
        onednn: Whether the CPU's kernels are oneDNN's; None lets TensorFlow decide. `TF_ENABLE_ONEDNN_OPTS` and
            `TF_FORCE_GPU_ALLOW_GROWTH`, where they are set, come before what is said here.
        devices: The folder of the device files.

    Raises:
        InputError: A package of the extra `training` is missing; this takes none of the import's seconds.
    """
    gpus = visible_gpus(devices)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1" if gpus else "2")  # a GPU library that is missing is a warning
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if onednn is not None and not os.environ.get(ONEDNN):
        os.environ[ONEDNN] = str(int(onednn))
    logging.getLogger("absl").setLevel(logging.ERROR)  # tensorflow-datasets warns of each folder it finds empty
    check_packages("the trainer", _PACKAGES, "training")
    keep_freed_memory()
    with native_messages_held() as messages:
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU")
        said = messages()
    if gpus and not found:
        print(
            f"{said}training: warning: this machine has {gpus[0]}, but TensorFlow finds no GPU and uses the CPU; "
            "install the CUDA libraries with `pip install 'tensorflow[and-cuda]'` (TF_CPP_MIN_LOG_LEVEL=0 shows what "
            "TensorFlow misses), or set CUDA_VISIBLE_DEVICES=-1",
            file=sys.stderr,
        )


def keep_freed_memory() -> None:
    """Has glibc keep up to 2 GiB of freed memory for the next step; other C libraries are left alone.

    By default glibc gives the large temporaries of convolutions back to the system at once, and each step pays again
    for its pages: a quarter of a step's CPU time with TensorFlow's own kernels. `MALLOC_*` variables come before this.
    """
    max_mmaps, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
    if not any(name.startswith("MALLOC_") for name in os.environ):
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(max_mmaps, 0)
            libc.mallopt(trim_threshold, 2**31 - 1)


def visible_gpus(devices: pathlib.Path) -> list[pathlib.Path]:
    """The device files of the NVIDIA GPUs; none where `CUDA_VISIBLE_DEVICES` hides them."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    return [] if hidden else sorted(devices.glob("nvidia[0-9]*"))
