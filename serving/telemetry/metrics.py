"""The metrics of one server: TensorFlow Serving's, with the version and the signature as further labels.

TensorFlow Serving names them by paths (servables/tensorflow/util.cc and others). Its page turns a path into a name with
colons, which Prometheus reserves for its own rules. So there is a second page, with valid names and with all labels.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import groupby

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder

from serving.call import Call
from serving.errors import Code

_REQUEST = ("model", "method", "transport", "version", "signature")
# The labels of TensorFlow Serving's page, where it has fewer than there are here.
_UPSTREAM_LABELS = {
    "/tensorflow/serving/request_count": {"model_name": "model", "status": "status"},
    "/tensorflow/serving/request_latency": {"model_name": "model", "API": "method", "entrypoint": "transport"},
}


class Metrics:
    """Counts and times what happens. Times are in seconds here, and in microseconds on the pages.

    A series stays for ever, so clients must not invent labels: they name models, versions and signatures that exist.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)
        self._by_path: dict[str, Counter | Histogram] = {}
        latencies = _exponential(10, 1.8, 33)  # microseconds: up to about an hour
        sizes = _exponential(1, 2, 15)
        self._add_requests("/tensorflow/serving", latencies, sizes)
        self._add_loads("/tensorflow/serving", "/tensorflow/cc/saved_model", latencies)
        self._add_batches("/tensorflow/serving/batching_session", sizes)

    def _add_requests(self, path: str, latencies: Sequence[float], sizes: Sequence[float]) -> None:
        counter, histogram = self._counter, self._histogram
        self._requests = counter(f"{path}/request_count", "Requests", *_REQUEST, "status")
        meaning = "Microseconds from when a thread took a request to its answer, where it succeeded"
        self._latency = histogram(f"{path}/request_latency", meaning, latencies, *_REQUEST)
        meaning = "Microseconds that a model took to run for a request"
        self._run_latency = histogram(f"{path}/runtime_latency", meaning, latencies, "model_name", "API", "runtime")
        self._examples = histogram(f"{path}/request_example_counts", "Examples of a request", sizes, "model")
        self._all_examples = counter(f"{path}/request_example_count_total", "Examples of all requests", "model")
        meaning = "Requests in the sample of the request log: OK if written, else dropped"
        self._logged = counter(f"{path}/request_log_count", meaning, "model_name", "status_code")

    def _add_loads(self, path: str, saved_model: str, latencies: Sequence[float]) -> None:
        counter, histogram = self._counter, self._histogram
        meaning = "Microseconds of a version's warm-up"
        self._warmup = histogram(f"{path}/model_warmup_latency", meaning, latencies, "model_path", "status")
        self._replayed = counter(f"{path}/model_warmup_records_read", "Requests replayed at warm-up", "model_path")
        self._loads = counter(f"{saved_model}/load_attempt_count", "Loads of a version", "model_path", "status")
        self._load_time = counter(f"{saved_model}/load_latency", "Microseconds spent loading", "model_path")

    def _add_batches(self, path: str, sizes: Sequence[float]) -> None:
        counter, histogram = self._counter, self._histogram
        meaning, waits = "Microseconds that a request waited for others", _exponential(100, 1.2, 52)
        self._waits = histogram(f"{path}/queuing_latency", meaning, waits, "thread_pool_name")
        self._batches = counter(f"{path}/wrapped_run_count", "Runs of batches")
        self._padding = histogram(f"{path}/padding_size", "Rows that padded a run", sizes, "execution_batch_size")
        self._input_size = histogram(f"{path}/input_batch_size", "Rows of a request", sizes)
        self._batch_size = histogram(f"{path}/processed_batch_size", "Rows of a run", sizes)

    def _counter(self, path: str, meaning: str, *labels: str) -> Callable[..., Counter]:
        counter = self._by_path[path] = Counter(_valid_name(path), meaning, labels, registry=self.registry)
        return cache(counter.labels) if labels else lambda: counter  # a look-up takes 0.1 us instead of 1.2

    def _histogram(self, path: str, meaning: str, limits: Sequence[float], *labels: str) -> Callable[..., Histogram]:
        name = _valid_name(path)
        histogram = self._by_path[path] = Histogram(name, meaning, labels, registry=self.registry, buckets=limits)
        return cache(histogram.labels) if labels else lambda: histogram

    def record_request(self, call: Call, code: Code) -> None:
        """Records the end of a request. One that failed may lack a version and a signature, and has no latency."""
        labels = call.model, call.action, call.transport, call.version, call.signature
        self._requests(*labels, code.name).inc()
        if code is Code.OK:
            self._latency(*labels).observe((time.perf_counter() - (call.started or call.arrived)) * 1e6)

    def record_run(self, model: str, method: str, seconds: float) -> None:
        """Records that a model ran for a request."""
        self._run_latency(model, method, "TF1").observe(seconds * 1e6)

    def record_examples(self, model: str, number: int) -> None:
        """Records the examples of a request: the tf.Examples of Classify and Regress, the rows of Predict."""
        self._examples(model).observe(number)
        self._all_examples(model).inc(number)

    def record_request_log(self, model: str, code: Code) -> None:
        """Records that a request was written to the request log, or dropped."""
        self._logged(model, code.name).inc()

    def record_load(self, model_path: str, code: Code, seconds: float) -> None:
        """Records that a version was loaded, or could not be."""
        self._loads(model_path, "success" if code is Code.OK else "fail").inc()
        self._load_time(model_path).inc(round(seconds * 1e6))

    def record_warmup(self, model_path: str, code: Code, seconds: float, num_records: int) -> None:
        """Records a version's warm-up."""
        self._warmup(model_path, code.name).observe(seconds * 1e6)
        self._replayed(model_path).inc(num_records)

    def record_batch(self, thread_pool: str, sizes: Sequence[int], padded_size: int, waits: Sequence[float]) -> None:
        """Records that requests ran together: the rows of each, the rows with the padding, the wait of each."""
        self._batches().inc()
        self._padding(padded_size).observe(padded_size - sum(sizes))
        self._batch_size().observe(padded_size)
        for size, wait in zip(sizes, waits, strict=True):
            self._input_size().observe(size)
            self._waits(thread_pool).observe(wait * 1e6)

    def total(self, path: str) -> int:
        """The sum of a counter over all its labels; 0 where there is none of this path."""
        name = _valid_name(path).removesuffix("_total") + "_total"
        families = self.registry.restricted_registry([name]).collect()
        return int(sum(sample.value for family in families for sample in family.samples))

    def prometheus_page(self, accept: str) -> tuple[bytes, str]:
        """The page with valid names in the format that an Accept header asks for, and its content type."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

    def tensorflow_page(self) -> bytes:
        """The page of TensorFlow Serving (util/prometheus_exporter.cc)."""
        lines = [line for path, metric in self._by_path.items() for line in _upstream_lines(path, metric)]
        return "\n".join([*lines, ""]).encode()


def _valid_name(path: str) -> str:
    return path.strip("/").replace("/", "_")


def _exponential(first: float, growth: float, number: int) -> list[float]:
    """The limits of monitoring::Buckets::Exponential, rounded as TensorFlow Serving prints them."""
    return [float(f"{first * growth**power:g}") for power in range(number)]


def _upstream_lines(path: str, metric: Counter | Histogram) -> list[str]:
    name, kind = path.replace("/", ":"), "histogram" if isinstance(metric, Histogram) else "counter"
    merged = dict[str, float]()
    for family in metric.collect():
        for _, series in groupby(family.samples, lambda sample: {**sample.labels, "le": ""}):
            kept = [sample for sample in series if not sample.name.endswith("_created")]
            samples = sorted(kept, key=lambda sample: sample.name.endswith("_count"))  # to behind the sum
            if not any(sample.value for sample in samples):  # a metric without labels that was never recorded
                continue
            for sample in samples:
                suffix = sample.name[sample.name.rindex("_") :] if kind == "histogram" else ""
                key = f"{name}{suffix}{{{_upstream_labels(path, sample.labels)}}}"
                merged[key] = merged.get(key, 0) + sample.value
    return [f"# TYPE {name} {kind}", *(f"{key} {value:.15g}" for key, value in merged.items())]


def _upstream_labels(path: str, labels: Mapping[str, str]) -> str:
    kept = {name: labels[ours] for name, ours in _UPSTREAM_LABELS.get(path, {}).items()} or dict(labels)
    if "le" in labels:
        kept["le"] = f"{float(labels['le']):g}".replace("inf", "+Inf")
    escaped = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
    return ",".join(f'{name}="{value.translate(escaped)}"' for name, value in kept.items())
