"""Messages without generated modules: those of a client without TensorFlow, and those that no package brings.

`python -m tests.serving.make_descriptors` makes descriptors.pb, from tensorflow-serving-api without the parts that are
not used and from the .proto files beside it. The messages have a pool of their own, in which they do not clash with a
package that brings the same ones; on the wire and as text they are the same.
"""

import sys
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from serving.errors import Code, ServingError, invalid_argument

M = TypeVar("M", bound=Message)

_pool = DescriptorPool()
for _file in FileDescriptorSet.FromString(resources.files("serving.wire").joinpath("descriptors.pb").read_bytes()).file:
    _pool.Add(_file)


def message_class(name: str) -> Any:
    """Returns the class of a message by its full name."""
    return GetMessageClass(_pool.FindMessageTypeByName(name))


BatchingParameters = message_class("tensorflow.serving.BatchingParameters")
MonitoringConfig = message_class("tensorflow.serving.MonitoringConfig")
ModelServerConfig = message_class("tensorflow.serving.ModelServerConfig")
SSLConfig = message_class("tensorflow.serving.SSLConfig")
ProfileRequest = message_class("tensorflow.ProfileRequest")
ProfileResponse = message_class("tensorflow.ProfileResponse")
TerminateRequest = message_class("tensorflow.TerminateRequest")
TerminateResponse = message_class("tensorflow.TerminateResponse")


def read_text(path: str | Path, message_class: type[M]) -> M:
    """Returns the message that a file holds as text.

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
