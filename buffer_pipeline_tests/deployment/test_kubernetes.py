"""deploy/kubernetes against the schemas of Kubernetes and of Dagster's chart, and how its pods run."""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import dagster as dg
import jsonschema
import kubernetes_validate
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from pytest_httpserver import HTTPServer

from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline_tests.support.manifests import (
    CHART,
    CODE,
    LAUNCHER,
    MANIFESTS,
    PARTS,
    PLAIN,
    RELEASES,
    TEMPLATES,
    VALUES,
    WRONG,
    chart_schema,
    pod_of,
    template_of,
    values_of,
)

pytestmark = pytest.mark.dagster  # A whole installation, on the server that comes along.


@pytest.fixture(scope="module")
def run_job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The Job that Dagster's launcher creates from the chart's configuration."""
    with HTTPServer() as api:
        api.expect_request("/apis/batch/v1/namespaces/payments/jobs", method="POST").respond_with_json({})
        cluster = {"name": "here", "cluster": {"server": api.url_for("")}}
        context = {"name": "here", "context": {"cluster": "here", "user": "here"}}
        kubeconfig = tmp_path_factory.mktemp("cluster") / "config"
        kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [cluster],
                    "contexts": [context],
                    "users": [{"name": "here", "user": {}}],
                    "current-context": "here",
                }
            )
        )
        settings = {
            **VALUES["additionalInstanceConfig"],
            "run_coordinator": VALUES["dagsterDaemon"]["runCoordinator"]["config"]["customRunCoordinator"],
            "run_launcher": {
                "module": "dagster_k8s",
                "class": VALUES["runLauncher"]["type"],
                "config": {
                    **launcher_config(),
                    "load_incluster_config": False,
                    "kubeconfig_file": str(kubeconfig),
                },
            },
        }
        with dg.instance_for_test(overrides=settings) as instance:
            origin = JobPythonOrigin(
                "release_pending_payments",
                RepositoryPythonOrigin(
                    executable_path="python",
                    code_pointer=ModuleCodePointer("buffer_pipeline.orchestration.definitions", "defs"),
                    container_image=f"{CODE['image']['repository']}:{CODE['image']['tag']}",
                ),
            )
            run = instance.create_run_for_job(
                defs.resolve_job_def("release_pending_payments"), job_code_origin=origin
            )
            instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
        ((request, _),) = api.log
        yield json.loads(request.get_data())


def launcher_config() -> dict[str, Any]:
    """Return the launcher's settings as the chart writes them: its own, and the values in its spelling."""

    def spelled(name: str) -> str:
        return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)

    given = {spelled(name): value for name, value in LAUNCHER.items()}
    given["run_k8s_config"] = {spelled(name): value for name, value in given["run_k8s_config"].items()}
    return {
        **given,
        "job_namespace": "payments",
        "service_account_name": VALUES["serviceAccount"]["name"],
        "dagster_home": VALUES["global"]["dagsterHome"],
        "instance_config_map": "buffer-dagster-instance",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
    }


# ---- schemas


@pytest.mark.parametrize("release", RELEASES)
def test_manifests_match_the_kubernetes_schemas(release: str) -> None:
    """Including the pods of the chart."""
    for manifest in [*MANIFESTS, *map(pod_of, PARTS)]:
        kubernetes_validate.validate(manifest, release, strict=True)


def test_schemas_reject_an_unknown_key() -> None:
    """A misspelled key is an error."""
    pod = pod_of("code")
    pod["spec"]["securityContext"] = {**pod["spec"]["securityContext"], "runAsNobody": True}

    with pytest.raises(kubernetes_validate.ValidationError, match="runAsNobody"):
        kubernetes_validate.validate(pod, RELEASES[-1], strict=True)


@pytest.mark.parametrize("release", RELEASES)
def test_run_pod_has_the_image_and_login(run_job: dict[str, Any], release: str) -> None:
    """Dagster's launcher accepts the values and creates a Job with the code's image and login."""
    kubernetes_validate.validate(run_job, release, strict=True)

    template = run_job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    given = {variable["name"] for variable in container["env"]}
    assert container["image"] == pod_of("code")["spec"]["containers"][0]["image"]
    assert container["args"][1:5] == ["-m", "dagster", "api", "execute_run"]
    assert "command" not in container
    assert given >= {variable["name"] for variable in CODE["env"]} | {"DAGSTER_HOME", "DAGSTER_PG_PASSWORD"}
    assert template["metadata"]["labels"].items() >= LAUNCHER["labels"].items()
    assert CODE["includeConfigInLaunchedRuns"] == {"enabled": False}


def test_values_match_the_schema_of_dagsters_chart() -> None:
    """The schema is that of the chart's version."""
    schema = chart_schema()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)

    jsonschema.Draft202012Validator(schema).validate(VALUES)

    assert schema["x-chart-version"] == chart["dependencies"][0]["version"]


@pytest.mark.parametrize(("path", "value", "refusal"), WRONG)
def test_values_that_the_chart_does_not_know_are_refused(path: str, value: Any, refusal: str) -> None:
    """A wrong key or type is found at any depth."""
    values = copy.deepcopy(VALUES)
    *folders, name = path.split(".")
    place: Any = values
    for folder in folders:
        place = place[int(folder) if folder.isdigit() else folder]
    place[name] = value

    (error, *_) = jsonschema.Draft202012Validator(chart_schema()).iter_errors(values)

    assert re.search(refusal, error.message)
    assert ".".join(str(part) for part in error.absolute_path) in {".".join(folders), path}


# ---- how they run


def test_each_pod_is_confined(run_job: dict[str, Any]) -> None:
    """No root user, a read-only root file system, no capabilities, and no token unless it is needed."""
    specs = [template_of(each)["spec"] for each in MANIFESTS if each["kind"] in {"Job", "CronJob"}]
    without_token = [*specs, run_job["spec"]["template"]["spec"]]

    assert len(specs) == 3
    assert all(spec["automountServiceAccountToken"] is False for spec in without_token)
    for spec in [*without_token, *(pod_of(part)["spec"] for part in PARTS)]:
        context = spec["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"]) == (True, 10001)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            confined = container["securityContext"]
            assert confined["readOnlyRootFilesystem"] is True
            assert confined["allowPrivilegeEscalation"] is False
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert "/tmp" in mounted


def test_cronjobs_do_not_overlap_and_end() -> None:
    """One at a time, limited to its hour, with a short history. A missed start is caught up."""
    jobs = [each for each in PLAIN if each["kind"] == "CronJob"]

    assert {each["metadata"]["name"] for each in jobs} == {
        "buffer-pipeline-release",
        "buffer-pipeline-notifications",
    }
    for each in jobs:
        spec = each["spec"]
        assert spec["concurrencyPolicy"] == "Forbid"
        assert 0 < spec["startingDeadlineSeconds"] < 3600
        assert 0 < spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 3600
        assert spec["successfulJobsHistoryLimit"] > 0
        assert spec["failedJobsHistoryLimit"] > 0
    repository = defs.get_repository_def()
    release = next(each for each in jobs if each["metadata"]["name"].endswith("release"))
    crons = {schedule.job_name: schedule.cron_schedule for schedule in repository.schedule_defs}
    assert release["spec"]["schedule"] == crons["release_pending_payments"]


def test_network_policies_allow_only_what_is_needed() -> None:
    """One policy closes every pod. Senders reach the internet but not the cluster."""
    for folder in (TEMPLATES, PLAIN):
        policies = {p["metadata"]["name"]: p["spec"] for p in folder if p["kind"] == "NetworkPolicy"}
        shut = policies["buffer-pipeline"]
        assert shut["podSelector"] == {"matchLabels": {"app.kubernetes.io/part-of": "buffer-pipeline"}}
        assert (shut["policyTypes"], shut.get("ingress")) == (["Ingress", "Egress"], None)
        assert {port["port"] for rule in shut["egress"] for port in rule["ports"]} == {53, 5432}
        (out,) = policies["buffer-pipeline-receivers"]["egress"]
        assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} <= set(out["to"][0]["ipBlock"]["except"])
    named = set(
        re.findall(r"buffer-pipeline/part['\": ]+(?:operator': 'In', 'values': )?(\w+)", str(MANIFESTS))
    )
    there = {values_of(part)["labels"]["buffer-pipeline/part"] for part in PARTS}

    assert there == set(PARTS)
    assert named <= {*PARTS, "run", "migrate", "release", "notifications", "login"}


def test_disruption_budgets_select_their_pods() -> None:
    """One of two webservers may be evicted; a run may not."""
    budgets = [each["spec"] for each in TEMPLATES if each["kind"] == "PodDisruptionBudget"]
    parts = [budget["selector"]["matchLabels"]["buffer-pipeline/part"] for budget in budgets]

    assert parts == ["webserver", "run"]
    assert VALUES["dagsterWebserver"]["replicaCount"] > budgets[0]["minAvailable"] == 1
    assert VALUES["dagsterWebserver"]["labels"]["buffer-pipeline/part"] == "webserver"
    assert LAUNCHER["labels"]["buffer-pipeline/part"] == "run"
