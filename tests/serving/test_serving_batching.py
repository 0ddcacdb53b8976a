"""Batching: what runs together, what does not, and what each caller gets back."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from google.protobuf import text_format

from serving.batching.options import BatchingOptions, from_message
from serving.batching.runner import BatchedRunner
from serving.batching.scheduler import BatchScheduler
from serving.call import Call
from serving.errors import Code, ServingError
from serving.models.session import load
from serving.wire import protos

pytestmark = pytest.mark.xdist_group("serving")

AGES = 60.0  # seconds: longer than any test waits


class Doubler:
    """A runner that doubles its input in NumPy, keeps what it was fed, and waits for a gate."""

    def __init__(self):
        self.runs = []
        self.timeouts = []
        self.threads = []
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False

    def run(self, feeds, fetches, call):
        self.runs.append(feeds)
        self.timeouts.append(call.timeout)
        self.threads.append(threading.current_thread().name)
        assert self.gate.wait(AGES)
        return [self.compute(name, feeds["x:0"]) for name in fetches]

    def compute(self, name, x):
        return 2 * x if name == "double:0" else x

    def close(self):
        self.closed = True

    def rows(self):
        return [feeds["x:0"].tolist() for feeds in self.runs]


@pytest.fixture
def callers():
    with ThreadPoolExecutor(40) as executor:
        yield executor


@pytest.fixture
def batched():
    """Makes a BatchedRunner over a Doubler, with one thread unless told otherwise."""
    schedulers = []

    def make(runner=None, scheduler=None, observe=None, **options):
        options = BatchingOptions(**{"num_batch_threads": 1, **options})
        if scheduler is None:
            scheduler = BatchScheduler(options)
            schedulers.append(scheduler)
        return BatchedRunner(scheduler, runner or Doubler(), options, observe)

    yield make
    for scheduler in schedulers:
        assert scheduler.close(AGES)


def ask(runner, *values, **options):
    (double,) = runner.run({"x:0": np.float32(values)}, ["double:0"], Call(**options))
    return double.tolist()


def wait_until(condition):
    end = time.monotonic() + AGES
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def num_waiting(runner):
    return runner._client.num_tasks


@pytest.fixture
def held(batched, callers):
    """Makes a runner whose only thread is held by a first request; `submit` puts more in the queue behind it."""
    gates = []

    def make(**arguments):
        doubler = arguments.pop("runner", None) or Doubler()
        doubler.gate.clear()
        gates.append(doubler.gate)
        runner = batched(doubler, **arguments)
        first = callers.submit(ask, runner, 0)
        wait_until(lambda: doubler.runs)

        def submit(*values, **options):
            before = num_waiting(runner)
            future = callers.submit(ask, runner, *values, **options)
            wait_until(lambda: num_waiting(runner) > before or future.done())
            return future

        return runner, doubler, submit, first

    yield make
    for gate in gates:
        gate.set()


def refusal(call, *arguments, **options):
    with pytest.raises(ServingError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_many_callers_get_what_they_would_get_alone(zoo_path, batched, callers):
    model = load(zoo_path / "00000123")
    signature = model.signatures["two_outputs"]
    names = [signature.outputs["double"].name]
    (feed,) = [info.name for info in signature.inputs.values()]
    sizes = []
    runner = batched(
        model.runner,
        num_batch_threads=2,
        max_batch_size=16,
        max_enqueued_batches=100,
        observe=lambda _, rows, *others: sizes.append(len(rows)),
    )
    requests = [np.float32(rows) for rows in np.split(np.random.default_rng(0).normal(size=960), 640 // 2)]

    def answer(x):
        return runner.run({feed: x}, names, Call())[0]

    for x, got in zip(requests, callers.map(answer, requests), strict=True):
        np.testing.assert_array_equal(got, model.runner.run({feed: x}, names, Call())[0])
    assert sum(sizes) == len(requests)
    assert max(sizes) > 1
    runner.close()


def test_request_alone_runs_in_its_callers_thread(batched):
    doubler = Doubler()
    assert ask(batched(doubler), 1, 2) == [2, 4]
    assert doubler.threads == [threading.current_thread().name]
    assert doubler.timeouts == [None]


def test_exception_that_ends_a_thread_frees_its_place(batched):
    endings = [SystemExit]

    def observe(*batch):
        if endings:
            raise endings.pop()

    runner = batched(observe=observe)
    with pytest.raises(SystemExit):
        ask(runner, 1)
    assert ask(runner, 1) == [2]


def test_requests_behind_a_run_are_gathered_up_to_the_largest_batch(held):
    _, doubler, submit, first = held(max_batch_size=3)
    others = [submit(value) for value in (1, 2, 3, 4)]
    doubler.gate.set()
    assert first.result() == [0]
    assert [future.result() for future in others] == [[2], [4], [6], [8]]
    assert doubler.rows() == [[0], [1, 2, 3], [4]]


def test_outputs_come_in_the_order_that_was_asked_for(batched):
    runner = batched()
    x = np.float32([3])
    double, same = runner.run({"x:0": x}, ["double:0", "a:0"], Call())
    assert (double.tolist(), same.tolist()) == ([6], [3])
    same, double = runner.run({"x:0": x}, ["a:0", "double:0"], Call())
    assert (double.tolist(), same.tolist()) == ([6], [3])


def test_full_batch_does_not_wait_for_the_timeout(batched, callers):
    doubler = Doubler()
    runner = batched(doubler, batch_timeout_micros=int(AGES * 1e6), max_batch_size=2)
    started = time.monotonic()
    assert sorted(callers.map(lambda value: ask(runner, value), (1, 2))) == [[2], [4]]
    assert time.monotonic() - started < AGES / 2
    assert len(doubler.runs) == 1


def test_batch_that_is_not_full_waits_for_the_timeout(batched):
    doubler = Doubler()
    runner = batched(doubler, batch_timeout_micros=50_000, thread_pool_name="pool")
    started = time.monotonic()
    assert ask(runner, 1) == [2]
    assert time.monotonic() - started >= 0.05
    assert doubler.threads == ["pool_0"]


def test_number_of_threads_is_that_of_runs_at_a_time(batched, callers):
    meeting = threading.Barrier(2, timeout=AGES)

    class Meeting(Doubler):
        def compute(self, name, x):
            meeting.wait()
            return super().compute(name, x)

    runner = batched(Meeting(), num_batch_threads=2, max_batch_size=1)
    assert sorted(callers.map(lambda value: ask(runner, value), range(4))) == [[0], [2], [4], [6]]


def test_queue_that_is_full_refuses(held):
    runner, doubler, submit, _ = held(max_batch_size=2, max_enqueued_batches=2)
    others = [submit(value) for value in range(4)]
    assert refusal(ask, runner, 9) == (
        "UNAVAILABLE: The batch scheduling queue to which this task was submitted is full; "
        "currently 2 batches enqueued and max_enqueued_batches is 2"
    )
    doubler.gate.set()
    assert [future.result() for future in others] == [[0], [2], [4], [6]]


def test_batch_is_filled_up_with_the_first_row_of_the_last_request(held):
    records = []
    _, doubler, submit, _ = held(
        max_batch_size=8, allowed_batch_sizes=(2, 4, 8), observe=lambda *batch: records.append(batch)
    )
    others = [submit(1), submit(2, 3)]
    doubler.gate.set()
    assert [future.result() for future in others] == [[2], [4, 6]]
    assert doubler.rows() == [[0, 0], [1, 2, 3, 2]]
    assert [(sizes, padded_size) for _, sizes, padded_size, _ in records] == [([1], 2), ([1, 2], 4)]
    assert all(wait >= 0 for *_, waits in records for wait in waits)


PADDED = {
    "numbers": (np.int64([[1, 2]]), np.int64([[3]]), [[1, 2], [3, 0]]),
    "bool": (np.array([[True]]), np.array([[True, True]]), [[True, False], [True, True]]),
    "string": (np.array([[b"a"]], object), np.array([[b"b", b"c"]], object), [[b"a", b""], [b"b", b"c"]]),
    "two-dimensions": (np.ones((1, 1, 2)), np.ones((1, 2, 1)), [[[1, 1], [0, 0]], [[1, 0], [1, 0]]]),
}


@pytest.mark.parametrize(("first", "second", "merged"), PADDED.values(), ids=PADDED)
def test_inputs_of_variable_length_are_padded_alike(held, callers, first, second, merged):
    runner, doubler, _, _ = held(pad_variable_length_inputs=True)
    futures = []
    for array in (first, second):
        before = num_waiting(runner)
        futures.append(callers.submit(runner.run, {"x:0": array}, ["same:0"], Call()))
        wait_until(lambda before=before: num_waiting(runner) > before)
    doubler.gate.set()
    assert [future.result()[0].tolist() for future in futures] == [[row] for row in merged]
    assert doubler.rows()[1:] == [merged]


def test_rows_of_other_shapes_run_apart_and_fail_nobody(held, callers):
    runner, doubler, submit, _ = held(max_enqueued_batches=1)
    before = num_waiting(runner)
    odd = callers.submit(runner.run, {"x:0": np.ones((1, 5), np.float32)}, ["double:0"], Call())
    wait_until(lambda: num_waiting(runner) > before)
    others = [submit(1), submit(2)]
    doubler.gate.set()
    assert odd.result()[0].tolist() == [[2] * 5]
    assert [future.result() for future in others] == [[2], [4]]
    assert len(doubler.runs) == 3


def test_large_request_is_split_and_put_together_again(held):
    options = {"enable_large_batch_splitting": True, "max_batch_size": 20, "max_execution_batch_size": 4}
    _, doubler, submit, _ = held(**options)
    small, large = submit(-1), submit(*range(9))
    doubler.gate.set()
    assert small.result() == [-2]
    assert large.result() == [2 * value for value in range(9)]
    assert doubler.rows() == [[0], [-1, 0, 1, 2], [3, 4, 5, 6], [7, 8]]


def test_split_request_that_has_no_room_is_refused(held):
    options = {"enable_large_batch_splitting": True, "max_batch_size": 20, "max_execution_batch_size": 4}
    runner, _, submit, _ = held(**options, max_enqueued_batches=2)
    submit(1)
    assert refusal(ask, runner, *range(8)) == (
        "UNAVAILABLE: The batch scheduling queue to which this task was submitted is full; "
        "task size is 8 but scheduling capacity is only 7 (num_enqueued_batches=1, max_enqueued_batches=2, "
        "open_batch_size=1, max_execution_batch_size=4)"
    )


@pytest.mark.parametrize("splits", [False, True])
def test_request_larger_than_a_batch_is_refused(batched, splits):
    runner = batched(max_batch_size=4, enable_large_batch_splitting=splits)
    assert refusal(ask, runner, *range(5)) == (
        "INVALID_ARGUMENT: Task size 5 is larger than maximum input batch size 4"
    )
    assert ask(runner, 1) == [2]


def test_request_without_rows_gives_none(batched):
    assert ask(batched(allowed_batch_sizes=(2, 1000))) == []


BAD_FEEDS = {
    "scalar": ({"x:0": np.float32(1)}, "Batching Run() input tensors must have at least one dimension"),
    "unequal": (
        {"x:0": np.ones(1), "y:0": np.ones(2)},
        "Batching Run() input tensors must have equal 0th-dimension size",
    ),
    "nothing": ({}, "Batching Run() must have at least one input tensor"),
}


@pytest.mark.parametrize(("feeds", "message"), BAD_FEEDS.values(), ids=BAD_FEEDS)
def test_inputs_that_cannot_be_batched_are_refused(batched, feeds, message):
    assert refusal(batched().run, feeds, ["double:0"], Call()) == f"INVALID_ARGUMENT: {message}"


BAD_OUTPUTS = {
    "scalar": (np.sum, "Batched output tensor has 0 dimensions"),
    "other-rows": (
        lambda x: x[1:],
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors",
    ),
}


@pytest.mark.parametrize(("compute", "message"), BAD_OUTPUTS.values(), ids=BAD_OUTPUTS)
def test_outputs_that_cannot_be_given_back_are_refused(batched, compute, message):
    doubler = Doubler()
    doubler.compute = lambda name, x: np.asarray(compute(x))
    assert refusal(ask, batched(doubler), 1) == f"FAILED_PRECONDITION: {message}"


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ServingError(Code.OUT_OF_RANGE, "too far"), ServingError), (ZeroDivisionError("oops"), RuntimeError)],
)
def test_error_of_a_run_goes_to_each_of_its_requests_alone(held, error, kind):
    def fail(name, x):
        if len(x) == 2:
            raise error
        return 2 * x

    doubler = Doubler()
    doubler.compute = fail
    runner, _, submit, first = held(runner=doubler)
    others = [submit(1), submit(2)]
    doubler.gate.set()
    assert first.result() == [0]
    caught = [future.exception() for future in others]
    assert [type(each) for each in caught] == [kind, kind]
    assert caught[0] is not caught[1]
    assert [each.__cause__ for each in caught] == [error, error]
    assert ask(runner, 3) == [6]


QUEUE_TIMEOUT = "RESOURCE_EXHAUSTED: Run() timeout exceeded while waiting in batching queue"


def test_request_whose_time_is_up_in_the_queue_is_not_run(held):
    runner, doubler, submit, _ = held()
    assert refusal(ask, runner, 1, timeout=0.02) == QUEUE_TIMEOUT
    other = submit(2)
    doubler.gate.set()
    assert other.result() == [4]
    assert doubler.rows() == [[0], [2]]


@pytest.mark.slow
def test_request_whose_time_is_up_in_the_run_need_not_wait(held):
    _, doubler, submit, _ = held()
    end = threading.Event()
    doubler.compute = lambda name, x: end.wait(AGES) and 2 * x if len(x) == 2 else x
    impatient, patient = submit(1, timeout=1), submit(2)
    doubler.gate.set()
    assert str(impatient.exception()) == "DEADLINE_EXCEEDED: Timed out waiting for notification"
    assert not patient.done()
    end.set()
    assert patient.result() == [4]


def test_run_has_the_time_of_its_most_patient_request(held):
    _, doubler, submit, _ = held()
    futures = [submit(1, timeout=20), submit(2, timeout=40)]
    doubler.gate.set()
    assert [future.result() for future in futures] == [[2], [4]]
    assert 20 < doubler.timeouts[1] < 40


def test_cancelled_request_is_not_run(held):
    _, doubler, submit, _ = held()
    cancelled = threading.Event()
    gone = submit(1, is_cancelled=cancelled.is_set)
    stays = submit(2, is_cancelled=threading.Event().is_set)
    cancelled.set()
    doubler.gate.set()
    assert str(gone.exception()) == "CANCELLED: Cancelled while waiting in batching queue"
    assert stays.result() == [4]
    assert doubler.rows() == [[0], [2]]


def test_batch_of_cancelled_requests_only_is_no_run(held):
    _, doubler, submit, first = held()
    gone = submit(1, is_cancelled=lambda: True)
    doubler.gate.set()
    first.result()
    assert gone.exception().code == Code.CANCELLED
    assert doubler.rows() == [[0]]


def test_models_take_turns(held, batched, callers):
    busy, doubler, submit, _ = held(max_batch_size=1)
    queued = [submit(value) for value in (1, 2, 3)]
    order = []
    doubler.compute = lambda name, x: order.append("busy") or x
    other = Doubler()
    other.compute = lambda name, x: order.append("other") or x
    neighbour = batched(other, scheduler=busy._scheduler, max_batch_size=1)
    late = callers.submit(ask, neighbour, 9)
    wait_until(lambda: num_waiting(neighbour))
    doubler.gate.set()
    for future in [*queued, late]:
        future.result()
    # The request that held the thread, one that was next, and then the neighbour's, before two that came earlier.
    assert order == ["busy", "busy", "other", "busy", "busy"]


def test_closed_runner_answers_what_waits_and_then_refuses(batched, callers):
    doubler = Doubler()
    runner = batched(doubler, batch_timeout_micros=int(AGES * 1e6))
    waiting = [callers.submit(ask, runner, value) for value in (1, 2)]
    wait_until(lambda: num_waiting(runner) == 2)
    runner.close()
    assert doubler.closed
    assert sorted(future.result() for future in waiting) == [[2], [4]]
    assert refusal(ask, runner, 1) == "UNAVAILABLE: The batch scheduler is closed"


def test_closed_scheduler_answers_what_waits_and_ends_its_threads(callers):
    scheduler = BatchScheduler(BatchingOptions(num_batch_threads=3, batch_timeout_micros=int(AGES * 1e6)))
    runners = [BatchedRunner(scheduler, Doubler(), scheduler.options) for _ in range(3)]
    waiting = [callers.submit(ask, runner, 4) for runner in runners]
    wait_until(lambda: all(map(num_waiting, runners)))
    assert scheduler.close(AGES)
    assert [future.result() for future in waiting] == [[8]] * 3
    assert refusal(ask, runners[0], 1) == "UNAVAILABLE: The batch scheduler is closed"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch_threads_")]


def test_close_says_where_a_run_does_not_end(held):
    runner, _, _, _ = held()
    assert not runner._scheduler.close(0.05)


def test_options_are_those_of_the_message():
    text = """
        max_batch_size { value: 64 } batch_timeout_micros { value: 5 } max_enqueued_batches { value: 3 }
        num_batch_threads { value: 2 } thread_pool_name { value: "mine" } allowed_batch_sizes: [4, 16]
        pad_variable_length_inputs: true enable_large_batch_splitting { value: true }
        max_execution_batch_size { value: 16 }
    """
    assert from_message(text_format.Parse(text, protos.BatchingParameters())) == BatchingOptions(
        max_batch_size=64,
        batch_timeout_micros=5,
        max_enqueued_batches=3,
        num_batch_threads=2,
        thread_pool_name="mine",
        allowed_batch_sizes=(4, 16),
        pad_variable_length_inputs=True,
        enable_large_batch_splitting=True,
        max_execution_batch_size=16,
    )
    assert from_message(protos.BatchingParameters()) == BatchingOptions()
    assert BatchingOptions().max_batch_size == 1000
    assert BatchingOptions().max_enqueued_batches == 10


BAD_OPTIONS = {
    "no-rows": ({"max_batch_size": 0}, "max_batch_size must be positive; was 0"),
    "no-queue": ({"max_enqueued_batches": -1}, "max_enqueued_batches must be positive; was -1"),
    "no-threads": ({"num_batch_threads": 0}, "num_batch_threads must be positive; was 0"),
    "timeout": ({"batch_timeout_micros": -1}, "batch_timeout_micros must be non-negative; was -1"),
    "execution": ({"max_execution_batch_size": -1}, "max_execution_batch_size must be positive; was -1"),
    "last-size": (
        {"allowed_batch_sizes": (2, 4), "max_batch_size": 8},
        "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8",
    ),
    "last-size-of-splits": (
        {"allowed_batch_sizes": (8,), "max_execution_batch_size": 4, "enable_large_batch_splitting": True},
        "Last entry in allowed_batch_sizes must be equal to max_execution_batch_size; last entry was 8; expected 4",
    ),
    "order": (
        {"allowed_batch_sizes": (4, 2, 8), "max_batch_size": 8},
        "allowed_batch_sizes entries must be monotonically increasing",
    ),
    "splits": (
        {"max_batch_size": 4, "max_execution_batch_size": 8, "enable_large_batch_splitting": True},
        "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to "
        "max_execution_batch_size; were 4 and 8",
    ),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ServingError) as caught:
        BatchingOptions(**options)
    assert str(caught.value) == f"INVALID_ARGUMENT: {message}"
