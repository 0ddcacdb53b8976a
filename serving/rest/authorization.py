"""Bearer tokens over REST: 401 without one that counts, 403 for what it is not for."""

from collections.abc import Callable

from serving.access.tokens import Token, Tokens
from serving.codec.json_text import error_body
from serving.errors import Code, ServingError
from serving.http.connection import Response
from serving.http.requests import Request
from serving.http.server import Application
from serving.request_facts import facts
from serving.rest.application import METRICS_PATH, STATUSES
from serving.rest.routes import model_name

OPEN_PATHS = ("/healthz", "/readyz")
"""What tells of no model, and probes ask for without a token."""

_MAY_SEND_TOKENS = (b"Allow-Headers: Content-Type", b"Allow-Headers: Content-Type, Authorization")
_HEADERS = {  # RFC 6750, section 3
    Code.UNAUTHENTICATED: b'WWW-Authenticate: Bearer realm="models"\r\n',
    Code.PERMISSION_DENIED: b'WWW-Authenticate: Bearer realm="models", error="insufficient_scope"\r\n',
}


class AuthorizedApplication:
    """An application behind tokens. Metrics are at `METRICS_PATH`, and at `monitoring_path` where there is one."""

    def __init__(self, application: Application, tokens: Callable[[], Tokens], monitoring_path: str = "") -> None:
        self.executor = application.executor
        self._application = application
        self._tokens = tokens
        self._monitoring_path = monitoring_path

    def answer(self, request: Request) -> Response:
        """The application's answer, or why there is none."""
        try:
            self._check(request)
        except ServingError as error:
            return Response(STATUSES[error.code], error_body(error), headers=_HEADERS[error.code])
        response = self._application.answer(request)
        if request.method != "OPTIONS":
            return response
        return response._replace(headers=response.headers.replace(*_MAY_SEND_TOKENS))

    def _check(self, request: Request) -> None:
        if request.path in OPEN_PATHS or request.method == "OPTIONS":  # browsers ask for leave without a token
            return
        token = self._tokens().authenticate(request.headers.get(b"authorization", b"").decode("latin-1"))
        facts.token = token.name
        self._check_path(token, request.path)

    def _check_path(self, token: Token, path: str) -> None:
        name = model_name(path)
        if name is not None:
            token.check_model(name)
        elif path == METRICS_PATH or path == self._monitoring_path:
            token.check_metrics()
        else:
            token.check_all_models()
