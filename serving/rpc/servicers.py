"""The gRPC API: PredictionService and ModelService. The interceptor calls their methods in a thread, with the Call."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving.api.service import Service
from serving.call import Call
from serving.errors import Code, ServingError, invalid_argument
from serving.repository import config as config_file
from serving.wire import messages
from serving.wire.requests import ModelSpec

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)
_Method = Callable[["PredictionServicer", _Request, Call], _Response]


def _recorded(method: _Method[_Request, _Response]) -> _Method[_Request, _Response]:
    """Lets a method that runs a model be counted, and a sample of its requests be logged."""

    @functools.wraps(method)
    def run(servicer: "PredictionServicer", request: _Request, call: Call) -> _Response:
        call.action = method.__name__
        response = method(servicer, request, call)
        log = servicer.service.request_log
        if log.samples(call.model):
            log.add(call, request, response)
        return response

    return run


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """TensorFlow Serving's PredictionService. Answers to Predict hold typed fields, or tensor_content."""

    def __init__(self, service: Service, as_content: bool) -> None:
        self.service = service
        self._as_content = as_content

    @_recorded
    def Predict(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Runs a signature on tensors."""
        with self.service.lease(messages.decode_spec(request), call) as model:
            name = request.model_spec.signature_name
            prediction = model.predict(messages.decode_predict(request, model.signatures, name))
        return messages.encode_predict(prediction, self._as_content)

    @_recorded
    def Classify(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Runs a classify signature on tf.Examples."""
        spec = messages.decode_spec(request)
        with self.service.lease(spec, call) as model:
            examples = messages.decode_examples(request.input)
            return messages.encode_answer(model.classify(spec.signature_name, examples))

    @_recorded
    def Regress(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Runs a regress signature on tf.Examples."""
        spec = messages.decode_spec(request)
        with self.service.lease(spec, call) as model:
            examples = messages.decode_examples(request.input)
            return messages.encode_answer(model.regress(spec.signature_name, examples))

    @_recorded
    def MultiInference(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Runs several classify and regress signatures on the same tf.Examples."""
        tasks = messages.decode_tasks(request)
        with self.service.lease(tasks[0].spec if tasks else ModelSpec(""), call) as model:
            examples = messages.decode_examples(request.input)
            return messages.encode_multi_inference(model.multi_inference(tasks, examples))

    def GetModelMetadata(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Tells the signatures of a model."""
        spec = messages.decode_spec(request)
        messages.check_metadata_fields(request.metadata_field)
        with self.service.lease(spec, call) as model:
            return messages.encode_metadata(spec.name, model.version, model.signatures)


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """TensorFlow Serving's ModelService."""

    def __init__(self, service: Service, may_reload: bool) -> None:
        self._service = service
        self._may_reload = may_reload

    def GetModelStatus(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Tells the states of the versions of a model."""
        return messages.encode_statuses(self._service.status(messages.decode_spec(request)))

    def HandleReloadConfigRequest(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Replaces the models that are served; answers when the new ones do."""
        if not self._may_reload:
            raise ServingError(
                Code.PERMISSION_DENIED, "--enable_reload_config_request=false: the models cannot be replaced over gRPC"
            )
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        configs = config_file.decode(request.config)
        for config in configs:
            if config.logging is not None:  # TensorFlow Serving refuses it too
                raise invalid_argument(
                    f"Model {config.name}: logging_config, which names files to write, is taken from "
                    "--model_config_file alone"
                )
        metrics = self._service.metrics
        before = {name: metrics.total(name) for name in request.metric_names}
        self._service.reload(configs, call.is_cancelled)
        return messages.encode_reload({name: metrics.total(name) - count for name, count in before.items()})
