"""Replies of a server, as callers get them."""

from typing import NamedTuple

from serving.errors import Code, ServingError


class Class(NamedTuple):
    """A label and its score."""

    label: str
    score: float


class SignatureChangedError(ServingError):
    """A reply that does not fit the signature: another version gave it."""

    def __init__(self, model: str) -> None:
        super().__init__(Code.INTERNAL, f"the reply does not fit the signature that {model} says it has")
