"""A server at its addresses, and what it answers."""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import grpc
import httpx
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from serving.client.connection import Tls
from serving.client.grpc_calls import channel_opener
from serving.errors import invalid_argument
from serving.parity.cases import Case, GrpcCase, RestCase
from serving.wire.signatures import DTYPE_NAMES
from serving.wire.tensor_proto import read_tensor

_REST_SCHEMES, _GRPC_SCHEMES = ("http", "https"), ("grpc", "grpcs", "unix")


@dataclass(frozen=True)
class Answer:
    """The status, the text of an error, and what a good answer holds: objects, lists, values and arrays."""

    status: str
    text: str = ""
    content: Any = None


class Server:
    """A server, by one or two URLs with a comma between: `grpc://host:8500,http://host:8501`."""

    def __init__(self, urls: str, tls: Tls, token: str | None, timeout: float) -> None:
        """Raises ServingError for a URL of another kind, OSError where a file of `tls` cannot be read."""
        self.urls = dict(_by_transport(url) for url in urls.split(","))
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._timeout = timeout
        self._connections = ExitStack()
        if url := self.urls.get("grpc"):
            self._channel = self._connections.enter_context(channel_opener(url, tls)(grpc))
        if url := self.urls.get("rest"):
            verify = tls.context() if url.startswith("https:") else True
            client = httpx.Client(base_url=url, headers=self._headers, verify=verify, timeout=timeout)
            self._http = self._connections.enter_context(client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connections.close()

    def ask(self, case: Case) -> Answer:
        """The answer to a request."""
        return self._ask_grpc(case) if isinstance(case, GrpcCase) else self._ask_rest(case)

    def _ask_grpc(self, case: GrpcCase) -> Answer:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            f"/tensorflow.serving.{case.method}"
        )
        try:
            reply = call(case.request.SerializeToString(), timeout=self._timeout, metadata=tuple(self._headers.items()))
        except grpc.RpcError as error:
            return Answer(error.code().name, error.details() or "")
        try:
            return Answer("OK", content=_content(case.reply.FromString(reply)))
        except DecodeError:
            return Answer("OK", f"{len(reply)} bytes that are no {case.reply.DESCRIPTOR.name}")

    def _ask_rest(self, case: RestCase) -> Answer:
        try:
            reply = self._http.request("GET" if case.body is None else "POST", case.path, content=case.body)
        except httpx.TransportError as error:
            return Answer(f"no answer: {error or type(error).__name__}")
        status = f"{reply.status_code} {reply.headers.get('content-type', '')}".strip()
        try:
            content = json.loads(reply.content)  # which takes the NaN that TensorFlow Serving writes
        except ValueError:
            return Answer(status, reply.text)
        if isinstance(content, dict) and content.keys() == {"error"}:
            return Answer(status, str(content["error"]))
        return Answer(status, content=content)


def _by_transport(url: str) -> tuple[str, str]:
    scheme = url.partition(":")[0]
    if scheme in _REST_SCHEMES:
        return "rest", url
    if scheme in _GRPC_SCHEMES:
        return "grpc", url
    raise invalid_argument(
        f"{url} is no server; give grpc://host:8500 or http://host:8501, or both with a comma between"
    )


def _content(reply: Message) -> Any:
    if isinstance(reply, predict_pb2.PredictResponse):
        outputs = {
            name: {"dtype": DTYPE_NAMES.get(proto.dtype, str(proto.dtype)), "values": read_tensor(proto)}
            for name, proto in reply.outputs.items()
        }
        return {"model_spec": json_format.MessageToDict(reply.model_spec), "outputs": outputs}
    if isinstance(reply, get_model_metadata_pb2.GetModelMetadataResponse):
        definitions = get_model_metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(definitions)
        return {
            "model_spec": json_format.MessageToDict(reply.model_spec),
            "signature_def": json_format.MessageToDict(definitions),
        }
    return json_format.MessageToDict(reply)
