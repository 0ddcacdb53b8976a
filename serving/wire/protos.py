"""The messages of TensorFlow Serving and of its profiler that tensorflow-serving-api leaves out.

They are compatible on the wire and as text, and do not clash with a package that brings the real ones.
"""

import sys
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from serving.errors import Code, ServingError, invalid_argument
from serving.wire.descriptors import Messages, make_pool, message_class

M = TypeVar("M", bound=Message)

_PACKAGES = {"tensorflow_serving": "tensorflow.serving", "tsl": "tensorflow"}  # by the first part of the path
_WRAPPERS = "google.protobuf"
_FILES: dict[str, Messages] = {
    "tensorflow_serving/servables/tensorflow/session_bundle_config.proto": {
        "BatchingParameters": [
            ("max_batch_size", 1, f"{_WRAPPERS}.Int64Value"),
            ("batch_timeout_micros", 2, f"{_WRAPPERS}.Int64Value"),
            ("max_enqueued_batches", 3, f"{_WRAPPERS}.Int64Value"),
            ("num_batch_threads", 4, f"{_WRAPPERS}.Int64Value"),
            ("thread_pool_name", 5, f"{_WRAPPERS}.StringValue"),
            ("allowed_batch_sizes", 6, "repeated int64"),
            ("pad_variable_length_inputs", 7, "bool"),
            ("enable_large_batch_splitting", 8, f"{_WRAPPERS}.BoolValue"),
            ("max_execution_batch_size", 9, f"{_WRAPPERS}.Int64Value"),
        ]
    },
    "tensorflow_serving/config/monitoring_config.proto": {
        "PrometheusConfig": [("enable", 1, "bool"), ("path", 2, "string")],
        "MonitoringConfig": [("prometheus_config", 1, "tensorflow.serving.PrometheusConfig")],
    },
    "tensorflow_serving/config/ssl_config.proto": {
        "SSLConfig": [
            ("server_key", 1, "string"),
            ("server_cert", 2, "string"),
            ("custom_ca", 3, "string"),
            ("client_verify", 4, "bool"),
        ]
    },
    "tsl/profiler/protobuf/profiler_service.proto": {
        "ProfileRequest": [
            ("duration_ms", 1, "uint64"),
            ("opts", 4, "bytes"),  # a ProfileOptions, which TensorFlow's own pool holds
            ("repository_root", 5, "string"),
            ("session_id", 6, "string"),
            ("host_name", 7, "string"),
            ("emit_xspace", 9, "bool"),
        ],
        "ProfileResponse": [("empty_trace", 7, "bool"), ("xspace", 8, "bytes")],  # an XSpace
        "TerminateRequest": [("session_id", 1, "string")],
        "TerminateResponse": [],
    },
}
_POOL = make_pool({name: (_PACKAGES[name.partition("/")[0]], messages) for name, messages in _FILES.items()})

BatchingParameters = message_class(_POOL, "tensorflow.serving.BatchingParameters")
PrometheusConfig = message_class(_POOL, "tensorflow.serving.PrometheusConfig")
MonitoringConfig = message_class(_POOL, "tensorflow.serving.MonitoringConfig")
SSLConfig = message_class(_POOL, "tensorflow.serving.SSLConfig")
ProfileRequest = message_class(_POOL, "tensorflow.ProfileRequest")
ProfileResponse = message_class(_POOL, "tensorflow.ProfileResponse")
TerminateRequest = message_class(_POOL, "tensorflow.TerminateRequest")
TerminateResponse = message_class(_POOL, "tensorflow.TerminateResponse")


def read_text(path: str | Path, message_class: type[M]) -> M:
    """The message that a file holds as text.

    Raises ServingError where there is none; protobuf's own line, with the place that is wrong, goes to stderr.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _invalid(path) from error
    except OSError as error:
        code = Code.NOT_FOUND if isinstance(error, FileNotFoundError) else Code.PERMISSION_DENIED
        raise ServingError(code, f"{path}; {error.strerror}") from error
    try:
        return text_format.Parse(text, message_class())
    except text_format.ParseError as error:
        print(_complaint(error, message_class), file=sys.stderr)
        raise _invalid(path) from error


def _invalid(path: str | Path) -> ServingError:
    return invalid_argument(f"Invalid protobuf file: '{path}'")


def _complaint(error: text_format.ParseError, message_class: type[Message]) -> str:
    place = f"{error.GetLine()}:{error.GetColumn()}"
    reason = str(error).removeprefix(place).lstrip(" :")
    return f"Error parsing text-format {message_class.DESCRIPTOR.full_name}: {place}: {reason}"
