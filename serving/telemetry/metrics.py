"""The metrics of one server: TensorFlow Serving's, with the version and the signature as further labels.

TensorFlow Serving names them by paths (servables/tensorflow/util.cc and others). Its page turns a path into a name with
colons, which Prometheus reserves for its own rules. So there is a second page, with valid names and with all labels.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Sample

from serving.call import Call
from serving.errors import Code

DEFAULT_PATH = "/monitoring/prometheus/metrics"
"""The path of TensorFlow Serving's page where a MonitoringConfig names none."""

_REQUEST_LABELS = ("model", "method", "transport", "version", "signature")
# The labels of TensorFlow Serving's page, where it has fewer than there are here.
_UPSTREAM_LABELS = {
    "/tensorflow/serving/request_count": {"model_name": "model", "status": "status"},
    "/tensorflow/serving/request_latency": {"model_name": "model", "API": "method", "entrypoint": "transport"},
}


class Metrics:
    """Counts and times what happens. Times are in seconds here, and in microseconds on the pages.

    A series stays for ever, so labels must not be invented by clients: they name models, versions and signatures that
    exist.
    """

    def __init__(self) -> None:
        self.registry = _Registry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._by_path: dict[str, Counter | Histogram] = {}
        self._define_requests("/tensorflow/serving")
        self._define_loads("/tensorflow/serving", "/tensorflow/cc/saved_model")
        self._define_batches("/tensorflow/serving/batching_session")

    def _define_requests(self, path: str) -> None:
        latencies = _exponential(10, 1.8, 33)  # microseconds: up to about an hour
        self._requests = self._counter(f"{path}/request_count", "Requests, by status.", *_REQUEST_LABELS, "status")
        self._request_latency = self._histogram(
            f"{path}/request_latency",
            "Time to answer a request that succeeded, from when a thread took it, in microseconds.",
            latencies,
            *_REQUEST_LABELS,
        )
        self._run_latency = self._histogram(
            f"{path}/runtime_latency",
            "Time that a model took to run for a request, in microseconds.",
            latencies,
            *("model_name", "API", "runtime"),
        )
        sizes = _exponential(1, 2, 15)
        self._examples = self._histogram(f"{path}/request_example_counts", "Examples of a request.", sizes, "model")
        self._all_examples = self._counter(f"{path}/request_example_count_total", "Examples of all requests.", "model")
        self._logged_requests = self._counter(
            f"{path}/request_log_count",
            "Requests in the sample of the request log: written where OK, dropped otherwise.",
            *("model_name", "status_code"),
        )

    def _define_loads(self, path: str, saved_model: str) -> None:
        self._warmup_latency = self._histogram(
            f"{path}/model_warmup_latency",
            "Time of a version's warm-up, in microseconds.",
            _exponential(10, 1.8, 33),
            *("model_path", "status"),
        )
        self._warmup_records = self._counter(
            f"{path}/model_warmup_records_read", "Requests replayed at warm-up.", "model_path"
        )
        self._loads = self._counter(f"{saved_model}/load_attempt_count", "Loads of a version.", "model_path", "status")
        self._load_time = self._counter(
            f"{saved_model}/load_latency", "Time spent loading, in microseconds.", "model_path"
        )

    def _define_batches(self, path: str) -> None:
        self._queuing_latency = self._histogram(
            f"{path}/queuing_latency",
            "Time that a request waited for others, in microseconds.",
            _exponential(100, 1.2, 52),
            "thread_pool_name",
        )
        sizes = _exponential(1, 2, 15)
        self._batches = self._counter(f"{path}/wrapped_run_count", "Runs of batches.")
        self._padding = self._histogram(
            f"{path}/padding_size", "Rows that filled a run up.", sizes, "execution_batch_size"
        )
        self._input_size = self._histogram(f"{path}/input_batch_size", "Rows of a request.", sizes)
        self._batch_size = self._histogram(f"{path}/processed_batch_size", "Rows of a run.", sizes)

    def _counter(self, path: str, meaning: str, *labels: str) -> Callable[..., Counter]:
        counter = Counter(_valid_name(path), meaning, labels, registry=self.registry)
        self._by_path[path] = counter
        return cache(counter.labels) if labels else lambda: counter  # 0.1 us instead of 1.2

    def _histogram(self, path: str, meaning: str, limits: Sequence[float], *labels: str) -> Callable[..., Histogram]:
        histogram = Histogram(_valid_name(path), meaning, labels, registry=self.registry, buckets=limits)
        self._by_path[path] = histogram
        return cache(histogram.labels) if labels else lambda: histogram

    def record_request(self, call: Call, code: Code) -> None:
        """Records the end of a request. One that failed may lack a version and a signature, and has no latency."""
        labels = call.model, call.action, call.transport, call.version, call.signature
        self._requests(*labels, code.name).inc()
        if code is Code.OK:
            seconds = time.perf_counter() - (call.started or call.arrived)
            self._request_latency(*labels).observe(seconds * 1e6)

    def record_run(self, model: str, method: str, seconds: float) -> None:
        """Records that a model ran for a request."""
        self._run_latency(model, method, "TF1").observe(seconds * 1e6)

    def record_examples(self, model: str, number: int) -> None:
        """Records the examples of a request: the tf.Examples of Classify and Regress, the rows of Predict."""
        self._examples(model).observe(number)
        self._all_examples(model).inc(number)

    def record_request_log(self, model: str, code: Code) -> None:
        """Records that a request was written to the request log, or dropped."""
        self._logged_requests(model, code.name).inc()

    def record_load(self, model_path: str, code: Code, seconds: float) -> None:
        """Records that a version was loaded, or could not be."""
        self._loads(model_path, "success" if code is Code.OK else "fail").inc()
        self._load_time(model_path).inc(round(seconds * 1e6))

    def record_warmup(self, model_path: str, code: Code, seconds: float, num_records: int) -> None:
        """Records a version's warm-up."""
        self._warmup_latency(model_path, code.name).observe(seconds * 1e6)
        self._warmup_records(model_path).inc(num_records)

    def record_batch(self, thread_pool: str, sizes: Sequence[int], padded_size: int, waits: Sequence[float]) -> None:
        """Records that requests ran together: the rows of each, the rows with the padding, the wait of each."""
        self._batches().inc()
        self._padding(padded_size).observe(padded_size - sum(sizes))
        self._batch_size().observe(padded_size)
        for size, wait in zip(sizes, waits, strict=True):
            self._input_size().observe(size)
            self._queuing_latency(thread_pool).observe(wait * 1e6)

    def total(self, path: str) -> int:
        """The sum of a counter over all its labels; 0 where there is none of this path."""
        counter = self._by_path.get(path)
        families = counter.collect() if isinstance(counter, Counter) else ()
        samples = [sample for family in families for sample in family.samples if not _is_creation(sample)]
        return int(sum(sample.value for sample in samples))

    def prometheus_page(self, accept: str) -> tuple[bytes, str]:
        """The page with valid names in the format that an Accept header asks for, and its content type."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

    def tensorflow_page(self) -> bytes:
        """The page of TensorFlow Serving (util/prometheus_exporter.cc)."""
        lines = [line for path, metric in self._by_path.items() for line in _upstream_lines(path, metric)]
        return "\n".join([*lines, ""]).encode()


class _Registry(CollectorRegistry):
    """Leaves out the times at which series began, which double the number of series."""

    def collect(self) -> Iterable[Metric]:
        for family in super().collect():
            family.samples = [sample for sample in family.samples if not _is_creation(sample)]
            yield family


def _valid_name(path: str) -> str:
    return path.strip("/").replace("/", "_")


def _exponential(first: float, growth: float, number: int) -> list[float]:
    """The limits of monitoring::Buckets::Exponential, rounded as TensorFlow Serving prints them."""
    return [float(f"{first * growth**power:g}") for power in range(number)]


def _is_creation(sample: Sample) -> bool:
    return sample.name.endswith("_created")


def _upstream_lines(path: str, metric: Counter | Histogram) -> list[str]:
    name, merged = path.replace("/", ":"), dict[str, float]()
    samples = [sample for family in metric.collect() for sample in family.samples if not _is_creation(sample)]
    for _, group in groupby(samples, lambda sample: {**sample.labels, "le": ""}):
        series = sorted(
            group, key=lambda sample: sample.name.endswith("_count")
        )  # which the library has before the sum
        if not any(sample.value for sample in series):  # a metric without labels that was never recorded
            continue
        for sample in series:
            suffix = sample.name[sample.name.rindex("_") :] if isinstance(metric, Histogram) else ""
            key = f"{name}{suffix}{{{_upstream_labels(path, sample.labels)}}}"
            merged[key] = merged.get(key, 0) + sample.value
    kind = "histogram" if isinstance(metric, Histogram) else "counter"
    return [f"# TYPE {name} {kind}", *(f"{key} {value:.15g}" for key, value in merged.items())]


def _upstream_labels(path: str, labels: Mapping[str, str]) -> str:
    kept = {name: labels[ours] for name, ours in _UPSTREAM_LABELS.get(path, {}).items()} or dict(labels)
    if "le" in labels:
        kept["le"] = f"{float(labels['le']):g}".replace("inf", "+Inf")
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in kept.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
