"""What a served model takes pictures for."""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from serving.client.synchronous import Client
from serving.client.wire import Class
from serving.errors import Code, ServingError
from serving.wire.signatures import Signature

_ENCODED = "image/encoded"  # the feature that holds a picture's bytes


class Answer(NamedTuple):
    """What became of a picture.

    Attributes:
        path: The file.
        classes: Labels with their scores, best first.
        error: Why there are none; empty where there are.
    """

    path: pathlib.Path
    classes: Sequence[Class]
    error: str = ""


class Question(NamedTuple):
    """Which model and signature are asked, and how many labels an answer has at most.

    Where the signature gives scores alone, labels are looked up by place, and without any they are the places.
    """

    signature: str
    version: int | None = None
    label: str | None = None
    top: int = 5
    labels: Sequence[str] = ()


def choose_signature(signatures: Mapping[str, Signature]) -> str:
    """The signature to ask where none was named: one that gives labels, or else one that takes a picture's bytes.

    Raises:
        ServingError: There is neither.
    """
    for fits in (gives_labels, _takes_bytes):
        for name in sorted(signatures):
            if fits(signatures[name]):
                return name
    known = ", ".join(sorted(signatures))
    raise ServingError(Code.FAILED_PRECONDITION, f"no signature takes the bytes of a picture; the model has {known}")


def gives_labels(signature: Signature) -> bool:
    """Whether a signature is for Classify: tf.Examples in, labels and scores out."""
    outputs = {name: info.dtype for name, info in signature.outputs.items()}
    return _takes_bytes(signature) and outputs == {"classes": "string", "scores": "float"}


def label_pictures(
    client: Client, signature: Signature, question: Question, paths: Sequence[pathlib.Path]
) -> Iterator[Answer]:
    """Asks picture by picture; those that cannot be read, or that the model refuses, do not end it.

    Raises:
        ServingError: The server failed, or could not be reached.
    """
    ask = _classify if gives_labels(signature) else _predict
    for path in paths:
        try:
            yield Answer(path, ask(client, question, path)[: question.top])
        except OSError as error:
            yield Answer(path, [], f"{path} cannot be read: {error.strerror}")
        except ServingError as error:
            if error.code is not Code.INVALID_ARGUMENT:
                raise
            yield Answer(path, [], f"{path} was refused: {error.message.strip().partition(chr(10))[0]}")


def table(answers: Sequence[Answer]) -> str:
    """Answers for people, a line for each label."""
    rows = [("picture", "label", "score")]
    for answer in answers:
        for place, (label, score) in enumerate(answer.classes):
            rows.append((str(answer.path) if place == 0 else "", label, f"{score:.3g}"))
    pictures, labels, scores = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(f"{row[0]:<{pictures}}  {row[1]:<{labels}}  {row[2]:>{scores}}" for row in rows)


def json_line(answer: Answer) -> str:
    """An answer for programs: `{"path": ..., "answers": [{"label": ..., "score": ...}, ...]}`, or `error` instead."""
    found = {"error": answer.error} if answer.error else {"answers": [each._asdict() for each in answer.classes]}
    return json.dumps({"path": str(answer.path), **found})


def _takes_bytes(signature: Signature) -> bool:
    return [info.dtype for info in signature.inputs.values()] == ["string"]


def _classify(client: Client, question: Question, path: pathlib.Path) -> Sequence[Class]:
    which = {"signature": question.signature, "version": question.version, "label": question.label}
    (classes,) = client.classify([{_ENCODED: path}], **which)  # type: ignore[arg-type]
    return sorted(classes, key=lambda each: -each.score)


def _predict(client: Client, question: Question, path: pathlib.Path) -> Sequence[Class]:
    which = {"signature": question.signature, "version": question.version, "label": question.label}
    outputs = client.predict(path, **which).outputs  # type: ignore[arg-type]
    tables = [outputs[name] for name in sorted(outputs) if outputs[name].dtype.kind == "f" and outputs[name].ndim == 2]
    if not tables:
        raise ServingError(Code.FAILED_PRECONDITION, f"signature {question.signature} gives no scores by class")
    scores = outputs["scores"][0] if "scores" in outputs else tables[0][0]
    best = np.argsort(-scores, kind="stable")
    return [Class(_label(question.labels, place), float(scores[place])) for place in best]


def _label(labels: Sequence[str], place: int) -> str:
    return labels[place] if place < len(labels) else str(place)
