"""Makes serving/wire/descriptors.pb from tensorflow-serving-api and the .proto files beside it.

python -m tests.serving.make_descriptors
"""

import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

FOLDER = Path(__file__).parents[2] / "serving" / "wire"
PATH = FOLDER / "descriptors.pb"
_FILES = (
    predict_pb2,
    classification_pb2,
    regression_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_server_config_pb2,
)
# Fields that no code here reads or writes; each would bring many messages along.
_LEFT_OUT = {
    "tensorflow.TensorProto.resource_handle_val",
    "tensorflow.TensorProto.variant_val",
    "tensorflow.TensorInfo.composite_tensor",
    "tensorflow.TensorInfo.coo_sparse",
    "tensorflow.SignatureDef.defaults",
    "tensorflow.serving.PredictRequest.predict_streamed_options",
}


def make() -> FileDescriptorSet:
    """Returns the descriptors of all messages, each file behind those that it imports."""
    files = _of_the_package()
    names = {file.name for file in files}
    return FileDescriptorSet(file=files + [file for file in _own() if file.name not in names])


def _of_the_package() -> list[FileDescriptorProto]:
    types: dict[str, Descriptor | EnumDescriptor] = {}
    for module in _FILES:
        for message in module.DESCRIPTOR.message_types_by_name.values():
            _add_reachable(message, types)
    files: dict[str, FileDescriptor] = {}
    for each in types.values():
        _add_files(each.file, files)
    stripped = [_stripped(file, types.keys()) for file in files.values()]
    kept = {file.name for file in stripped if file.message_type or file.enum_type or file.public_dependency}
    for file in stripped:
        dependencies = [name for name in file.dependency if name in kept]
        del file.dependency[:]
        file.dependency.extend(dependencies)
    return [file for file in stripped if file.name in kept]


def _add_reachable(found: Descriptor | EnumDescriptor, types: dict[str, Descriptor | EnumDescriptor]) -> None:
    if found.full_name in types:
        return
    types[found.full_name] = found
    if found.containing_type is not None:
        _add_reachable(found.containing_type, types)
    for field in _fields(found) if isinstance(found, Descriptor) else ():
        other = field.message_type or field.enum_type
        if other is not None:
            _add_reachable(other, types)


def _fields(message: Descriptor) -> Iterator[FieldDescriptor]:
    return (field for field in message.fields if field.full_name not in _LEFT_OUT)


def _add_files(file: FileDescriptor, files: dict[str, FileDescriptor]) -> None:
    for other in file.dependencies:
        _add_files(other, files)
    files[file.name] = file


def _stripped(file: FileDescriptor, kept: Collection[str]) -> FileDescriptorProto:
    """Returns a file without services, options, and the types that are not kept. Those of google.protobuf all are."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    proto.ClearField("options")
    if proto.package == "google.protobuf":
        return proto
    stripped = FileDescriptorProto(name=proto.name, package=proto.package, syntax=proto.syntax)
    stripped.dependency.extend(proto.dependency)
    if len(proto.dependency) == 1:
        stripped.public_dependency.extend(proto.public_dependency)  # of a file that only passes another one on
    for message in proto.message_type:
        if f"{proto.package}.{message.name}" in kept:
            _strip(message, f"{proto.package}.{message.name}", kept)
            stripped.message_type.append(message)
    stripped.enum_type.extend(each for each in proto.enum_type if f"{proto.package}.{each.name}" in kept)
    return stripped


def _strip(message: DescriptorProto, name: str, kept: Collection[str]) -> None:
    fields = [field for field in message.field if f"{name}.{field.name}" not in _LEFT_OUT]
    nested = [each for each in message.nested_type if f"{name}.{each.name}" in kept]
    del message.field[:], message.nested_type[:]
    message.field.extend(fields)
    message.nested_type.extend(nested)


def _own() -> list[FileDescriptorProto]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "out.pb")
        sources = sorted(str(path) for path in FOLDER.glob("*.proto"))
        options = [f"-I{FOLDER}", "--include_imports", f"--descriptor_set_out={output}"]
        # In a process of its own: its library does not get along with TensorFlow's.
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, *sources], check=True)
        files = list(FileDescriptorSet.FromString(output.read_bytes()).file)
    for file in files:
        file.ClearField("options")
    return files


if __name__ == "__main__":
    PATH.write_bytes(make().SerializeToString(deterministic=True))
    print(f"{PATH}: {PATH.stat().st_size} bytes")
