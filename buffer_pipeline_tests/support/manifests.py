"""The manifests of deploy/kubernetes, and the pods that Dagster's chart makes of its values."""

import json
import re
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import yaml

from buffer_pipeline_tests.support.paths import ROOT

FOLDER: Final = ROOT / "deploy/kubernetes"
CHART: Final = FOLDER / "chart"
PARTS: Final = ("code", "webserver", "daemon")
VALUES: Final[dict[str, Any]] = yaml.safe_load((CHART / "values.yaml").read_text())["dagster"]
LAUNCHER: Final[dict[str, Any]] = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
CODE: Final[dict[str, Any]] = VALUES["dagster-user-deployments"]["deployments"][0]
RELEASES: Final = ("1.31", "1.37")
"""The oldest and the newest Kubernetes version whose schemas are checked."""
WRONG: Final[tuple[tuple[str, Any, str], ...]] = (
    ("webserver", {}, "webserver"),
    ("dagsterDaemon.replicas", 2, "replicas"),
    ("dagsterDaemon.runRetries.max_retries", 2, "max_retries"),
    ("dagsterDaemon.sensors.useThreads", "no", "'no' is not of type 'boolean'"),
    ("dagsterWebserver.replicaCount", "two", "'two' is not of type 'integer'"),
    ("dagsterWebserver.image.pullPolicy", "Sometimes", "'Sometimes' is not one of"),
    ("dagsterWebserver.securityContext.runAsNobody", True, "runAsNobody"),
    ("dagsterWebserver.image.registry", "mirror.example.com", "registry"),
    ("runLauncher.config.k8sRunLauncher.podSecurityContext", {}, "podSecurityContext"),
    ("runLauncher.config.k8sRunLauncher.volumes", {}, "is not of type 'array'"),
    ("postgresql.postgresqlHost", 5432, "5432 is not of type 'string'"),
    ("dagster-user-deployments.deployments.0.ports", 4000, "ports"),
    ("dagster-user-deployments.deployments.0.startupProbe.timeout", 20, "timeout"),
)
"""Invalid values for Dagster's chart: path, value, and the validator's message."""
PLACE: Final = re.compile(r"\{\{ \.Values\.([\w.]+)(?: \| (toJson))? \}\}")


def value_of(path: str) -> Any:
    """Return the value of a template's `.Values.…`."""
    value: Any = {"dagster": VALUES}
    for name in path.split("."):
        value = value[name]
    return value


def written(value: Any, how: str | None) -> str:
    """Return a value as a template writes it. test_helm compares this with Helm."""
    return json.dumps(value) if how else str(value)


def documents(folder: Path) -> list[dict[str, Any]]:
    """Return a folder's manifests, with the values that a template names."""
    found = []
    for file in sorted(folder.glob("*.yaml")):
        page = PLACE.sub(lambda place: written(value_of(place[1]), place[2]), file.read_text())
        assert "{{" not in page, file
        found += list(yaml.safe_load_all(page))
    return [document for document in found if document["kind"] != "Kustomization"]


TEMPLATES: Final = documents(CHART / "templates")
PLAIN: Final = documents(FOLDER / "cronjob")
MANIFESTS: Final = TEMPLATES + PLAIN


def values_of(part: str) -> dict[str, Any]:
    """Return the chart's values for one of its deployments."""
    values: dict[str, Any] = {
        "code": CODE,
        "webserver": VALUES["dagsterWebserver"],
        "daemon": VALUES["dagsterDaemon"],
    }[part]
    return values


def pod_of(part: str) -> dict[str, Any]:
    """Return the pod that the chart makes of its values, as far as they determine it."""
    values = values_of(part)
    container = {
        "name": part,
        "image": f"{values['image']['repository']}:{values['image']['tag']}",
        "imagePullPolicy": values["image"]["pullPolicy"],
        "env": values.get("env", []),
        "securityContext": values["securityContext"],
        "resources": values["resources"],
        "volumeMounts": values["volumeMounts"],
    }
    for probe in {"startupProbe", "readinessProbe", "livenessProbe"} & values.keys():
        if values[probe].get("enabled", True):
            container[probe] = {key: value for key, value in values[probe].items() if key != "enabled"}
    spec = {
        "containers": [container],
        "securityContext": values["podSecurityContext"],
        "volumes": values["volumes"],
    }
    metadata = {"name": part, "labels": values["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def template_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the pod template of a Job or a CronJob."""
    job = manifest["spec"]["jobTemplate"] if manifest["kind"] == "CronJob" else manifest
    template: dict[str, Any] = job["spec"]["template"]
    return template


def chart_schema() -> dict[str, Any]:
    """Return the schema of the chart's values, with the Kubernetes definitions that it names."""
    kubernetes = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    folder = kubernetes / f"v{RELEASES[-1]}.0-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
    schema: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "dagster_chart.yaml").read_text())
    while missing := set(re.findall(r'"#/\$defs/([\w.]+)"', json.dumps(schema))) - schema["$defs"].keys():
        schema["$defs"] |= {name: definitions[name] for name in missing}
    return schema
