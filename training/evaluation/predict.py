"""What a run's network takes one's own pictures for."""

import json
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_prelu.tables import text_table
from training.classifier import Classifier, load_classifier
from training.environment import native_messages_held
from training.errors import InputError
from training.run.folder import Run


class Prediction(NamedTuple):
    """What became of a picture.

    Attributes:
        path: The file.
        answers: Labels with their scores, best first.
        error: Why there is none; empty where there is.
    """

    path: pathlib.Path
    answers: list[tuple[str, float]]
    error: str = ""


def predict(run: Run, paths: Sequence[pathlib.Path], top: int) -> Iterator[Prediction]:
    """Answers picture by picture, as an evaluation by centre crops would; those that cannot be read do not end it.

    Args:
        run: Its newest checkpoint is taken.
        paths: JPEG, PNG, GIF or BMP files of any size.
        top: How many labels an answer has, at most.

    Raises:
        InputError: The folder holds no run, or none that has saved a checkpoint; or `top` is below 1.
    """
    if top < 1:
        raise InputError(f"top is {top}, but must be at least 1")
    classifier = load_classifier(run)
    scores_of = tf.function(classifier.scores)
    for path in paths:
        try:
            pixels = _read(classifier, path)
        except InputError as error:
            yield Prediction(path, [], str(error))
            continue
        scores = scores_of(pixels[tf.newaxis])[0].numpy()
        best = np.argsort(-scores, kind="stable")[:top]
        yield Prediction(path, [(classifier.labels[place], float(scores[place])) for place in best])


def table(predictions: Sequence[Prediction]) -> str:
    """Answers for people, a line for each label."""
    rows = [
        (prediction.path if place == 0 else "", label, score)
        for prediction in predictions
        for place, (label, score) in enumerate(prediction.answers)
    ]
    return text_table(["picture", "label", "score"], rows)


def json_line(prediction: Prediction) -> str:
    """An answer for programs: `{"path": ..., "answers": [{"label": ..., "score": ...}, ...]}`, or `error` instead."""
    found = {"error": prediction.error} if prediction.error else {"answers": _objects(prediction.answers)}
    return json.dumps({"path": str(prediction.path), **found})


def _objects(answers: Sequence[tuple[str, float]]) -> list[dict[str, str | float]]:
    return [{"label": label, "score": score} for label, score in answers]


def _read(classifier: Classifier, path: pathlib.Path) -> tf.Tensor:
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if not encoded:
        raise InputError(f"{path} cannot be read: it is empty")
    with native_messages_held():  # libjpeg and libpng write on standard error, too
        try:
            return classifier.decode(encoded)
        except tf.errors.OpError as error:
            reason = re.sub(r"\{\{.*?\}\} ?|\[Op:.*", "", error.message).strip().partition("\n")[0].rstrip(".")
            raised = InputError(f"{path} cannot be read as a picture: {reason}")
    raise raised
