"""How many versions are loaded and unloaded at a time, and what the repository costs while nothing changes."""

import contextlib
import pathlib
import threading
import time

import pytest

from serving.models.model import Model
from serving.models.session import load
from serving.options import Options
from serving.repository.config import All, ModelConfig, Specific
from serving.repository.repository import Repository

pytestmark = pytest.mark.xdist_group("serving")


class Crowd:
    """Counts who is in it at a time; each waits for as many as are wanted, and a little for one too many."""

    def __init__(self, wanted):
        self.most = 0
        self._wanted = wanted
        self._inside = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def joined(self):
        with self._changed:
            self._inside += 1
            self.most = max(self.most, self._inside)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.most >= self._wanted, timeout=20)
        time.sleep(0.05)
        yield
        with self._changed:
            self._inside -= 1


class SlowToClose:
    def __init__(self, runner, crowd):
        self._runner = runner
        self._crowd = crowd

    def close(self):
        with self._crowd.joined():
            self._runner.close()


@pytest.mark.parametrize("number", [1, 3])
def test_versions_loaded_and_unloaded_at_a_time(save_plus, tmp_path, number):
    for version in (1, 2, 3, 4):
        save_plus(tmp_path / str(version), version)
    loads, unloads = Crowd(number), Crowd(number)

    def load_slowly(directory):
        with loads.joined() if directory.name != "1" else contextlib.nullcontext():
            model = load(directory)
        return Model(SlowToClose(model.runner, unloads), model.signatures)

    options = Options(file_system_poll_wait_seconds=0, num_load_threads=number, num_unload_threads=number)
    repository = Repository(load_slowly, options)
    repository.start([ModelConfig("m", tmp_path, Specific(frozenset([1])))])
    repository.reload([ModelConfig("m", tmp_path, All())])
    deadline = time.monotonic() + 20
    while [each.state.name for each in repository.statuses("m")] != ["AVAILABLE"] * 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert repository.stop(timeout=20)
    assert (loads.most, unloads.most) == (number, number)


def test_version_that_fails_to_unload_is_gone_all_the_same(save_plus, tmp_path, caplog):
    save_plus(tmp_path / "1", 1)

    class FailsToClose:
        def close(self):
            raise RuntimeError("no memory to give back")

    repository = Repository(lambda directory: Model(FailsToClose(), {}), Options(file_system_poll_wait_seconds=0))
    repository.start([ModelConfig("m", tmp_path)])
    assert repository.stop(timeout=20)
    assert [each.state.name for each in repository.statuses("m")] == ["END"]
    assert "Version 1 of model m failed to unload" in caplog.messages


class Weightless:
    def close(self):
        pass


@pytest.mark.slow
def test_models_that_do_not_change_cost_little(tmp_path):
    configs = [ModelConfig(f"m{number}", tmp_path / f"m{number}") for number in range(200)]
    for config in configs:
        (config.base_path / "1").mkdir(parents=True)
    repository = Repository(lambda directory: Model(Weightless(), {}), Options())
    repository.start(configs)
    started, before = time.monotonic(), time.process_time()
    time.sleep(1.5)  # the base paths are looked at once a second
    share = (time.process_time() - before) / (time.monotonic() - started)
    assert repository.stop(timeout=20)
    assert share < 0.1  # of a core; 0.005 where the machine is idle


def test_base_path_that_no_system_has_leaves_the_other_models_alone(tmp_path, caplog):
    good, bad = ModelConfig("good", tmp_path), ModelConfig("bad", pathlib.Path("/a\0b"))
    repository = Repository(lambda directory: Model(Weightless(), {}), Options(file_system_poll_wait_seconds=0.02))
    repository.start([])
    repository.reload([bad, good], is_awaited=lambda: False)
    (tmp_path / "1").mkdir()
    deadline = time.monotonic() + 20
    while repository.availability() != {"bad": False, "good": True}:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert repository.stop(timeout=20)
    assert "Could not find base path /a\0b for servable bad: embedded null byte" in caplog.messages


def test_listener_that_fails_stops_nothing(tmp_path, caplog):
    (tmp_path / "1").mkdir()
    heard = threading.Event()

    def fail():
        if repository.availability() == {"m": True}:
            heard.set()
        raise KeyError("no such model")

    repository = Repository(lambda directory: Model(Weightless(), {}), Options())
    repository.on_change(fail)
    repository.start([ModelConfig("m", tmp_path)])
    assert heard.wait(20)
    assert repository.stop(timeout=20)
    assert caplog.messages.count("Could not tell which models answer: 'no such model'") == 1
