"""What the server counts: the metrics of TensorFlow Serving, with the version and the signature as well.

The names are TensorFlow Serving's paths (servables/tensorflow/util.cc and others); `metrics_pages` writes them out.
"""

import time
from typing import NamedTuple

from serving.batching.runner import BatchRecord
from serving.errors import Code
from serving.request_facts import facts
from serving.telemetry.series import Counter, Histogram, exponential

GRPC, REST = "GRPC", "REST"

_LATENCY_LIMITS = exponential(10, 1.8, 33)  # microseconds: up to about an hour
_SIZE_LIMITS = exponential(1, 2, 15)
_BATCHING = "/tensorflow/serving/batching_session"


class Caller(NamedTuple):
    """Which request is counted. A request that failed may not have come to a version or a signature."""

    model: str
    method: str
    transport: str
    version: str = ""
    signature: str = ""


class Metrics:
    """All metrics of one server. Times are in seconds here, and in microseconds in what is written."""

    def __init__(self) -> None:
        self.request_count = Counter(
            "/tensorflow/serving/request_count", "Requests, by how they ended.", (*Caller._fields, "status")
        )
        self.request_latency = Histogram(
            "/tensorflow/serving/request_latency",
            "Time from a request's arrival to its answer, where it succeeded, in microseconds.",
            Caller._fields,
            _LATENCY_LIMITS,
        )
        self.runtime_latency = Histogram(
            "/tensorflow/serving/runtime_latency",
            "Time that a model took to run for a request, in microseconds.",
            ("model_name", "API", "runtime"),
            _LATENCY_LIMITS,
        )
        self.example_counts = Histogram(
            "/tensorflow/serving/request_example_counts", "Examples of a request.", ("model",), _SIZE_LIMITS
        )
        self.example_count_total = Counter(
            "/tensorflow/serving/request_example_count_total", "Examples of all requests.", ("model",)
        )
        self.warmup_latency = Histogram(
            "/tensorflow/serving/model_warmup_latency",
            "Time of a version's warm-up, in microseconds.",
            ("model_path", "status"),
            _LATENCY_LIMITS,
        )
        self.warmup_records = Counter(
            "/tensorflow/serving/model_warmup_records_read", "Requests replayed at warm-up.", ("model_path",)
        )
        self.load_attempts = Counter(
            "/tensorflow/cc/saved_model/load_attempt_count", "Loads of a version.", ("model_path", "status")
        )
        self.load_latency = Counter(
            "/tensorflow/cc/saved_model/load_latency", "Time spent loading, in microseconds.", ("model_path",)
        )
        self.request_log_count = Counter(
            "/tensorflow/serving/request_log_count",
            "Requests in the sample of the request log: written where OK, dropped otherwise.",
            ("model_name", "status_code"),
        )
        self._add_batching()

    def _add_batching(self) -> None:
        self.queuing_latency = Histogram(
            f"{_BATCHING}/queuing_latency",
            "Time that a request waited for others, in microseconds.",
            ("thread_pool_name",),
            exponential(100, 1.2, 52),
        )
        self.wrapped_runs = Counter(f"{_BATCHING}/wrapped_run_count", "Runs of batches.", ())
        self.padding_size = Histogram(
            f"{_BATCHING}/padding_size", "Rows that filled a run up.", ("execution_batch_size",), _SIZE_LIMITS
        )
        self.input_batch_size = Histogram(f"{_BATCHING}/input_batch_size", "Rows of a request.", (), _SIZE_LIMITS)
        self.processed_batch_size = Histogram(f"{_BATCHING}/processed_batch_size", "Rows of a run.", (), _SIZE_LIMITS)

    def all(self) -> list[Counter | Histogram]:
        """Every metric, in the order of definition."""
        return list(vars(self).values())

    def total(self, name: str) -> int:
        """What a counter has counted, whatever the labels; 0 where there is none of this name."""
        counters = [metric for metric in self.all() if isinstance(metric, Counter) and metric.name == name]
        return sum(sum(each.values().values()) for each in counters)

    def record_request(self, caller: Caller, code: Code, seconds: float) -> None:
        """A request was answered. Only the time of those that succeeded tells something."""
        facts.model, facts.version, facts.signature = caller.model, caller.version, caller.signature
        self.request_count.add((*caller, code.name))
        if code == Code.OK:
            self.request_latency.add(caller, seconds * 1e6)

    def record_run(self, model: str, method: str, seconds: float) -> None:
        """A model ran for a request."""
        facts.run_time, facts.run_ended = seconds, time.perf_counter()
        self.runtime_latency.add((model, method, "TF1"), seconds * 1e6)

    def record_request_log(self, model: str, code: Code) -> None:
        """A request was written to the request log, or dropped."""
        self.request_log_count.add((model, code.name))

    def record_examples(self, model: str, number: int) -> None:
        """A request brought so many examples: the tf.Examples of Classify and Regress, the rows of Predict."""
        self.example_counts.add((model,), number)
        self.example_count_total.add((model,), number)

    def record_load(self, model_path: str, code: Code, seconds: float) -> None:
        """A version was loaded, or failed to."""
        self.load_attempts.add((model_path, "success" if code == Code.OK else "fail"))
        self.load_latency.add((model_path,), round(seconds * 1e6))

    def record_warmup(self, model_path: str, code: Code, seconds: float, num_records: int) -> None:
        """A version was warmed up."""
        self.warmup_latency.add((model_path, code.name), seconds * 1e6)
        self.warmup_records.add((model_path,), num_records)

    def record_batch(self, batch: BatchRecord) -> None:
        """Requests ran together."""
        rows = sum(batch.sizes)
        self.wrapped_runs.add(())
        self.padding_size.add((str(batch.padded_size),), batch.padded_size - rows)
        self.processed_batch_size.add((), batch.padded_size)
        for size, wait in zip(batch.sizes, batch.waits, strict=True):
            self.input_batch_size.add((), size)
            self.queuing_latency.add((batch.thread_pool_name,), wait * 1e6)
