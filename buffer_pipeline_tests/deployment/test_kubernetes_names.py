"""Everything that deploy/kubernetes names exists in the code, the image and Dagster's chart."""

import importlib
import re
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
import yaml
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy.engine import make_url

from buffer_pipeline.database import with_limits
from buffer_pipeline.settings import Settings
from buffer_pipeline_start import probe as probe_module
from buffer_pipeline_tests.support.manifests import (
    CHART,
    CODE,
    FOLDER,
    LAUNCHER,
    MANIFESTS,
    PARTS,
    PLAIN,
    TEMPLATES,
    VALUES,
    template_of,
    values_of,
)
from buffer_pipeline_tests.support.pages import DOCS
from buffer_pipeline_tests.support.paths import ROOT

pytestmark = pytest.mark.dagster  # A whole installation, on the server that comes along.


def test_instance_matches_dagster_yaml() -> None:
    """Except for the storage, which uses psycopg2, and the launcher."""
    dagster_yaml = yaml.safe_load((ROOT / "dagster.yaml").read_text())
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
        "storage": dagster_yaml["storage"],
        "run_launcher": dagster_yaml["run_launcher"],
        "telemetry": VALUES["telemetry"],
        "run_coordinator": daemon["runCoordinator"]["config"]["customRunCoordinator"],
    }

    assert {**VALUES["additionalInstanceConfig"], **charts} == dagster_yaml
    assert make_url(storage).drivername == "postgresql+psycopg2"
    # Neither has a key that the other has too.
    assert not VALUES["additionalInstanceConfig"].keys() & charts.keys()
    assert daemon["runCoordinator"]["enabled"]
    assert daemon["runCoordinator"]["type"] == "CustomRunCoordinator"
    assert not any(daemon[name]["enabled"] for name in ("runMonitoring", "runRetries"))
    assert not any(daemon[name]["useThreads"] for name in ("sensors", "schedules", "backfills"))


def test_each_variable_and_secret_is_known() -> None:
    """Variables are settings or libpq's. Secret ones come from a Secret by name."""
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


def test_health_checks_use_existing_ports_and_commands() -> None:
    """Each port has a listening process, and each command or path exists."""
    from dagster_webserver.webserver import DagsterWebserver

    port = VALUES["dagsterWebserver"]["service"]["port"]
    request = VALUES["dagsterWebserver"]["readinessProbe"]["httpGet"]
    opened = {
        rule_port["port"]
        for policy in TEMPLATES
        if policy["kind"] == "NetworkPolicy"
        for rule in policy["spec"].get("ingress", [])
        for rule_port in rule["ports"]
    }
    (module,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    arguments = dict(word.removeprefix("--").split("=") for word in CODE["dagsterApiGrpcArgs"])

    assert request["port"] == port
    assert f'"{request["path"]}"' in Path(sys.modules[DagsterWebserver.__module__].__file__ or "").read_text()
    assert opened == {port, CODE["port"]}
    assert arguments["module-name"] == module["python_module"]["module_name"]
    assert arguments["attribute"] == module["python_module"]["attribute"]
    assert arguments["location-name"] == module["python_module"]["location_name"]
    assert hasattr(importlib.import_module(arguments["module-name"]), arguments["attribute"])
    assert (
        urlsplit(next(v["value"] for v in CODE["env"] if v["name"] == "BUFFER_DAGSTER_URL")).scheme == "https"
    )
    for probe in ("startupProbe", "livenessProbe"):
        assert CODE[probe]["exec"]["command"] == ["python", "-m", probe_module.__name__, "code"]
    assert f"127.0.0.1:{CODE['port']}" == probe_module.CODE_ADDRESS


def test_daemon_probe_reads_the_storage_of_the_chart() -> None:
    """The project's probe reads the heartbeats that the chart's Dagster writes."""
    daemon, dagster = VALUES["dagsterDaemon"], VALUES["postgresql"]
    environment = {variable["name"]: variable for variable in daemon["env"]}
    storage = urlsplit(environment["BUFFER_DAGSTER_DATABASE_URL"]["value"])

    assert daemon["livenessProbe"]["exec"]["command"] == ["python", "-m", probe_module.__name__, "daemon"]
    assert storage.hostname == dagster["postgresqlHost"]
    assert storage.username == dagster["postgresqlUsername"]
    assert storage.path == f"/{dagster['postgresqlDatabase']}"
    assert environment["PGPASSWORD"] in CODE["env"]


def test_connections_of_the_chart_have_the_same_limits_as_ours() -> None:
    """The chart passes them to Dagster's storage class."""
    assert VALUES["postgresql"]["postgresqlParams"] == with_limits(make_url("postgresql://")).query


def test_chart_has_the_locked_version_of_dagster() -> None:
    """The image has one tag everywhere."""
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
    """With the same uv, optionally from a mirror, and without uv's cache in a layer."""
    first, second = ((folder / "Dockerfile").read_text() for folder in (ROOT, FOLDER))

    assert re.findall("^ARG UV=.*", second, re.MULTILINE) == re.findall("^ARG UV=.*", first, re.MULTILINE)
    assert "FROM ${UV} AS uv" in second
    assert "--mount=from=uv," in second
    assert "--no-cache" in next(line for line in second.splitlines() if "uv sync" in line).split()


def images_in(value: Any) -> set[str]:
    """Return each image that the values name, as it is pulled."""
    if isinstance(value, list):
        return {found for each in value for found in images_in(each)}
    if not isinstance(value, dict):
        return set()
    if "repository" in value:
        return {"/".join(filter(None, [value.get("registry"), f"{value['repository']}:{value['tag']}"]))}
    return {found for each in value.values() for found in images_in(each)}


def test_the_page_names_each_image() -> None:
    """With its registry, for mirrors. PostgreSQL's image is that of Compose."""
    named = re.findall(r"^\| `(\S+:\S+)` \|", (DOCS / "kubernetes.md").read_text(), re.MULTILINE)
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

    assert set(named) == images_in(VALUES)
    assert all("." in name.split("/")[0] for name in named)
    assert f"docker.io/library/{services['database']['image']}" in named
