"""What is counted, and how both pages show it."""

import threading
import time

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from serving.call import GRPC, REST, Call
from serving.errors import Code
from serving.telemetry.metrics import Metrics

EXAMPLES = "/tensorflow/serving/request_example_count_total"


@pytest.fixture
def metrics():
    return Metrics()


def call(model="m", action="predict", transport=REST, seconds=1e-4, **known):
    """A call that a thread has worked on for that long."""
    return Call(model=model, action=action, transport=transport, started=time.perf_counter() - seconds, **known)


def upstream_lines(metrics, start):
    return [line for line in metrics.tensorflow_page().decode().splitlines() if line.startswith(start)]


def samples(metrics, name):
    page, _ = metrics.prometheus_page("")
    families = parse(page.decode())
    return [sample for family in families for sample in family.samples if sample.name == name]


def test_requests_are_counted_under_both_names(metrics):
    for version in ("1", "2", "2"):
        metrics.record_request(call(version=version, signature="serving_default"), Code.OK)
    metrics.record_request(call(action="Predict", transport=GRPC), Code.NOT_FOUND)
    assert upstream_lines(metrics, ":tensorflow:serving:request_count") == [
        ':tensorflow:serving:request_count{model_name="m",status="OK"} 3',
        ':tensorflow:serving:request_count{model_name="m",status="NOT_FOUND"} 1',
    ]
    assert "# TYPE :tensorflow:serving:request_count counter" in metrics.tensorflow_page().decode().splitlines()
    counted = {
        tuple(map(each.labels.get, ("model", "method", "transport", "version", "signature", "status"))): each.value
        for each in samples(metrics, "tensorflow_serving_request_count_total")
    }
    assert counted == {
        ("m", "predict", "REST", "1", "serving_default", "OK"): 1,
        ("m", "predict", "REST", "2", "serving_default", "OK"): 2,
        ("m", "Predict", "GRPC", "", "", "NOT_FOUND"): 1,
    }


def test_latencies_are_those_of_success_in_upstreams_buckets(metrics):
    for _ in range(2):
        metrics.record_request(call(version="1", seconds=40), Code.OK)
    metrics.record_request(call(version="2", seconds=1000), Code.OK)
    metrics.record_request(call(), Code.INTERNAL)
    lines = upstream_lines(metrics, ":tensorflow:serving:request_latency")
    labels = 'model_name="m",API="predict",entrypoint="REST"'
    name = ":tensorflow:serving:request_latency"
    counts = {line.split('le="')[1].split('"')[0]: int(line.split()[1]) for line in lines[:-2]}
    assert list(counts)[:5] == ["10", "18", "32.4", "58.32", "104.976"]
    assert list(counts)[-3:] == ["8.19309e+08", "1.47476e+09", "+Inf"]
    assert len(counts) == 33 + 1
    limits = "2.40887e+07", "4.33596e+07", "8.19309e+08", "1.47476e+09"
    assert [counts[limit] for limit in limits] == [0, 2, 2, 3]
    assert lines[-2].startswith(f"{name}_sum{{{labels}}} 108")
    assert lines[-1] == f"{name}_count{{{labels}}} 3"


def test_value_at_a_limit_lies_below_it(metrics):
    for seconds in (9e-6, 10e-6, 11e-6):
        metrics.record_run("m", "Predict", seconds)
    labels = 'model_name="m",API="Predict",runtime="TF1"'
    name = ":tensorflow:serving:runtime_latency"
    lines = upstream_lines(metrics, name)
    assert lines[:2] == [f'{name}_bucket{{{labels},le="10"}} 2', f'{name}_bucket{{{labels},le="18"}} 3']
    assert lines[-3:] == [
        f'{name}_bucket{{{labels},le="+Inf"}} 3',
        f"{name}_sum{{{labels}}} 30",
        f"{name}_count{{{labels}}} 3",
    ]


def test_metric_without_labels_is_left_out_until_it_counts(metrics):
    name = ":tensorflow:serving:batching_session:wrapped_run_count"
    assert upstream_lines(metrics, name) == []
    assert f"# TYPE {name} counter" in metrics.tensorflow_page().decode().splitlines()


def test_runs_examples_loads_and_warmups_are_counted(metrics):
    metrics.record_run("m", "Predict", 20e-6)
    metrics.record_examples("m", 3)
    metrics.record_load("/models/m/1", Code.OK, 1.5)
    metrics.record_load("/models/m/2", Code.NOT_FOUND, 0.5)
    metrics.record_warmup("/models/m/1", Code.OK, 0.25, 7)
    page = metrics.tensorflow_page().decode().splitlines()
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
    metrics.record_batch("pool", sizes=[1, 2], padded_size=4, waits=[50e-6, 200e-6])
    page = metrics.tensorflow_page().decode().splitlines()
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
    metrics.record_request(call('a"\\\n'), Code.OK)
    page, given = metrics.prometheus_page(accept)
    assert given.startswith(content_type)
    families = {family.name: family for family in parser(page.decode())}
    served = {name for name in families if name.startswith("tensorflow") and not name.endswith("_created")}
    assert len(served) == metrics.tensorflow_page().count(b"# TYPE ")
    (count,) = [each for each in families["tensorflow_serving_request_latency"].samples if each.name.endswith("_count")]
    assert count.labels["model"] == 'a"\\\n'
    assert {"python_info", "python_gc_objects_collected", "process_cpu_seconds"} <= families.keys()


def test_labels_are_escaped_on_the_upstream_page(metrics):
    metrics.record_examples('a"\\\n', 1)
    assert upstream_lines(metrics, ":tensorflow:serving:request_example_count_total") == [
        ':tensorflow:serving:request_example_count_total{model="a\\"\\\\\\n"} 1'
    ]


def ask_for_names_that_clients_invent(rest, stubs, predict_request, status_of):
    for number in range(3):
        for path in (f"made-up-{number}", f"zoo/versions/{1000 + number}", f"zoo/labels/made-up-{number}"):
            for method in ("predict", "classify", "regress"):
                assert rest.post(f"/v1/models/{path}:{method}", json={"instances": [1]}).status_code in (400, 404)
        body = {"signature_name": f"made-up-{number}", "instances": [1]}
        assert rest.post("/v1/models/zoo:predict", json=body).status_code == 400
        assert rest.post(f"/v1/models/zoo:made-up-{number}", json=body).status_code == 400
        assert status_of(stubs.prediction.Predict, predict_request(f"made-up-{number}"))[0] == "FAILED_PRECONDITION"
        assert status_of(stubs.prediction.Predict, predict_request(model=f"made-up-{number}"))[0] == "NOT_FOUND"


@pytest.mark.xdist_group("serving")
def test_names_that_clients_invent_add_no_series(serve, zoo_path, rest_client, grpc_stubs, predict_request, status_of):
    with serve(zoo_path) as server, rest_client(server) as rest, grpc_stubs(server) as stubs:
        sizes = []
        for _ in range(2):
            ask_for_names_that_clients_invent(rest, stubs, predict_request, status_of)
            families = server.service.metrics.registry.collect()
            sizes.append(sum(len(family.samples) for family in families))
        page = rest.get("/metrics").text
    assert sizes[0] == sizes[1]
    assert "made-up" not in page
    assert 'version="1000"' not in page


def test_nothing_is_lost_between_threads(metrics):
    threads = [
        threading.Thread(target=lambda: [metrics.record_request(call(), Code.OK) for _ in range(2000)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.total("/tensorflow/serving/request_count") == 16_000
    (count,) = samples(metrics, "tensorflow_serving_request_latency_count")
    assert count.value == 16_000


def test_total_of_what_does_not_exist(metrics):
    assert metrics.total("/tensorflow/serving/made_up") == 0
    assert metrics.total("/tensorflow/serving/request_latency") == 0


def test_servers_of_one_process_count_for_themselves(metrics):
    other = Metrics()
    metrics.record_examples("m", 1)
    assert (metrics.total(EXAMPLES), other.total(EXAMPLES)) == (1, 0)
