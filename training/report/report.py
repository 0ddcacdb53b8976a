"""`python -m training report`: everything about a run in one HTML file that needs no network."""

import base64
import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from keras_prelu.signals.measure import measure_gains
from keras_prelu.signals.plots import BLUE, GREY
from keras_prelu.signals.slope_table import slope_table
from training.classifier import Classifier, load_classifier, readable_images
from training.data.datasets import open_images_of
from training.data.image_set import ImageSet
from training.distribute.strategy import make_strategy
from training.errors import InputError, check_packages
from training.evaluation.metrics import Metrics, Published, compute_metrics, published_errors
from training.evaluation.views import Protocol, Scored, score
from training.run.folder import Run, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MISTAKES = 24
_MOST_CLASSES = 20  # whose confusions fit in a square
_MOST_CONFUSED = 15
_SIGNAL_IMAGES = 64


def write_report(run: Run, data_dir: str = "", checkpoint: str = "last") -> pathlib.Path:
    """Evaluates a run's network on its test split, and writes and returns `report.html` in its folder.

    Raises:
        InputError: No such checkpoint, no data, a package that is missing, or a folder that cannot be written.
    """
    check_packages("a report", ("jinja2", "matplotlib"), "report")
    import jinja2

    path = run.folder / "report.html"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("report.html").render(_contents(run, data_dir, checkpoint))
    try:
        write_whole(path, lambda file: file.write_text(text))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    return path


def _contents(run: Run, data_dir: str, checkpoint: str) -> dict[str, Any]:
    """Everything that the template names."""
    with make_strategy().scope():
        classifier = load_classifier(run, checkpoint)
        images = open_images_of(classifier.config, data_dir)
        scored = score(classifier, images, Protocol())
    config, labels, network = classifier.config, classifier.labels, classifier.network
    metrics = compute_metrics(scored.scores, scored.labels)
    published = published_errors(config.dataset)
    compared = [Published("this run", 100 * metrics.top1_error, None, ""), *published]
    return {
        "title": f"{run.folder.resolve().name}: {config.dataset}",
        "subtitle": f"{network.name}, {network.count_params():,} parameters, {checkpoint} checkpoint (step "
        f"{classifier.step:,}); {metrics.images:,} images of {config.test_split}",
        "figures": [*_metric_figures(metrics), *_cost_figures(run, config.batch_size)],
        "published": sorted(compared, key=lambda each: each.top1) if published else [],
        "labels": labels,
        "metrics": metrics,
        "worst": sorted(metrics.classes.items(), key=lambda item: item[1].f1)[:_MOST_CLASSES],
        "slopes": slope_table(network).rows,
        "plots": _plots(run, classifier, metrics),
        **_signals(classifier, images),
        **_confusion(metrics.confusion, labels),
        "mistakes": _mistakes(classifier, images, scored),
        "small_images": max(classifier.image_shape[:2]) <= 64,
        "config": [(field.name, _value(getattr(config, field.name))) for field in dataclasses.fields(config)],
        "versions": run.surroundings(),
    }


def _metric_figures(metrics: Metrics) -> list[tuple[str, str]]:
    return [
        ("top-1 error", f"{metrics.top1_error:.2%}"),
        *([] if metrics.top5_error is None else [("top-5 error", f"{metrics.top5_error:.2%}")]),
        ("loss, nats", f"{metrics.loss:.3f}"),
        *((f"mean {name} of classes", f"{value:.2%}") for name, value in metrics.macro._asdict().items()),
    ]


def _cost_figures(run: Run, batch_size: int) -> list[tuple[str, str]]:
    events = [event for event in run.events() if event["event"] == "train"]
    steps = np.diff([0, *(event["step"] for event in events)])
    seconds = sum(n * batch_size / event["images_per_second"] for n, event in zip(steps, events, strict=True))
    rate = steps.sum() * batch_size / seconds if seconds else 0
    minutes = round(seconds / 60)
    time = f"{minutes // 60} h {minutes % 60} min" if minutes >= 120 else f"{minutes} min"
    return [
        ("steps", f"{steps.sum():,}"),
        ("training, evaluations included", time if minutes >= 2 else f"{seconds:.0f} s"),
        ("images per second", f"{rate:,.0f}" if seconds else "-"),
    ]


def _plots(run: Run, classifier: Classifier, metrics: Metrics) -> dict[str, str]:
    from keras_prelu.signals.plots import plot_slopes

    slopes = slope_table(classifier.network)
    plots = {"training": plot_training(run.events()), "calibration": plot_calibration(metrics.bins)}
    if slopes.rows:
        plots["slopes"] = plot_slopes(slopes)
    return {name: _data_url(plot) for name, plot in plots.items()}


def plot_training(events: Sequence[Mapping[str, Any]]) -> "Figure":
    """Plots loss, error and learning rate over steps, from the lines of `metrics.jsonl`."""
    train, evaluation = ([each for each in events if each["event"] == kind] for kind in ("train", "evaluation"))
    steps, evaluated = [each["step"] for each in train], [each["step"] for each in evaluation]
    figure, (loss, error, rate) = _axes("step", "loss, nats", "error, %", "learning rate")
    loss.plot(steps, [each["loss"] for each in train], color=GREY, linewidth=0.8, label="training batches")
    loss.plot(evaluated, [each["loss"] for each in evaluation], "o-", color=BLUE, markersize=4, label="evaluations")
    if min((each["loss"] for each in (*train, *evaluation)), default=0) > 0:
        loss.set_yscale("log")
    loss.legend(frameon=False)
    error.plot(evaluated, [100 * (1 - each["accuracy"]) for each in evaluation], "o-", color=BLUE, markersize=4)
    error.set_ylim(bottom=0)
    rate.plot(steps, [each["learning_rate"] for each in train], color=BLUE)
    rate.set_ylim(bottom=0)
    return figure


def plot_calibration(bins: Sequence[tuple[int, float, float]]) -> "Figure":
    """Plots the share of right images over the largest score; `bins` are those of `Metrics`."""
    figure, (axes,) = _axes("largest score", "share right")
    counts, scores, right = zip(*bins, strict=True)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    axes.scatter(scores, right, [20 + 180 * count / max(counts) for count in counts], color=BLUE, alpha=0.8)
    return figure


def _axes(across: str, *up: str) -> tuple["Figure", Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(up), 3), layout="constrained")
    every = figure.subplots(1, len(up), squeeze=False)[0]
    for axes, label in zip(every, up, strict=True):
        axes.set_xlabel(across)
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    return figure, every


def _data_url(figure: "Figure") -> str:
    """A figure as the source of an `<img>` element, an SVG."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"


def _signals(classifier: Classifier, images: ImageSet) -> dict[str, Any]:
    from keras_prelu.signals.plots import plot_gains

    found = readable_images(classifier, images, classifier.config.test_split, _SIGNAL_IMAGES)
    batch = np.stack([pixels for _, pixels in found])
    try:
        report = measure_gains(classifier.network, batch)
    except ValueError as error:  # no layer of this network can be measured
        return {"signals_plot": "", "signals_text": f"They cannot be measured: {error}"}
    suspects = ", ".join(f"{row.name} ({', '.join(row.verdicts)})" for row in report.suspects)
    return {
        "signals_plot": _data_url(plot_gains(report)),
        "signals_text": f"Mean squares of the signal at each layer with weights, and of a gradient sent back from the "
        f"outputs, over {len(batch)} images. " + (f"Look at {suspects}." if suspects else "No layer stands out."),
    }


def _confusion(counts: np.ndarray, labels: tuple[str, ...]) -> dict[str, Any]:
    """A square of counts with the opacity of each cell; for many classes, the pairs most often confused instead."""
    wrong = counts * (1 - np.eye(len(labels), dtype=counts.dtype))
    most = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSED]
    pairs = [np.unravel_index(index, wrong.shape) for index in most if wrong.flat[index]]
    shades = 0.8 * (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)) ** 0.5
    fits = len(labels) <= _MOST_CLASSES
    return {
        "confusion": [list(zip(*rows, strict=True)) for rows in zip(counts, shades, strict=True)] if fits else [],
        "confused": [(labels[row], labels[column], wrong[row, column]) for row, column in pairs],
    }


def _mistakes(classifier: Classifier, images: ImageSet, scored: Scored) -> list[dict[str, Any]]:
    """The wrong answers with the largest scores."""
    best, largest = scored.scores.argmax(axis=1), scored.scores.max(axis=1)
    wrong = np.flatnonzero(best != scored.labels)
    rows = wrong[np.argsort(-largest[wrong], kind="stable")][:_MISTAKES]
    split = images.open(classifier.config.test_split)
    return [
        {
            "label": classifier.labels[scored.labels[row]],
            "answer": classifier.labels[best[row]],
            "score": float(largest[row]),
            "png": _png(classifier.decode(split.read(int(scored.positions[row])))),
        }
        for row in rows
    ]


def _png(image: tf.Tensor) -> str:
    pixels = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
    return base64.b64encode(tf.io.encode_png(pixels).numpy()).decode()


def _value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
