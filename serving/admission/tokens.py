"""Bearer tokens from a JSON file, with their permissions. Hashes in place of tokens give nothing away.

{"tokens": [{"name": "shop", "sha256": "<64 hex digits>", "models": ["flowers"], "expires": "2027-01-01T00:00:00Z"}]}
"""

import hashlib
import hmac
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from serving.errors import Code, ServingError, invalid_argument

_FIELDS: dict[str, type] = {
    "name": str,
    "token": str,
    "sha256": str,
    "models": list,
    "metrics": bool,
    "admin": bool,
    "expires": str,
}
_SHA256 = re.compile("[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class Token:
    """The permissions of a bearer: to use models, or all; to read metrics; to replace the served models."""

    name: str
    digest: bytes
    models: frozenset[str] | None = None
    metrics: bool = False
    admin: bool = False
    expires: float | None = None
    """Seconds since 1970."""

    def check_model(self, name: str) -> None:
        """Raises ServingError if the bearer may not use a model of this name, whether it exists or not."""
        if name and self.models is not None and name not in self.models:
            raise _denied(f"The token is not for model {name}")

    def check_all_models(self) -> None:
        """Raises ServingError if the bearer may not know which models exist."""
        if self.models is not None:
            raise _denied("The token is not for all models")

    def check_metrics(self) -> None:
        """Raises ServingError if the bearer may not read metrics, which name all models."""
        if self.models is not None and not self.metrics:
            raise _denied("The token is not for metrics")

    def check_admin(self) -> None:
        """Raises ServingError if the bearer may not replace the served models, nor write traces."""
        if not self.admin:
            raise _denied("The token is not for administration")


ANYBODY = Token("", b"", metrics=True, admin=True)
"""The token of each request to a server that asks for none: it may do everything."""


class Tokens:
    """The tokens of a file."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens

    def authenticate(self, authorization: str) -> Token:
        """The token in the value of an Authorization header. Raises ServingError if there is no valid one."""
        scheme, _, secret = authorization.strip().partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise ServingError(Code.UNAUTHENTICATED, "The request has no bearer token")
        digest = hashlib.sha256(secret.strip().encode()).digest()
        # All tokens are compared, each in full, so that the time reveals nothing.
        found = [token for token in self._tokens if hmac.compare_digest(token.digest, digest)]
        if not found or (found[0].expires is not None and found[0].expires <= time.time()):
            raise ServingError(Code.UNAUTHENTICATED, "The token is unknown, or its time is over")
        return found[0]


def read(path: str) -> Tokens:
    """The tokens in a file. Raises ServingError if it cannot be read or followed."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        code = Code.NOT_FOUND if isinstance(error, FileNotFoundError) else Code.PERMISSION_DENIED
        raise ServingError(code, f"{path}; {error.strerror}") from error
    except ValueError as error:
        raise invalid_argument(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("tokens"), list) or len(document) > 1:
        raise invalid_argument(f'{path} does not look like {{"tokens": [...]}}')
    tokens = [_token(entry, f"{path}: token {number}") for number, entry in enumerate(document["tokens"], start=1)]
    if len({token.digest for token in tokens}) < len(tokens):
        raise invalid_argument(f"{path} has a token twice")
    return Tokens(tokens)


def _token(entry: Any, place: str) -> Token:
    if not isinstance(entry, dict):
        raise invalid_argument(f"{place} is no object")
    for name, value in entry.items():
        if not isinstance(value, _FIELDS.get(name, ())):  # an ignored field might let somebody in
            raise invalid_argument(f"{place}: {name} is no field, or of another type; there are {', '.join(_FIELDS)}")
    models = entry.get("models")
    if models is not None and not all(isinstance(model, str) for model in models):
        raise invalid_argument(f"{place}: models are no names")
    return Token(
        name=entry.get("name", ""),
        digest=_digest(entry, place),
        models=None if models is None else frozenset(models),
        metrics=entry.get("metrics", False),
        admin=entry.get("admin", False),
        expires=_expires(entry["expires"], place) if "expires" in entry else None,
    )


def _digest(entry: dict[str, Any], place: str) -> bytes:
    if ("token" in entry) == ("sha256" in entry):
        raise invalid_argument(f"{place} needs either token or sha256")
    if "sha256" in entry:
        if not _SHA256.fullmatch(entry["sha256"]):
            raise invalid_argument(f"{place}: sha256 is not 64 hex digits")
        return bytes.fromhex(entry["sha256"])
    if not entry["token"] or entry["token"] != entry["token"].strip():
        raise invalid_argument(f"{place}: token is empty, or has spaces around it")
    return hashlib.sha256(entry["token"].encode()).digest()


def _expires(text: str, place: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise invalid_argument(f"{place}: expires is no time like 2027-01-01T00:00:00Z") from error
    if moment.tzinfo is None:
        raise invalid_argument(f"{place}: expires needs a time zone, as in 2027-01-01T00:00:00Z")
    return moment.timestamp()


def _denied(message: str) -> ServingError:
    return ServingError(Code.PERMISSION_DENIED, message)
