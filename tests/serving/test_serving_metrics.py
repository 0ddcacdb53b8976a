"""What is counted, and how both pages show it."""

import threading

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from serving.batching.runner import BatchRecord
from serving.errors import Code
from serving.telemetry.metrics import GRPC, REST, Caller, Metrics
from serving.telemetry.pages import PrometheusPage, tensorflow_page
from serving.telemetry.series import MOST_SERIES, Counter, Histogram, exponential

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def metrics():
    return Metrics()


def upstream_lines(metrics, start):
    return [line for line in tensorflow_page(metrics).decode().splitlines() if line.startswith(start)]


def samples(metrics, name):
    page, _ = PrometheusPage(metrics).write("")
    families = parse(page.decode())
    return [sample for family in families for sample in family.samples if sample.name == name]


def test_requests_are_counted_under_both_names(metrics):
    for version in ("1", "2", "2"):
        metrics.record_request(Caller("m", "predict", REST, version, "serving_default"), Code.OK, 1e-4)
    metrics.record_request(Caller("m", "Predict", GRPC), Code.NOT_FOUND, 1e-4)
    assert upstream_lines(metrics, ":tensorflow:serving:request_count") == [
        ':tensorflow:serving:request_count{model_name="m",status="OK"} 3',
        ':tensorflow:serving:request_count{model_name="m",status="NOT_FOUND"} 1',
    ]
    assert "# TYPE :tensorflow:serving:request_count counter" in tensorflow_page(metrics).decode().splitlines()
    counted = {
        tuple(map(each.labels.get, (*Caller._fields, "status"))): each.value
        for each in samples(metrics, "tensorflow_serving_request_count_total")
    }
    assert counted == {
        ("m", "predict", "REST", "1", "serving_default", "OK"): 1,
        ("m", "predict", "REST", "2", "serving_default", "OK"): 2,
        ("m", "Predict", "GRPC", "", "", "NOT_FOUND"): 1,
    }


def test_latencies_are_those_of_success_in_upstreams_buckets(metrics):
    for seconds in (9e-6, 10e-6, 11e-6, 10_000.0):
        metrics.record_request(Caller("m", "predict", REST, "1"), Code.OK, seconds)
    metrics.record_request(Caller("m", "predict", REST, "2"), Code.OK, 5e-6)
    metrics.record_request(Caller("m", "predict", REST), Code.INTERNAL, 5e-6)
    lines = upstream_lines(metrics, ":tensorflow:serving:request_latency")
    labels = 'model_name="m",API="predict",entrypoint="REST"'
    name = ":tensorflow:serving:request_latency"
    assert lines[:4] == [
        f'{name}_bucket{{{labels},le="10"}} 3',
        f'{name}_bucket{{{labels},le="18"}} 4',
        f'{name}_bucket{{{labels},le="32.4"}} 4',
        f'{name}_bucket{{{labels},le="58.32"}} 4',
    ]
    assert len(lines) == 33 + 1 + 2
    assert lines[-3:] == [
        f'{name}_bucket{{{labels},le="+Inf"}} 5',
        f"{name}_sum{{{labels}}} 10000000035",
        f"{name}_count{{{labels}}} 5",
    ]


def test_runs_examples_loads_and_warmups_are_counted(metrics):
    metrics.record_run("m", "Predict", 20e-6)
    metrics.record_examples("m", 3)
    metrics.record_load("/models/m/1", Code.OK, 1.5)
    metrics.record_load("/models/m/2", Code.NOT_FOUND, 0.5)
    metrics.record_warmup("/models/m/1", Code.OK, 0.25, 7)
    page = tensorflow_page(metrics).decode().splitlines()
    for line in (
        ':tensorflow:serving:runtime_latency_bucket{model_name="m",API="Predict",runtime="TF1",le="32.4"} 1',
        ':tensorflow:serving:request_example_counts_bucket{model="m",le="2"} 0',
        ':tensorflow:serving:request_example_counts_bucket{model="m",le="4"} 1',
        ':tensorflow:serving:request_example_count_total{model="m"} 3',
        ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/m/1",status="success"} 1',
        ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/m/2",status="fail"} 1',
        ':tensorflow:cc:saved_model:load_latency{model_path="/models/m/1"} 1500000',
        ':tensorflow:serving:model_warmup_latency_sum{model_path="/models/m/1",status="OK"} 250000',
        ':tensorflow:serving:model_warmup_records_read{model_path="/models/m/1"} 7',
    ):
        assert line in page


def test_batches_are_counted(metrics):
    metrics.record_batch(BatchRecord("pool", sizes=[1, 2], padded_size=4, waits=[50e-6, 200e-6]))
    page = tensorflow_page(metrics).decode().splitlines()
    for line in (
        ":tensorflow:serving:batching_session:wrapped_run_count{} 1",
        ':tensorflow:serving:batching_session:queuing_latency_bucket{thread_pool_name="pool",le="100"} 1',
        ':tensorflow:serving:batching_session:queuing_latency_count{thread_pool_name="pool"} 2',
        ':tensorflow:serving:batching_session:padding_size_bucket{execution_batch_size="4",le="1"} 1',
        ':tensorflow:serving:batching_session:input_batch_size_bucket{le="1"} 1',
        ":tensorflow:serving:batching_session:input_batch_size_sum{} 3",
        ':tensorflow:serving:batching_session:processed_batch_size_bucket{le="4"} 1',
    ):
        assert line in page


@pytest.mark.parametrize(
    ("accept", "content_type", "parser"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8", parse),
        (
            "application/openmetrics-text; version=1.0.0",
            "application/openmetrics-text; version=1.0.0",
            parse_openmetrics,
        ),
    ],
    ids=["text", "openmetrics"],
)
def test_prometheus_page_is_valid_and_complete(metrics, accept, content_type, parser):
    metrics.record_request(Caller('a"\\\n', "predict", REST), Code.OK, 1e-3)
    page, given = PrometheusPage(metrics).write(accept)
    assert given.startswith(content_type)
    families = {family.name: family for family in parser(page.decode())}
    served = {name for name in families if name.startswith("tensorflow")}
    assert len(served) == len(metrics.all())
    (count,) = families["tensorflow_serving_request_latency"].samples[-2:-1]
    assert count.labels["model"] == 'a"\\\n'
    assert {"python_info", "python_gc_objects_collected", "process_cpu_seconds"} <= families.keys()


def test_labels_are_escaped_on_the_upstream_page(metrics):
    metrics.record_examples('a"\\\n', 1)
    assert upstream_lines(metrics, ":tensorflow:serving:request_example_count_total") == [
        ':tensorflow:serving:request_example_count_total{model="a\\"\\\\\\n"} 1'
    ]


@pytest.mark.parametrize(
    "metric", [Counter("c", "", ["model"]), Histogram("h", "", ["model"], [1.0])], ids=["counter", "histogram"]
)
def test_names_that_clients_make_up_do_not_fill_the_memory(metric):
    for number in range(2 * MOST_SERIES):
        metric.add((str(number),), 1)
    values = metric.values()
    assert len(values) == MOST_SERIES + 1
    other = values["(other)",]
    assert (other if isinstance(other, int) else sum(other.counts)) == MOST_SERIES


def test_nothing_is_lost_between_threads(metrics):
    caller = Caller("m", "predict", REST)
    threads = [
        threading.Thread(target=lambda: [metrics.record_request(caller, Code.OK, 1e-5) for _ in range(2000)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.request_count.values() == {(*caller, "OK"): 16_000}
    assert sum(metrics.request_latency.values()[caller].counts) == 16_000


def test_buckets_grow_exponentially():
    assert exponential(10, 1.8, 3) == pytest.approx([10, 18, 32.4], rel=1e-12)
