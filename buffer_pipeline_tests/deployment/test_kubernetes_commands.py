"""The commands of deploy/kubernetes and of docs/kubernetes.md, run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hold import HoldState
from buffer_pipeline_tests.support.builders import place_hold, state_of
from buffer_pipeline_tests.support.cluster import new_cluster
from buffer_pipeline_tests.support.manifests import PLAIN, TEMPLATES, VALUES, template_of
from buffer_pipeline_tests.support.pages import DOCS, blocks_of
from buffer_pipeline_tests.support.paths import ROOT

pytestmark = pytest.mark.dagster  # A whole installation, on the server that comes along.


def run(container: dict[str, Any], server: EmbeddedServer, database: str, home: Path) -> str:
    """Run a container's command with its variables on this server, and return its output."""
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


def test_commands_of_the_page_make_the_logins_and_databases(
    programs_and_user: tuple[Path, str | None], tmp_path: Path
) -> None:
    """With another server's address, they create the roles and databases that the pods name."""
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


def test_cronjobs_release_and_notify(server: EmbeddedServer, database_url: str, tmp_path: Path) -> None:
    """With the login that they name, they release what is due and notify its payee."""
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
