"""Workers that look for one another over real sockets, in threads of one process."""

import concurrent.futures
import socket
import threading
import time

import pytest

from training.distribute import peers, rendezvous
from training.distribute.cluster import Cluster
from training.errors import InputError, LostWorkerError, StoppedError, TrainingError


@pytest.fixture
def addresses():
    """Three addresses whose ports stay ours while the test runs."""
    sockets = [socket.socket() for _ in range(3)]
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind(("127.0.0.1", 0))
    yield tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()


@pytest.fixture
def together(addresses):
    """Runs a function of each worker's cluster in a thread of its own, and returns what each returned or raised."""
    with concurrent.futures.ThreadPoolExecutor() as pool:

        def run(function, indexes=(0, 1, 2)):
            futures = [pool.submit(function, Cluster(addresses, index)) for index in indexes]
            return [future.exception() or future.result() for future in futures]

        yield run


def test_all_workers_gather_all_values_in_order(together):
    def work(cluster):
        with rendezvous.meet(cluster, {"steps": 3}, 20) as others:
            rounds = [others.gather([cluster.index, turn]) for turn in range(3)]
            return rounds, others.index, others.is_chief

    expected = [[[index, turn] for index in range(3)] for turn in range(3)]
    assert together(work) == [(expected, index, index == 0) for index in range(3)]


def test_a_process_alone_is_the_chief_of_one():
    with rendezvous.meet(None, {"steps": 3}, 0) as others:
        assert (others.gather("here"), others.index, others.is_chief) == (["here"], 0, True)
        others.agree("steps", 3)


@pytest.mark.slow
def test_a_worker_that_never_comes_up_is_named_on_all_others(together, addresses):
    outcomes = together(lambda cluster: rendezvous.meet(cluster, {}, 1.5), (0, 1))
    line = f"worker 2 ({addresses[2]}) did not come up within 1.5 s: start all workers, or wait longer"
    for error in outcomes:
        assert isinstance(error, TrainingError)
        assert line in str(error)


@pytest.mark.slow
def test_a_chief_that_never_comes_up_is_named(together, addresses):
    (error,) = together(lambda cluster: rendezvous.meet(cluster, {}, 0.5), (1,))
    assert isinstance(error, TrainingError)
    assert f"worker 0 ({addresses[0]}), the chief, did not answer within 0.5 s" in str(error)


def test_configs_that_differ_are_refused_on_all_workers(together, addresses):
    def work(cluster):
        rendezvous.meet(cluster, {"filters": (4, 8), "steps": 20 if cluster.index == 2 else 10}, 20)

    line = f"steps is 20 on worker 2 ({addresses[2]}), but 10 on worker 0 ({addresses[0]}): start all workers alike"
    outcomes = together(work)
    assert [str(error) for error in outcomes] == [line] * 3
    assert all(isinstance(error, InputError) for error in outcomes)


def test_lists_of_workers_that_differ_are_refused(together, addresses):
    def work(cluster):
        own = addresses if cluster.index < 2 else (*addresses[:2], "127.0.0.1:1")
        rendezvous.meet(Cluster(own, cluster.index), {}, 20)

    outcomes = together(work)
    assert all(isinstance(error, InputError) and str(error).startswith("workers is [") for error in outcomes)


def test_a_port_that_is_taken_is_named(addresses):
    host, port = addresses[0].split(":")
    with socket.create_server((host, int(port))), pytest.raises(InputError, match="cannot listen at"):
        rendezvous.meet(Cluster(addresses, 0), {}, 1)


def test_what_calls_and_is_no_worker_is_passed_over(together, addresses):
    def work(cluster):
        if cluster.index == 1:
            for text in (b"GET / HTTP/1.1\r\n\r\n", b'{"worker": 7, "terms": {}}\n', b"[]\n", b""):
                with rendezvous._connect(addresses[0], 5) as stranger:
                    stranger.sendall(text)
        with rendezvous.meet(cluster, {}, 20) as others:
            return others.gather(cluster.index)

    def stubborn(cluster):
        for _ in range(50):  # the chief may not listen yet
            try:
                return work(cluster)
            except ConnectionRefusedError:
                time.sleep(0.1)
        return None

    assert together(stubborn) == [[0, 1, 2]] * 3


def test_a_worker_that_calls_twice_counts_once(together, addresses):
    def work(cluster):
        if cluster.index == 1:
            for _ in range(50):
                try:
                    with rendezvous._connect(addresses[0], 5) as first_life:
                        first_life.sendall(b'{"worker": 1, "terms": {}}\n')
                    break
                except ConnectionRefusedError:
                    time.sleep(0.1)
        time.sleep(0.3 if cluster.index == 2 else 0)  # so that the chief is still waiting when the first life ends
        with rendezvous.meet(cluster, {}, 20) as others:
            return others.gather(cluster.index)

    assert together(work) == [[0, 1, 2]] * 3


@pytest.mark.parametrize("failing", [0, 1])
def test_the_others_are_told_why_a_worker_failed(together, addresses, failing):
    def work(cluster):
        with rendezvous.meet(cluster, {}, 20) as others:
            if cluster.index == failing:
                raise InputError("no such folder\nsecond line")
            others.gather(None)

    outcomes = together(work)
    for index, error in enumerate(outcomes):
        if index == failing:
            assert isinstance(error, InputError)
        else:
            assert isinstance(error, LostWorkerError)
            assert str(error) == f"worker {failing} ({addresses[failing]}) failed: no such folder"


@pytest.mark.parametrize("dying", [0, 2])
def test_a_worker_whose_connection_breaks_is_named(together, addresses, dying):
    def work(cluster):
        with rendezvous.meet(cluster, {}, 20) as others:
            if cluster.index == dying:
                others._left.set()  # it says nothing, as a process that is killed
                for connection in others._connections.values():
                    connection._socket.shutdown(socket.SHUT_RDWR)
                return
            others.gather(None)

    outcomes = together(work)
    del outcomes[dying]
    assert [str(error) for error in outcomes] == [
        f"worker {dying} ({addresses[dying]}) is gone: its process has ended, or its machine cannot be reached"
    ] * 2


def test_a_process_that_hangs_is_ended(together, addresses, monkeypatch):
    monkeypatch.setattr(peers, "GRACE_SECONDS", 0.2)
    ended = []

    def work(cluster):
        others = rendezvous.meet(cluster, {}, 20)
        others._end = ended.append
        if cluster.index == 2:
            with others:
                raise TrainingError("the disk is full")
        deadline = time.monotonic() + 10
        with others:
            while len(ended) < 2 and time.monotonic() < deadline:  # never comes to what it waits for
                time.sleep(0.01)

    assert [type(outcome) for outcome in together(work)] == [LostWorkerError, LostWorkerError, TrainingError]
    assert ended == [f"worker 2 ({addresses[2]}) failed: the disk is full"] * 2


def test_values_that_differ_are_an_error_on_all_workers(together, addresses):
    def work(cluster):
        with rendezvous.meet(cluster, {}, 20) as others:
            others.agree("the newest checkpoint's step", 40)
            others.agree("the newest checkpoint's step", 40 if cluster.index < 2 else 0)

    line = f"the newest checkpoint's step is 0 on worker 2 ({addresses[2]}), but 40 on worker 0 ({addresses[0]})"
    outcomes = together(work)
    assert [str(error) for error in outcomes] == [line] * 3
    assert all(isinstance(error, InputError) for error in outcomes)


@pytest.mark.parametrize("asked", [0, 2])
def test_a_worker_that_is_asked_stops_all_at_one_step(together, asked):
    all_reduce = threading.Barrier(3, timeout=20)  # nobody finishes a step that another has not begun

    def work(cluster):
        with rendezvous.meet(cluster, {}, 20) as others:
            for step in range(5, 10_000, 5):
                all_reduce.wait()
                time.sleep(0.002 if cluster.index == step % 3 else 0)
                if others.stops(step, step >= 50 and cluster.index == asked):
                    raise StoppedError(step)

    (step,) = {outcome.args[0] for outcome in together(work)}
    assert 50 < step < 1000


def test_asking_whether_to_stop_waits_for_nobody(together):
    def work(cluster):
        with rendezvous.meet(cluster, {}, 20) as others:
            steps = range(100 if cluster.index == 1 else 0)
            return [others.stops(step, False) for step in steps]

    assert together(work) == [[], [False] * 100, []]


def test_a_process_alone_stops_at_the_step_at_which_it_is_asked():
    with rendezvous.meet(None, {}, 0) as others:
        assert [others.stops(step, step == 2) for step in (1, 2)] == [False, True]


def test_the_chief_goes_first_where_it_shall(together):
    order = []

    def work(cluster):
        with rendezvous.meet(cluster, {}, 20) as others, others.chief_first():
            time.sleep(0.1 if cluster.index == 0 else 0)
            order.append(cluster.index)

    together(work)
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2]
