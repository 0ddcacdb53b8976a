"""Reads which workers a run has from TF_CONFIG or Slurm's variables, before TensorFlow hangs on a mistake in them.

TensorFlow's own resolvers do not do: `TFConfigClusterResolver` accepts a task that is not in the cluster, and
`SlurmClusterResolver` sorts the hosts as text, so that the first task of gpu[9-10] gets the address of gpu10; without
GPUs it fails, and two jobs on one machine get the same ports.
"""

import dataclasses
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping

from training.errors import InputError

_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
_TASK_TYPES = ("chief", "worker")  # in the order in which TensorFlow numbers them


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of one run, and the index of this process among them.

    Attributes:
        addresses: `host:port` of each; the first is the chief's, which writes the run's files.
        index: This process's place among them.
    """

    addresses: tuple[str, ...]
    index: int

    def name(self, index: int) -> str:
        """A worker as messages name it, with its address."""
        return f"worker {index} ({self.addresses[index]})"

    @property
    def is_local(self) -> bool:
        """Whether all workers are on this machine by their addresses, and so share its cores and GPUs."""
        return all(is_loopback(split_address(address)[0]) for address in self.addresses)


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster that TF_CONFIG describes, or else Slurm's variables; None where this process trains alone.

    Args:
        environment: The process's environment variables.

    Raises:
        InputError: They contradict themselves, or leave something out.
    """
    if environment.get("TF_CONFIG"):
        cluster = _read_tf_config(environment["TF_CONFIG"])
    elif environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":  # srun alone sets it: a batch script is one process
        cluster = _read_slurm(environment)
    else:
        return None
    for address in cluster.addresses:
        split_address(address)
    if len(set(cluster.addresses)) < len(cluster.addresses):
        raise InputError(f"two workers have one address in {', '.join(cluster.addresses)}; each needs its own port")
    return cluster if len(cluster.addresses) > 1 else None


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`; an IPv6 host stands in brackets.

    Raises:
        InputError: It is no such address.
    """
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:]+)):(\d+)", address)
    if not match or not 0 < int(match[3]) < 65536:
        raise InputError(f"a worker's address is {address!r}, but must be host:port, as 10.0.0.1:2222")
    return match[1] or match[2], int(match[3])


def is_loopback(host: str) -> bool:
    """Whether a host name or number means this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read_tf_config(text: str) -> Cluster:
    try:
        document = json.loads(text)
        jobs, task = dict(document["cluster"]), (document["task"]["type"], document["task"]["index"])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"TF_CONFIG cannot be read ({type(error).__name__}: {error}); it must be as {_EXAMPLE}"
        ) from None
    for name, addresses in jobs.items():
        if name not in _TASK_TYPES:
            raise InputError(f"TF_CONFIG's cluster has a {name!r}, but this trainer has only chief and worker")
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            raise InputError(f"TF_CONFIG's {name} is {addresses!r}, but must be a list of host:port")
    workers = [((name, place), each) for name in _TASK_TYPES for place, each in enumerate(jobs.get(name, []))]
    tasks = [task for task, _ in workers]
    if ("chief", 1) in tasks:
        raise InputError("TF_CONFIG's cluster has several chiefs, but one alone may write the run's files")
    if task not in tasks:
        there = "only " + ", ".join(f"{name} {place}" for name, place in tasks) if tasks else "no worker"
        raise InputError(f"TF_CONFIG's task is {task[0]} {task[1]!r}, but the cluster has {there}")
    return Cluster(tuple(address for _, address in workers), tasks.index(task))


def _read_slurm(environment: Mapping[str, str]) -> Cluster:
    """The tasks of a job step, node by node (https://slurm.schedmd.com/srun.html, output environment variables)."""
    try:
        hosts = [host for part in _split(environment["SLURM_STEP_NODELIST"]) for host in _expand_hosts(part)]
        counts = re.findall(r"(\d+)(?:\(x(\d+)\))?", environment["SLURM_STEP_TASKS_PER_NODE"])  # 2(x3),1: 2, 2, 2, 1
        index, job = int(environment["SLURM_PROCID"]), int(environment["SLURM_JOB_ID"])
        num_tasks = int(environment["SLURM_STEP_NUM_TASKS"])
    except KeyError as error:
        raise InputError(f"SLURM_STEP_NUM_TASKS is set, but not {error}; start the workers by srun") from None
    except ValueError as error:
        raise InputError(f"Slurm's variables cannot be read ({error}); TF_CONFIG would name the workers") from None
    tasks = [int(count) for count, times in counts for _ in range(int(times or 1))]
    distribution = environment.get("SLURM_DISTRIBUTION", "block")
    if max(tasks, default=0) > 1 and len(hosts) > 1 and not distribution.startswith("block"):
        raise InputError(f"Slurm spreads the tasks as {distribution}; srun --distribution=block is what can be read")
    if len(hosts) != len(tasks) or not index < sum(tasks) == num_tasks:
        raise InputError(
            "Slurm's nodes, tasks per node and number of tasks do not fit; TF_CONFIG would name the workers"
        )
    port = 10_000 + job % 20_000  # below what systems hand out by themselves; another for each job
    places = [f"{host}:{port + task}" for host, count in zip(hosts, tasks, strict=True) for task in range(count)]
    return Cluster(tuple(places), index)


def _split(text: str) -> list[str]:
    """Splits at the commas outside of brackets."""
    return re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text)


def _expand_hosts(text: str) -> Iterator[str]:
    """`n[1-2,05]` as Slurm abbreviates n1, n2 and n05; brackets may follow brackets."""
    head, bracket, rest = text.partition("[")
    if not bracket:
        yield head
        return
    ranges, _, tail = rest.partition("]")
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield from (f"{head}{number:0{len(first)}d}{end}" for end in _expand_hosts(tail))
