"""The handlers of predict, classify and regress: parse, look up, decode, run, encode."""

from contextlib import ExitStack

import serving.rest.bodies as bodies
from serving.api.service import Service
from serving.call import Call
from serving.errors import Code, ServingError
from serving.models.inference import CLASSIFY, REGRESS
from serving.options import Options
from serving.rest.content import JSON, NPY, NPZ, PROTOBUF, Response, choose_type, version_header
from serving.rest.routes import Route
from serving.wire import messages
from serving.wire.json_examples import decode_examples
from serving.wire.messages import encode_predict_request, fill_examples_request


class Handlers:
    """Runs models for requests of the API, and logs a sample of them as the messages that gRPC would have got."""

    def __init__(self, service: Service, options: Options) -> None:
        self._service = service
        self._log = service.request_log
        self._largest_body = options.rest_api_max_body_bytes
        self._as_content = options.enable_serialization_as_tensor_content

    def infer(self, route: Route, content: bytes, call: Call) -> Response:
        """Answers a request to run a model. Raises ServingError."""
        body = bodies.parse_body(route, call, content, self._largest_body)
        return self._predict(body, call) if route.action == "predict" else self._examples(route.action, body, call)

    def _predict(self, body: bodies.Body, call: Call) -> Response:
        kind = _response_type(body, call, (JSON, NPY, NPZ, PROTOBUF))
        with self._service.lease(body.spec, call) as model:
            request, layout = bodies.decode_predict(body, model.signatures)
            if kind == NPY:
                bodies.check_single_output(request, model.signatures)
            _check_time(call)
            prediction = model.predict(request)
        content = bodies.encode_prediction(prediction, kind, layout, self._as_content)
        if self._log.samples(call.model):
            message = messages.encode_predict(prediction, self._as_content)
            self._log.add(call, encode_predict_request(body.spec, request), message)
        return Response(200, content, kind, version_header(prediction.spec.version))

    def _examples(self, action: str, body: bodies.Body, call: Call) -> Response:
        kind = _response_type(body, call, (JSON, PROTOBUF))
        method = CLASSIFY if action == "classify" else REGRESS
        with ExitStack() as held:
            try:
                model = held.enter_context(self._service.lease(body.spec, call))
            except ServingError:
                if isinstance(body.content, dict):
                    decode_examples(body.content)  # if they are wrong, TensorFlow Serving says so first
                raise
            name, examples = bodies.decode_examples(body, model.signatures, method)
            _check_time(call)
            answer = model.classify(name, examples) if method is CLASSIFY else model.regress(name, examples)
        content = bodies.encode_answer(answer, kind)
        if self._log.samples(call.model):
            request = bodies.MESSAGES[action]()
            fill_examples_request(request, body.spec._replace(signature_name=name), examples)
            self._log.add(call, request, messages.encode_answer(answer))
        return Response(200, content, kind, version_header(answer.spec.version))


def _response_type(body: bodies.Body, call: Call, offered: tuple[str, ...]) -> str:
    """The type that the client prefers; by default JSON, and a message for a message."""
    preferred = (PROTOBUF, *offered) if body.kind == PROTOBUF else offered
    return choose_type(call.header("accept"), preferred)


def _check_time(call: Call) -> None:
    if call.remaining() == 0:
        raise ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")
