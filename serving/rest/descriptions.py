"""What REST tells about the models: which there are, how they are, what they take, and a body that they take."""

from tensorflow_serving.apis import get_model_metadata_pb2

from serving.api.service import Service
from serving.call import Call
from serving.http.responses import Response
from serving.rest.listing import encode_models, fields
from serving.rest.routes import Route, path_of, signature_name
from serving.rest.sample_bodies import choose_signature, method_of, sample_body
from serving.wire import messages
from serving.wire.json_text import write_indented
from serving.wire.requests import ModelSpec


def describe(service: Service, route: Route, query: str) -> Response:
    """The answer to a GET. The query is as it was sent. Raises ServingError for what is not there."""
    if route.action == "models":
        return Response(200, write_indented(encode_models(service.models())))
    if route.action == "metadata":
        return _describe_metadata(service, route.spec)
    if route.action == "example":
        return _describe_example(service, route, query)
    return Response(200, write_indented(fields(messages.encode_statuses(service.status(route.spec)))))


def version_header(version: int | None) -> bytes:
    """The header, a whole line, that says which version has answered."""
    return b"X-Model-Version: %d\r\n" % version if version is not None else b""


def _describe_metadata(service: Service, spec: ModelSpec) -> Response:
    with service.lease(spec, Call()) as model:
        metadata = model.metadata()
    response = messages.encode_metadata(metadata)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    body = {"model_spec": fields(response.model_spec), "metadata": {"signature_def": fields(signatures)}}
    return Response(200, write_indented(body), headers=version_header(metadata.spec.version))


def _describe_example(service: Service, route: Route, query: str) -> Response:
    with service.lease(route.spec, Call()) as model:
        version, signatures = model.version, model.signatures
    signature = choose_signature(signatures, signature_name(query))
    target = f'Link: <{path_of(route.spec)}:{method_of(signature)}>; rel="related"\r\n'.encode()
    return Response(200, write_indented(sample_body(signature)), headers=version_header(version) + target)
