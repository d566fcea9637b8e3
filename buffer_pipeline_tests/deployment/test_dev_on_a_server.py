"""`dev` on an existing server, and what it refuses to start on."""

import os
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from buffer_pipeline.cli.dev import serve
from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import PaymentBufferError, SettingError
from buffer_pipeline.hours import HOUR
from buffer_pipeline.settings import Settings
from buffer_pipeline_tests.support.builders import SAMPLE_HOLDS
from buffer_pipeline_tests.support.dev import command_of, held, logins_of, typed
from buffer_pipeline_tests.support.stack import (
    WAIT_SECONDS_MAX,
    end_of,
    first_runs,
    launch_release,
    lines_until_ui,
    repository,
    serving,
)


def test_dev_on_an_existing_server(server: EmbeddedServer, home: Path, port: int) -> None:
    """BUFFER_DATABASE_URL is migrated and filled, and Dagster gets a second database there. The first runs
    count from BUFFER_REPORTS_START.
    """
    name = f"own_{os.urandom(6).hex()}"
    url = server.url(name).set(drivername="postgresql")
    admin_url = server.url("postgres", user="postgres").set(drivername="postgresql").render_as_string()
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} OWNER buffer")

    books_url = url.render_as_string(hide_password=False)
    begin = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    with serving(
        home, port, BUFFER_DATABASE_URL=books_url, BUFFER_REPORTS_START=f"{begin:%Y-%m-%d}"
    ) as process:
        started = lines_until_ui(process)
        output = first_runs(process)
        over = datetime.now(UTC)
        tried = typed(command_of(output), BUFFER_DATABASE_URL=books_url)
        process.terminate()
        code = process.wait(timeout=WAIT_SECONDS_MAX)

    with psycopg.connect(admin_url, autocommit=True) as admin:
        databases = {row[0] for row in admin.execute("SELECT datname FROM pg_database")}
    engine = make_engine(server.url(name))
    holds = held(engine)
    engine.dispose()
    assert started[0] == f"Opening the books in the database {name}."
    page = "\n".join(output)
    counted = re.search(r"^  counted (\d+) hours: ", page, re.MULTILINE)
    assert counted
    assert 0 <= (over - begin) // HOUR - int(counted[1]) <= 1
    assert re.search(r"^  reported \d{4}-\d\d-\d\d: http", page, re.MULTILINE)
    assert f"  proved the books: http://127.0.0.1:{port}/assets/books?view=checks" in output
    assert "List in a terminal with this BUFFER_DATABASE_URL the payments that are stuck" in page
    assert (tried.returncode, tried.stderr) == (0, "")
    assert code == 0
    assert f"{name}_dagster" in databases
    assert holds == SAMPLE_HOLDS
    assert not (home / "postgres").exists()


@pytest.mark.usefixtures("environment")
def test_dev_with_a_releasers_login(server: EmbeddedServer, home: Path, port: int) -> None:
    """On books that their owner has migrated, BUFFER_DATABASE_URL may name a releaser."""
    storage = server.dagster_url.set(drivername="postgresql").render_as_string()

    with serving(home, port, sample=False, BUFFER_DAGSTER_DATABASE_URL=storage) as process:
        started = lines_until_ui(process)
        logins = logins_of(home)
        repository(port)
        status = end_of(port, launch_release(port))
        process.terminate()
        code = process.wait(timeout=WAIT_SECONDS_MAX)

    assert started[0].startswith("Opening the books in the database ")
    assert logins == {"dagster"}
    assert status == "SUCCESS"
    assert code == 0


def test_a_database_that_may_not_be_created_is_named(
    server: EmbeddedServer, database_url: str, home: Path, port: int
) -> None:
    """Without CREATEDB, the message names the setting that avoids the need for it."""
    role = f"plain_{os.urandom(6).hex()}"
    admin_url = server.url("postgres", user="postgres").set(drivername="postgresql").render_as_string()
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN")
    url = make_url(database_url).set(username=role).render_as_string(hide_password=False)

    with pytest.raises(PaymentBufferError, match="BUFFER_DAGSTER_DATABASE_URL") as refusal:
        serve(Settings(home=home, database_url=url), port=port, sample=True)

    assert "\n" not in str(refusal.value)


def test_an_unreachable_dagster_database_is_named(database_url: str, home: Path, port: int) -> None:
    """Dagster is not started."""
    settings = Settings(
        home=home,
        database_url=database_url,
        dagster_database_url="postgresql://nobody@127.0.0.1:1/dagster",
    )

    with pytest.raises(SettingError, match=r"^BUFFER_DAGSTER_DATABASE_URL: "):
        serve(settings, port=port, sample=False)

    assert not (home / "dagster").exists()


def test_a_taken_port_is_refused_before_anything_starts(home: Path) -> None:
    """The message names the port, and no database was touched."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(PaymentBufferError, match=f"^port {port}: Address already in use"):
            serve(Settings(home=home), port=port, sample=True)

    assert not home.exists()
