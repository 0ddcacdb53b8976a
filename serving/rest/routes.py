"""The paths of the REST API (http_rest_api_util.cc)."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote_to_bytes

from serving.errors import invalid_argument
from serving.wire.requests import ModelSpec

_CHOICE = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_FLAGS = re.IGNORECASE | re.ASCII
_PATHS = {
    "POST": re.compile(rf"/v1/models/(?P<name>[^/:]+){_CHOICE}:(?P<action>classify|regress|predict)", _FLAGS),
    "GET": re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_CHOICE}(?:/(?P<action>metadata|example))?", _FLAGS),
}
_MODELS = re.compile("/v1/models", _FLAGS)
_MODEL = re.compile(r"/v1/models/([^/:]+)", _FLAGS)
_API = re.compile(r"/v1/.*", _FLAGS | re.DOTALL)
_MOST_PARAMETERS = 100
_LARGEST_VERSION = 2**63 - 1


@dataclass(frozen=True)
class Route:
    """What a path asks for: predict, classify, regress, status, metadata or example, of which model; or all models."""

    action: str
    spec: ModelSpec

    @property
    def infers(self) -> bool:
        """Whether a model is to run."""
        return self.action in ("predict", "classify", "regress")


def is_api(path: str) -> bool:
    """Whether a path belongs to the API at all."""
    return _API.fullmatch(path) is not None


def model_name(path: str) -> str | None:
    """The model that a path names, whatever it asks of it."""
    found = _MODEL.match(path)
    return _decode(found[1]) if found else None


def parse_route(method: str, path: str) -> Route:
    """What a request line asks for. The path is as it was sent, still percent-encoded."""
    found = _PATHS[method].fullmatch(path) if method in _PATHS else None
    if found is None:
        raise invalid_argument(f"Malformed request: {method} {path}")
    if method == "GET" and _MODELS.fullmatch(path):
        return Route("models", ModelSpec(""))
    if not found["name"]:
        raise invalid_argument("Missing model name in request.")
    spec = ModelSpec(_decode(found["name"]), _version(found["version"]), _label(found["label"]))
    return Route((found["action"] or "status").lower(), spec)


def template(method: str, path: str) -> str:
    """The path with the names of its parts in their place, as `/v1/models/{name}:predict`; nothing where none fits."""
    found = _PATHS[method].fullmatch(path) if method in _PATHS else None
    if found is None:
        return ""
    for part in ("label", "version", "name"):  # from the end, so that what is found stays where it is
        if found[part]:
            path = f"{path[: found.start(part)]}{{{part}}}{path[found.end(part) :]}"
    return path


def signature_name(query: str) -> str:
    """The `?signature_name=` of a path, where the body, if there is one, can name it nowhere else."""
    try:
        return parse_qs(query, max_num_fields=_MOST_PARAMETERS).get("signature_name", [""])[0]
    except ValueError as error:
        raise invalid_argument(f"The query of the address has more than {_MOST_PARAMETERS} parameters.") from error


def path_of(spec: ModelSpec) -> str:
    """The path of a model, or of a version or label of it."""
    path = f"/v1/models/{quote(spec.name, safe='')}"
    if spec.version is not None:
        return f"{path}/versions/{spec.version}"
    return path if spec.label is None else f"{path}/labels/{quote(spec.label, safe='')}"


def _version(digits: str | None) -> int | None:
    if digits is None:
        return None
    shortest = digits.lstrip("0") or "0"  # of thousands of digits, zeros among them, Python makes no number
    if len(shortest) > 19 or int(shortest) > _LARGEST_VERSION:
        raise invalid_argument(f"Failed to convert version: {digits} to numeric.")
    return int(shortest)


def _label(text: str | None) -> str | None:
    return None if text is None else _decode(text)


def _decode(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", "replace")
