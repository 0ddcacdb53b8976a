"""Names of requests: the client's own, where it has one that is safe to write down, else one that is made up."""

import random
import re

HEADER = "x-request-id"

_SAFE = re.compile(r"[\w.:;,@/+=~-]{1,128}", re.ASCII)


def request_id(given: str) -> str:
    """The client's name for a request, or a new one."""
    return given if given and _SAFE.fullmatch(given) else random.randbytes(16).hex()
