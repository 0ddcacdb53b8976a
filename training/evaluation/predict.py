"""`python -m training predict`: the labels that a run's network gives to image files."""

import json
import pathlib
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
    """A file's labels with their scores, best first, or the reason why there are none."""

    path: pathlib.Path
    answers: list[tuple[str, float]]
    error: str = ""


def predict(run: Run, paths: Sequence[pathlib.Path], top: int, checkpoint: str = "last") -> Iterator[Prediction]:
    """Predicts at most `top` labels for each file from its centre crop; an unreadable file does not end it.

    Raises:
        InputError: The folder holds no run, or no such checkpoint (`last` or `best`); or `top` is below 1.
    """
    if top < 1:
        raise InputError(f"top is {top}, but must be at least 1")
    classifier = load_classifier(run, checkpoint)
    scores_of = tf.function(classifier.scores, autograph=False)
    for path in paths:
        try:
            pixels = _read(classifier, path)
        except InputError as error:
            yield Prediction(path, [], str(error))
            continue
        scores = scores_of(pixels[tf.newaxis])[0].numpy()
        best = np.argsort(-scores, kind="stable")[:top]
        yield Prediction(path, [(classifier.labels[index], float(scores[index])) for index in best])


def table(predictions: Sequence[Prediction]) -> str:
    """Predictions for people, one line for each label."""
    rows = [
        (prediction.path if rank == 0 else "", label, score)
        for prediction in predictions
        for rank, (label, score) in enumerate(prediction.answers)
    ]
    return text_table(["image", "label", "score"], rows)


def json_line(prediction: Prediction) -> str:
    """A prediction for programs: `{"path": ..., "answers": [{"label": ..., "score": ...}, ...]}`, or with `error`."""
    answers = [{"label": label, "score": score} for label, score in prediction.answers]
    found = {"error": prediction.error} if prediction.error else {"answers": answers}
    return json.dumps({"path": str(prediction.path), **found})


def _read(classifier: Classifier, path: pathlib.Path) -> tf.Tensor:
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    with native_messages_held():  # libjpeg and libpng write to standard error, too
        try:
            return classifier.decode(encoded)
        except tf.errors.OpError:
            found = InputError(f"{path} cannot be decoded: it is damaged, or not a JPEG, PNG, GIF or BMP image")
    raise found  # outside the block, which would show what it held back
