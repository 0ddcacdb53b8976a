"""What is said of requests in the event loop, before a thread has them: to be filled in by those who know them."""

from collections.abc import Callable
from dataclasses import dataclass

from serving.http.requests import Request
from serving.http.responses import Response

AnswerAtOnce = Callable[[Request], Response | None]
"""The answer to a request that waits for no thread, or None for all others."""


def _nothing(request: Request) -> Response | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Reception:
    """What an HttpServer asks while its event loop stands still: none of these may wait."""

    answer_head: AnswerAtOnce = _nothing
    """Asked once the headers are there. What is answered so is not read any further."""
    answer_at_once: AnswerAtOnce = _nothing
    """Asked once the body is there, too."""
    refused: Callable[[Request, Response, str], Response] = lambda request, response, reason: response
    """Told of what the server refuses itself, as far as it was read, with the answer and the reason for it; gives
    the answer as it is to go out."""
    headers: Callable[[Request], bytes] = lambda request: b""
    """Whole lines that go with every answer, the server's own ones among them."""
