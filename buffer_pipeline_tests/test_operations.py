"""Every command of docs/operations.md, section by section, on real books that have what it is about."""

import os
import sys
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.embedded import DAGSTER, EmbeddedServer
from buffer_pipeline.history import seal
from buffer_pipeline.hold import HoldState
from buffer_pipeline.outbox import Outcome, Route, Settlement, claim, dispatch, settle
from buffer_pipeline_tests.builders import place_hold
from buffer_pipeline_tests.conftest import NOON
from buffer_pipeline_tests.pages import run_blocks, sections

SECTIONS: Final = sections("operations.md")


def with_what_goes_wrong(engine: Engine) -> None:
    """An overdue payment, one that is frozen since March, and a dead letter; history is sealed."""
    with engine.begin() as connection:
        place_hold(connection, held_at=NOON, release_date=NOON)
        place_hold(connection, held_at=NOON, state=HoldState.FROZEN)
        now = database_clock(connection)
        dispatch(connection, [Route(name="shop")], batch_limit=1, now=now)
        claimed = claim(
            connection, endpoint="shop", owners_limit=1, per_owner_limit=1, lease_seconds=60, now=now
        )
        settlements = [Settlement(claimed=each, outcome=Outcome.DEAD, reason="gone") for each in claimed]
        assert settle(connection, settlements, now=now)
    seal(engine)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_runbook(
    section: str, server: EmbeddedServer, database_url: str, engine: Engine, tmp_path: Path
) -> None:
    """Each command of a section ends as the page says, and prints the lines that stand below it."""
    with_what_goes_wrong(engine)
    admin = make_engine(server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        programs = connection.scalar(text("SELECT setting FROM pg_config WHERE name = 'BINDIR'"))
    restored, platform = (f"{name}_{os.urandom(6).hex()}" for name in ("restored", "platform"))
    plain = make_url(database_url).set(drivername="postgresql")
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(
            # Those of the server's version: another one's dump may say what this one does not know.
            [str(Path(sys.executable).parent), str(programs), os.environ["PATH"]]
        ),
        "BUFFER_HOME": str(tmp_path / "home"),
        "BUFFER_DATABASE_URL": plain.set(username=DAGSTER).render_as_string(),
        "PLATFORM_URL": plain.set(username=platform).render_as_string(),
        "OWNER_URL": plain.render_as_string(),
        "ADMIN_URL": plain.set(username="postgres", database="postgres").render_as_string(),
        "RESTORED": restored,
        "RESTORED_URL": plain.set(database=restored).render_as_string(),
    }
    environment.pop("DAGSTER_HOME", None)
    blocks = SECTIONS[section]
    with admin.connect() as connection:
        connection.execute(text(f"CREATE ROLE {platform} LOGIN IN ROLE buffer_platform"))
    assert "sh" in [block.kind for block in blocks]
    try:
        run_blocks(blocks, cwd=tmp_path, environment=environment)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {restored} WITH (FORCE)"))
            connection.execute(text(f"DROP ROLE {platform}"))
        admin.dispose()
