"""The steps of a run: find the inputs, load the model, hold the folder, write the parts that are missing."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from serving.batch.folder import begin, held, write_manifest
from serving.batch.inputs import Part, find_files, make_parts
from serving.batch.job import Job, find_version, hash_model, read_labels
from serving.batch.part_writer import Counts, count_part
from serving.batch.progress import Interruptions, Progress
from serving.errors import invalid_argument

Write = Callable[[Sequence[Part], Callable[[Counts], None]], None]
"""Writes parts, and gives the counts of what is written to a function that may raise to end it."""


def run(given: argparse.Namespace, interruptions: Interruptions) -> None:
    """Writes the parts that are missing, and the manifest.

    Raises:
        ServingError: An input is wrong, the model fails, or too many images are unreadable.
        OSError: A file cannot be read or written.
        Interrupted: A signal has ended the run.
    """
    engine = import_module(f"serving.batch.{given.engine}")
    version, directory = find_version(given.export, given.version)
    files = find_files(given.inputs, given.output)
    parts = make_parts(files, given.part_rows, given.column)
    if not parts:
        raise invalid_argument(f"{' '.join(given.inputs)}: no table among them has a row")
    job = Job(
        root=Path.cwd(),
        directory=directory,
        version=version,
        output=given.output.resolve(),
        signature=given.signature,
        labels=read_labels(directory, given.labels),
        top=given.top,
        column=given.column,
        batch_size=given.batch_size,
        max_image_pixels=given.max_image_pixels,
    )
    with held(given.output), engine.opened(job, given, interruptions) as write:
        manifest = _make_manifest(job, files, parts, given.part_rows)
        begin(job.output, manifest)
        counts = _write_missing(write, job, parts, Progress(parts, given.max_unreadable, interruptions))
        write_manifest(job.output, {**manifest, "counts": {"rows": counts.rows, "unreadable": counts.unreadable}})
    print(f"{counts.rows:,} rows in {len(parts):,} parts in {given.output}; {counts.unreadable:,} unreadable")


def _write_missing(write: Write, job: Job, parts: Sequence[Part], progress: Progress) -> Counts:
    """Writes the parts that are not there yet. Returns the counts of all."""
    missing = []
    for part in parts:
        counts = count_part(job.output / part.name, part.num_rows)
        if counts is None:
            missing.append(part)
        else:
            progress.add(counts)
    with progress:
        write(missing, progress.note)
    return progress.counts


def _make_manifest(job: Job, files: Mapping[str, int | None], parts: Sequence[Part], part_rows: int) -> dict[str, Any]:
    """The manifest of a run: `inputs`, `model` and `settings` identify it; the counts are known at its end."""
    settings = ("signature", "labels", "top", "column", "batch_size", "max_image_pixels")
    return {
        "inputs": files,
        "model": {"version": job.version, "sha256": hash_model(job.directory)},
        "settings": {**{name: getattr(job, name) for name in settings}, "part_rows": part_rows},
        "parts": [
            {"name": part.name, "first": part.paths[0], "start": part.start, "rows": part.num_rows} for part in parts
        ],
        "counts": None,
    }
