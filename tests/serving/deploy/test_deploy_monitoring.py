"""Expressions of scalers, alerts and the dashboard, each against the metrics of a server that has answered requests.

promtool and prometheus come with the Debian package prometheus, which `make test-deploy` fetches. Tests that need them
are skipped where they are not on the path.
"""

import contextlib
import re
import shutil
import socket
import subprocess
import threading
import time

import grpc
import httpx
import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from serving.errors import Code
from serving.wire.requests import State

pytestmark = pytest.mark.xdist_group("serving")

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the path")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not on the path")
# What Prometheus and its operator add to each series.
TARGET = {"namespace": "default", "service": "digits", "pod": "digits-predictor-0"}
WAIT = 60.0  # seconds that nothing here should take


@pytest.fixture(scope="module")
def server(serve_config, zoo_path, tmp_path_factory):
    """One with a version that batches, 1, a version that does not, 2, and one that does not load."""
    folder = tmp_path_factory.mktemp("monitored")
    for version in ("1", "2"):
        shutil.copytree(zoo_path / "00000123", folder / "zoo" / version)
    (folder / "zoo" / "1" / "batching_params.pbtxt").touch()
    model = f'name: "zoo" base_path: "{folder}/zoo" model_platform: "tensorflow" model_version_policy {{ all {{}} }}'
    (folder / "models.config").write_text(f"model_config_list {{ config {{ {model} }} }}")
    with serve_config(
        folder / "models.config", enable_batching=True, enable_per_model_batching_parameters=True
    ) as each:
        (folder / "zoo" / "3").mkdir()
        yield each


@pytest.fixture(scope="module")
def ask(server, rest_client, grpc_stubs, predict_request):
    """Sends requests over both transports, one of which takes too long."""

    def ask():
        with rest_client(server) as rest, grpc_stubs(server) as stubs:
            assert rest.post("/v1/models/zoo/versions/1:predict", json={"instances": [1]}).status_code == 200
            stubs.prediction.Predict(predict_request(version=1, x=np.float32([1])), timeout=WAIT)
            with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
                stubs.prediction.Predict(predict_request("slow", version=2, n=np.int64(10**9)), timeout=0.2)

    return ask


@pytest.fixture(scope="module")
def series(ask, server, rest_client):
    """The labels of each series on the server's page."""
    ask()
    with rest_client(server) as rest:
        page = rest.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return {sample.name: sample.labels.keys() for sample in samples}


def names_in(expression):
    return set(re.findall(r"\b(?:tensorflow|process|up)\w*", re.sub(r'"[^"]*"', "", expression)))


def labels_in(expression):
    matched = re.findall(r"(\w+)(?:=|!=|=~|!~)\"", expression)
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    return {*matched, *(label.strip() for group in grouped for label in group.split(","))}


def test_names_are_those_of_the_servers_metrics(expressions, series):
    for place, expression in expressions.items():
        names = names_in(expression)
        assert names, place
        assert names <= {*series, "up"}, place


def test_labels_are_those_of_the_metrics(expressions, series):
    for place, expression in expressions.items():
        labels = {label for name in names_in(expression) for label in series.get(name, ())}
        assert labels_in(expression) <= labels | {*TARGET, "job"}, place


def test_autoscaler_asks_for_what_the_adapter_offers(expressions):
    assert expressions["adapter's series"].startswith(expressions["hpa"] + "{")


@pytest.mark.parametrize(("label", "known"), [("status", Code), ("state", State)], ids=["status", "state"])
def test_values_are_those_that_the_server_knows(expressions, label, known):
    found = [value for each in expressions.values() for value in re.findall(rf'\b{label}=~?"([^"]*)"', each)]
    values = {name for value in found for name in value.split("|")}
    assert values
    assert values <= {each.name for each in known}


def test_panels_do_not_overlap(dashboard):
    places = [(each["gridPos"]["x"], each["gridPos"]["y"]) for each in dashboard["panels"]]
    assert len({*places}) == len(places)
    assert len({each["id"] for each in dashboard["panels"]}) == len(places)


def promtool(*arguments):
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=WAIT, check=False)


@needs_promtool
def test_rules_are_valid(rules, tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    checked = promtool("check", "rules", "--lint-fatal", tmp_path / "rules.yaml")
    assert checked.returncode == 0, checked.stderr
    assert f"{sum(len(group['rules']) for group in rules['groups'])} rules found" in checked.stdout


REQUESTS = 'tensorflow_serving_request_count_total{model="m",status="%s"}'
LATENCY = 'tensorflow_serving_request_latency_bucket{model="m",le="%s"}'
STATE = 'tensorflow_serving_model_version_state{model_name="m",version="%s",state="%s"}'
BUSY = 'tensorflow_serving_threads_busy_ratio{transport="REST"}'
# Values each minute: of a server that is well, and of one that each alert is for.
WELL = {
    'up{job="digits"}': "1x30",
    STATE % (1, "AVAILABLE"): "1x30",
    STATE % (2, "LOADING"): "0x30",
    STATE % (2, "END"): "0x30",
    REQUESTS % "OK": "0+6000x30",
    REQUESTS % "INTERNAL": "0+3x30",
    REQUESTS % "INVALID_ARGUMENT": "0+6000x30",
    LATENCY % "500000.0": "0+6000x30",
    LATENCY % "2e+06": "0+6000x30",
    LATENCY % "+Inf": "0+6000x30",
    BUSY: "0.5x30",
}
ILL = {
    "ModelServerDown": {'up{job="digits"}': "0x30"},
    "ModelHasNoVersion": {STATE % (1, "AVAILABLE"): "0x30"},
    "ModelVersionDoesNotLoad": {STATE % (2, "LOADING"): "1x22 0x8", STATE % (2, "END"): "0x22 1x8"},
    "ModelRequestsFail": {REQUESTS % "INTERNAL": "0+600x30"},
    "ModelAnswersSlowly": {LATENCY % "500000.0": "0+5000x30"},
    "ModelServerIsBusy": {BUSY: "1x30"},
}


@needs_promtool
@pytest.mark.parametrize("alert", ["none", *ILL])
def test_alert_is_raised_when_it_should_be(rules, alert, tmp_path):
    firing = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert in ILL else []
    series = [{"series": name, "values": values} for name, values in (WELL | ILL.get(alert, {})).items()]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    raised = {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": "25m", "exp_samples": firing}
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [raised]}
    described = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(described))
    checked = promtool("test", "rules", tmp_path / "test.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_is_tried(rules):
    assert [rule["alert"] for group in rules["groups"] for rule in group["rules"]] == list(ILL)


@contextlib.contextmanager
def prometheus(server, tmp_path):
    """The real one, which reads the server's metrics twice per second."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    targets = [{"targets": [f"127.0.0.1:{server.rest_port}"], "labels": TARGET}]
    job = {"job_name": "digits", "scrape_interval": "500ms", "scrape_timeout": "500ms", "static_configs": targets}
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    options = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={tmp_path}/data", "--log.level=warn"]
    command = ["prometheus", f"--config.file={tmp_path}/prometheus.yaml", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False, timeout=WAIT) as client:
                yield client
        finally:
            process.kill()


def results(client, expression):
    try:
        answer = client.get("/query", params={"query": expression})
    except httpx.ConnectError:  # it has not begun to listen
        return []
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # nor read its own files
        return []
    assert answer.status_code == httpx.codes.OK, answer.text
    return answer.json()["data"]["result"]


@needs_prometheus
@pytest.mark.slow
def test_prometheus_answers_every_query(expressions, server, ask, tmp_path):
    # Without its limit an alert's expression has a value for a server that is well, too.
    queries = {place: re.sub(r"\s(==|>) [\d.e]+$", "", each) for place, each in expressions.items()}
    stop, end = threading.Event(), time.monotonic() + WAIT
    asking = threading.Thread(target=lambda: [ask() for _ in iter(stop.is_set, True)])
    with prometheus(server, tmp_path) as client:
        asking.start()
        try:
            while queries and time.monotonic() < end:
                queries = {place: each for place, each in queries.items() if not results(client, each)}
                time.sleep(0.5)
        finally:
            stop.set()
            asking.join()
    assert queries == {}
