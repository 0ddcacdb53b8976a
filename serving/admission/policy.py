"""The policy of the server for every request, over both transports: token, queue, log, trace and metrics."""

import ipaddress
import logging
import time
from typing import TYPE_CHECKING

from serving.admission import tokens
from serving.admission.tokens import ANYBODY, Token
from serving.background import FileWatcher, WatchedFile
from serving.call import Call
from serving.errors import Code, MissingPackageError, ServingError, invalid_argument, needing
from serving.options import Options
from serving.telemetry.access_log import REQUEST_ID_HEADER, AccessLog, request_id
from serving.telemetry.metrics import Metrics

if TYPE_CHECKING:  # OpenTelemetry is an extra
    from serving.telemetry.tracing import Tracing

logger = logging.getLogger("serving")


class Policy:
    """Applies the options about tokens, queues, the access log and traces to each request.

    A transport calls `name`, `authenticate`, `check_queue`, `begin` and `end` in this order, and asks the token for
    what the request wants as soon as it knows that. Raises ServingError if a file that an option names cannot be read.
    """

    def __init__(self, options: Options, metrics: Metrics, watcher: FileWatcher) -> None:
        self._options = options
        self._metrics = metrics
        self._max_queued = options.max_queued_requests
        self._max_queue_time = options.max_queue_time_in_ms / 1000
        self._log = AccessLog(options.access_log) if options.access_log else None
        self._tracing = _start_tracing(options) if options.enable_tracing else None
        self._tokens: WatchedFile[tokens.Tokens] | None = None
        if options.auth_token_file:
            self._tokens = watcher.watch(options.auth_token_file, tokens.read)
            _warn_about_plain_transports(options)

    def start(self) -> None:
        """Opens the access log. Raises ServingError if it cannot be written."""
        if self._log is not None:
            try:
                self._log.start()
            except OSError as error:
                raise invalid_argument(f"--access_log={self._options.access_log}: {error.strerror}") from error

    def stop(self) -> None:
        """Writes the rest of the access log and of the traces."""
        if self._log is not None:
            self._log.stop()
        if self._tracing is not None:
            self._tracing.stop()

    def name(self, call: Call) -> None:
        """Gives a call the request id that its answer and its line in the log have; none if there is no log."""
        if self._log is not None:
            call.request_id = request_id(call.header(REQUEST_ID_HEADER))

    def authenticate(self, call: Call) -> Token:
        """Returns the token in the header of a call: ANYBODY if the server needs none. Raises UNAUTHENTICATED."""
        if self._tokens is None:
            return ANYBODY
        token = self._tokens.value.authenticate(call.header("authorization"))
        call.token = token.name
        return token

    def check_queue(self, num_waiting: int) -> None:
        """Raises RESOURCE_EXHAUSTED if no more requests may wait for a thread."""
        if self._max_queued and num_waiting >= self._max_queued:
            raise ServingError(Code.RESOURCE_EXHAUSTED, f"{self._max_queued} requests wait already. Try again later.")

    def begin(self, call: Call) -> None:
        """Notes that a thread has taken a call. Raises UNAVAILABLE if it has waited for too long."""
        call.started = time.perf_counter()
        if self._max_queue_time and call.queue_time > self._max_queue_time:
            milliseconds = f"{self._max_queue_time * 1000:g}"
            raise ServingError(
                Code.UNAVAILABLE, f"The request waited for more than {milliseconds} ms. Try again later."
            )

    def end(self, call: Call, code: Code, status: int | str, size: int, reason: str = "", route: str = "") -> None:
        """Records a call that was answered: in metrics if it asked a model to run, in a trace if a thread took it.

        A call that was refused before it was a whole request has a reason. The route is its path with placeholders.
        """
        if call.action:
            self._metrics.record_request(call, code)
        if self._tracing is not None and call.started:
            self._tracing.add(call, status, route)
        if self._log is not None:  # after the trace, whose id is in the line
            self._log.add(call, status, size, reason)


def _start_tracing(options: Options) -> "Tracing":
    try:
        with needing("tracing"):
            from serving.telemetry.tracing import Tracing
    except MissingPackageError as error:
        raise invalid_argument(f"--enable_tracing: {error}") from error
    return Tracing("https" if options.rest_api_ssl_config_file else "http")


def _warn_about_plain_transports(options: Options) -> None:
    plain = {
        "gRPC": options.port and not options.ssl_config_file,
        "REST": options.rest_api_port and not options.rest_api_ssl_config_file,
    }
    if not _is_loopback(options.host):
        for transport in (name for name, is_plain in plain.items() if is_plain):
            logger.warning("Tokens come over %s in the clear: only a proxy with TLS before it hides them", transport)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
