"""The request log of the REST API: what a request over gRPC would have held, and its answer."""

from typing import Any

from tensorflow_serving.apis import classification_pb2, regression_pb2

from serving.rest.bodies import ExamplesBody, PredictBody
from serving.telemetry.request_log import RequestLog
from serving.wire import messages
from serving.wire.request_messages import encode_predict_request, fill_examples_request
from serving.wire.requests import Classification, Prediction, Regression

_EXAMPLES: dict[type, tuple[Any, Any]] = {
    Classification: (classification_pb2.ClassificationRequest, messages.encode_classify),
    Regression: (regression_pb2.RegressionRequest, messages.encode_regress),
}


def log_prediction(log: RequestLog, body: PredictBody, prediction: Prediction, as_content: bool) -> None:
    """Logs a predict request, if it is in the sample."""
    if body.request is not None and log.samples(prediction.spec.name):
        request = encode_predict_request(body.spec, body.request)
        log.add(request, messages.encode_predict(prediction, as_content))


def log_answer(log: RequestLog, body: ExamplesBody, answer: Classification | Regression) -> None:
    """Logs a classify or regress request, if it is in the sample."""
    if log.samples(answer.spec.name):
        message, encode = _EXAMPLES[type(answer)]
        log.add(fill_examples_request(message(), body.spec, body.serialized), encode(answer))
