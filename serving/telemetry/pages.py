"""Metrics as text for Prometheus: under TensorFlow Serving's names, and under valid ones.

TensorFlow Serving's names begin with a colon, which Prometheus keeps for its own rules, and its labels know neither
version nor signature. So there are two pages of the same numbers.
"""

import re
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from serving.telemetry.metrics import Metrics
from serving.telemetry.series import Counter, Distribution, Histogram, Labels

DEFAULT_PATH = "/monitoring/prometheus/metrics"

# What TensorFlow Serving calls the labels that it has, where it has fewer than there are here.
_UPSTREAM_LABELS = {
    "/tensorflow/serving/request_count": {"model_name": "model", "status": "status"},
    "/tensorflow/serving/request_latency": {"model_name": "model", "API": "method", "entrypoint": "transport"},
}


def tensorflow_page(metrics: Metrics) -> bytes:
    """The page that TensorFlow Serving shows (util/prometheus_exporter.cc)."""
    lines = []
    for metric in metrics.all():
        name = re.sub("[^a-zA-Z0-9_]", ":", metric.name)
        lines.append(f"# TYPE {name} {metric.kind}")
        renamed = _UPSTREAM_LABELS.get(metric.name, {label: label for label in metric.label_names})
        places = [metric.label_names.index(label) for label in renamed.values()]
        if isinstance(metric, Counter):
            lines += _counter_lines(name, list(renamed), _merged_counts(metric, places))
        else:
            lines += _histogram_lines(name, list(renamed), metric, _merged_distributions(metric, places))
    return "\n".join([*lines, ""]).encode()


class PrometheusPage:
    """The page with valid names, and with what the process itself uses."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._registry = CollectorRegistry()
        self._registry.register(self)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def collect(self) -> Iterable[Metric]:
        """What prometheus_client asks of a collector."""
        return [_family(metric) for metric in self._metrics.all()]

    def write(self, accept: str) -> tuple[bytes, str]:
        """The page in the format that an Accept header asks for, and its content type."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


def _family(metric: Counter | Histogram) -> Metric:
    name = metric.name.strip("/").replace("/", "_")
    if isinstance(metric, Counter):
        counter = CounterMetricFamily(name, metric.meaning, labels=metric.label_names)
        for labels, count in metric.values().items():
            counter.add_metric(labels, count)
        return counter
    histogram = HistogramMetricFamily(name, metric.meaning, labels=metric.label_names)
    for labels, each in metric.values().items():
        buckets = [(limit, float(count)) for limit, count in zip(_limits(metric), each.cumulative(), strict=True)]
        histogram.add_metric(labels, buckets, each.total)
    return histogram


def _limits(metric: Histogram) -> list[str]:
    return [f"{limit:g}" for limit in metric.limits] + ["+Inf"]


def _merged_counts(metric: Counter, places: list[int]) -> Mapping[Labels, int]:
    merged: dict[Labels, int] = {}
    for labels, count in metric.values().items():
        kept = tuple(labels[place] for place in places)
        merged[kept] = merged.get(kept, 0) + count
    return merged


def _merged_distributions(metric: Histogram, places: list[int]) -> Mapping[Labels, Distribution]:
    merged: dict[Labels, Distribution] = {}
    for labels, each in metric.values().items():
        kept = tuple(labels[place] for place in places)
        merged[kept] = merged[kept].plus(each) if kept in merged else each
    return merged


def _counter_lines(name: str, label_names: list[str], values: Mapping[Labels, int]) -> list[str]:
    return [f"{name}{{{_labels(label_names, labels)}}} {count}" for labels, count in values.items()]


def _histogram_lines(
    name: str, label_names: list[str], metric: Histogram, values: Mapping[Labels, Distribution]
) -> list[str]:
    lines = []
    for labels, each in values.items():
        text = _labels(label_names, labels)
        prefix = f"{text}," if text else ""
        for limit, count in zip(_limits(metric), each.cumulative(), strict=True):
            lines.append(f'{name}_bucket{{{prefix}le="{limit}"}} {count}')
        lines.append(f"{name}_sum{{{text}}} {each.total:.15g}")
        lines.append(f"{name}_count{{{text}}} {sum(each.counts)}")
    return lines


def _labels(names: list[str], values: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
