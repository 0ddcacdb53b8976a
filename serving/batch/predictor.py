"""Encoded images in, labels, scores and outputs out: the work on one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from serving.batch.columns import OUTPUT, Run, make_schema, make_table, output_names
from serving.batch.encoding import choose_signature, make_encoder, stack
from serving.batch.job import Job
from serving.errors import Code, ServingError, invalid_argument
from serving.options import Options
from serving.repository.loader import Loader
from serving.telemetry.metrics import Metrics
from serving.wire.images import gives_labels
from serving.wire.signatures import Signature


class Predictor:
    """Loads a job's model as the server does, and runs it on batches of columns. Any thread may call it."""

    def __init__(self, job: Job) -> None:
        options = Options(
            enable_model_warmup=False,
            allow_links_out_of_base_path=True,  # whoever names the export may read what it leads to
            max_image_pixels=job.max_image_pixels,
        )
        self._job = job
        self._model = Loader(options, Metrics())(job.directory)
        self.signature = choose_signature(self._model.signatures, job.signature)
        ((self._input, self._info),) = self.signature.inputs.items()
        self._encode = make_encoder(self.signature, job.column, job.max_image_pixels)
        self._output_names = output_names(self.signature)
        if not self._output_names:
            raise invalid_argument(f"signature {self.signature.name} has no output with a row per image: name another")
        self._scores = _find_scores(self.signature)
        self.schema = make_schema(self.signature)

    def __call__(self, columns: Mapping[str, Sequence[str | bytes | None]]) -> pa.Table:
        """Computes a table with a row for each `id`, of its `image` or `example`, unless it has an `error` already.

        An image that the model refuses gets an error. Raises ServingError if the model fails otherwise.
        """
        is_example = "example" in columns
        errors: list[object] = list(columns.get("error") or [None] * len(columns["id"]))
        values: dict[int, object] = {}
        for row, data in enumerate(columns["example" if is_example else "image"]):
            if errors[row] is None:
                try:
                    values[row] = self._encode(data, is_example)  # type: ignore[arg-type]
                except ValueError as error:
                    errors[row] = str(error)
        runs = list(self._run(list(values), values, errors)) if values else []
        given = {"id": columns["id"], "error": errors, "version": [self._job.version] * len(errors)}
        return make_table(self.schema, given, runs)

    def close(self) -> None:
        """Frees the model's memory. Nobody may call it any more."""
        self._model.close()

    def _run(self, rows: Sequence[int], values: Mapping[int, object], errors: list[object]) -> Iterator[Run]:
        """Runs rows together. If the model refuses one of them, the halves are run, until it is alone."""
        array = stack([values[row] for row in rows], self._info)
        try:
            outputs = self._model.run(self.signature.name, {self._input: array}, self._output_names)
        except ServingError as error:
            if error.code is not Code.INVALID_ARGUMENT:
                raise
            if len(rows) == 1:
                errors[rows[0]] = error.message.strip().partition("\n")[0]
                return
            half = len(rows) // 2
            yield from self._run(rows[:half], values, errors)
            yield from self._run(rows[half:], values, errors)
            return
        self._check_rows(outputs, len(rows))
        yield rows, {**{OUTPUT.format(name): output for name, output in outputs.items()}, **self._rank(outputs)}

    def _check_rows(self, outputs: Mapping[str, np.ndarray], num_rows: int) -> None:
        for name, output in outputs.items():
            if not output.ndim or len(output) != num_rows:
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"output {name} of signature {self.signature.name} has shape {list(output.shape)} for {num_rows} "
                    "images: name a signature with a row per image",
                )

    def _rank(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The columns of the best labels and their scores; none if the signature gives no scores by class."""
        if self._scores is None:
            return {}
        scores = outputs[self._scores].astype(np.float32)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self._job.top]
        if gives_labels(self.signature):
            texts = [each.decode("utf-8", "replace") for each in outputs["classes"].flat]
            names = np.array(texts, object).reshape(scores.shape)
        else:
            known = self._job.labels[: scores.shape[1]]
            row = [*known, *map(str, range(len(known), scores.shape[1]))]
            names = np.broadcast_to(np.array(row, object), scores.shape)
        labels, scores = (np.take_along_axis(each, best, axis=1) for each in (names, scores))
        return {"label": labels[:, 0], "score": scores[:, 0], "labels": labels, "scores": scores}


def _find_scores(signature: Signature) -> str | None:
    """The output `scores`, or the first table of floats."""
    floats = ("float", "double", "half", "bfloat16")
    names = [
        name for name, info in sorted(signature.outputs.items()) if info.dtype in floats and len(info.shape or ()) == 2
    ]
    return "scores" if "scores" in names else next(iter(names), None)
