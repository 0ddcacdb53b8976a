"""The manifests of serving/deploy: valid, and of one mind with one another and with what KServe expects."""

import json
import pathlib

import jsonschema
import kubernetes_validate
import pytest

SCHEMAS = json.loads((pathlib.Path(__file__).parent / "schemas.json").read_text())
CORE = ["Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"]


@pytest.mark.parametrize("kind", CORE)
def test_core_objects_are_valid_for_kubernetes(manifests, kind):
    objects = [each for (of_kind, _), each in manifests.items() if of_kind == kind]
    assert objects
    for each in objects:
        assert kubernetes_validate.validate(each, "1.33", strict=True) == "1.33"


@pytest.mark.parametrize("kind", SCHEMAS)
def test_custom_objects_are_valid_for_their_definitions(manifests, kind):
    objects = [each for each in manifests.values() if f"{each['apiVersion']} {each['kind']}" == kind]
    assert objects
    for each in objects:
        jsonschema.validate(each, SCHEMAS[kind], jsonschema.Draft4Validator)


def test_every_object_is_checked(manifests):
    kinds = {each["kind"] for each in manifests.values()}
    assert kinds == {*CORE, *(name.split()[1] for name in SCHEMAS)}


def test_rolling_update_takes_no_replica_away_before_another_is_ready(deployment):
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_replica_leaves_before_it_stops(deployment, containers):
    args = dict(arg.lstrip("-").partition("=")[::2] for arg in containers["kubernetes"]["args"])
    probe = containers["kubernetes"]["readinessProbe"]
    delay, grace = float(args["shutdown_delay_seconds"]), float(args["shutdown_grace_seconds"])
    assert probe["periodSeconds"] * (probe["failureThreshold"] + 1) < delay
    assert delay + grace < deployment["template"]["spec"]["terminationGracePeriodSeconds"]


def test_selectors_find_the_pods(manifests, deployment):
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [each["spec"]["selector"] for (kind, _), each in manifests.items() if kind == "Service"]
    selectors.append(manifests["PodDisruptionBudget", "digits"]["spec"]["selector"]["matchLabels"])
    selectors.append(deployment["selector"]["matchLabels"])
    assert selectors == [labels] * 4


def test_one_service_is_scraped(manifests):
    monitor = manifests["ServiceMonitor", "digits"]["spec"]
    services = [each for (kind, _), each in manifests.items() if kind == "Service"]
    (found,) = [each for each in services if each["metadata"].get("labels") == monitor["selector"]["matchLabels"]]
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in found["spec"]["ports"]]


@pytest.mark.parametrize("scaler", [("HorizontalPodAutoscaler", "digits"), ("ScaledObject", "digits")])
def test_autoscaler_finds_the_deployment(manifests, scaler):
    assert ("Deployment", manifests[scaler]["spec"]["scaleTargetRef"]["name"]) in manifests


def test_two_autoscalers_are_in_files_of_their_own(deploy):
    # KEDA refuses a Deployment that another autoscaler has.
    scalers = [path.name for path in deploy.glob("*.yaml") if "scaleTargetRef" in path.read_text()]
    assert sorted(scalers) == ["hpa.yaml", "keda.yaml"]


def test_container_of_kserve_is_called_as_its_controller_expects(manifests):
    runtime = manifests["ClusterServingRuntime", "keras-prelu-serving"]["spec"]
    (container,) = runtime["containers"]
    assert container["name"] == "kserve-container"
    assert container["ports"][0]["containerPort"] == container["readinessProbe"]["httpGet"]["port"]
    assert runtime["annotations"]["prometheus.kserve.io/port"] == str(container["ports"][0]["containerPort"])


def test_arguments_are_those_of_kserves_own_runtime(containers):
    # config/runtimes/kserve-tensorflow-serving.yaml of kserve/kserve
    assert containers["kserve"]["command"] == ["/usr/bin/tensorflow_model_server"]
    assert containers["kserve"]["args"] == [
        "--model_name={{.Name}}",
        "--port=9000",
        "--rest_api_port=8080",
        "--model_base_path=/mnt/models",
        "--rest_api_timeout_in_ms=60000",
    ]


def test_inference_service_takes_the_runtime(manifests):
    service = manifests["InferenceService", "digits"]
    model = service["spec"]["predictor"]["model"]
    runtime = manifests["ClusterServingRuntime", model["runtime"]]["spec"]
    formats = [{"name": each["name"], "version": each["version"]} for each in runtime["supportedModelFormats"]]
    assert model["modelFormat"] in formats


def test_inference_service_is_scaled_as_kserve_can(manifests):
    # What KServe's webhook refuses and its schema does not: an external metric needs KEDA and a value.
    service = manifests["InferenceService", "digits"]
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "keda"
    (metric,) = service["spec"]["predictor"]["autoScaling"]["metrics"]
    assert float(metric["external"]["target"]["value"]) > 0


@pytest.mark.parametrize("place", ["kubernetes", "kserve"])
def test_container_has_no_privileges(containers, place):
    context = containers[place]["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
