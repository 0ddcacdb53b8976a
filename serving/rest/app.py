"""The REST API as an ASGI application: for a server of its own, or mounted in another application."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Self
from urllib.parse import quote

from serving.admission.policy import Policy
from serving.admission.readiness import LIVE_PATH, READY_PATH, Phase, Readiness
from serving.admission.threads import RequestThreads
from serving.api.service import Service
from serving.background import FileWatcher
from serving.call import REST, Call
from serving.errors import Code, ServingError, invalid_argument
from serving.options import Options
from serving.rest.console import Console
from serving.rest.content import Headers, Response, compressed, error_response
from serving.rest.description import OPENAPI_PATH, describe, describe_api
from serving.rest.handlers import Handlers
from serving.rest.routes import Route, parse_route
from serving.wire.json_text import write
from serving.wire.protos import MonitoringConfig, read_text
from serving.wire.signatures import helpful_text

logger = logging.getLogger("serving")

Message = MutableMapping[str, Any]
"""A scope or an event of ASGI."""
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

METRICS_PATH = "/metrics"
_MONITORING_PATH = "/monitoring/prometheus/metrics"  # TensorFlow Serving's, unless a MonitoringConfig names another

_PATIENCE = 0.05  # seconds; a client that waits for longer is watched, as it may go away
_BODY_TOO_LARGE = 413
_CHALLENGES: dict[Code, Headers] = {  # RFC 6750, section 3
    Code.UNAUTHENTICATED: ((b"www-authenticate", b'Bearer realm="models"'),),
    Code.PERMISSION_DENIED: ((b"www-authenticate", b'Bearer realm="models", error="insufficient_scope"'),),
}
_BUSY = (Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE)
_NOT_FOUND = Response(  # libevent's page, for paths that no handler takes
    404, b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n", "text/html"
)


def create_app(service: Service, options: Options) -> "StandaloneApp":
    """Makes the REST API of a service that runs: for any ASGI server, or to be mounted in another application.

    Close it, or use it as a context manager, before the service stops; an ASGI server that runs nothing else closes it
    at the end of the lifespan. Raises ServingError if a file that an option names cannot be used.
    """
    return StandaloneApp(service, options)


class RestApp:
    """An ASGI application with TensorFlow Serving's REST API, probes, metrics and the console.

    The event loop reads requests, answers probes, and refuses by the head. Threads do all the rest, one of them only
    metrics.
    """

    def __init__(self, service: Service, options: Options, policy: Policy, readiness: Readiness) -> None:
        self.threads = RequestThreads(options.rest_api_num_threads, "rest")
        self._metrics_thread = RequestThreads(1, "metrics")  # to read them neither waits for requests nor counts as one
        service.gauges.watch(REST, self.threads)
        self._service = service
        self._policy = policy
        self._readiness = readiness
        self._handlers = Handlers(service, options)
        self._timeout = options.rest_api_timeout_in_ms / 1000
        self._largest_body = options.rest_api_max_body_bytes
        self._needs_token = bool(options.auth_token_file)
        self._metrics_paths = {METRICS_PATH, _monitoring_path(options.monitoring_config_file)} - {""}
        self._paths = {LIVE_PATH, READY_PATH, OPENAPI_PATH, *self._metrics_paths}
        self._console = Console() if options.console else None
        self._cors_headers = _cors_headers(self._needs_token) if options.rest_api_enable_cors_support else ()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"There is nothing for {scope['type']} here")
        call, route = self._parse_head(scope)
        try:
            response = await self._respond(call, route, receive)
        except Exception as error:
            response = self._end(call, Code.INTERNAL, _refusal(call, error))
        if response is None:  # the client has gone
            return
        headers = [
            (b"content-type", response.content_type.encode()),
            (b"content-length", b"%d" % len(response.body)),
            *response.headers,
            *self._common_headers(call, route),
        ]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if call.method == "HEAD" else response.body})

    async def _live(self, receive: Receive, send: Send) -> None:
        """Follows the life of an ASGI server, at whose end it closes."""
        while True:
            event = (await receive())["type"]  # "lifespan.startup", later "lifespan.shutdown"
            if event == "lifespan.shutdown":
                await asyncio.to_thread(self.close)
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return

    def close(self, wait: bool = True) -> None:
        """Ends the threads once they have answered, and waits for that unless told otherwise."""
        self.threads.shutdown(wait)
        self._metrics_thread.shutdown(wait)

    async def _respond(self, call: Call, route: Route, receive: Receive) -> Response | None:
        self._name(call, route)
        response = self._answer_head(call, route)
        if response is not None:
            return response
        body = await self._read_body(call, receive)
        if body is None or isinstance(body, Response):
            return body
        return await self._answer_in_thread(call, route, body, receive)

    def note_refused(self, scope: Message, status: int, reason: str, size: int) -> list[tuple[bytes, bytes]]:
        """Logs a request that the server refused before it was whole, and returns headers for the response."""
        call, route = self._parse_head(scope)
        self._name(call, route)
        self._policy.end(call, Code.INVALID_ARGUMENT, status, size, reason)
        return self._common_headers(call, route)

    def _parse_head(self, scope: Message) -> tuple[Call, Route]:
        root, path = scope.get("root_path", ""), _path_below_root(scope)
        headers = dict(scope["headers"])
        client = scope.get("client")
        call = Call(
            method=scope["method"],
            path=root + path,
            client=client[0] if client else "",
            header=lambda name: headers.get(name.encode(), b"").decode("latin-1"),
            timeout=self._timeout,
        )
        if path in self._paths or (self._console and call.method == "GET" and path in self._console):
            return call, Route(template=path)
        return call, parse_route(call.method, path, scope.get("query_string", b"").decode("latin-1"))

    def _name(self, call: Call, route: Route) -> None:
        self._policy.name(call)
        if route.spec.name and self._service.repository.knows(route.spec.name):
            call.model = route.spec.name

    def _answer_head(self, call: Call, route: Route) -> Response | None:
        """Answers what needs no thread: probes, and requests that are refused by the head."""
        try:
            if call.method in ("GET", "HEAD") and route.template in (LIVE_PATH, READY_PATH):
                ready, report = (True, {"alive": True}) if route.template == LIVE_PATH else self._readiness.report()
                return self._end(call, Code.OK, Response(200 if ready else 503, write(report)))
            self._authorize(call, route)
            if self._readiness.phase is Phase.DRAINING:
                closing = ((b"connection", b"close"),)
                response = error_response(Code.UNAVAILABLE, "The server is shutting down.", closing)
                return self._end(call, Code.UNAVAILABLE, response)
            # To describe a model that is being loaded is possible; to run it is not, as behind a port that is closed.
            if self._readiness.phase is Phase.LOADING and call.method == "POST":
                raise ServingError(Code.UNAVAILABLE, "The models are still being loaded.")
        except ServingError as error:
            return self._end(call, error.code, _refusal(call, error))
        return None

    def _authorize(self, call: Call, route: Route) -> None:
        if route.template in (LIVE_PATH, READY_PATH) or (route.is_api and call.method == "OPTIONS"):
            return  # browsers send no token with a preflight
        if self._console and route.template in self._console:
            return  # the same for everybody; the page asks for a token where the API needs one
        token = self._policy.authenticate(call)
        if route.spec.name:
            token.check_model(route.spec.name)
        elif route.template in self._metrics_paths:
            token.check_metrics()
        else:
            token.check_all_models()

    async def _read_body(self, call: Call, receive: Receive) -> bytes | Response | None:
        """Returns None if the client has gone, and a response if the body is too large."""
        length = call.header("content-length")
        chunks, received, size = list[bytes](), 0, int(length) if length.isdecimal() else 0
        is_whole = False
        while not is_whole and size <= self._largest_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunks.append(message.get("body", b""))
            received += len(chunks[-1])
            size = max(size, received)
            is_whole = not message.get("more_body", False)
        if size > self._largest_body:
            reason = f"The body is larger than {self._largest_body} bytes."
            response = error_response(Code.INVALID_ARGUMENT, reason)._replace(status=_BODY_TOO_LARGE)
            return self._end(call, Code.INVALID_ARGUMENT, response, reason)
        return b"".join(chunks)

    async def _answer_in_thread(self, call: Call, route: Route, body: bytes, receive: Receive) -> Response:
        call.arrived = time.perf_counter()
        threads = self._metrics_thread if route.template in self._metrics_paths else self.threads
        try:
            self._policy.check_queue(threads.num_queued)
        except ServingError as error:
            return self._end(call, error.code, _refusal(call, error))
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Response] = loop.create_future()

        def answer() -> None:
            response = self._answer(call, route, body)
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(_set_result, answered, response)

        threads.submit(answer)
        watching = set[asyncio.Task[None]]()
        timer = loop.call_later(_PATIENCE, lambda: watching.add(loop.create_task(_watch(receive, call))))
        try:
            return await answered
        except asyncio.CancelledError:
            call.is_cancelled = lambda: True
            raise
        finally:
            timer.cancel()
            for task in watching:
                task.cancel()

    def _answer(self, call: Call, route: Route, body: bytes) -> Response:
        """Answers a whole request in a thread; an exception becomes a response."""
        code = Code.OK
        try:
            self._policy.begin(call)
            response = compressed(self._handle(call, route, body), call.header("accept-encoding"))
        except Exception as error:
            code = error.code if isinstance(error, ServingError) else Code.INTERNAL
            response = _refusal(call, error)
        return self._end(call, code, response, route=route.template)

    def _handle(self, call: Call, route: Route, body: bytes) -> Response:
        if call.is_cancelled():
            raise ServingError(Code.CANCELLED, "The client has gone away.")
        if route.infers:
            call.action = route.action
            return self._handlers.infer(route, body, call)
        if route.action:
            return describe(self._service, route, call)
        if route.is_api and call.method == "OPTIONS":
            origin = call.header("origin")
            return Response(200 if "http://" in origin or "https://" in origin else 400, b"")
        if route.error:
            raise invalid_argument(route.error)
        return self._page(call, route.template) if call.method == "GET" and route.template else _NOT_FOUND

    def _page(self, call: Call, path: str) -> Response:
        if self._console and path in self._console:
            return self._console.respond(path, call.header("if-none-match"))
        if path == OPENAPI_PATH:
            return Response(200, describe_api(self._needs_token))
        if path == METRICS_PATH:
            return Response(200, *self._service.metrics.prometheus_page(call.header("accept")))
        return Response(200, self._service.metrics.tensorflow_page(), "text/plain")

    def _end(self, call: Call, code: Code, response: Response, reason: str = "", route: str = "") -> Response:
        self._policy.end(call, code, response.status, len(response.body), reason, route)
        return response

    def _common_headers(self, call: Call, route: Route) -> list[tuple[bytes, bytes]]:
        named = [(b"x-request-id", call.request_id.encode())] if call.request_id else []
        is_open = route.is_api or route.template == OPENAPI_PATH or not call.path
        return [*named, *self._cors_headers] if is_open else named


class StandaloneApp(RestApp):
    """A RestApp with a policy, a readiness and watched files of its own, which a server would share over transports."""

    def __init__(self, service: Service, options: Options) -> None:
        self._watcher = FileWatcher()
        policy = Policy(options, service.metrics, self._watcher)
        readiness = Readiness(service.repository.availability, names_models=not options.auth_token_file)
        super().__init__(service, options, policy, readiness)
        self._watcher.start()
        policy.start()
        readiness.phase = Phase.SERVING

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self, wait: bool = True) -> None:
        """Answers the requests that it has, refuses others, and ends its threads and logs."""
        self._readiness.phase = Phase.DRAINING
        super().close(wait)
        self._watcher.stop()
        self._policy.stop()


def _monitoring_path(config_file: str) -> str:
    """The path of TensorFlow Serving's page of metrics; empty unless a MonitoringConfig turns it on."""
    if not config_file:
        return ""
    prometheus = read_text(config_file, MonitoringConfig).prometheus_config
    return (prometheus.path or _MONITORING_PATH) if prometheus.enable else ""


def _path_below_root(scope: Message) -> str:
    """The path below the prefix that the application is mounted at, percent-encoded if the server says how it was."""
    root, raw = scope.get("root_path", ""), scope.get("raw_path")
    if raw is not None and raw.startswith(root.encode()):
        return raw[len(root.encode()) :].decode("latin-1")
    return quote(scope["path"].removeprefix(root), safe="/:")


def _cors_headers(may_send_tokens: bool) -> Headers:
    """TensorFlow Serving's headers for pages of other origins, whose scripts may read the responses."""
    allowed = b"Content-Type, Authorization" if may_send_tokens else b"Content-Type"
    return (
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-methods", b"POST, GET"),
        (b"access-control-allow-headers", allowed),
    )


def _refusal(call: Call, error: Exception) -> Response:
    """The response to a request that failed. An unexpected error is for the log, and not for the client."""
    if not isinstance(error, ServingError):
        logger.error("%s %s failed", call.method, call.path, exc_info=error)
        return error_response(Code.INTERNAL, "Internal error; the server's log has more.")
    headers = _CHALLENGES.get(error.code, ())
    if error.code in _BUSY and not call.action:  # of the queue, not of a run
        headers = ((b"retry-after", b"1"),)
    return error_response(error.code, helpful_text(error, call.path.partition(":")[0]), headers)


async def _watch(receive: Receive, call: Call) -> None:
    """Cancels a call when its client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    call.is_cancelled = lambda: True


def _set_result(future: asyncio.Future[Response], response: Response) -> None:
    if not future.done():
        future.set_result(response)
