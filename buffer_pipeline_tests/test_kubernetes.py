"""deploy/kubernetes, by the schemas of Kubernetes, the launcher of Dagster and the code itself."""

import copy
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import jsonschema
import kubernetes_validate
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster_postgres.utils import pg_url_from_config
from pytest_httpserver import HTTPServer
from sqlalchemy import text
from sqlalchemy.engine import make_url

from buffer_pipeline.database import make_engine, with_limits
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hold import HoldState
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.settings import Settings
from buffer_pipeline_start import probe as probe_module
from buffer_pipeline_tests.builders import place_hold, state_of
from buffer_pipeline_tests.cluster import new_cluster
from buffer_pipeline_tests.manifests import (
    CHART,
    CODE,
    FOLDER,
    LAUNCHER,
    MANIFESTS,
    PARTS,
    PLAIN,
    RELEASES,
    ROOT,
    TEMPLATES,
    VALUES,
    WRONG,
    chart_schema,
    pod_of,
    template_of,
    values_of,
)
from buffer_pipeline_tests.pages import DOCS, blocks_of

pytestmark = pytest.mark.dagster  # A whole installation, on the server that comes along.


@pytest.fixture(scope="module")
def run_job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The Job that Dagster's launcher, told what the chart tells it, asks a cluster's API for."""
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
def test_the_manifests_are_of_kubernetes_own_schemas(release: str) -> None:
    """Each key is one that Kubernetes knows, and has a value of its kind; so are the chart's pods."""
    for manifest in [*MANIFESTS, *map(pod_of, PARTS)]:
        kubernetes_validate.validate(manifest, release, strict=True)


def test_an_unknown_key_is_found() -> None:
    """The schemas say no to a word that is not Kubernetes'."""
    pod = pod_of("code")
    pod["spec"]["securityContext"] = {**pod["spec"]["securityContext"], "runAsNobody": True}

    with pytest.raises(kubernetes_validate.ValidationError, match="runAsNobody"):
        kubernetes_validate.validate(pod, RELEASES[-1], strict=True)


@pytest.mark.parametrize("release", RELEASES)
def test_a_runs_pod_is_what_the_launcher_asks_for(run_job: dict[str, Any], release: str) -> None:
    """Dagster's launcher takes the values, and what it sends is a Job with the code's image and login."""
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


def test_the_values_are_those_that_dagsters_chart_knows() -> None:
    """Each key is one that the chart documents, of its type; the schema is of the chart's version."""
    schema = chart_schema()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)

    jsonschema.Draft202012Validator(schema).validate(VALUES)

    assert schema["x-chart-version"] == chart["dependencies"][0]["version"]


@pytest.mark.parametrize(("path", "value", "refusal"), WRONG)
def test_values_that_the_chart_does_not_know_are_refused(path: str, value: Any, refusal: str) -> None:
    """A wrong key or a wrong type, at any depth, is found where it is."""
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
    """Nobody's, with a root that is read only, without capabilities; no token where it is not needed."""
    specs = [template_of(each)["spec"] for each in MANIFESTS if each["kind"] in {"Job", "CronJob"}]
    without_token = [*specs, run_job["spec"]["template"]["spec"]]

    assert len(specs) == 3
    assert all(spec["automountServiceAccountToken"] is False for spec in without_token)
    for spec in [*without_token, *(pod_of(part)["spec"] for part in PARTS)]:
        said = spec["securityContext"]
        assert (said["runAsNonRoot"], said["runAsUser"]) == (True, 10001)
        assert said["seccompProfile"] == {"type": "RuntimeDefault"}
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
    """One at a time, bounded within its hour, with a short history; a missed start is made up for."""
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


def test_the_network_is_open_where_it_must_be() -> None:
    """Every pod is shut by one policy; who sends goes out to the internet and not into the cluster."""
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


def test_a_budget_finds_its_pods() -> None:
    """Two webservers, of which one may go; a run is not evicted."""
    budgets = [each["spec"] for each in TEMPLATES if each["kind"] == "PodDisruptionBudget"]
    parts = [budget["selector"]["matchLabels"]["buffer-pipeline/part"] for budget in budgets]

    assert parts == ["webserver", "run"]
    assert VALUES["dagsterWebserver"]["replicaCount"] > budgets[0]["minAvailable"] == 1
    assert VALUES["dagsterWebserver"]["labels"]["buffer-pipeline/part"] == "webserver"
    assert LAUNCHER["labels"]["buffer-pipeline/part"] == "run"


# ---- what they name is there


def test_the_instance_is_that_of_dagster_yaml() -> None:
    """Beside its storage, which goes by psycopg2, and its launcher, it is said in the same words."""
    said = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    database = VALUES["postgresql"]
    storage = pg_url_from_config(
        {
            "postgres_db": {
                "username": database["postgresqlUsername"],
                "password": "secret",
                "hostname": database["postgresqlHost"],
                "db_name": database["postgresqlDatabase"],
                "port": database["service"]["port"],
                "scheme": database["postgresqlScheme"],
            }
        }
    )
    daemon = VALUES["dagsterDaemon"]
    charts = {
        "storage": said["storage"],
        "run_launcher": said["run_launcher"],
        "telemetry": VALUES["telemetry"],
        "run_coordinator": daemon["runCoordinator"]["config"]["customRunCoordinator"],
    }

    assert {**VALUES["additionalInstanceConfig"], **charts} == said
    assert make_url(storage).drivername == "postgresql+psycopg2"
    # Neither says a thing that the other says too.
    assert not VALUES["additionalInstanceConfig"].keys() & charts.keys()
    assert daemon["runCoordinator"]["enabled"]
    assert daemon["runCoordinator"]["type"] == "CustomRunCoordinator"
    assert not any(daemon[name]["enabled"] for name in ("runMonitoring", "runRetries"))
    assert not any(daemon[name]["useThreads"] for name in ("sensors", "schedules", "backfills"))


def test_each_variable_and_secret_is_one_of_the_code() -> None:
    """What a pod finds is a setting or libpq's; what is secret comes from a Secret, by its name."""
    known = {f"BUFFER_{field.upper()}" for field in Settings.model_fields} | {"PGPASSWORD"}
    secret = {"PGPASSWORD", "BUFFER_ENDPOINTS", "BUFFER_ALERT_URLS"}
    specs = [template_of(each)["spec"] for each in MANIFESTS if each["kind"] in {"Job", "CronJob"}]
    containers = [
        container for spec in specs for container in [*spec.get("initContainers", []), *spec["containers"]]
    ]
    given = [*CODE["env"], *LAUNCHER["runK8sConfig"]["containerConfig"]["env"]]
    given += [variable for container in containers for variable in container["env"]]

    for variable in given:
        assert variable["name"] in known
        assert ("valueFrom" in variable) == (variable["name"] in secret)
        if variable["name"].endswith("DATABASE_URL"):
            url = make_url(variable["value"])
            assert url.password is None
            assert url.host == VALUES["postgresql"]["postgresqlHost"]
            assert f"'{url.username}'" in (ROOT / "deploy/roles.sql").read_text() or url.username == "dagster"
    assert not VALUES["generatePostgresqlPasswordSecret"]
    assert "postgresqlPassword" not in VALUES["postgresql"]


def test_ports_and_paths_are_those_of_the_processes() -> None:
    """Health is asked where a process listens, by a command or a path that is there."""
    from dagster_webserver.webserver import DagsterWebserver

    port = VALUES["dagsterWebserver"]["service"]["port"]
    asked = VALUES["dagsterWebserver"]["readinessProbe"]["httpGet"]
    opened = {
        rule_port["port"]
        for policy in TEMPLATES
        if policy["kind"] == "NetworkPolicy"
        for rule in policy["spec"].get("ingress", [])
        for rule_port in rule["ports"]
    }
    (module,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    told = dict(word.removeprefix("--").split("=") for word in CODE["dagsterApiGrpcArgs"])

    assert asked["port"] == port
    assert f'"{asked["path"]}"' in Path(sys.modules[DagsterWebserver.__module__].__file__ or "").read_text()
    assert opened == {port, CODE["port"]}
    assert told["module-name"] == module["python_module"]["module_name"]
    assert told["attribute"] == module["python_module"]["attribute"]
    assert told["location-name"] == module["python_module"]["location_name"]
    assert hasattr(importlib.import_module(told["module-name"]), told["attribute"])
    assert (
        urlsplit(next(v["value"] for v in CODE["env"] if v["name"] == "BUFFER_DAGSTER_URL")).scheme == "https"
    )
    for probe in ("startupProbe", "livenessProbe"):
        assert CODE[probe]["exec"]["command"] == ["python", "-m", probe_module.__name__, "code"]
    assert f"127.0.0.1:{CODE['port']}" == probe_module.CODE_ADDRESS


def test_the_daemons_probe_is_told_where_its_storage_is() -> None:
    """The probe is the project's own, and reads the heartbeats where the chart has Dagster write them."""
    daemon, dagster = VALUES["dagsterDaemon"], VALUES["postgresql"]
    environment = {variable["name"]: variable for variable in daemon["env"]}
    storage = urlsplit(environment["BUFFER_DAGSTER_DATABASE_URL"]["value"])

    assert daemon["livenessProbe"]["exec"]["command"] == ["python", "-m", probe_module.__name__, "daemon"]
    assert storage.hostname == dagster["postgresqlHost"]
    assert storage.username == dagster["postgresqlUsername"]
    assert storage.path == f"/{dagster['postgresqlDatabase']}"
    assert environment["PGPASSWORD"] in CODE["env"]


def test_connections_of_the_chart_have_the_same_limits_as_ours() -> None:
    """The chart names Dagster's own storage, to which it passes these."""
    assert VALUES["postgresql"]["postgresqlParams"] == with_limits(make_url("postgresql://")).query


def test_the_chart_is_of_the_version_that_is_locked() -> None:
    """Dagster's chart is of the version that is locked, and the image's tag is one everywhere."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    kustomization = yaml.safe_load((FOLDER / "cronjob/kustomization.yaml").read_text())
    (image,) = kustomization["images"]

    assert chart["dependencies"][0]["version"] == dg.__version__
    assert chart["appVersion"] == CODE["image"]["tag"] == image["newTag"]
    assert {values_of(part)["image"]["tag"] for part in PARTS} == {chart["appVersion"]}
    assert set(kustomization["resources"]) | {"kustomization.yaml"} == {
        file.name for file in (FOLDER / "cronjob").iterdir()
    }
    assert all(
        container["image"] == image["name"]
        for each in PLAIN
        if each["kind"] == "CronJob"
        for container in template_of(each)["spec"]["containers"]
    )
    assert "kubernetes" in project["optional-dependencies"]
    assert "--extra kubernetes" in (FOLDER / "Dockerfile").read_text()


def test_the_second_image_is_built_as_the_first() -> None:
    """By the same uv, which a mirror can bring, and without uv's cache in a layer."""
    first, second = ((folder / "Dockerfile").read_text() for folder in (ROOT, FOLDER))

    assert re.findall("^ARG UV=.*", second, re.MULTILINE) == re.findall("^ARG UV=.*", first, re.MULTILINE)
    assert "FROM ${UV} AS uv" in second
    assert "--mount=from=uv," in second
    assert "--no-cache" in next(line for line in second.splitlines() if "uv sync" in line).split()


def images_in(value: Any) -> set[str]:
    """Return each image that values name, as it is pulled."""
    if isinstance(value, list):
        return {found for each in value for found in images_in(each)}
    if not isinstance(value, dict):
        return set()
    if "repository" in value:
        return {"/".join(filter(None, [value.get("registry"), f"{value['repository']}:{value['tag']}"]))}
    return {found for each in value.values() for found in images_in(each)}


def test_the_page_names_each_image() -> None:
    """Whoever has a mirror finds all of them, by a name with a registry; PostgreSQL's is that of Compose."""
    named = re.findall(r"^\| `(\S+:\S+)` \|", (DOCS / "kubernetes.md").read_text(), re.MULTILINE)
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

    assert set(named) == images_in(VALUES)
    assert all("." in name.split("/")[0] for name in named)
    assert f"docker.io/library/{services['database']['image']}" in named


# ---- the commands, run


def run(container: dict[str, Any], server: EmbeddedServer, database: str, home: Path) -> str:
    """Run a container's command with its variables, on this server, and return what it says."""
    program, *arguments = container["args"]
    environment = {**os.environ, "DAGSTER_HOME": str(home)}
    for variable in container["env"]:
        if "value" in variable:
            named = make_url(variable["value"])
            here = server.url(database, user=str(named.username)).set(drivername=named.drivername)
            environment[variable["name"]] = here.render_as_string(hide_password=False)
    ended = subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_page_makes_the_logins_and_databases(
    programs_and_user: tuple[Path, str | None], tmp_path: Path
) -> None:
    """Its commands, typed as they stand for another server, make whom and what the pods name."""
    programs, user = programs_and_user
    (tmp_path / "deploy").mkdir()
    for name in ("make-secrets", "roles.sql"):
        shutil.copy(ROOT / "deploy" / name, tmp_path / "deploy")
    host = VALUES["postgresql"]["postgresqlHost"]
    before, *_ = blocks_of(DOCS / "kubernetes.md")
    typed = [line for line in before.body.splitlines() if not line.startswith(("kubectl", "docker"))]

    with new_cluster(programs, user=user) as cluster:
        (there,) = {line for line in typed if f"--host={host}" in line}
        script = "\n".join(typed).replace(there, there.replace(host, str(cluster.folder)))
        subprocess.run(
            ["sh", "-euc", script],
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
            check=True,
        )

        admin = make_engine(cluster.server.url("postgres", user="postgres"))
        with admin.connect() as connection:
            reached = [
                connection.execute(
                    text(
                        "SELECT datname FROM pg_database WHERE datname LIKE 'buffer%' AND"
                        " has_database_privilege(CAST(:login AS name), datname, 'CONNECT') ORDER BY datname"
                    ),
                    {"login": login},
                )
                .scalars()
                .all()
                for login in ("buffer", VALUES["postgresql"]["postgresqlUsername"], "platform", "reader")
            ]
        admin.dispose()
    assert VALUES["postgresql"]["postgresqlDatabase"] == "buffer_dagster"
    assert reached == [["buffer"], ["buffer", "buffer_dagster"], ["buffer"], ["buffer"]]


def test_the_hook_migrates_books_and_dagster(server: EmbeddedServer, tmp_path: Path) -> None:
    """Before an installation and an upgrade, in the order of its containers."""
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    (job,) = (each for each in TEMPLATES if each["kind"] == "Job")
    spec = job["spec"]["template"]["spec"]

    for container, database in ((spec["initContainers"][0], "buffer"), (spec["containers"][0], "dagster")):
        run(container, server, database, tmp_path)

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert VALUES["migrate"] == {"enabled": False}
    storage = make_engine(server.url("dagster", user="dagster"))
    with storage.connect() as connection:
        assert connection.exec_driver_sql("SELECT to_regclass('public.runs') IS NOT NULL").scalar()
    storage.dispose()


def test_the_cronjobs_release_and_tell(server: EmbeddedServer, database_url: str, tmp_path: Path) -> None:
    """Their commands, with the login that they name: what is due is released, and its payee is told."""
    owner = make_engine(database_url)
    with owner.begin() as connection:
        hold_id = place_hold(connection)
    containers = {
        each["metadata"]["name"]: template_of(each)["spec"]["containers"][0]
        for each in PLAIN
        if each["kind"] == "CronJob"
    }

    database = str(owner.url.database)
    released = json.loads(run(containers["buffer-pipeline-release"], server, database, tmp_path))
    sent = json.loads(run(containers["buffer-pipeline-notifications"], server, database, tmp_path))

    with owner.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.RELEASED
    assert released["holds_released"] == 1
    assert sent["sent"] > 0
    owner.dispose()
