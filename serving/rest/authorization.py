"""Bearer tokens over REST: 401 without one that counts, 403 for what it is not for, both before a body is read."""

from collections.abc import Callable

from serving.admission.tokens import Token, Tokens
from serving.errors import Code, ServingError
from serving.http.reception import AnswerAtOnce
from serving.http.requests import Request
from serving.http.responses import Response
from serving.rest.application import METRICS_PATH
from serving.rest.responses import STATUSES
from serving.rest.routes import parse_route
from serving.wire.json_text import error_body

OPEN_PATHS = ("/healthz", "/readyz")
"""What tells of no model, and probes ask for without a token."""

_HEADERS = {  # RFC 6750, section 3
    Code.UNAUTHENTICATED: b'WWW-Authenticate: Bearer realm="models"\r\n',
    Code.PERMISSION_DENIED: b'WWW-Authenticate: Bearer realm="models", error="insufficient_scope"\r\n',
}


def refusing(tokens: Callable[[], Tokens], monitoring_path: str = "") -> AnswerAtOnce:
    """The answer to whom no token lets in, by the head of a request; whose token it is, is noted in it.

    Metrics are at `METRICS_PATH`, and at `monitoring_path` where there is one.
    """
    metrics_paths = (METRICS_PATH, monitoring_path)

    def answer_head(request: Request) -> Response | None:
        if request.path in OPEN_PATHS or _is_preflight(request):
            return None
        try:
            token = tokens().authenticate(request.headers.get(b"authorization", b"").decode("latin-1"))
            request.sender = token.name
            _check_path(token, request, metrics_paths)
        except ServingError as error:
            return Response(STATUSES[error.code], error_body(error), headers=_HEADERS[error.code])
        return None

    return answer_head


def _is_preflight(request: Request) -> bool:
    """Whether a browser asks for leave to send a request, which it does without a token."""
    return request.method == "OPTIONS" and parse_route(request.method, request.path).is_api


def _check_path(token: Token, request: Request, metrics_paths: tuple[str, ...]) -> None:
    name = parse_route(request.method, request.path).spec.name
    if name:
        token.check_model(name)
    elif request.path in metrics_paths:
        token.check_metrics()
    else:
        token.check_all_models()
