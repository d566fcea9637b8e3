"""Every command of docs/runbook.md, section by section, on real books with the problems that it solves."""

import json
import os
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from buffer_pipeline.audit.seals import Anchor, seal, verify
from buffer_pipeline.database import database_clock, make_engine, snapshot
from buffer_pipeline.embedded import DAGSTER, EmbeddedServer
from buffer_pipeline.hold import HoldState
from buffer_pipeline.notifications.outbox import Outcome, Route, Settlement, claim, dispatch, settle
from buffer_pipeline_tests.support.builders import NOON, place_hold
from buffer_pipeline_tests.support.cluster import Cluster, new_cluster, new_standby
from buffer_pipeline_tests.support.pages import run_blocks, sections
from buffer_pipeline_tests.support.processes import finish, start

RESTORE: Final = "Restore to a point in time"
REPLICATED: Final = "Run a replicated database"
SECTIONS: Final = sections("runbook.md")
"""The page's sections, by heading."""


def with_what_goes_wrong(engine: Engine) -> None:
    """Books with an overdue payment, one frozen since March, a dead letter, and a sealed history."""
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


@pytest.mark.parametrize("section", [section for section in SECTIONS if section not in {RESTORE, REPLICATED}])
def test_the_runbook(
    section: str,
    server: EmbeddedServer,
    database_url: str,
    engine: Engine,
    tmp_path: Path,
    programs_and_user: tuple[Path, str | None],
) -> None:
    """Each command of a section exits and prints as the page shows."""
    with_what_goes_wrong(engine)
    admin = make_engine(server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    restored, platform = (f"{name}_{os.urandom(6).hex()}" for name in ("restored", "platform"))
    plain = make_url(database_url).set(drivername="postgresql")
    environment = {
        **os.environ,
        "PATH": path_with(programs_and_user[0]),
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


def path_with(programs: Path) -> str:
    """Return a PATH with the server's own programs, because those of another version may not know its
    options.
    """
    return os.pathsep.join([str(Path(sys.executable).parent), str(programs), os.environ["PATH"]])


def test_point_in_time_recovery(programs_and_user: tuple[Path, str | None], tmp_path: Path) -> None:
    """A base backup and the archive restore the books as of the moment, without the later damage."""
    programs, user = programs_and_user
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive, backups = folder / "archive", folder / "backups"
        for made in (archive, backups):
            made.mkdir()
        for owned in (folder, archive, backups):
            shutil.chown(owned, user, user) if user else None
        settings = {
            "archive_mode": "on",
            "archive_command": f"'test ! -f {archive}/%f && cp %p {archive}/%f'",
        }
        with new_cluster(programs, user=user, settings=settings) as cluster:
            url = make_url(cluster.server.books_url.render_as_string()).set(drivername="postgresql")
            restored_url = url.update_query_dict({"port": "5433"})
            environment = {
                **os.environ,
                "PATH": path_with(programs),
                "BUFFER_HOME": str(tmp_path / "home"),
                "ADMIN_URL": url.set(username="postgres", database="postgres").render_as_string(),
                "ARCHIVE": str(archive),
                "BACKUPS": str(backups),
                "RESTORE": str(folder / "restored"),
                "RESTORE_OPTIONS": f"-c port=5433 -c listen_addresses='' -k {cluster.folder}",
                "RESTORED_URL": restored_url.render_as_string(),
            }
            blocks = [block for block in SECTIONS[RESTORE] if block.by]
            books = make_engine(cluster.server.books_url)
            with books.begin() as connection:
                right = place_hold(connection)
            seal(books)

            run_blocks(blocks[:2], cwd=folder, environment=environment, server_user=user)
            with books.begin() as connection:
                wrong = place_hold(connection)
            try:
                run_blocks(blocks[2:], cwd=folder, environment=environment, server_user=user)
                rest = [block for block in SECTIONS[RESTORE] if not block.by]
                run_blocks(rest, cwd=tmp_path, environment=environment)

                restored = make_engine(restored_url.render_as_string())
                with restored.connect() as connection:
                    found = connection.scalars(text("SELECT hold_id FROM buffer.hold")).all()
                restored.dispose()
                with books.connect() as connection:
                    before = connection.scalars(text("SELECT hold_id FROM buffer.hold ORDER BY 1")).all()
            finally:
                books.dispose()
                if (folder / "restored" / "postmaster.pid").exists():
                    cluster.run("pg_ctl", "stop", "--pgdata", str(folder / "restored"), "--mode=immediate")
    assert (found, before) == ([right], [right, wrong])


def test_lost_tail_is_distinguished_from_tampering(
    programs_and_user: tuple[Path, str | None], tmp_path: Path
) -> None:
    """A standby is checked. An asynchronous failover loses a seal, and the anchors show it."""
    programs, user = programs_and_user
    reading, after_failover = SECTIONS[REPLICATED][:2], SECTIONS[REPLICATED][2:]
    with new_cluster(programs, user=user, settings={"wal_keep_size": "256MB"}) as primary:
        kept = _release_one(primary, "kept")
        with new_standby(primary) as standby:
            environment = {
                **os.environ,
                "PATH": path_with(programs),
                "STANDBY_URL": standby.server.releaser_url.render_as_string(),
                "KEPT": kept,
            }
            run_blocks(reading, cwd=tmp_path, environment=environment)
            standby.stop("fast")
            environment["LOST"] = _release_one(primary, "lost")
            primary.kill()
            standby.start()
            standby.control("promote", "--wait")

            run_blocks(after_failover, cwd=tmp_path, environment=environment)

            with snapshot(engine := make_engine(standby.server.books_url)) as connection:
                found = verify(connection, anchors=[Anchor.parse(kept)])
            engine.dispose()
    assert (found.offence, str(found.anchor)) == (None, kept)


def _release_one(cluster: Cluster, name: str) -> str:
    """Release a hold with the command; return the anchor that it prints."""
    engine = make_engine(cluster.server.books_url)
    with engine.begin() as connection:
        now = database_clock(connection)
        place_hold(connection, reference=name, held_at=now - timedelta(days=8))
    engine.dispose()
    url = cluster.server.releaser_url.render_as_string()
    return str(json.loads(finish(start("release", "--json", BUFFER_DATABASE_URL=url)))["anchor"])
