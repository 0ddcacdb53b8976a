"""Traces of a server that runs, asked for by TensorFlow's own profiler client."""

import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from serving.rpc.profiler import SERVICE
from serving.wire.protos import ProfileRequest, ProfileResponse, TerminateRequest, TerminateResponse

pytestmark = pytest.mark.xdist_group("serving")


@pytest.fixture
def asked(stubs, predict_request):
    """Requests that go on until the test ends."""
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            stubs.prediction.Predict(predict_request(x=np.float32([1])))

    asker = threading.Thread(target=ask)
    asker.start()
    yield
    stop.set()
    asker.join()


@pytest.fixture
def profiler(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:

        def method(name, response_class):
            return channel.unary_unary(
                f"/{SERVICE}/{name}", lambda request: request.SerializeToString(), response_class.FromString
            )

        yield method("Profile", ProfileResponse), method("Terminate", TerminateResponse)


def events(serialized):
    return {
        each.name for plane in xplane_pb2.XSpace.FromString(serialized).planes for each in plane.event_metadata.values()
    }


def test_tensorflows_client_gets_a_trace(server, asked, tmp_path):
    tf.profiler.experimental.client.trace(f"grpc://localhost:{server.grpc_port}", str(tmp_path), 300)
    (trace,) = tmp_path.glob(f"plugins/profile/*/localhost_{server.grpc_port}.xplane.pb")
    assert "SessionRun" in events(trace.read_bytes())


def test_trace_is_sent_back_where_that_is_asked_for(profiler, asked, tmp_path):
    profile, _ = profiler
    response = profile(ProfileRequest(duration_ms=300, emit_xspace=True, repository_root=str(tmp_path)), timeout=20)
    assert not response.empty_trace
    assert "SessionRun" in events(response.xspace)
    assert list(tmp_path.iterdir()) == []


def test_one_trace_at_a_time_and_terminate_ends_it(profiler, status_of):
    profile, terminate = profiler
    request = ProfileRequest(duration_ms=3_600_000, session_id="long", emit_xspace=True)
    # Whichever comes first records, and the other is refused.
    calls = [profile.future(request, timeout=60) for _ in range(2)]
    done = threading.Semaphore(0)
    for call in calls:
        call.add_done_callback(lambda _: done.release())
    done.acquire(timeout=20)
    assert sorted(call.done() for call in calls) == [False, True]
    (refused,) = [call for call in calls if call.done()]
    assert (refused.code(), refused.details()) == (grpc.StatusCode.ALREADY_EXISTS, "Another profiler is running.")
    terminate(TerminateRequest(session_id="long"), timeout=20)
    assert [call.code() for call in calls if call is not refused] == [grpc.StatusCode.OK]


@pytest.mark.parametrize("name", ["..", "../up", "a/b"])
def test_names_with_paths_in_them_are_refused(profiler, status_of, tmp_path, name):
    profile, _ = profiler
    for names in ({"session_id": name}, {"host_name": name}):
        request = ProfileRequest(duration_ms=1, repository_root=str(tmp_path), **names)
        assert status_of(profile, request) == ("INVALID_ARGUMENT", f"{name} is no name for a file")


def test_profiler_can_be_turned_off(serve, zoo_path, status_of):
    with (
        serve(zoo_path, enable_profiler=False) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        profile = channel.unary_unary(f"/{SERVICE}/Profile")
        assert status_of(profile, b"")[0] == "UNIMPLEMENTED"
