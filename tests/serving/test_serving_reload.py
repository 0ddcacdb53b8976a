"""Other models, versions and labels under a server that runs: by its config file, and over gRPC."""

import contextlib
import shutil
import threading
import time

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2

pytestmark = pytest.mark.xdist_group("serving")

ZERO = np.float32([0])


@pytest.fixture(scope="module")
def plus_path(tmp_path_factory, save_plus):
    """Versions 1, 2 and 3, each of which adds its number."""
    base_path = tmp_path_factory.mktemp("plus")
    for number in (1, 2, 3):
        save_plus(base_path / str(number), number)
    return base_path


def model(name, base_path, rest=""):
    return f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" {rest} }}'


def specific(*versions):
    return "model_version_policy { specific {" + "".join(f" versions: {each}" for each in versions) + " } }"


def labels(**versions):
    return " ".join(f'version_labels {{ key: "{label}" value: {each} }}' for label, each in versions.items())


def text(*models):
    return "model_config_list {" + " ".join(models) + "}"


@pytest.fixture
def config_path(tmp_path):
    return tmp_path / "models.config"


@pytest.fixture
def served(config_path, serve_config, grpc_stubs):
    """Starts a server with models, and gives its stubs."""
    with contextlib.ExitStack() as stack:

        def start(*models, **options):
            config_path.write_text(text(*models))
            server = stack.enter_context(serve_config(config_path, **options))
            return stack.enter_context(grpc_stubs(server))

        yield start


def reload_request(*models):
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(text(*models), request.config)
    return request


def reload(stubs, *models, timeout=20):
    return stubs.model.HandleReloadConfigRequest(reload_request(*models), timeout=timeout)


def states(stubs, name):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    listed = stubs.model.GetModelStatus(request).model_version_status
    return {each.version: each.State.Name(each.state) for each in listed}


def wait_for_states(stubs, name, wanted):
    deadline = time.monotonic() + 20
    while states(stubs, name) != wanted:
        assert time.monotonic() < deadline, f"{states(stubs, name)} did not become {wanted}"
        time.sleep(0.01)


@pytest.fixture
def answer(predict_request):
    def ask(stubs, name="plus", **which):
        return stubs.prediction.Predict(predict_request(model=name, x=ZERO, **which)).outputs["y"].float_val[0]

    return ask


POLICIES = {
    "latest": ("", {3: "AVAILABLE"}),
    "latest-two": (
        "model_version_policy { latest { num_versions: 2 } }",
        {3: "AVAILABLE", 2: "AVAILABLE"},
    ),
    "all": ("model_version_policy { all { } }", {3: "AVAILABLE", 2: "AVAILABLE", 1: "AVAILABLE"}),
    "specific": (specific(1, 2), {2: "AVAILABLE", 1: "AVAILABLE"}),
}


@pytest.mark.parametrize(("policy", "wanted"), POLICIES.values(), ids=POLICIES)
def test_policy_says_which_versions_are_there(served, plus_path, answer, policy, wanted):
    stubs = served(model("plus", plus_path, policy))
    wait_for_states(stubs, "plus", wanted)
    assert list(states(stubs, "plus")) == list(wanted)
    assert answer(stubs) == max(wanted)
    assert [answer(stubs, version=version) for version in wanted] == list(wanted)


def test_change_of_policy_loads_before_it_unloads(served, plus_path, answer):
    stubs = served(model("plus", plus_path, specific(1)))
    failed, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            try:
                answer(stubs)
            except grpc.RpcError as error:
                failed.append(error)

    asker = threading.Thread(target=ask)
    asker.start()
    for version, before in ((2, 1), (1, 2), (3, 1)):
        reload(stubs, model("plus", plus_path, specific(version)))
        wait_for_states(stubs, "plus", {**states(stubs, "plus"), version: "AVAILABLE", before: "END"})
        assert answer(stubs) == version
    stop.set()
    asker.join()
    assert failed == []


def test_reload_answers_once_the_new_model_does(served, plus_path, answer):
    stubs = served(model("plus", plus_path))
    response = reload(stubs, model("plus", plus_path), model("other", plus_path, specific(2)))
    assert (response.status.error_code, response.status.error_message) == (0, "")
    assert (answer(stubs), answer(stubs, "other")) == (3, 2)


def test_reload_tells_what_was_counted_meanwhile(served, plus_path):
    stubs = served(model("plus", plus_path))
    request = reload_request(model("plus", plus_path), model("other", plus_path, specific(1, 2)))
    request.metric_names.extend(["/tensorflow/cc/saved_model/load_attempt_count", "/no/such/metric"])
    response = stubs.model.HandleReloadConfigRequest(request, timeout=20)
    loads, unknown = response.metric
    assert (loads.name, unknown.name) == tuple(request.metric_names)
    assert loads.int64_value_increase in (1, 2)  # it answers once one of the two is there
    assert unknown.int64_value_increase == 0


def test_model_that_is_left_out_goes_and_stays_listed(served, plus_path, answer, status_of, predict_request):
    stubs = served(model("plus", plus_path), model("other", plus_path))
    reload(stubs, model("other", plus_path))
    wait_for_states(stubs, "plus", {3: "END"})
    request = predict_request(model="plus", x=ZERO)
    missing = ("NOT_FOUND", "Servable not found for request: Latest(plus)")
    assert status_of(stubs.prediction.Predict, request) == missing
    assert answer(stubs, "other") == 3
    reload(stubs, model("other", plus_path), model("plus", plus_path))
    assert answer(stubs) == 3


def test_labels_follow_the_versions_that_are_there(served, plus_path, answer, status_of):
    stubs = served(model("plus", plus_path, specific(1)))
    reload(stubs, model("plus", plus_path, specific(1) + labels(stable=1)))
    assert answer(stubs, label="stable") == 1
    canary = model("plus", plus_path, specific(1, 2) + labels(stable=1, canary=2))
    assert status_of(stubs.model.HandleReloadConfigRequest, reload_request(canary)) == (
        "FAILED_PRECONDITION",
        "Request to assign label to version 2 of model plus, which is not currently available for inference",
    )
    assert states(stubs, "plus") == {1: "AVAILABLE"}, "a configuration that is refused changes nothing"
    reload(stubs, model("plus", plus_path, specific(1, 2) + labels(stable=1)))
    wait_for_states(stubs, "plus", {2: "AVAILABLE", 1: "AVAILABLE"})
    reload(stubs, canary)
    assert (answer(stubs, label="stable"), answer(stubs, label="canary"), answer(stubs)) == (1, 2, 2)


def test_label_for_a_version_that_is_not_there_yet(served, plus_path, answer):
    labelled = model("plus", plus_path, specific(2) + labels(stable=2))
    stubs = served(labelled, allow_version_labels_for_unavailable_models=True)
    assert answer(stubs, label="stable") == 2


REFUSED = {
    "no-list": ((), "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is"),
    "relative": (('config { name: "m" base_path: "m" model_platform: "tensorflow" }',), "Expected model m to have"),
    "platform": (
        ('config { name: "plus" base_path: "/m" model_platform: "other" }',),
        "Illegal to change a model's platform. For model plus platform was tensorflow and new platform requested is",
    ),
}


@pytest.mark.parametrize(("models", "message"), REFUSED.values(), ids=REFUSED)
def test_reload_that_cannot_be_followed_changes_nothing(served, plus_path, answer, status_of, models, message):
    stubs = served(model("plus", plus_path))
    request = reload_request(*models) if models else model_management_pb2.ReloadConfigRequest()
    code, told = status_of(stubs.model.HandleReloadConfigRequest, request)
    assert code == "INVALID_ARGUMENT"
    assert told.startswith(message)
    assert answer(stubs) == 3


def test_new_model_that_fails_to_load_is_told(served, plus_path, tmp_path, answer, status_of):
    stubs = served(model("plus", plus_path))
    (tmp_path / "broken" / "1").mkdir(parents=True)
    request = reload_request(model("plus", plus_path), model("broken", tmp_path / "broken"))
    code, told = status_of(stubs.model.HandleReloadConfigRequest, request)
    assert code == "UNKNOWN"
    assert told.startswith(
        "1 model(s) did not become available: {{{name: broken version: 1} due to error: NOT_FOUND: Could not find"
    )
    assert answer(stubs) == 3


def test_reload_that_nobody_awaits_holds_up_no_other(served, plus_path, tmp_path, answer, status_of):
    stubs = served(model("plus", plus_path))
    later = reload_request(model("plus", plus_path), model("later", tmp_path / "later"))
    assert status_of(stubs.model.HandleReloadConfigRequest, later, timeout=0.3)[0] == "DEADLINE_EXCEEDED"
    reload(stubs, model("plus", plus_path, specific(2)))
    wait_for_states(stubs, "plus", {3: "END", 2: "AVAILABLE"})


def test_config_file_is_followed(served, config_path, plus_path, tmp_path, answer):
    stubs = served(model("plus", plus_path, specific(1)), model_config_file_poll_wait_seconds=0.05)
    config_path.write_text("this is no configuration")
    time.sleep(0.2)
    assert answer(stubs) == 1
    being_written = tmp_path / "being-written"
    being_written.write_text(text(model("plus", plus_path, specific(2)), model("other", plus_path)))
    being_written.rename(config_path)
    wait_for_states(stubs, "plus", {2: "AVAILABLE", 1: "END"})
    wait_for_states(stubs, "other", {3: "AVAILABLE"})
    assert (answer(stubs), answer(stubs, "other")) == (2, 3)


def test_broken_model_leaves_the_others_alone(served, plus_path, tmp_path, answer):
    shutil.copytree(plus_path / "1", tmp_path / "growing" / "1")
    slow_retries = {"max_num_load_retries": 5, "load_retry_interval_micros": 3_600_000_000}
    stubs = served(model("plus", plus_path, specific(1)), model("growing", tmp_path / "growing"), **slow_retries)
    (tmp_path / "growing" / "2").mkdir()
    wait_for_states(stubs, "growing", {2: "LOADING", 1: "AVAILABLE"})
    reload(stubs, model("plus", plus_path, specific(2)), model("growing", tmp_path / "growing"))
    wait_for_states(stubs, "plus", {2: "AVAILABLE", 1: "END"})
    assert (answer(stubs), answer(stubs, "growing")) == (2, 1)
