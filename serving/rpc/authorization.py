"""Bearer tokens over gRPC: an interceptor that looks at the metadata first, and then at the model that is asked."""

import functools
from collections.abc import Callable
from typing import Any

import grpc

from serving.admission.tokens import Token, Tokens
from serving.errors import ServingError
from serving.request_facts import facts
from serving.rpc.handlers import Behavior, wrapped
from serving.rpc.health import SERVICES
from serving.rpc.servicers import STATUSES

_PER_MODEL = "/tensorflow.serving."
_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = "/grpc.reflection."
_RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"


class Authorization(grpc.ServerInterceptor):
    """Lets calls through whose token is for what they ask. What is not told from a token is for administration."""

    def __init__(self, tokens: Callable[[], Tokens]) -> None:
        self._tokens = tokens

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """The handler of a call, with a look at the message before it where a model matters."""
        method = handler_call_details.method
        if method.startswith(_HEALTH):
            authenticate = functools.partial(self._authenticate, handler_call_details)
            return _checked(continuation(handler_call_details), lambda request: _check_health(request, authenticate))
        try:
            token = self._authenticate(handler_call_details)
            if method == _RELOAD or not method.startswith((_PER_MODEL, _REFLECTION)):
                token.check_admin()
        except ServingError as error:
            return _refusal(error)
        per_model = method.startswith(_PER_MODEL) and method != _RELOAD
        return _checked(continuation(handler_call_details), lambda request: _check(request, token, per_model))

    def _authenticate(self, details: Any) -> Token:
        values = [value for key, value in details.invocation_metadata or () if key == "authorization"]
        return self._tokens().authenticate(values[0] if len(values) == 1 else "")


def _check(request: Any, token: Token, per_model: bool) -> None:
    facts.token = token.name
    if not per_model:
        return
    for part in request.tasks if hasattr(request, "tasks") else [request]:
        token.check_model(part.model_spec.name)


def _check_health(request: Any, authenticate: Callable[[], Token]) -> None:
    if request.service not in SERVICES:  # it is the name of a model, or of nothing
        authenticate().check_model(request.service)


def _checked(handler: Any, check: Callable[[Any], None]) -> Any:
    def wrap(behavior: Behavior) -> Behavior:
        @functools.wraps(behavior)
        def answer(request: Any, context: grpc.ServicerContext, *others: Any) -> Any:
            try:
                check(request)
            except ServingError as error:
                _abort(context, error)
            return behavior(request, context, *others)

        return answer

    return wrapped(handler, wrap)


def _refusal(error: ServingError) -> Any:
    # As if the client streamed: else gRPC would read the message first, of up to 2 GiB, from anybody.
    return grpc.stream_unary_rpc_method_handler(lambda _, context: _abort(context, error))


def _abort(context: grpc.ServicerContext, error: ServingError) -> Any:
    return context.abort(STATUSES[error.code], error.message)
