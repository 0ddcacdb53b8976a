"""The messages of TensorFlow Serving and of its profiler that tensorflow-serving-api leaves out.

They are compatible on the wire and as text. Their descriptors are put together here, so that nothing has to be
compiled, and kept in a pool of their own, so that a package that brings the real ones does not clash with them.
"""

import sys
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from google.protobuf.message import Message

from serving.errors import Code, ServingError, invalid_argument

M = TypeVar("M", bound=Message)

_PACKAGES = {"tensorflow_serving": "tensorflow.serving", "tsl": "tensorflow"}  # by the first part of the path
_FIELD = descriptor_pb2.FieldDescriptorProto
_WRAPPERS = "google.protobuf"
_FILES = {
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
_SCALARS = {
    "int64": _FIELD.TYPE_INT64,
    "uint64": _FIELD.TYPE_UINT64,
    "bool": _FIELD.TYPE_BOOL,
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
}


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    for name, messages in _FILES.items():
        package = _PACKAGES[name.partition("/")[0]]
        file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
        file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
        for message, fields in messages.items():
            described = file.message_type.add(name=message)
            for field in fields:
                _add_field(described, *field)
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
    if kind.startswith("repeated "):
        field.label, kind = _FIELD.LABEL_REPEATED, kind.removeprefix("repeated ")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{kind}"


_POOL = _pool()


def _message_class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


BatchingParameters = _message_class("tensorflow.serving.BatchingParameters")
PrometheusConfig = _message_class("tensorflow.serving.PrometheusConfig")
MonitoringConfig = _message_class("tensorflow.serving.MonitoringConfig")
SSLConfig = _message_class("tensorflow.serving.SSLConfig")
ProfileRequest = _message_class("tensorflow.ProfileRequest")
ProfileResponse = _message_class("tensorflow.ProfileResponse")
TerminateRequest = _message_class("tensorflow.TerminateRequest")
TerminateResponse = _message_class("tensorflow.TerminateResponse")


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
