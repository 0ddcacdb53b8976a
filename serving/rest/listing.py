"""All models as JSON, in the words of TensorFlow Serving's messages."""

from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format

from serving.wire import messages
from serving.wire.version_status import ModelStatus


def encode_models(models: Iterable[ModelStatus]) -> dict[str, Any]:
    """For each model what a GET of its own path says, with its name and its labels."""
    return {"models": [_encode_model(each) for each in models]}


def fields(message: Any) -> dict[str, Any]:
    """A message as TensorFlow Serving prints it: with the names of the .proto file, and with defaults."""
    return json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )


def _encode_model(model: ModelStatus) -> dict[str, Any]:
    labels = {label: str(version) for label, version in sorted(model.labels.items())}
    return {"name": model.name, "version_labels": labels, **fields(messages.encode_statuses(model.versions))}
