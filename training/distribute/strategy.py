"""The tf.distribute strategy of a run, and the operations that its replicas do together."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from training.distribute.cluster import Cluster
from training.errors import InputError

BYTES_PER_PACK = 32 << 20  # a pack is closed by the tensor that passes this size; 0 would mean one pack


def make_strategy(cpu_devices: int = 1, devices: str = "", cluster: Cluster | None = None) -> tf.distribute.Strategy:
    """A strategy over all GPUs, those that are named, or logical CPU devices; with a cluster over every worker's.

    One device has MirroredStrategy as well, so that all runs take one path. To be called before anything else starts
    TensorFlow, which fixes its devices then, and for a cluster after `training.distribute.rendezvous.meet`: TensorFlow
    waits for other workers without end.

    Workers whose addresses are on this machine share out its GPUs, and its cores unless TF_NUM_INTRAOP_THREADS says how
    many threads each takes. Of a cluster without GPUs each worker has one CPU device, which is what
    MultiWorkerMirroredStrategy knows.

    Args:
        cpu_devices: How many logical CPU devices a process that trains alone takes where there is no GPU.
        devices: `GPU:0,GPU:2` or `CPU:0,CPU:1` for these alone; empty for what there is.
        cluster: All workers, or None for a process that trains alone.

    Raises:
        InputError: A device that is not there, or TensorFlow has started already with fewer CPU devices.
    """
    if cluster:
        return _multi_worker_strategy(cluster, _named_devices(devices) if devices else [])
    names = _named_devices(devices) if devices else _names("GPU") or _cpu_names(cpu_devices)
    if names[0].startswith("GPU"):
        return tf.distribute.MirroredStrategy(names)
    _split_cpu(1 + max(int(name.partition(":")[2]) for name in names))
    # The default, collective operations, gets two strategies in one process mixed up, and adds in no fixed order.
    return tf.distribute.MirroredStrategy(names, cross_device_ops=tf.distribute.ReductionToOneDevice())


def own_replicas(context: tf.distribute.InputContext) -> range:
    """The indexes of this worker's replicas among all, by the context that an input function gets."""
    count = context.num_replicas_in_sync // context.num_input_pipelines
    return range(context.input_pipeline_id * count, (context.input_pipeline_id + 1) * count)


def input_options(strategy: tf.distribute.Strategy) -> tf.distribute.InputOptions | None:
    """Options by which batches are copied to GPUs one ahead; the CPUs of one process need no copy.

    The dataset that copies takes no options, so that its end may be up to a minute late, as
    `training.data.parallel.without_autotune` explains.
    """
    devices = strategy.extended.worker_devices
    if "GPU" in devices[0] or isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return None
    mode = tf.distribute.InputReplicationMode.PER_REPLICA
    return tf.distribute.InputOptions(experimental_fetch_to_device=False, experimental_replication_mode=mode)


def _multi_worker_strategy(cluster: Cluster, names: list[str]) -> tf.distribute.Strategy:
    if names and names[0].startswith("CPU") and names != ["CPU:0"]:
        raise InputError(
            f"devices is {','.join(names)!r}, but each of several workers has CPU:0 alone; start more workers"
        )
    if cluster.is_local:
        _share_cores(len(cluster.addresses))
    own = [name for name in names or _share_of_gpus(cluster) if name.startswith("GPU")]
    gpus = tf.config.list_physical_devices("GPU")
    tf.config.set_visible_devices([gpus[int(name.partition(":")[2])] for name in own], "GPU")
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
        num_accelerators={"GPU": len(own)},
    )
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)


def _share_of_gpus(cluster: Cluster) -> list[str]:
    names = _names("GPU")
    if not cluster.is_local or not names:
        return names
    share = len(names) // len(cluster.addresses)
    if not share:
        raise InputError(
            f"{len(cluster.addresses)} workers on this machine are more than its {len(names)} GPUs: start fewer, or "
            "name --devices CPU:0"
        )
    return names[cluster.index * share : (cluster.index + 1) * share]


def _share_cores(num_workers: int) -> None:
    if "TF_NUM_INTRAOP_THREADS" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    tf.config.threading.set_intra_op_parallelism_threads(max(1, cores // num_workers))


def _named_devices(text: str) -> list[str]:
    names = [name.strip().upper() for name in text.split(",")]
    if not all(re.fullmatch(r"(GPU|CPU):\d+", name) for name in names) or len({name[:3] for name in names}) > 1:
        raise InputError(f"devices is {text!r}, but must be GPUs or CPU devices, as GPU:0,GPU:2")
    if len(set(names)) < len(names):
        raise InputError(f"devices is {text!r}, which names a device twice")
    missing = [name for name in names if name.startswith("GPU") and name not in _names("GPU")]
    if missing:
        there = ", ".join(_names("GPU")) or "no GPU"
        raise InputError(f"devices is {text!r}, but there is no {missing[0]} here; there is {there}")
    return names


def _names(kind: str) -> list[str]:
    return [f"{kind}:{index}" for index in range(len(tf.config.list_physical_devices(kind)))]


def _cpu_names(count: int) -> list[str]:
    return [f"CPU:{index}" for index in range(count)]


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


def sum_over_replicas(value: Any) -> Any:
    """The sum of each replica's tensor, or of each tensor of its structure; every replica gets it.

    Collective operations (NCCL between GPUs, and between machines) get the tensors in packs, the last tensors first: a
    pack of gradients is on its way while the backward pass computes the next. By default TensorFlow makes one pack of
    all, which waits for the last gradient and copies all of them twice.
    """
    return _all_reduce(tf.distribute.ReduceOp.SUM, value)


def mean_over_replicas(value: Any) -> Any:
    """The mean of each replica's tensor, or of each tensor of its structure; every replica gets it."""
    return _all_reduce(tf.distribute.ReduceOp.MEAN, value)


def _all_reduce(operation: tf.distribute.ReduceOp, value: Any) -> Any:
    """Reduces the tensors of each dtype together: TensorFlow would put two dtypes into one pack, which fails."""
    context = tf.distribute.get_replica_context()
    options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=BYTES_PER_PACK)
    tensors = tf.nest.flatten(value)
    reduced: dict[int, Any] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        places = [place for place, tensor in enumerate(tensors) if tensor.dtype == dtype]
        results = context.all_reduce(operation, [tensors[place] for place in places], options)
        reduced |= dict(zip(places, results, strict=True))
    return tf.nest.pack_sequence_as(value, [reduced[place] for place in range(len(tensors))])


def update_copies(
    variables: Sequence[tf.Variable | keras.Variable], update: Callable[..., Any], *values: Sequence[Any]
) -> None:
    """Calls `update(copy, *values)` with each replica's copy of each variable and the values beside it.

    Assigning to a mirrored variable inside a replica asks how the replicas' values are to be combined. Here they are
    equal, having been reduced before.

    Args:
        variables: Mirrored variables, or plain ones.
        update: Assigns to the copy; it gets tensors, or copies where a value is a variable itself.
        values: For each further argument of `update` a list with one value a variable.
    """

    def update_all(strategy: tf.distribute.Strategy, *values: Sequence[Any]) -> None:
        for variable, *arguments in zip(variables, *values, strict=True):
            strategy.extended.update(_native(variable), update, args=tuple(arguments), group=False)

    native = [[_native(value) for value in each] for each in values]
    tf.distribute.get_replica_context().merge_call(update_all, args=tuple(native))


def _native(value: Any) -> Any:
    return value.value if isinstance(value, keras.Variable) else value
