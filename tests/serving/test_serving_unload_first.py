"""Models that cannot be held twice: the old version goes before the new one comes."""

import threading

import pytest

from serving.errors import ServingError
from serving.models.session import load
from serving.options import Options
from serving.repository.config import ModelConfig
from serving.repository.repository import Repository
from serving.wire.requests import State

pytestmark = pytest.mark.xdist_group("serving")

WAIT = 20  # seconds that nothing here should take


@pytest.fixture
def served(save_plus, tmp_path):
    """A repository of one model, what its versions were when the second began to load, and what publishes that."""
    save_plus(tmp_path / "1", 1)
    seen, begun = [], threading.Event()

    def loading(directory):
        if directory.name == "2":
            seen.extend((each.version, each.state) for each in repository.statuses("plus"))
            begun.set()
        return load(directory)

    def publish():
        save_plus(tmp_path / "writing", 2)
        (tmp_path / "writing").rename(tmp_path / "2")

    repository = Repository(loading, Options(file_system_poll_wait_seconds=0.05, unload_first=True))
    repository.start([ModelConfig("plus", tmp_path)])
    yield repository, seen, begun, publish
    repository.stop(WAIT)


def test_old_version_has_gone_when_the_new_one_loads(served):
    _, seen, begun, publish = served
    publish()
    assert begun.wait(WAIT)
    assert seen == [(2, State.LOADING), (1, State.END)]


@pytest.mark.slow
def test_request_in_flight_is_waited_for(served):
    repository, seen, begun, publish = served
    with repository.lease("plus"):
        publish()
        waited = threading.Event()
        while [each.state for each in repository.statuses("plus")] != [State.START, State.UNLOADING]:
            assert not waited.wait(0.01)
        assert not begun.wait(0.5)
        with pytest.raises(ServingError, match="Servable not found"), repository.lease("plus"):
            pass
    assert begun.wait(WAIT)
    assert seen == [(2, State.LOADING), (1, State.END)]


def test_flag_reaches_the_server(serve, rest_client, save_plus, tmp_path):
    save_plus(tmp_path / "1", 1)
    broken = tmp_path / "2"
    options = {"unload_first": True, "file_system_poll_wait_seconds": 0.05, "max_num_load_retries": 0}
    with serve(tmp_path, "plus", **options) as server, rest_client(server) as rest:
        broken.mkdir()
        waited = threading.Event()
        for _ in range(100 * WAIT):
            states = [each["state"] for each in rest.get("/v1/models/plus").json()["model_version_status"]]
            if states == ["END", "END"]:
                break
            waited.wait(0.01)
        assert states == ["END", "END"]  # without the flag the first one would have stayed
