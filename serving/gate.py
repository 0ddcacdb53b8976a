"""What stands between the network and the service, as options ask for it: TLS."""

import ssl

import grpc

from serving import certificates
from serving.options import Options
from serving.watched_files import FileWatcher


class Gate:
    """Who may come in, and how. Raises ServingError where a file that an option names cannot be followed."""

    def __init__(self, options: Options) -> None:
        self._watcher = FileWatcher()
        self._grpc_config = self._rest_context = None
        if options.ssl_config_file:
            first = certificates.read_config(options.ssl_config_file)
            self._grpc_config = self._watcher.watch(options.ssl_config_file, certificates.keeping_client_verify(first))
        if options.rest_api_ssl_config_file:
            self._rest_context = self._watcher.watch(options.rest_api_ssl_config_file, certificates.read_context)

    def start(self) -> None:
        """Keeps up with the files from now on."""
        self._watcher.start()

    def stop(self) -> None:
        """Ends what `start` began."""
        self._watcher.stop()

    def credentials(self) -> grpc.ServerCredentials | None:
        """For one address on which gRPC listens; nothing where it is plain."""
        return certificates.grpc_credentials(self._grpc_config) if self._grpc_config else None

    def tls(self) -> ssl.SSLContext | None:
        """For the REST API; nothing where it is plain."""
        return certificates.current_context(self._rest_context) if self._rest_context else None
