"""The gRPC server around the methods: where it listens, what else it answers, what it does not run."""

import contextlib
import socket
import struct
import threading
import time

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow_serving.apis import model_management_pb2, prediction_service_pb2_grpc

from serving.errors import ServingError
from serving.rpc.server import parse_channel_arguments

pytestmark = pytest.mark.xdist_group("serving")

WAIT = 10.0  # seconds that nothing here should take
ONE = np.float32([1])
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def test_unix_socket_answers_as_the_port_does(serve, grpc_stubs, predict_request, zoo_path, tmp_path):
    path = tmp_path / "grpc.sock"
    with serve(zoo_path, grpc_socket_path=str(path)) as server:
        with grpc.insecure_channel(f"unix:{path}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            assert list(stub.Predict(predict_request(x=ONE)).outputs["y"].float_val) == [2.5]
        with grpc_stubs(server) as stubs:
            assert list(stubs.prediction.Predict(predict_request(x=ONE)).outputs["y"].float_val) == [2.5]


def test_channel_arguments_are_parsed():
    assert parse_channel_arguments("grpc.so_reuseport=1,grpc.primary_user_agent=me,grpc.x=-5,") == {
        "grpc.so_reuseport": 1,
        "grpc.primary_user_agent": "me",
        "grpc.x": -5,
    }
    with pytest.raises(ServingError, match="it takes key=value,key=value"):
        parse_channel_arguments("grpc.so_reuseport")


def test_channel_arguments_reach_the_server(serve, grpc_stubs, predict_request, status_of, zoo_path):
    with (
        serve(zoo_path, grpc_channel_arguments="grpc.max_receive_message_length=1000") as server,
        grpc_stubs(server) as stubs,
    ):
        large = predict_request(x=np.zeros(1000, np.float32))
        assert status_of(stubs.prediction.Predict, large)[0] == "RESOURCE_EXHAUSTED"
        assert list(stubs.prediction.Predict(predict_request(x=ONE)).outputs["y"].float_val) == [2.5]


def test_answers_as_tensor_content(serve, grpc_stubs, predict_request, zoo_path):
    with serve(zoo_path, enable_serialization_as_tensor_content=True) as server, grpc_stubs(server) as stubs:
        floats = stubs.prediction.Predict(predict_request(x=np.float32([1, 4]))).outputs["y"]
        assert floats.tensor_content == np.float32([2.5, 4]).tobytes()
        assert list(floats.float_val) == []
        text = stubs.prediction.Predict(predict_request("only_text", s=np.array([b"a"], object))).outputs["text"]
        assert list(text.string_val) == [b"a!"]


def test_request_that_its_client_cancelled_is_not_run(
    serve, grpc_stubs, rest_client, predict_request, tmp_path, counting_path
):
    (tmp_path / "1").mkdir()  # never a model
    options = {"grpc_max_threads": 1, "max_num_load_retries": 5, "load_retry_interval_micros": 3_600_000_000}
    with (
        serve(counting_path, "counting", **options) as server,
        grpc_stubs(server) as stubs,
        rest_client(server) as rest,
    ):
        reload = model_management_pb2.ReloadConfigRequest()
        for name, base_path in (("counting", counting_path), ("broken", tmp_path)):
            reload.config.model_config_list.config.add(name=name, base_path=str(base_path), model_platform="tensorflow")
        holds_the_thread = stubs.model.HandleReloadConfigRequest.future(reload)
        while rest.get("/v1/models/broken").status_code == 404:
            time.sleep(0.01)
        waiting = stubs.prediction.Predict.future(predict_request("count", model="counting", x=ONE))
        time.sleep(0.1)  # if it is not in the queue by now, it is cancelled before, and this proves less
        waiting.cancel()
        holds_the_thread.cancel()
        answer = stubs.prediction.Predict(predict_request("count", model="counting", x=ONE))
        assert list(answer.outputs["runs"].int64_val) == [1]


def test_reload_of_the_configuration_can_be_turned_off(serve, grpc_stubs, predict_request, status_of, zoo_path):
    with serve(zoo_path, enable_reload_config_request=False) as server, grpc_stubs(server) as stubs:
        reload = model_management_pb2.ReloadConfigRequest()
        reload.config.model_config_list.config.add(name="other", base_path="/nowhere", model_platform="tensorflow")
        refusal = "--enable_reload_config_request=false: the models cannot be replaced over gRPC"
        assert status_of(stubs.model.HandleReloadConfigRequest, reload) == ("PERMISSION_DENIED", refusal)
        assert list(stubs.prediction.Predict(predict_request(x=ONE)).outputs["y"].float_val) == [2.5]


def test_reflection_names_the_services(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest
        symbol = "tensorflow.serving.PredictionService"
        listed, described = stub.ServerReflectionInfo(iter([ask(list_services=""), ask(file_containing_symbol=symbol)]))
    names = {each.name for each in listed.list_services_response.service}
    assert names >= {symbol, "tensorflow.serving.ModelService"}
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(each)
        for each in described.file_descriptor_response.file_descriptor_proto
    ]
    methods = {method.name for file in files for service in file.service for method in service.method}
    assert methods == {"Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"}


def test_reflection_can_be_turned_off(serve, zoo_path):
    with (
        serve(zoo_path, enable_grpc_reflection=False) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([]))
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


PREDICT = "/tensorflow.serving.PredictionService/Predict"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
SILENT = {
    "messages": [(PREDICT, 40)],
    "reflection": [(REFLECTION, 40)],
    "more-than-there-are-threads": [(PREDICT, 300), (REFLECTION, 100)],
}


@contextlib.contextmanager
def silent_calls(port, method, number):
    """Calls that have come to the server, and whose clients send no message."""
    closed = threading.Event()

    def no_messages():
        closed.wait()
        yield from ()

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        calls = [channel.stream_stream(method)(no_messages()) for _ in range(number)]
        with pytest.raises(grpc.RpcError, match="Method not found"):  # which is answered in turn
            channel.unary_unary("/nothing")(b"", timeout=WAIT)
        try:
            yield
        finally:
            closed.set()
            for call in calls:
                call.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("kinds", SILENT.values(), ids=SILENT)
def test_calls_without_a_message_hold_up_nobody(serve, grpc_stubs, predict_request, zoo_path, kinds):
    with serve(zoo_path, grpc_max_threads=2) as server, grpc_stubs(server) as stubs, contextlib.ExitStack() as stack:
        for method, number in kinds:
            stack.enter_context(silent_calls(server.grpc_port, method, number))
        for _ in range(3):
            answer = stubs.prediction.Predict(predict_request(x=ONE), timeout=WAIT)
            assert list(answer.outputs["y"].float_val) == [2.5]


def test_calls_without_a_message_do_not_fill_the_queue(serve, grpc_stubs, predict_request, zoo_path):
    with (
        serve(zoo_path, grpc_max_threads=1, max_queued_requests=1) as server,
        silent_calls(server.grpc_port, PREDICT, 40),
        grpc_stubs(server) as stubs,
    ):
        answer = stubs.prediction.Predict(predict_request(x=ONE), timeout=WAIT)
        assert list(answer.outputs["y"].float_val) == [2.5]


def test_too_many_calls_without_a_message_are_refused_from_the_oldest(serve, zoo_path, monkeypatch):
    monkeypatch.setattr("serving.rpc.interceptor._MAX_WAITING", 3)
    closed = threading.Event()

    def no_messages():
        closed.wait()
        yield from ()

    with serve(zoo_path) as server, grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        calls = []
        for method in (PREDICT, REFLECTION, PREDICT, PREDICT, PREDICT):
            calls.append(channel.stream_stream(method)(no_messages()))
            with pytest.raises(grpc.RpcError, match="Method not found"):  # which is answered in turn
                channel.unary_unary("/nothing")(b"", timeout=WAIT)
        assert [call.code().name for call in calls[:2]] == ["RESOURCE_EXHAUSTED"] * 2
        assert {call.details() for call in calls[:2]} == {"Too many calls wait for their clients."}
        assert [call.is_active() for call in calls[2:]] == [True] * 3
        closed.set()
        assert [call.code().name for call in calls[2:]] == ["UNIMPLEMENTED"] * 3


def test_client_that_pings_too_often_is_sent_away(server):
    ping, go_away, calm_down = 6, 7, 11  # RFC 9113, sections 6.7, 6.8 and 7
    with socket.create_connection(("127.0.0.1", server.grpc_port), timeout=WAIT) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        client.sendall((bytes([0, 0, 8, ping, 0, 0, 0, 0, 0]) + b"12345678") * 5)
        with client.makefile("rb") as reader:
            while (head := reader.read(9))[3] != go_away:
                reader.read(int.from_bytes(head[:3]))
            assert int.from_bytes(reader.read(8)[4:]) == calm_down


def settings_of(port):
    """What the server tells of itself in its first frame of HTTP/2 (RFC 9113, section 6.5)."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as client, client.makefile("rb") as reader:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        head = reader.read(9)
        assert head[3] == 4
        return dict(struct.iter_unpack("!HI", reader.read(int.from_bytes(head[:3]))))


@pytest.mark.parametrize(("arguments", "number"), [("", 1000), ("grpc.max_concurrent_streams=7", 7)])
def test_streams_of_a_connection_have_a_limit(serve, zoo_path, arguments, number):
    max_concurrent_streams = 3
    with serve(zoo_path, grpc_channel_arguments=arguments) as server:
        assert settings_of(server.grpc_port)[max_concurrent_streams] == number


def check_health(channel, service=""):
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status


def test_health_is_that_of_the_models(serve, save_plus, tmp_path):
    save_plus(tmp_path / "1", 1)
    options = {"file_system_poll_wait_seconds": 0.05, "enable_grpc_healthcheck_service": True}
    with (
        serve(tmp_path, "plus", **options) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        for service in ("", "PredictionService", "tensorflow.serving.PredictionService", "plus"):
            assert check_health(channel, service) == SERVING
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="plus"), timeout=20)
        assert next(watched).status == SERVING
        (tmp_path / "1").rename(tmp_path / "gone")
        assert next(watched).status == NOT_SERVING
        assert check_health(channel) == NOT_SERVING
        (tmp_path / "gone").rename(tmp_path / "1")
        assert next(watched).status == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            check_health(channel, "unknown")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert next(watched).status == NOT_SERVING
        watched.cancel()  # a stream that stays open would keep the server for its time of grace
        stopping.join()


def test_health_is_off_unless_asked_for(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel, pytest.raises(grpc.RpcError) as caught:
        check_health(channel)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
