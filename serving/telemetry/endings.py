"""What a transport tells of a request that was answered, for traces."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Lookup = Callable[[str], str]
"""The value of a header, or of gRPC's metadata, by its name in lower case; empty where there is none."""


@dataclass(frozen=True)
class Ending:
    """The name and the attributes of a span, the empty ones left out; the error, where the server is at fault."""

    name: str
    attributes: Mapping[str, str | int]
    error: str = ""
