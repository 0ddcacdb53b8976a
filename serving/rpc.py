"""The gRPC API: PredictionService and ModelService."""

import functools
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving import messages
from serving.errors import Code, ServingError, truncate
from serving.request import PredictRequest
from serving.service import Service
from serving.signatures import Signature

logger = logging.getLogger("serving")

STATUSES = {code: grpc.StatusCode[code.name] for code in Code}
_LARGEST_MESSAGE = 2**31 - 1
_FOR_EVER = 1e9  # seconds

Method = Callable[[Any, Any, grpc.ServicerContext], Any]


def _answering_errors(method: Method) -> Method:
    @functools.wraps(method)
    def answer(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except ServingError as error:
            failure = error
        except Exception:
            logger.exception("%s failed", method.__name__)
            failure = ServingError(Code.INTERNAL, "Internal error; the server's log has more.")
        return context.abort(STATUSES[failure.code], truncate(failure.message))

    return answer


def _decode_predict(request: Any, signatures: Mapping[str, Signature]) -> PredictRequest:
    return messages.decode_predict(request)  # tensors say their types themselves


def _timeout(context: grpc.ServicerContext) -> float | None:
    # A call without a deadline has billions of seconds left.
    remaining = context.time_remaining()
    return remaining if remaining < _FOR_EVER else None


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """TensorFlow Serving's PredictionService; what is not overridden answers UNIMPLEMENTED."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @_answering_errors
    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Runs a signature on tensors."""
        spec = messages.decode_spec(request)
        decode = functools.partial(_decode_predict, request)
        return messages.encode_predict(self._service.predict(spec, decode, _timeout(context)))

    @_answering_errors
    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Runs a classify signature on tf.Examples."""
        spec = messages.decode_spec(request)
        examples = messages.decode_examples(request.input)
        return messages.encode_classify(self._service.classify(spec, examples, _timeout(context)))


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """TensorFlow Serving's ModelService."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @_answering_errors
    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Tells how the versions of a model are."""
        return messages.encode_statuses(self._service.status(messages.decode_spec(request)))


def make_server(service: Service, executor: ThreadPoolExecutor) -> grpc.Server:
    """A gRPC server over a service, with no port yet."""
    options = [
        ("grpc.max_send_message_length", _LARGEST_MESSAGE),
        ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
        # Two servers on one port would share its requests without a word.
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.server(executor, options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionServicer(service), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(service), server)
    return server
