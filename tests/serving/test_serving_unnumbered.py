"""A SavedModel right in a model's base path, where KServe's storage initializer leaves it: version 1."""

import contextlib
import shutil
import threading
import time

import pytest
import tensorflow as tf

from serving.errors import ServingError
from serving.models import session
from serving.repository.storage import Quiet, find_versions

pytestmark = pytest.mark.xdist_group("serving")

PREDICT = "/v1/models/m:predict"
POLL = 0.05  # seconds
WAIT = 20.0  # seconds that nothing here should take


class Plus(tf.Module):
    """Adds a variable: a model that is loaded without its variables cannot answer."""

    def __init__(self, number):
        self.number = tf.Variable(number)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def add(self, x):
        return {"y": x + self.number}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "plus"
    module = Plus(1.0)
    tf.saved_model.save(module, str(directory), module.add)
    return directory


@pytest.fixture
def base_path(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "models")


@contextlib.contextmanager
def served(serve, rest_client, base_path, **options):
    options = {"file_system_poll_wait_seconds": POLL, **options}
    with serve(base_path, "m", **options) as server, rest_client(server) as rest:
        yield rest


def predict(rest):
    return rest.post(PREDICT, json={"instances": [1]}).json()


def states(rest):
    listed = rest.get("/v1/models/m").json()["model_version_status"]
    return {int(each["version"]): each["state"] for each in listed}


def wait_until(reached):
    end = time.monotonic() + WAIT
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_is_version_1(base_path):
    assert find_versions(base_path) == {1: base_path}


def test_numbered_directories_go_before_it(base_path):
    (base_path / "3").mkdir()
    assert find_versions(base_path) == {3: base_path / "3"}


def test_other_files_are_no_version(tmp_path):
    (tmp_path / "saved_model.pb").mkdir()
    (tmp_path / "saved_model.pbtxt").touch()
    assert find_versions(tmp_path) == {}


@pytest.mark.slow
def test_it_is_served_and_the_log_says_so(serve, rest_client, base_path, caplog):
    caplog.set_level("INFO", "serving")
    with served(serve, rest_client, base_path) as rest:
        assert predict(rest) == {"predictions": [2.0]}
        assert states(rest) == {1: "AVAILABLE"}
    told = f"The SavedModel right in base path {base_path} of servable m is served as version 1"
    assert caplog.messages.count(told) == 1


def write_slowly(saved, base_path):
    """Copies the variables last, as an alphabetical order does, and with pauses."""
    content = (saved / "variables" / "variables.data-00000-of-00001").read_bytes()
    with open(base_path / "variables" / "variables.data-00000-of-00001", "wb") as file:
        for at in range(len(content)):
            file.write(content[at : at + 1])
            file.flush()
            if at % (len(content) // 5) == 0:
                time.sleep(0.6)
    shutil.copy(saved / "variables" / "variables.index", base_path / "variables")


@pytest.mark.slow
def test_it_is_not_loaded_before_it_is_whole(serve, rest_client, saved, tmp_path, caplog):
    base_path = tmp_path / "models"
    shutil.copytree(saved, base_path, ignore=lambda folder, names: [name for name in names if "variables." in name])
    writing = threading.Thread(target=write_slowly, args=(saved, base_path))
    writing.start()
    with served(serve, rest_client, base_path) as rest:
        assert not writing.is_alive()
        assert predict(rest) == {"predictions": [2.0]}
    writing.join()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    told = f"The SavedModel right in base path {base_path} of servable m is being written"
    assert len([message for message in caplog.messages if message.startswith(told)]) == 1


@pytest.mark.slow
def test_it_is_loaded_as_it_is_where_there_is_one_look(serve, rest_client, base_path):
    with served(serve, rest_client, base_path, file_system_poll_wait_seconds=0) as rest:
        assert predict(rest) == {"predictions": [2.0]}


@pytest.mark.slow
def test_it_keeps_answering_while_somebody_writes_there(serve, rest_client, base_path):
    with served(serve, rest_client, base_path) as rest:
        for _ in range(5):
            (base_path / "saved_model.pb").write_bytes(b"half a message")
            time.sleep(2 * POLL)
            assert predict(rest) == {"predictions": [2.0]}
        assert states(rest) == {1: "AVAILABLE"}


@pytest.mark.slow
def test_numbered_version_takes_over(serve, rest_client, base_path, saved, tmp_path):
    with served(serve, rest_client, base_path) as rest:
        shutil.copytree(saved, tmp_path / "being-written")
        (tmp_path / "being-written").rename(base_path / "2")
        wait_until(lambda: states(rest) == {2: "AVAILABLE", 1: "END"})
        assert predict(rest) == {"predictions": [2.0]}


@pytest.mark.slow
def test_it_goes_with_its_file_and_comes_back(serve, rest_client, base_path, saved):
    with served(serve, rest_client, base_path) as rest:
        (base_path / "saved_model.pb").unlink()
        wait_until(lambda: states(rest) == {1: "END"})
        shutil.copy(saved / "saved_model.pb", base_path)
        wait_until(lambda: states(rest) == {1: "AVAILABLE"})
        assert predict(rest) == {"predictions": [2.0]}


def test_link_that_leads_out_of_it_is_refused(serve, base_path):
    (base_path / "assets" / "passwords").symlink_to("/etc/passwd")
    with pytest.raises(
        ServingError, match="PERMISSION_DENIED: assets/passwords is a link that leads out of the model's"
    ):
        serve(base_path, "m", file_system_poll_wait_seconds=0).__enter__()


@pytest.mark.slow
def test_base_path_may_be_a_link(serve, rest_client, base_path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "current").symlink_to(base_path)
    with served(serve, rest_client, tmp_path / "elsewhere" / "current", file_system_poll_wait_seconds=0) as rest:
        assert predict(rest) == {"predictions": [2.0]}


@pytest.mark.parametrize("named", ["models", "7"], ids=["named", "numbered"])
def test_error_tells_no_path_of_the_machine(serve, saved, tmp_path, named):
    (tmp_path / named).mkdir()
    (tmp_path / named / "saved_model.pb").write_bytes(b"not a message")
    with pytest.raises(ServingError, match=r"Can't parse <model_base_path>/(7/)?saved_model.pb as") as caught:
        serve(tmp_path / named, "m", file_system_poll_wait_seconds=0).__enter__()
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("behind", [0, 3600], ids=["same-clock", "clock-of-the-files-ahead"])
def test_files_are_quiet_two_seconds_after_the_last_change(behind, tmp_path, monkeypatch):
    now = time.time
    monkeypatch.setattr("serving.repository.storage.time.time", lambda: now() - behind)
    quiet = Quiet()
    (tmp_path / "a").touch()
    assert not quiet.is_quiet(tmp_path)
    time.sleep(1)
    (tmp_path / "b").touch()
    assert not quiet.is_quiet(tmp_path)
    time.sleep(1.2)
    assert not quiet.is_quiet(tmp_path)
    time.sleep(1)
    assert quiet.is_quiet(tmp_path)


def save_with_tf1(directory):
    with tf.Graph().as_default(), tf.compat.v1.Session() as run:
        x = tf.compat.v1.placeholder(tf.float32)
        y = x + tf.compat.v1.get_variable("one", initializer=1.0)
        run.run(tf.compat.v1.global_variables_initializer())
        signature = tf.compat.v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder = tf.compat.v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(run, ["serve"], {"serving_default": signature})
        builder.save()


@pytest.mark.parametrize("exported_by", ["TF1", "TF2"])
def test_variables_that_have_not_arrived_are_an_error(exported_by, base_path, tmp_path):
    directory = base_path
    if exported_by == "TF1":
        directory = tmp_path / "tf1"
        save_with_tf1(directory)
    session.load(directory).close()
    (directory / "variables" / "variables.index").unlink()
    with pytest.raises(
        ServingError, match=r"NOT_FOUND: The graph has variables, but there is no file .*/variables.index"
    ):
        session.load(directory)


def test_graph_without_variables_needs_no_file_of_them(save_plus, tmp_path):
    save_plus(tmp_path, 1)
    shutil.rmtree(tmp_path / "variables")
    session.load(tmp_path).close()
