"""Which devices a run gets, on a machine without GPUs."""

import numpy as np
import pytest
import tensorflow as tf

from training.distribute.cluster import Cluster
from training.distribute.strategy import BYTES_PER_PACK, make_strategy, own_replicas, sum_over_replicas
from training.errors import InputError


@pytest.mark.parametrize(
    ("cpu_devices", "devices", "indexes"),
    [(1, "", [0]), (2, "", [0, 1]), (1, "CPU:0,CPU:1", [0, 1]), (2, "cpu:1", [1])],
)
def test_strategy_has_the_devices_that_are_asked_for(cpu_devices, devices, indexes):
    if not devices and tf.config.list_physical_devices("GPU"):
        devices = ",".join(f"CPU:{index}" for index in indexes)
    strategy = make_strategy(cpu_devices, devices)
    assert [name.rpartition("CPU:")[2] for name in strategy.extended.worker_devices] == [str(each) for each in indexes]


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("GPU0", "devices is 'GPU0', but must be GPUs or CPU devices, as GPU:0,GPU:2"),
        ("GPU:0,CPU:0", "but must be GPUs or CPU devices"),
        ("CPU:0,cpu:0", "which names a device twice"),
        ("GPU:99", r"but there is no GPU:99 here; there is "),
        ("CPU:5", "cpu_devices is 6, but TensorFlow already runs with fewer"),
    ],
)
def test_devices_that_cannot_be_are_named(devices, message):
    with pytest.raises(InputError, match=message):
        make_strategy(devices=devices)


def test_a_worker_has_one_cpu_device():
    with pytest.raises(InputError, match="devices is 'CPU:0,CPU:1', but each of several workers has CPU:0 alone"):
        make_strategy(devices="CPU:0,CPU:1", cluster=Cluster(("127.0.0.1:1", "127.0.0.1:2"), 0))


@pytest.mark.parametrize(("worker", "expected"), [(0, range(2)), (2, range(4, 6))])
def test_own_replicas_are_consecutive(worker, expected):
    context = tf.distribute.InputContext(num_input_pipelines=3, input_pipeline_id=worker, num_replicas_in_sync=6)
    assert own_replicas(context) == expected


def test_sums_between_devices_go_in_packs_and_are_those_of_one():
    """Collective operations, which GPUs and machines have, on two CPU devices."""
    make_strategy(2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    elements = BYTES_PER_PACK // 4 // 2  # three tensors pass the size
    values = np.random.default_rng(0).normal(size=(5, 1, 2, 1)).astype(np.float32)

    @tf.function
    def summed():
        def of_replica():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return sum_over_replicas([tf.repeat(tf.gather(each, replica, axis=1), elements, axis=0) for each in values])

        return strategy.run(of_replica)

    nodes = summed.get_concrete_function().graph.as_graph_def().node
    assert sum(node.op.startswith("CollectiveReduce") for node in nodes) == 2 * 2  # two packs on each of two devices
    for summed_up, expected in zip(summed(), values.sum(axis=2), strict=True):
        for copy in strategy.experimental_local_results(summed_up):
            np.testing.assert_array_equal(copy[:: elements - 1], [expected[0]] * 2)
