"""The addresses of the REST API (http_rest_api_util.cc)."""

import re
from typing import NamedTuple
from urllib.parse import parse_qs, unquote_to_bytes

from serving.errors import invalid_argument
from serving.wire.requests import LARGEST_VERSION, ModelSpec

_API = "/v1/"
_FLAGS = re.IGNORECASE | re.ASCII
_ADDRESS = re.compile(
    r"/v1/models(?:/(?P<name>[^/:]+))?(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<action>:predict|:classify|:regress|/metadata|/example)?",
    _FLAGS,
)
_MODEL = re.compile(r"/v1/models/([^/:]+)", _FLAGS)
_MOST_PARAMETERS = 100
_NO_MODEL = ModelSpec("")


class Route(NamedTuple):
    """A parsed request line.

    `action` is predict, classify, regress, status, metadata, example or models. If the API has no such request, the
    action is empty and `error` says why. `template` has the names of the parameters in place of their values.
    """

    action: str = ""
    spec: ModelSpec = _NO_MODEL
    template: str = ""
    query: str = ""
    error: str = ""

    @property
    def infers(self) -> bool:
        """Whether a model is to run."""
        return self.action in ("predict", "classify", "regress")

    @property
    def is_api(self) -> bool:
        """Whether the path belongs to the API at all."""
        return bool(self.action or self.error)


def parse_route(method: str, path: str, query: str = "") -> Route:
    """Parses a request line. Path and query are still percent-encoded; a path outside of the API has no action."""
    if path[: len(_API)].lower() != _API:
        return Route(query=query)
    found = _ADDRESS.fullmatch(path)
    action = (found["action"] or "").lower() if found else ""
    wanted = "POST" if action.startswith(":") else "GET"
    if found is None or method != wanted or (wanted == "POST" and not found["name"]):
        named = _MODEL.match(path)
        spec = ModelSpec(_decode(named[1]) if named else "")
        return Route(spec=spec, query=query, error=f"Malformed request: {method} {path}")
    return _known_route(found, action, query)


def signature_name(query: str) -> str:
    """Returns the `?signature_name=` of a query. Raises ServingError if there are too many parameters."""
    if not query:
        return ""
    try:
        return parse_qs(query, max_num_fields=_MOST_PARAMETERS).get("signature_name", [""])[0]
    except ValueError as error:
        raise invalid_argument(f"The query of the address has more than {_MOST_PARAMETERS} parameters.") from error


def _known_route(found: re.Match[str], action: str, query: str) -> Route:
    name, digits, label = found["name"], found["version"], found["label"]
    choice = "/versions/{version}" if digits else "/labels/{label}" if label else ""
    if not name:
        error = "Missing model name in request." if choice or action else ""
        return Route("" if error else "models", template="/v1/models", query=query, error=error)
    template = f"/v1/models/{{name}}{choice}{action}"
    shortest = digits and (digits.lstrip("0") or "0")  # int() refuses thousands of digits, zeros too
    if shortest and (len(shortest) > 19 or int(shortest) > LARGEST_VERSION):
        error = f"Failed to convert version: {digits} to numeric."
        return Route(spec=ModelSpec(_decode(name)), template=template, query=query, error=error)
    spec = ModelSpec(_decode(name), int(shortest) if shortest else None, label and _decode(label))
    return Route(action[1:] or "status", spec, template, query)


def _decode(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", "replace")
