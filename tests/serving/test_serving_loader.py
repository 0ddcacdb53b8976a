"""How versions are loaded: what the flags for sessions, batching and metrics do."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.errors import ServingError
from serving.options import Options
from serving.repository.loader import Loader, make_session_config
from serving.server import Server
from serving.telemetry.metrics import Metrics

pytestmark = pytest.mark.xdist_group("serving")

ONE = np.float32([1])

PARALLELISM = {
    "default": ({}, (0, 0)),
    "session": ({"tensorflow_session_parallelism": 3}, (3, 3)),
    "operations": ({"tensorflow_intra_op_parallelism": 2}, (2, 0)),
    "both": ({"tensorflow_intra_op_parallelism": 2, "tensorflow_inter_op_parallelism": 4}, (2, 4)),
}


@pytest.mark.parametrize(("flags", "threads"), PARALLELISM.values(), ids=PARALLELISM)
def test_session_parallelism(flags, threads):
    config = make_session_config(Options(**flags))
    assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == threads


def test_flags_go_before_the_session_config_file(tmp_path):
    path = tmp_path / "session.config"
    path.write_text("inter_op_parallelism_threads: 7 log_device_placement: true")
    config = make_session_config(Options(tensorflow_session_config_file=str(path)))
    assert (config.inter_op_parallelism_threads, config.log_device_placement) == (7, True)
    flags = {"tensorflow_session_config_file": str(path), "tensorflow_session_parallelism": 1}
    config = make_session_config(Options(**flags))
    assert (config.inter_op_parallelism_threads, config.log_device_placement) == (1, True)


def test_flags_for_gpus_and_precision(tmp_path):
    path = tmp_path / "session.config"
    path.write_text("gpu_options { per_process_gpu_memory_fraction: 0.5 allow_growth: true }")
    file = {"tensorflow_session_config_file": str(path)}
    assert make_session_config(Options(**file)).gpu_options.per_process_gpu_memory_fraction == 0.5
    config = make_session_config(Options(per_process_gpu_memory_fraction=0.25, mixed_precision="bfloat16", **file))
    assert (config.gpu_options.per_process_gpu_memory_fraction, config.gpu_options.allow_growth) == (0.25, True)
    rewrites = config.graph_options.rewrite_options
    assert rewrites.auto_mixed_precision_onednn_bfloat16 == rewrites.ON


def test_model_answers_in_mixed_precision(serve, grpc_stubs, predict_request, zoo_path):
    with serve(zoo_path, mixed_precision="bfloat16") as server, grpc_stubs(server) as stubs:
        assert list(stubs.prediction.Predict(predict_request(x=ONE)).outputs["y"].float_val) == [2.5]


COMPILED = """
import sys
from pathlib import Path
import tensorflow as tf
from serving.options import Options
from serving.repository.loader import Loader
from serving.telemetry.metrics import Metrics

module = tf.Module()
module.compiled = tf.function(lambda x: {"y": 2 * x}, [tf.TensorSpec([None], tf.float32)], jit_compile=True)
tf.saved_model.save(module, sys.argv[1], tf.function(module.compiled, [tf.TensorSpec([None], tf.float32)]))
for may_compile in ({}, {"xla_cpu_compilation_enabled": False}, dict.fromkeys(
    ("xla_cpu_compilation_enabled", "xla_gpu_compilation_enabled"), False)):
    model = Loader(Options(**may_compile), Metrics())(Path(sys.argv[1]))
    try:
        print(model.run("", {"x": tf.constant([1.0]).numpy()})["y"].tolist())
    except Exception as error:
        print(error)
"""


@pytest.mark.slow
def test_xla_compiles_unless_that_is_forbidden(tmp_path):
    command = [sys.executable, "-c", COMPILED, str(tmp_path / "1")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    first, second, third, *_ = answer.stdout.splitlines()
    assert (first, second) == ("[2.0]", "[2.0]")
    assert third == "INTERNAL: XLA compilation disabled"


@pytest.mark.parametrize("flag", ["tensorflow_session_config_file", "batching_parameters_file"])
def test_file_that_does_not_parse(tmp_path, flag):
    path = tmp_path / "parameters"
    path.write_text("no_such_field: 1")
    with pytest.raises(ServingError, match=f"^INVALID_ARGUMENT: Invalid protobuf file: '{path}'$"):
        Loader(Options(enable_batching=True, **{flag: str(path)}), Metrics())


def test_tags_choose_the_graph(serve, zoo_path):
    with (
        pytest.raises(ServingError, match=r"Could not find meta graph def matching supplied tags: \{ gpu serve \}"),
        serve(zoo_path, saved_model_tags="serve,gpu"),
    ):
        pass
    with serve(zoo_path, saved_model_tags="serve") as server:
        assert server.grpc_port


@pytest.fixture
def batching_file(tmp_path):
    path = tmp_path / "batching.config"
    path.write_text(
        "max_batch_size { value: 4 } batch_timeout_micros { value: 10000000 } allowed_batch_sizes: 4 "
        "num_batch_threads { value: 1 }"
    )
    return str(path)


def num_batches(server):
    return server.service.metrics.total("/tensorflow/serving/batching_session/wrapped_run_count")


def series(server, name):
    """The values of a metric's samples, by the values of their labels."""
    families = server.service.metrics.registry.collect()
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {tuple(sample.labels.values()): sample.value for sample in samples}


def test_requests_run_together(serve, grpc_stubs, predict_request, zoo_path, batching_file):
    options = {"enable_batching": True, "batching_parameters_file": batching_file}
    with (
        serve(zoo_path, **options) as server,
        grpc_stubs(server) as stubs,
        ThreadPoolExecutor(4) as clients,
    ):
        # A batch waits ten seconds for company, so these are answered soon only if they become one.
        requests = [predict_request(x=np.float32([number])) for number in range(4)]
        answers = list(clients.map(lambda each: stubs.prediction.Predict(each, timeout=8), requests))
        assert [list(each.outputs["y"].float_val) for each in answers] == [[2], [2.5], [3], [3.5]]
        assert num_batches(server) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("threads", "runs"), [(1, 2), (2, 1)], ids=["one-thread", "two-threads"])
def test_rest_threads_bound_what_runs_together(serve, rest_client, zoo_path, tmp_path, threads, runs):
    (tmp_path / "batching").write_text(
        "max_batch_size { value: 2 } allowed_batch_sizes: 2 num_batch_threads { value: 1 } "
        f"batch_timeout_micros {{ value: {200_000 if threads == 1 else 10_000_000} }}"
    )
    options = {"enable_batching": True, "batching_parameters_file": str(tmp_path / "batching")}
    with (
        serve(zoo_path, rest_api_num_threads=threads, **options) as server,
        rest_client(server) as rest,
        ThreadPoolExecutor(2) as clients,
    ):
        answers = clients.map(lambda x: rest.post("/v1/models/zoo:predict", json={"instances": [x]}).json(), (0, 1))
        assert list(answers) == [{"predictions": [2.0]}, {"predictions": [2.5]}]
        assert num_batches(server) == runs


def test_request_larger_than_a_batch(serve, grpc_stubs, predict_request, status_of, zoo_path, batching_file):
    options = {"enable_batching": True, "batching_parameters_file": batching_file}
    with serve(zoo_path, **options) as server, grpc_stubs(server) as stubs:
        request = predict_request(x=np.zeros(5, np.float32))
        assert status_of(stubs.prediction.Predict, request) == (
            "INVALID_ARGUMENT",
            "Task size 5 is larger than maximum input batch size 4",
        )


@pytest.mark.parametrize(("has_file", "expected"), [(True, 1), (False, 0)], ids=["with-file", "without"])
def test_version_says_itself_how_it_is_batched(
    serve, grpc_stubs, predict_request, zoo_path, tmp_path, has_file, expected
):
    shutil.copytree(zoo_path, tmp_path / "models")
    if has_file:
        (tmp_path / "models" / "00000123" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    options = {"enable_batching": True, "enable_per_model_batching_parameters": True}
    with serve(tmp_path / "models", **options) as server, grpc_stubs(server) as stubs:
        answer = stubs.prediction.Predict(predict_request(x=ONE))
        assert list(answer.outputs["y"].float_val) == [2.5]
        assert num_batches(server) == expected


@pytest.mark.slow
def test_requests_are_counted(serve, grpc_stubs, predict_request, status_of, zoo_path):
    with serve(zoo_path) as server, grpc_stubs(server) as stubs:
        for _ in range(2):
            stubs.prediction.Predict(predict_request(x=np.float32([1, 2, 3])))
        status_of(stubs.prediction.Predict, predict_request("s", x=ONE))
        status_of(stubs.prediction.Predict, predict_request(model="made-up", x=ONE))
        assert series(server, "tensorflow_serving_request_count_total") == {
            ("zoo", "Predict", "GRPC", "123", "serving_default", "OK"): 2,
            ("zoo", "Predict", "GRPC", "123", "", "FAILED_PRECONDITION"): 1,
            # Names that clients make up are not kept: each would take memory for ever.
            ("", "Predict", "GRPC", "", "", "NOT_FOUND"): 1,
        }
        assert series(server, "tensorflow_serving_request_latency_count") == {
            ("zoo", "Predict", "GRPC", "123", "serving_default"): 2
        }
        assert series(server, "tensorflow_serving_request_example_count_total") == {("zoo",): 6 + 1}
        assert series(server, "tensorflow_cc_saved_model_load_attempt_count_total") == {
            (str(zoo_path / "00000123"), "success"): 1
        }


def test_failed_load_is_counted(tmp_path):
    (tmp_path / "1").mkdir()
    server = Server(Options(model_base_path=str(tmp_path), max_num_load_retries=0), pick_free_ports=True)
    with pytest.raises(ServingError):
        server.start()
    assert series(server, "tensorflow_cc_saved_model_load_attempt_count_total") == {(str(tmp_path / "1"), "fail"): 1}
