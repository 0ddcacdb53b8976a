"""Message classes from tables of fields, in pools of their own.

Nothing has to be compiled, and a package that brings the same messages into protobuf's default pool does not clash with
them: on the wire and as text they are the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

_FILE = descriptor_pb2.FileDescriptorProto
_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
    "float": _FIELD.TYPE_FLOAT,
    "double": _FIELD.TYPE_DOUBLE,
    "bool": _FIELD.TYPE_BOOL,
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
}
_KNOWN = (any_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR)

Fields = Sequence[tuple[str, int, str]]
"""Each field's name, number and type: `int64`, `repeated int64`, `map int64` (by strings), or a message's full name."""

Messages = Mapping[str, Fields]


def make_pool(files: Mapping[str, tuple[str, Messages]]) -> descriptor_pool.DescriptorPool:
    """A pool of files, each a package and its messages; what a file refers to comes before it."""
    pool = descriptor_pool.DescriptorPool()
    for known in _KNOWN:
        pool.AddSerializedFile(known.serialized_pb)
    names = [known.name for known in _KNOWN]
    for name, (package, messages) in files.items():
        file = _FILE(name=name, package=package, syntax="proto3", dependency=names)
        for message, fields in messages.items():
            described = file.message_type.add(name=message)
            for field in fields:
                _add_field(described, f".{package}.{message}", *field)
        pool.AddSerializedFile(file.SerializeToString())
        names.append(name)
    return pool


def message_class(pool: descriptor_pool.DescriptorPool, name: str) -> Any:
    """The class of a message by its full name."""
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def _add_field(message: descriptor_pb2.DescriptorProto, path: str, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
    if kind.startswith("repeated "):
        field.label, kind = _FIELD.LABEL_REPEATED, kind.removeprefix("repeated ")
    if kind.startswith("map "):
        field.label, kind = _FIELD.LABEL_REPEATED, _add_entry(message, path, name, kind.removeprefix("map "))
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{kind}"


def _add_entry(message: descriptor_pb2.DescriptorProto, path: str, name: str, kind: str) -> str:
    # A map is a repeated message of keys and values, whose name protobuf prescribes.
    entry = message.nested_type.add(name="".join(word.capitalize() for word in name.split("_")) + "Entry")
    entry.options.map_entry = True
    _add_field(entry, "", "key", 1, "string")
    _add_field(entry, "", "value", 2, kind)
    return f"{path}.{entry.name}".removeprefix(".")
