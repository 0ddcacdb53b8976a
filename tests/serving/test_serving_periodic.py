"""Threads that do the same again and again."""

import threading

import pytest

from serving.periodic import Periodic

WAIT = 20.0  # seconds that nothing here should take


@pytest.mark.parametrize(
    ("error", "has_traceback"), [(OSError(28, "No space left"), False), (KeyError("x"), True)], ids=["known", "unknown"]
)
def test_thread_goes_on_after_an_exception_that_is_logged_once(caplog, error, has_traceback):
    calls, later = [], threading.Event()

    def work():
        calls.append(None)
        if len(calls) > 6:
            later.set()
        elif len(calls) != 4:
            raise error

    thread = Periodic("count to seven", work, 0.001, finish=lambda: calls.append("finish"))
    thread.start()
    assert later.wait(WAIT)
    thread.stop()
    assert calls[-1] == "finish"
    told = [(record.getMessage(), record.exc_info is not None and bool(record.exc_info)) for record in caplog.records]
    assert told == [(f"Could not count to seven: {error}", has_traceback)] * 2  # of calls 1 to 3, and of 5 and 6


def test_thread_that_never_started_stops():
    Periodic("nothing", lambda: None, 1.0).stop()
