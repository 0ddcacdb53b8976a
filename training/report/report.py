"""`python -m training report`: all that is to be seen of a run, in one HTML file that needs no network."""

import base64
import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_prelu.networks.small import initial_slope
from keras_prelu.signals.measure import measure_gains
from keras_prelu.signals.slope_table import slope_table
from training.classifier import load_network
from training.config import Config
from training.data.datasets import open_images_of
from training.data.preprocessing import decode_image
from training.errors import InputError, check_packages
from training.evaluation.protocols import Protocol, Scored, images_by_place, score_run
from training.evaluation.published import Published, published_errors
from training.evaluation.scores import Judgement, judge
from training.run.folder import Run, write_whole

_MISTAKES = 24
_MOST_CLASSES = 20  # whose confusions fit in a square
_MOST_CONFUSED = 15
_SIGNAL_IMAGES = 64


@dataclasses.dataclass(frozen=True)
class _Mistake:
    label: str
    taken_for: str
    score: float
    png: str


def write_report(run: Run, data_dir: str = "") -> pathlib.Path:
    """Judges a run's network on its test split and writes `report.html` into its folder.

    Args:
        run: One that has saved.
        data_dir: Where the data lies; empty for where it lay in training.

    Returns:
        The file.

    Raises:
        InputError: No run, no checkpoint, no data, a package that is missing, or a folder that cannot be written.
    """
    check_packages("a report", ("jinja2", "matplotlib"), "report")
    import jinja2

    path = run.folder / "report.html"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("report.html").render(_contents(run, data_dir))
    try:
        write_whole(path, lambda file: file.write_text(text))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    return path


def _contents(run: Run, data_dir: str) -> dict[str, Any]:
    """What the template names."""
    config, labels, image_shape = run.read()
    model = load_network(run)
    scored = score_run(run, Protocol(data_dir=data_dir))
    judgement = judge(scored.scores, scored.labels)
    published = published_errors(config.dataset)
    own = Published("this run", 100 * judgement.top1_error, "")
    return {
        "title": f"{run.folder.resolve().name}: {config.dataset}",
        "subtitle": f"{model.name}, {model.count_params():,} parameters, {config.rectifier}; "
        f"{judgement.images:,} images of {config.test_split}",
        "figures": _figures(config, run, judgement),
        "published": sorted([own, *published], key=lambda each: each.error) if published else [],
        "labels": labels,
        "judgement": judgement,
        **_plots(run, model, judgement, published),
        **_signals(config, model, data_dir, image_shape),
        **_confusion(judgement, labels),
        "mistakes": _mistakes(config, scored, data_dir, image_shape),
        "small_images": max(image_shape[:2]) <= 64,
        "config": [(field.name, _value(getattr(config, field.name))) for field in dataclasses.fields(config)],
        "versions": run.surroundings(),
    }


def _figures(config: Config, run: Run, judgement: Judgement) -> list[tuple[str, str]]:
    figures = [("top-1 error", f"{judgement.top1_error:.2%}")]
    if judgement.top5_error == judgement.top5_error:
        figures.append(("top-5 error", f"{judgement.top5_error:.2%}"))
    events = [event for event in run.events() if event["event"] == "train"]
    steps = [event["step"] - before for event, before in zip(events, [0, *(e["step"] for e in events)], strict=False)]
    seconds = sum(n * config.batch_size / event["images_per_second"] for n, event in zip(steps, events, strict=True))
    images = sum(steps) * config.batch_size
    return [
        *figures,
        ("test loss, nats", f"{judgement.loss:.3f}"),
        ("steps", f"{sum(steps):,}"),
        ("training, evaluations included", _duration(seconds)),
        ("images a second", f"{images / seconds:,.0f}" if seconds else "-"),
    ]


def _plots(run: Run, model: keras.Model, judgement: Judgement, published: list[Published]) -> dict[str, Any]:
    from keras_prelu.signals.plots import plot_slopes
    from training.report import figures

    events = run.events()
    errors = {each.name: each.error for each in published}
    curves = {
        "loss": figures.plot_loss(events),
        "error": figures.plot_error(events, errors),
        "rate": figures.plot_rate(events),
    }
    slopes = slope_table(model)
    return {
        "curves": [figures.as_svg(figure, name) for name, figure in curves.items()],
        "slopes": slopes.rows,
        "slopes_plot": figures.as_svg(plot_slopes(slopes), "slopes") if slopes.rows else "",
        "first_slope": initial_slope("prelu"),
        "calibration_plot": figures.as_svg(figures.plot_calibration(judgement.bins), "calibration"),
    }


def _signals(config: Config, model: keras.Model, data_dir: str, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    from keras_prelu.signals.plots import plot_gains
    from training.report import figures

    images = open_images_of(config, data_dir).encoded(config.test_split)
    decoded = images.map(lambda encoded, _: decode_image(encoded, image_shape, config.test_scale)).ignore_errors()
    batch = next(iter(decoded.batch(_SIGNAL_IMAGES)))
    report = measure_gains(model, batch)
    return {
        "signal_images": len(batch),
        "signals_plot": figures.as_svg(plot_gains(report), "signals"),
        "suspects": [f"{row.name} ({', '.join(row.verdicts)})" for row in report.suspects],
    }


def _confusion(judgement: Judgement, labels: tuple[str, ...]) -> dict[str, Any]:
    counts, errors = judgement.confusion, judgement.class_errors()
    if len(labels) <= _MOST_CLASSES:
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        rows = [
            {
                "cells": [
                    {"count": int(count), "shade": 0.8 * share, "kind": "hit" if row == column else "miss"}
                    for column, (count, share) in enumerate(zip(counts[row], shares[row] ** 0.5, strict=True))
                ],
                "error": float(errors[row]),
            }
            for row in range(len(labels))
        ]
        return {"confusion": rows, "confused": []}
    wrong = counts * (1 - np.eye(len(labels), dtype=counts.dtype))
    most = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSED]
    pairs = [np.unravel_index(place, wrong.shape) for place in most if wrong.flat[place]]
    return {
        "confusion": [],
        "confused": [(labels[row], labels[column], int(wrong[row, column])) for row, column in pairs],
    }


def _mistakes(config: Config, scored: Scored, data_dir: str, image_shape: tuple[int, int, int]) -> list[_Mistake]:
    best, largest = scored.scores.argmax(axis=1), scored.scores.max(axis=1)
    wrong = np.flatnonzero(best != scored.labels)
    places = wrong[np.argsort(-largest[wrong], kind="stable")][:_MISTAKES].tolist()
    images = open_images_of(config, data_dir)
    encoded = images_by_place(images, config.test_split, places)
    return [
        _Mistake(
            label=scored.names[scored.labels[place]],
            taken_for=scored.names[best[place]],
            score=float(largest[place]),
            png=_png(encoded[place], image_shape, config.test_scale),
        )
        for place in places
    ]


def _png(encoded: tf.Tensor, image_shape: tuple[int, int, int], scale: int) -> str:
    """What the network was shown."""
    pixels = tf.cast(tf.clip_by_value(tf.round(decode_image(encoded, image_shape, scale)), 0, 255), tf.uint8)
    return base64.b64encode(tf.io.encode_png(pixels).numpy()).decode()


def _value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
