"""The migration creates the roles, even if others create them too or the owner may not."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

from buffer_pipeline.database import REVISION, books_revision, make_engine, migrate
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline_tests.support.builders import WAIT_SECONDS_MAX
from buffer_pipeline_tests.support.databases import ROLES


@dataclass
class Elsewhere:
    """A server before any migration: an owner and two empty databases."""

    first: Engine
    second: Engine
    admin: Engine


@pytest.fixture
def elsewhere(served: EmbeddedServer) -> Iterator[Elsewhere]:
    """An owner who may create roles, on a server whose roles have other names meanwhile."""
    admin = make_engine(served.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    groups = [f"buffer_{role}" for role in ROLES]
    with admin.connect() as connection:
        for group in groups:
            connection.execute(text(f"ALTER ROLE {group} RENAME TO {group}_aside"))
        connection.execute(text("CREATE ROLE newcomer LOGIN CREATEROLE"))
        for database in ("first", "second"):
            connection.execute(text(f"CREATE DATABASE {database} OWNER newcomer"))
    first, second = (make_engine(served.url(name, user="newcomer")) for name in ("first", "second"))
    try:
        yield Elsewhere(first, second, admin)
    finally:
        first.dispose()
        second.dispose()
        with admin.connect() as connection:
            for database in ("first", "second"):
                connection.execute(text(f"DROP DATABASE {database} WITH (FORCE)"))
            for role in (*groups, "newcomer"):
                connection.execute(text(f"DROP ROLE IF EXISTS {role}"))
            for group in groups:
                connection.execute(text(f"ALTER ROLE {group}_aside RENAME TO {group}"))
        admin.dispose()


def rights_in(engine: Engine) -> set[tuple[str, str]]:
    """Return (role, privilege) for the rights of the roles in the schema."""
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT pg_get_userbyid(grantee), privilege_type"
                " FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'buffer'"
                " UNION SELECT pg_get_userbyid(grantee), privilege_type FROM pg_class, aclexplode(relacl)"
                " WHERE relnamespace = 'buffer'::regnamespace"
                " UNION SELECT pg_get_userbyid(grantee), privilege_type"
                " FROM pg_attribute, aclexplode(attacl), pg_class"
                " WHERE relnamespace = 'buffer'::regnamespace AND pg_class.oid = attrelid"
                " UNION SELECT pg_get_userbyid(grantee), privilege_type FROM pg_proc, aclexplode(proacl)"
                " WHERE pronamespace = 'buffer'::regnamespace"
            )
        )
        return {(row[0], row[1]) for row in rows if row[0].removeprefix("buffer_") in ROLES}


def test_migration_without_createrole_prints_the_missing_statements(elsewhere: Elsewhere) -> None:
    """Nothing is migrated until somebody has run the statements. Then everything is."""
    with elsewhere.admin.connect() as connection:
        connection.execute(text("ALTER ROLE newcomer NOCREATEROLE"))
        connection.execute(text("CREATE ROLE buffer_releaser"))

    with pytest.raises(PaymentBufferError, match="newcomer may not create them") as refused:
        migrate(elsewhere.first)

    assert books_revision(elsewhere.first) is None
    missing = re.findall(r"`(.+)`", str(refused.value))[0]
    assert missing == (
        "CREATE ROLE buffer_platform; CREATE ROLE buffer_reader; CREATE ROLE buffer_payouts;"
        " CREATE ROLE buffer_api;"
    )
    with elsewhere.admin.connect() as connection:
        connection.execute(text(missing))
    migrate(elsewhere.first)
    assert books_revision(elsewhere.first) == REVISION


def test_two_concurrent_migrations_share_the_roles(elsewhere: Elsewhere) -> None:
    """One waits for the roles that the other creates."""

    def waits() -> bool:
        with elsewhere.admin.connect() as connection:
            return bool(
                connection.scalar(
                    text(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'second'"
                        " AND wait_event = 'transactionid'"
                    )
                )
            )

    with ThreadPoolExecutor(1) as threads:
        with elsewhere.first.begin() as connection:
            for role in ROLES:
                connection.execute(text(f"CREATE ROLE buffer_{role}"))
            second = threads.submit(migrate, elsewhere.second)
            deadline = time.monotonic() + WAIT_SECONDS_MAX
            while not waits():
                assert not second.done()
                assert time.monotonic() < deadline, "the second does not wait"
        second.result(timeout=WAIT_SECONDS_MAX)
    migrate(elsewhere.first)

    for engine in (elsewhere.first, elsewhere.second):
        assert books_revision(engine) == REVISION
        assert {role for role, _ in rights_in(engine)} == {f"buffer_{role}" for role in ROLES}


def test_downgrade_revokes_the_rights_and_keeps_the_roles(elsewhere: Elsewhere) -> None:
    """Other databases of the server may use the roles."""
    migrate(elsewhere.first)
    config = Config()
    config.set_main_option("script_location", "buffer_pipeline:migrations")
    with elsewhere.first.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0006")

    rights = rights_in(elsewhere.first)
    migrate(elsewhere.first)

    assert rights == set()
    assert {role for role, _ in rights_in(elsewhere.first)} == {f"buffer_{role}" for role in ROLES}
