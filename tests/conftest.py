"""Two logical CPU devices for every test, set before anything starts TensorFlow."""

import gc
import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests start processes beside running gRPC servers; its handlers of fork would write into what those print.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

from training.environment import native_messages_held
from training.kernels import onednn_in_use

with native_messages_held():
    import tensorflow as tf

    tf.config.list_physical_devices()

# Processes that tests start take the kernels of this one, and don't measure any.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", str(int(onednn_in_use() or 0)))

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def pytest_collection_modifyitems(items):
    """Tests with a time limit of their own are the longest: first, so that no core is left idle behind them."""

    def seconds(item):
        limit = item.get_closest_marker("timeout")
        return limit.args[0] if limit else 0

    items.sort(key=seconds, reverse=True)


def pytest_collection_finish():
    """Modules stay to the end; a tenth of the time went into looking through them for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


@pytest.fixture(scope="session", autouse=True)
def _no_determinism_here():
    """Op determinism can't be turned off again: other tests' XLA and unseeded layers would fail after it."""

    def refuse():
        pytest.fail("a deterministic run belongs into a process of its own; set deterministic=False")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.config.experimental, "enable_op_determinism", refuse)
        yield
