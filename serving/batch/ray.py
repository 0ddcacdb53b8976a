"""The engine of a cluster: Ray Data gives the parts to workers, each of which writes its own."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from serving.batch.inputs import Part
from serving.batch.job import Job
from serving.batch.part_writer import Counts, PartWriter
from serving.batch.progress import Interruptions
from serving.batch.run import Write
from serving.engines.ray_cluster import connect
from serving.errors import Code, ServingError, needing

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # workers share the GPUs that there are
with needing("ray"):
    import ray
    import ray.data
    from ray.exceptions import RayError

logging.getLogger("ray.data").setLevel(logging.ERROR)

_OBJECT_STORE = 80 * 2**20  # bytes, about the least that Ray takes: parts are named and counted through it, no more
_LOCAL: dict[str, Any] = {"object_store_memory": _OBJECT_STORE, "include_dashboard": False}
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


@contextmanager
def opened(job: Job, given: argparse.Namespace, interruptions: Interruptions) -> Iterator[Write]:
    """Joins or starts a cluster, looks whether the model loads, and gives the function that writes parts."""

    def write(parts: Sequence[Part], note: Callable[[Counts], None]) -> None:
        if parts:
            _write(job, parts, note, given.ray_workers)

    try:
        _connect(given.ray_address or os.environ.get("RAY_ADDRESS") or "local")
        interruptions.listen()  # Ray has taken SIGTERM for itself
        interruptions.raise_at_once()
        PartWriter(job).close()
        yield write
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    try:
        connect(address, **(_LOCAL if address == "local" else {}), **_QUIET)
    except Exception as error:  # Ray raises this very class, too
        raise ServingError(
            Code.UNAVAILABLE,
            f"no Ray cluster answers at {address} ({error}): start one with ray start --head and give its HOST:PORT, "
            "or leave --ray_address out for one of this machine alone",
        ) from error


def _write(job: Job, parts: Sequence[Part], note: Callable[[Counts], None], num_workers: int | None) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    size = min(len(parts), num_workers or _num_machines())
    rows = ray.data.from_items(
        [{"part": part.to_json()} for part in parts], override_num_blocks=len(parts)
    ).map_batches(
        PartWriter,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=size),
        num_cpus=1,
    )
    try:
        for row in rows.iter_rows():
            if row["failure"]:
                raise ServingError(Code.INTERNAL, row["failure"])
            note(Counts(int(row["rows"]), int(row["unreadable"]), row["last"]))
    except RayError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise ServingError(Code.UNAVAILABLE, f"a worker of Ray has failed: {reason}") from error


def _num_machines() -> int:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return sum(node["Alive"] for node in nodes)
