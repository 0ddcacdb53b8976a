"""The gRPC API: PredictionService and ModelService."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving.api.service import Service
from serving.call import GRPC, Call
from serving.errors import Code, ServingError, invalid_argument, truncate
from serving.repository import config as config_file
from serving.request_facts import facts
from serving.wire import messages
from serving.wire.hints import helpful_text
from serving.wire.requests import ModelSpec

logger = logging.getLogger("serving")

STATUSES = {code: grpc.StatusCode[code.name] for code in Code}
_FOR_EVER = 1e9  # seconds

Method = Callable[[Any, Any, grpc.ServicerContext], Any]


def answering_errors(method: Method) -> Method:
    """Turns what a method raises into the status of its call."""

    @functools.wraps(method)
    def answer(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except ServingError as error:
            failure = error
        except Exception:
            logger.exception("%s failed", method.__name__)
            failure = ServingError(Code.INTERNAL, "Internal error; the server's log has more.")
        return context.abort(STATUSES[failure.code], truncate(helpful_text(failure)))

    return answer


def _counted(method: Callable[[Any, Any, Call], Any]) -> Method:
    @functools.wraps(method)
    def count(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        call, code = _call(context), Code.INTERNAL
        call.action, call.model = method.__name__, _asked(self._service, request)
        try:
            response = method(self, request, call)
            code = Code.OK
        except ServingError as error:
            code = error.code
            raise
        finally:
            facts.note(call)
            self._service.metrics.record_request(call, code)
        log = self._service.request_log
        if log.samples(call.model):
            log.add(call, request, response)
        return response

    return count


def _asked(service: Service, request: Any) -> str:
    first = next(iter(request.tasks), None) if hasattr(request, "tasks") else request
    name = first.model_spec.name if first is not None else ""
    # Clients make names up, and series that were counted once stay.
    return name if service.repository.knows(name) else ""


def _call(context: grpc.ServicerContext) -> Call:
    # A call without a deadline has billions of seconds left.
    remaining = context.time_remaining()
    timeout = remaining if remaining < _FOR_EVER else None
    return Call(transport=GRPC, timeout=timeout, is_cancelled=lambda: not context.is_active())


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """TensorFlow Serving's PredictionService. Answers to Predict hold typed fields, or tensor_content."""

    def __init__(self, service: Service, as_content: bool = False) -> None:
        self._service = service
        self._as_content = as_content

    @answering_errors
    @_counted
    def Predict(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Runs a signature on tensors."""
        with self._service.lease(messages.decode_spec(request), call) as model:
            name = request.model_spec.signature_name
            prediction = model.predict(messages.decode_predict(request, model.signatures, name))
        return messages.encode_predict(prediction, self._as_content)

    @answering_errors
    @_counted
    def Classify(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Runs a classify signature on tf.Examples."""
        spec = messages.decode_spec(request)
        examples = messages.decode_examples(request.input)
        with self._service.lease(spec, call) as model:
            return messages.encode_classify(model.classify(spec.signature_name, examples))

    @answering_errors
    @_counted
    def Regress(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Runs a regress signature on tf.Examples."""
        spec = messages.decode_spec(request)
        examples = messages.decode_examples(request.input)
        with self._service.lease(spec, call) as model:
            return messages.encode_regress(model.regress(spec.signature_name, examples))

    @answering_errors
    @_counted
    def MultiInference(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Runs several classify and regress signatures on the same tf.Examples."""
        tasks = messages.decode_tasks(request)
        examples = messages.decode_examples(request.input)
        with self._service.lease(tasks[0].spec if tasks else ModelSpec(""), call) as model:
            return messages.encode_multi_inference(model.multi_inference(tasks, examples))

    @answering_errors
    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Tells the signatures of a model."""
        spec = messages.decode_spec(request)
        messages.check_metadata_fields(request.metadata_field)
        with self._service.lease(spec, _call(context)) as model:
            return messages.encode_metadata(model.metadata())


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """TensorFlow Serving's ModelService."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @answering_errors
    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Tells how the versions of a model are."""
        return messages.encode_statuses(self._service.status(messages.decode_spec(request)))

    @answering_errors
    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Replaces the models that are served; answers when the new ones do."""
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
        self._service.reload(configs, lambda: not context.is_active())
        return messages.encode_reload({name: metrics.total(name) - count for name, count in before.items()})
