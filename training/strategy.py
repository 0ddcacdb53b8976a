"""Which devices train: a tf.distribute strategy over them."""

import tensorflow as tf

from training.errors import InputError


def make_strategy(cpu_devices: int) -> tf.distribute.Strategy:
    """MirroredStrategy over every GPU there is; without one, over logical CPU devices.

    Args:
        cpu_devices: How many logical CPU devices to train on where there is no GPU.

    Raises:
        InputError: TensorFlow has started already with fewer logical CPU devices.
    """
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    _split_cpu(cpu_devices)
    # The default, collective operations, gets two strategies in one process mixed up, and adds in no fixed order.
    sums = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(cpu_devices)], cross_device_ops=sums)


def _split_cpu(num_devices: int) -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    if len(tf.config.get_logical_device_configuration(cpu) or [cpu]) >= num_devices:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices)
    except RuntimeError:  # TensorFlow fixes its devices at the first use
        raise InputError(
            f"cpu_devices is {num_devices}, but TensorFlow already runs with fewer in this process"
        ) from None
