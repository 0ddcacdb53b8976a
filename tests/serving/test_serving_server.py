"""What flags do to the REST API, and how a server starts and stops in a process."""

import threading

import numpy as np
import pytest
from tensorflow_serving.apis import model_management_pb2

from serving.errors import ServingError
from serving.options import Options
from serving.server import Server

pytestmark = pytest.mark.xdist_group("serving")

MONITORING = {
    "default-path": ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics", 200),
    "own-path": ('prometheus_config { enable: true path: "/counts" }', "/counts", 200),
    "off": ('prometheus_config { path: "/counts" }', "/counts", 404),
}


@pytest.mark.parametrize(("config", "path", "status"), MONITORING.values(), ids=MONITORING)
def test_monitoring_config_says_where_metrics_are(serve, rest_client, zoo_path, tmp_path, config, path, status):
    (tmp_path / "monitoring.config").write_text(config)
    options = {"monitoring_config_file": str(tmp_path / "monitoring.config")}
    with serve(zoo_path, **options) as server, rest_client(server) as rest:
        rest.post("/v1/models/zoo:predict", json={"instances": [1]})
        answer = rest.get(path)
    assert answer.status_code == status
    counted = ':tensorflow:serving:request_count{model_name="zoo",status="OK"} 1'
    assert (counted in answer.text.splitlines()) == (status == 200)


@pytest.mark.parametrize("enabled", [True, False])
def test_pages_of_other_origins(serve, rest_client, zoo_path, enabled):
    with serve(zoo_path, rest_api_enable_cors_support=enabled) as server, rest_client(server) as rest:
        answer = rest.get("/v1/models/zoo")
    assert answer.headers.get("access-control-allow-origin") == ("*" if enabled else None)


def test_start_that_fails_leaves_no_thread_behind(tmp_path):
    (tmp_path / "1").mkdir()
    before = set(threading.enumerate())
    options = Options(model_base_path=str(tmp_path), max_num_load_retries=0, enable_batching=True)
    server = Server(options, pick_free_ports=True)
    with pytest.raises(ServingError, match="did not become available"):
        server.start()
    assert [each.name for each in threading.enumerate() if each not in before and not each.daemon] == []


def test_server_without_models_takes_them_later(serve_config, grpc_stubs, predict_request, save_plus, tmp_path):
    (tmp_path / "models.config").touch()
    save_plus(tmp_path / "plus" / "1", 1)
    with serve_config(tmp_path / "models.config") as server, grpc_stubs(server) as stubs:
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.config.add(
            name="plus", base_path=str(tmp_path / "plus"), model_platform="tensorflow"
        )
        stubs.model.HandleReloadConfigRequest(request, timeout=20)
        answer = stubs.prediction.Predict(predict_request(model="plus", x=np.float32([0])))
    assert list(answer.outputs["y"].float_val) == [1]
