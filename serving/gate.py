"""What stands between the network and the service, as options ask for it: TLS, tokens, limits, a log, traces."""

import ssl
from functools import partial
from typing import Any

import grpc

from serving.admission import certificates
from serving.admission.policy import Policy
from serving.admission.queue_limits import QueueLimits, TimelyApplication, busy
from serving.admission.threads import RequestThreads
from serving.background import FileWatcher
from serving.errors import ServingError
from serving.http.reception import AnswerAtOnce, Reception
from serving.http.requests import Limits, Request
from serving.http.responses import Response
from serving.http.server import Application
from serving.options import Options
from serving.rest import authorization
from serving.rest.cross_origin import cross_origin_headers
from serving.rest.logging import LoggedApplication, logging_at_once, logging_refused
from serving.rest.tracing import TracedApplication


class Gate:
    """Who may come in, and how. Raises ServingError where a file that an option names cannot be followed."""

    def __init__(self, options: Options, policy: Policy, watcher: FileWatcher) -> None:
        self._options = options
        self._grpc_config = self._rest_context = None
        if options.ssl_config_file:
            first = certificates.read_config(options.ssl_config_file)
            self._grpc_config = watcher.watch(
                options.ssl_config_file, partial(certificates.read_config, client_verify=first.client_verify)
            )
        if options.rest_api_ssl_config_file:
            self._rest_context = watcher.watch(options.rest_api_ssl_config_file, certificates.read_context)
        self._queue = QueueLimits(options.max_queued_requests, options.max_queue_time_in_ms / 1000)
        self._log, self._tracing, self._tokens = policy._log, policy._tracing, policy._tokens

    def credentials(self) -> grpc.ServerCredentials | None:
        """For one address on which gRPC listens; nothing where it is plain."""
        return certificates.grpc_credentials(self._grpc_config) if self._grpc_config else None

    def tls(self) -> ssl.SSLContext | None:
        """For the REST API; nothing where it is plain."""
        return certificates.CurrentContext(self._rest_context) if self._rest_context else None

    def limits(self) -> Limits:
        """What a client of the REST API may send."""
        options = self._options
        return Limits(
            body_size=options.rest_api_max_body_bytes,
            connections=options.rest_api_max_connections,
            connections_per_address=options.rest_api_max_connections_per_address,
        )

    def guard(self, application: Application) -> Application:
        """The REST API, behind what its requests have to pass in their threads."""
        if self._queue.time:
            application = TimelyApplication(application, self._queue)
        if self._tracing:
            application = TracedApplication(application, self._tracing)
        return LoggedApplication(application, self._log) if self._log else application

    def reception(self, threads: RequestThreads, answer_at_once: AnswerAtOnce, monitoring_path: str) -> Reception:
        """What requests to the REST API have to pass before one of these threads."""
        parts: dict[str, Any] = {"answer_at_once": self._refusing_more(threads, answer_at_once)}
        file = self._tokens
        if file:
            parts["answer_head"] = authorization.refusing(lambda: file.value, monitoring_path)
        if self._log:
            parts = {name: logging_at_once(answer, self._log) for name, answer in parts.items()}
            parts["refused"] = logging_refused(self._log)
        if self._options.rest_api_enable_cors_support:
            parts["headers"] = cross_origin_headers(may_send_tokens=file is not None)
        return Reception(**parts)

    def _refusing_more(self, threads: RequestThreads, answer: AnswerAtOnce) -> AnswerAtOnce:
        def answer_or_refuse(request: Request) -> Response | None:
            response = answer(request)
            if response is not None:
                return response
            try:
                self._queue.check_size(threads)
            except ServingError as error:
                return busy(error)
            return None

        return answer_or_refuse
