"""Makes schemas.json of the CustomResourceDefinitions of KServe, KEDA and the Prometheus operator.

python -m tests.serving.deploy.make_schemas CRD.yaml...

The definitions are megabytes. This keeps the types, bounds and required fields of those fields that the manifests in
serving/deploy have. Every other field is refused, so the manifests are checked as by the whole definitions.
"""

import json
import pathlib
import sys

import yaml

DEPLOY = pathlib.Path(__file__).parents[3] / "serving" / "deploy"
SCHEMAS = pathlib.Path(__file__).parent / "schemas.json"
KEPT = {
    "type",
    "enum",
    "required",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minLength",
    "anyOf",
}


def manifests():
    """Every Kubernetes object in serving/deploy."""
    objects = [each for path in sorted(DEPLOY.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    return [each for each in objects if "kind" in each]


def prune(schema, values):
    """The part of a schema that checks these values."""
    kept = {key: value for key, value in schema.items() if key in KEPT}
    objects = [value for value in values if isinstance(value, dict)]
    items = [item for value in values if isinstance(value, list) for item in value]
    if "properties" in schema:
        used = sorted({name for value in objects for name in value} & schema["properties"].keys())
        of_name = {name: [value[name] for value in objects if name in value] for name in used}
        kept["properties"] = {name: prune(schema["properties"][name], of_name[name]) for name in used}
        kept["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        inner = [inner for value in objects for inner in value.values()]
        kept["additionalProperties"] = prune(schema["additionalProperties"], inner)
    if items:
        kept["items"] = prune(schema["items"], items)
    return kept


def main(paths):
    """Writes the schemas of the kinds that the manifests have."""
    schemas = {}
    for path in paths:
        definition = yaml.load(pathlib.Path(path).read_text(), Loader=yaml.CSafeLoader)["spec"]
        for version in definition["versions"]:
            api_version, kind = f"{definition['group']}/{version['name']}", definition["names"]["kind"]
            objects = [each for each in manifests() if (each["apiVersion"], each["kind"]) == (api_version, kind)]
            if objects:
                schema = version["schema"]["openAPIV3Schema"]
                schema["properties"]["metadata"] = {"type": "object"}  # which the definitions leave to Kubernetes
                schemas[f"{api_version} {kind}"] = prune(schema, objects)
    SCHEMAS.write_text(json.dumps(schemas, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
