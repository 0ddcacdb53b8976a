"""The messages that tensorflow-serving-api lacks: their wire form, their text form, and what is wrong in a file."""

import pytest
from google.protobuf import text_format

from serving.errors import ServingError
from serving.wire import protos
from tests.serving import make_descriptors

# The bytes follow from field numbers and types of the published .proto files: key = number << 3 | wire type.
WIRE = {
    "batching": (
        protos.BatchingParameters,
        "max_batch_size { value: 128 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 7 } "
        "num_batch_threads { value: 2 } thread_pool_name { value: 'x' } allowed_batch_sizes: 1 "
        "allowed_batch_sizes: 128 pad_variable_length_inputs: true enable_large_batch_splitting { value: true } "
        "max_execution_batch_size { value: 3 }",
        b"\x0a\x03\x08\x80\x01" b"\x12\x00" b"\x1a\x02\x08\x07" b"\x22\x02\x08\x02" b"\x2a\x03\x0a\x01x"
        b"\x32\x03\x01\x80\x01" b"\x38\x01" b"\x42\x02\x08\x01" b"\x4a\x02\x08\x03",
    ),
    "monitoring": (
        protos.MonitoringConfig,
        'prometheus_config { enable: true path: "/m" }',
        b"\x0a\x06\x08\x01\x12\x02/m",
    ),
    "ssl": (
        protos.SSLConfig,
        'server_key: "k" server_cert: "c" custom_ca: "a" client_verify: true',
        b"\x0a\x01k\x12\x01c\x1a\x01a\x20\x01",
    ),
}  # fmt: skip


def test_descriptors_are_those_of_the_installed_packages():
    made = make_descriptors.make().SerializeToString(deterministic=True)
    assert make_descriptors.PATH.read_bytes() == made, "run python -m tests.serving.make_descriptors"


@pytest.mark.parametrize(("message_class", "text", "wire"), WIRE.values(), ids=WIRE)
def test_text_and_wire_form_are_tensorflow_servings(message_class, text, wire, tmp_path):
    path = tmp_path / "config.pbtxt"
    path.write_text(f"# a comment\n{text}")
    message = protos.read_text(path, message_class)
    assert message.SerializeToString(deterministic=True) == wire
    assert message_class.FromString(wire) == message
    assert text_format.Parse(text_format.MessageToString(message), message_class()) == message
    assert message_class.DESCRIPTOR.full_name == f"tensorflow.serving.{message_class.__name__}"


BAD_TEXTS = {
    "unknown-field": (
        "max_batch_size { value: 1 }\n  batch_size: 3",
        '2:3: Message type "tensorflow.serving.BatchingParameters" has no field named "batch_size".',
    ),
    "no-wrapper": ("max_batch_size: 3", "1:17: 'max_batch_size: 3': Expected \"{\"."),
}


@pytest.mark.parametrize(("text", "complaint"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_bad_text_is_told_with_its_place(text, complaint, tmp_path, capsys):
    path = tmp_path / "batching.pbtxt"
    path.write_text(text)
    with pytest.raises(ServingError) as caught:
        protos.read_text(path, protos.BatchingParameters)
    assert str(caught.value) == f"INVALID_ARGUMENT: Invalid protobuf file: '{path}'"
    printed = capsys.readouterr().err
    assert printed == f"Error parsing text-format tensorflow.serving.BatchingParameters: {complaint}\n"


def test_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(ServingError, match=r"^NOT_FOUND: .*/missing; No such file or directory$"):
        protos.read_text(tmp_path / "missing", protos.SSLConfig)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ServingError, match=r"^INVALID_ARGUMENT: Invalid protobuf file: '.*/binary'$"):
        protos.read_text(tmp_path / "binary", protos.SSLConfig)
