"""TensorFlow's ProfilerService: what the server does for a while, for TensorBoard (xla/tsl/profiler/rpc).

`tf.profiler.experimental.client.trace("grpc://localhost:8500", logdir, duration_ms)` asks for it. As everywhere the
server writes the trace, into the directory that its client names.
"""

import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import profiler_options_pb2

from serving.call import Call
from serving.errors import Code, ServingError, invalid_argument
from serving.wire.protos import ProfileRequest, ProfileResponse, TerminateRequest, TerminateResponse

SERVICE = "tensorflow.ProfilerService"

_LOOK = 0.1  # seconds between looks at whether the client still waits
_FILE_NAME = re.compile(r"[\w.:-]+")


class Profiler:
    """The service. TensorFlow records one trace at a time."""

    def __init__(self) -> None:
        self._running: dict[str, threading.Event] = {}

    def handlers(self) -> grpc.GenericRpcHandler:
        """Returns the handlers that a gRPC server needs to answer for it."""
        handler = grpc.unary_unary_rpc_method_handler
        methods = {
            "Profile": handler(self.Profile, ProfileRequest.FromString, ProfileResponse.SerializeToString),
            "Terminate": handler(self.Terminate, TerminateRequest.FromString, TerminateResponse.SerializeToString),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def Profile(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Records for a number of milliseconds; sends the trace back, or writes it to the repository of traces."""
        for name in (request.session_id, request.host_name):
            if name and (not _FILE_NAME.fullmatch(name) or name in (".", "..")):
                raise invalid_argument(f"{name} is no name for a file")
        ended = threading.Event()
        if self._running.setdefault(request.session_id, ended) is not ended:
            raise ServingError(Code.ALREADY_EXISTS, "Another profiler is running.")
        try:
            trace = _record(request, lambda: ended.is_set() or call.is_cancelled())
        finally:
            del self._running[request.session_id]
        if request.emit_xspace:
            return ProfileResponse(empty_trace=not trace, xspace=trace)
        if trace:
            _write(request, trace)
        return ProfileResponse(empty_trace=not trace)

    def Terminate(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Ends a recording before its time."""
        running = self._running.get(request.session_id)
        if running is not None:
            running.set()
        return TerminateResponse()


def _record(request: Any, is_ended: Callable[[], bool]) -> bytes:
    """The trace, a serialized XSpace, of the time until the request's is over."""
    with tempfile.TemporaryDirectory() as name:
        with _translated_errors():
            tf.profiler.experimental.start(name, _options(request.opts))
        end = time.monotonic() + request.duration_ms / 1000
        while time.monotonic() < end and not is_ended():
            time.sleep(max(0.0, min(_LOOK, end - time.monotonic())))
        with _translated_errors():
            tf.profiler.experimental.stop()
        return b"".join(path.read_bytes() for path in Path(name).rglob("*.xplane.pb"))


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        raise ServingError(Code(error.error_code), error.message) from error


def _options(serialized: bytes) -> Any:
    if not serialized:
        return None
    options = profiler_options_pb2.ProfileOptions.FromString(serialized)
    return tf.profiler.experimental.ProfilerOptions(
        host_tracer_level=options.host_tracer_level,
        python_tracer_level=options.python_tracer_level,
        device_tracer_level=options.device_tracer_level,
    )


def _write(request: Any, trace: bytes) -> None:
    host = (request.host_name or "localhost").replace(":", "_")
    path = Path(request.repository_root) / request.session_id / f"{host}.xplane.pb"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(trace)
    except OSError as error:
        raise invalid_argument(f"{path}: {error.strerror}") from error
