"""The files of serving/deploy, read."""

import json
import pathlib

import pytest
import yaml

DEPLOY = pathlib.Path(__file__).parents[3] / "serving" / "deploy"


@pytest.fixture(scope="session")
def deploy():
    return DEPLOY


@pytest.fixture(scope="session")
def manifests():
    """The Kubernetes objects by kind and name."""
    objects = [each for path in sorted(DEPLOY.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    return {(each["kind"], each["metadata"]["name"]): each for each in objects if "kind" in each}


@pytest.fixture(scope="session")
def deployment(manifests):
    return manifests["Deployment", "digits"]["spec"]


@pytest.fixture(scope="session")
def containers(deployment, manifests):
    """The container of the Deployment, and that of KServe's runtime."""
    (ours,) = deployment["template"]["spec"]["containers"]
    (kserves,) = manifests["ClusterServingRuntime", "keras-prelu-serving"]["spec"]["containers"]
    return {"kubernetes": ours, "kserve": kserves}


@pytest.fixture(scope="session")
def rules(manifests):
    return manifests["PrometheusRule", "model-servers"]["spec"]


@pytest.fixture(scope="session")
def dashboard():
    return json.loads((DEPLOY / "grafana.json").read_text())


@pytest.fixture(scope="session")
def expressions(manifests, rules, dashboard):
    """Every expression of Prometheus, by the place where it stands, with the variables of templates filled in."""
    adapter = yaml.safe_load((DEPLOY / "prometheus_adapter.yaml").read_text())["rules"]["custom"][0]
    series = adapter["seriesQuery"].partition("{")[0]
    found = {f"alert {rule['alert']}": rule["expr"] for group in rules["groups"] for rule in group["rules"]}
    found["keda"] = manifests["ScaledObject", "digits"]["spec"]["triggers"][0]["metadata"]["query"]
    (scaled_by,) = manifests["InferenceService", "digits"]["spec"]["predictor"]["autoScaling"]["metrics"]
    found["kserve"] = scaled_by["external"]["metric"]["query"]
    found["hpa"] = manifests["HorizontalPodAutoscaler", "digits"]["spec"]["metrics"][1]["pods"]["metric"]["name"]
    filled = {"<<.Series>>": series, "<<.LabelMatchers>>": 'namespace="default",pod=~".+"', "<<.GroupBy>>": "pod"}
    found["adapter's series"] = adapter["seriesQuery"]
    found["adapter's query"] = adapter["metricsQuery"]
    filled |= {"$namespace": ".+", "$model": ".*", "$__rate_interval": "5m"}
    for panel in dashboard["panels"]:
        found |= {f"panel {panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    for place in found:
        for variable, value in filled.items():
            found[place] = found[place].replace(variable, value)
    return found
