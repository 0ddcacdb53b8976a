"""Which workers a run has: what TF_CONFIG or Slurm says, read before TensorFlow hangs on a mistake in it."""

import dataclasses
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from training.errors import InputError

_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
_TASK_TYPES = ("chief", "worker")  # in the order in which TensorFlow numbers them


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of one run, and which of them this process is.

    Attributes:
        addresses: `host:port` of each; the first is the chief's, who writes the run's files.
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
    except ValueError as error:
        raise InputError(f"TF_CONFIG is not JSON ({error}); it must be as {_EXAMPLE}") from None
    jobs, task = _member(document, "cluster"), _member(document, "task")
    for name, addresses in jobs.items():
        if name not in _TASK_TYPES:
            raise InputError(f"TF_CONFIG's cluster has a {name!r}, but this trainer has only chief and worker")
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            raise InputError(f"TF_CONFIG's {name} is {addresses!r}, but must be a list of host:port")
    if len(jobs.get("chief", [])) > 1:
        raise InputError("TF_CONFIG's cluster has several chiefs, but one alone may write the run's files")
    return Cluster(tuple(address for name in _TASK_TYPES for address in jobs.get(name, [])), _place(jobs, task))


def _member(document: Any, name: str) -> dict[str, Any]:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, dict):
        raise InputError(f"TF_CONFIG has no {name!r} with members; it must be as {_EXAMPLE}")
    return value


def _place(jobs: Mapping[str, list[str]], task: Mapping[str, Any]) -> int:
    """A task's number among all workers: the chief has the first, as TensorFlow counts."""
    kind, index = task.get("type"), task.get("index")
    if kind not in _TASK_TYPES:
        raise InputError(f"TF_CONFIG's task has the type {kind!r}, but must be chief or worker")
    count = len(jobs.get(kind, []))
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
        last = f"must be 0 to {count - 1}" if count else f"the cluster has no {kind}"
        raise InputError(f"TF_CONFIG's task is {kind} {index!r}, but {last}")
    return index + (len(jobs.get("chief", [])) if kind == "worker" else 0)


def _read_slurm(environment: Mapping[str, str]) -> Cluster:
    """The tasks of a job step, node by node (https://slurm.schedmd.com/srun.html, output environment variables)."""
    try:
        hosts = _expand_hosts(environment["SLURM_STEP_NODELIST"])
        tasks = list(_expand_counts(environment["SLURM_STEP_TASKS_PER_NODE"]))
        index, job = int(environment["SLURM_PROCID"]), int(environment["SLURM_JOB_ID"])
        num_tasks = int(environment["SLURM_STEP_NUM_TASKS"])
    except KeyError as error:
        raise InputError(f"SLURM_STEP_NUM_TASKS is set, but not {error}; start the workers by srun") from None
    except ValueError as error:
        raise InputError(f"Slurm's variables cannot be read ({error}); TF_CONFIG would name the workers") from None
    distribution = environment.get("SLURM_DISTRIBUTION", "block")
    if max(tasks) > 1 and len(hosts) > 1 and not distribution.startswith("block"):
        raise InputError(f"Slurm spreads the tasks as {distribution}; srun --distribution=block is what can be read")
    if len(hosts) != len(tasks) or not index < sum(tasks) == num_tasks:
        raise InputError(
            "Slurm's nodes, tasks per node and number of tasks do not fit; TF_CONFIG would name the workers"
        )
    port = 10_000 + job % 20_000  # below what systems hand out by themselves; another for each job
    return Cluster(
        tuple(f"{host}:{port + task}" for host, count in zip(hosts, tasks, strict=True) for task in range(count)), index
    )


def _expand_hosts(text: str) -> list[str]:
    """`n[1-2,05],m` as Slurm abbreviates n1, n2, n05 and m."""
    return [host for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text) for host in _expand_brackets(part)]


def _expand_brackets(text: str) -> Iterator[str]:
    head, bracket, rest = text.partition("[")
    if not bracket:
        yield head
        return
    ranges, _, tail = rest.partition("]")
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield from (f"{head}{number:0{len(first)}d}{end}" for end in _expand_brackets(tail))


def _expand_counts(text: str) -> Iterator[int]:
    """`2(x3),1` as Slurm abbreviates 2, 2, 2 and 1."""
    for part in text.split(","):
        count, _, times = part.rstrip(")").partition("(x")
        yield from [int(count)] * int(times or 1)
