"""Background threads, and the report of one that has died."""

import threading
import time

import pytest

from serving.background import BackgroundThread, Periodic, dead

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


def test_thread_that_an_exception_ends_is_logged_and_named(caplog):
    def end():
        raise SystemExit  # of which threading says nothing

    thread = BackgroundThread(end, "end early")
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
    assert dead() == ["end early"]
    assert [record.getMessage() for record in caplog.records] == ['The thread "end early" has died; restart the server']
    assert caplog.records[0].exc_info
    thread.join()
    assert dead() == []
