"""The console: a page for people at the root of the REST API, with its script, style and icon."""

import hashlib
from importlib import resources
from typing import NamedTuple

from serving.rest.content import Headers, Response

_FOLDER = resources.files("serving") / "console" / "page"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/console/console.js": ("console.js", "text/javascript; charset=utf-8"),
    "/console/console.css": ("console.css", "text/css; charset=utf-8"),
    "/console/icon.svg": ("icon.svg", "image/svg+xml"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)  # blob: is the preview of an image that the page was given
_HEADERS: Headers = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),  # which means: ask whether the ETag still holds
)


class _File(NamedTuple):
    content: bytes
    content_type: str
    etag: str


class Console:
    """The files of the console, by the paths that they are served at."""

    def __init__(self) -> None:
        self._files = {path: _read(name, content_type) for path, (name, content_type) in _FILES.items()}

    def __contains__(self, path: str) -> bool:
        return path in self._files

    def respond(self, path: str, if_none_match: str) -> Response:
        """The file at a path; only its ETag, where the browser has it."""
        file = self._files[path]
        headers = ((b"etag", file.etag.encode()), *_HEADERS)
        if file.etag in if_none_match:
            return Response(304, b"", file.content_type, headers)
        return Response(200, file.content, file.content_type, headers)


def _read(name: str, content_type: str) -> _File:
    content = (_FOLDER / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    return _File(content, content_type, f'W/"{digest}"')  # weak, since the body may be compressed
