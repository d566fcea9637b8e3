"""`doctor` on real books and a real Dagster with its daemon: sound, and broken in each way it looks for."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from alembic import command
from alembic.config import Config
from dagster._core.scheduler.instigation import InstigatorStatus
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from buffer_pipeline import doctor as looks
from buffer_pipeline.cli import main
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.embedded import DAGSTER, EmbeddedServer
from buffer_pipeline.history import seal
from buffer_pipeline.orchestration import health
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.outbox import Outcome, Route, Settlement, claim, dispatch, settle
from buffer_pipeline_tests.builders import place_hold
from buffer_pipeline_tests.cluster import tiny_disk
from buffer_pipeline_tests.conftest import NOON, fresh_books
from buffer_pipeline_tests.installed import ROOT, Installed, a_dagster
from buffer_pipeline_tests.runs import corrupt, release
from buffer_pipeline_tests.stack import wait_for

CHECKS: Final = [
    "database", "migration", "roles", "clock", "currencies", "schedules", "daemon", "runs", "last release",
    "overdue", "frozen", "outbox", "books", "disk",
]  # fmt: skip


@pytest.fixture(scope="module")
def installed(server: EmbeddedServer) -> Iterator[Installed]:
    """A Dagster as it is served, behind its first release."""
    with (
        a_dagster(server) as dagster,
        fresh_books(server) as url,
        # Innermost, since to be open takes a variable of the environment too.
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("BUFFER_DATABASE_URL", url.replace("//buffer@", f"//{DAGSTER}@"))
        environment.setenv("BUFFER_DAGSTER_DATABASE_URL", dagster.storage_url)
        environment.setenv("DAGSTER_HOME", str(dagster.home))
        with (dagster.home / "daemon.log").open("wb") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "dagster._daemon", "run", "--workspace", str(ROOT / "workspace.yaml")],
                cwd=dagster.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            release(dagster.instance)
            wait_for(lambda: health.schedules(dagster.instance)[0], what="the daemon's look at the schedules")
            now = datetime.now(UTC)
            wait_for(lambda: health.daemon(dagster.instance, now=now)[0], what="the daemon's sign of life")
            yield dagster
        finally:
            os.killpg(daemon.pid, signal.SIGINT)
            daemon.wait(timeout=60)


@dataclass(frozen=True)
class Found:
    """What `doctor` said: its exit code, and each check's line."""

    code: int
    ok: bool
    lines: dict[str, dict[str, Any]]

    @property
    def wrong(self) -> list[str]:
        """The checks that are not right."""
        return [name for name, line in self.lines.items() if not line["ok"]]


Doctor = Callable[[], Found]


@pytest.fixture
def doctor(
    installed: Installed,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Doctor]:
    """Run `doctor --json` in this process, on fresh books, as Dagster's login."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", database_url.replace("//buffer@", f"//{DAGSTER}@"))
    monkeypatch.setenv("BUFFER_DAGSTER_DATABASE_URL", installed.storage_url)
    monkeypatch.setenv("DAGSTER_HOME", str(installed.home))
    handler = signal.getsignal(signal.SIGTERM)

    def call() -> Found:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(["doctor", "--json"])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        answer = json.loads(said.out)
        assert isinstance(stopped.value.code, int)
        lines = {line["check"]: line for line in answer["checks"]}
        assert list(lines) == CHECKS
        assert all((line["advice"] is None) == line["ok"] for line in lines.values())
        return Found(stopped.value.code, answer["ok"], lines)

    yield call
    signal.signal(signal.SIGTERM, handler)


def require_wrong(found: Found, check: str, *words: str) -> None:
    """Assert that the check is wrong, exit 1, and that its line has these words."""
    assert (found.code, found.ok) == (1, False)
    assert check in found.wrong
    line = found.lines[check]
    for word in words:
        assert word in f"{line['fact']} -> {line['advice']}"


def test_a_sound_installation_passes_every_line(doctor: Doctor, engine: Engine) -> None:
    """With a payment in the buffer, a daemon and a release an instant ago, all is right: exit 0."""
    with engine.begin() as connection:
        place_hold(connection, held_at=database_clock(connection))

    found = doctor()

    assert found.wrong == []
    assert (found.code, found.ok) == (0, True)
    assert found.lines["roles"]["fact"].endswith("dagster is buffer_releaser")
    assert found.lines["books"]["fact"].startswith("proved now: 13 invariants hold")


def test_a_line_a_check_for_people(doctor: Doctor, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line says whether it is right, what was found, and what to do where it is not."""
    doctor()
    with pytest.raises(SystemExit):
        main(["doctor"])

    lines = capsys.readouterr().out.splitlines()

    assert [line[6:18].strip() for line in lines] == CHECKS
    assert {line[:5].strip() for line in lines} == {"ok"}


def test_a_reader_sees_all_but_the_outbox(
    doctor: Doctor, server: EmbeddedServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a login may not see cannot be checked, says so, and counts as wrong; the rest is checked."""
    with own_role(server, "LOGIN IN ROLE buffer_reader") as reader:
        monkeypatch.setenv("BUFFER_DATABASE_URL", as_login(database_url, reader))

        found = doctor()

    assert found.wrong == ["outbox"]
    require_wrong(found, "outbox", "permission denied", "docs/roles.md")


# ---- the server and the books


def test_a_database_that_does_not_answer(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line has the reason, those that need the database say so, and Dagster's are looked at."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", "postgresql://dagster:secret-17@127.0.0.1:1/buffer")

    found = doctor()

    require_wrong(found, "database", "Connection refused")
    assert found.lines["overdue"]["fact"] == "cannot be checked: the database does not answer"
    assert not {"schedules", "daemon", "last release"} & set(found.wrong)
    assert "secret-17" not in str(found)


def test_an_old_migration_level(doctor: Doctor, engine: Engine) -> None:
    """Books of an older version are named with their revision and `migrate`, and are not migrated."""
    config = Config()
    config.set_main_option("script_location", "buffer_pipeline:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0008")

    found = doctor()

    require_wrong(found, "migration", "at revision 0008", "`buffer-pipeline migrate`")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM buffer.alembic_version")) == "0008"


def test_a_missing_role(doctor: Doctor, server: EmbeddedServer) -> None:
    """A role that the server does not have is named with the statement that makes it."""
    with superuser(server) as execute:
        execute("ALTER ROLE buffer_reader RENAME TO somebody_else")
        try:
            found = doctor()
        finally:
            execute("ALTER ROLE somebody_else RENAME TO buffer_reader")

    require_wrong(found, "roles", "missing: buffer_reader", "CREATE ROLE buffer_reader;")


def test_roles_without_their_rights(doctor: Doctor, engine: Engine) -> None:
    """As behind a dump that was restored without its privileges."""
    with engine.begin() as connection:
        connection.execute(text("REVOKE ALL ON SCHEMA buffer FROM buffer_platform"))

    require_wrong(doctor(), "roles", "without their rights in these books: buffer_platform")


def test_a_login_that_is_no_role(
    doctor: Doctor, server: EmbeddedServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that was never made a member sees nothing, and is told what to grant."""
    with own_role(server, "LOGIN") as nobody:
        monkeypatch.setenv("BUFFER_DATABASE_URL", as_login(database_url, nobody))

        found = doctor()

        require_wrong(found, "roles", "is none of them", f"GRANT buffer_releaser TO {nobody}")
        require_wrong(found, "books", "permission denied")


@pytest.mark.parametrize("seconds", [-90, 90])
def test_a_clock_that_is_wrong(engine: Engine, seconds: int) -> None:
    """A machine whose clock is a minute and a half off is told by how much and which way."""
    finding = looks.look(
        "clock",
        lambda: looks.clock(engine, read=lambda: datetime.now(UTC) + timedelta(seconds=seconds)),
    )

    assert not finding.ok
    assert f"{'ahead of' if seconds > 0 else 'behind'} the database's" in finding.fact
    assert "90.0 s" in finding.fact or "89.9 s" in finding.fact


def test_a_currency_with_other_places_than_the_list(doctor: Doctor, engine: Engine) -> None:
    """Amounts in it are read by the books, which whoever states them should know."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO buffer.currency VALUES ('PHP', 3), ('JPY', 0), ('BGN', 2)"))

    found = doctor()

    require_wrong(found, "currencies", "PHP has 3 places here and 2 there", "the books' places count")
    assert found.wrong == ["currencies"]


def test_a_currency_that_left_the_list_is_named(doctor: Doctor, engine: Engine) -> None:
    """It is nothing to put right: its places are in the books."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO buffer.currency VALUES ('PHP', 2), ('BGN', 2)"))

    found = doctor()

    assert found.wrong == []
    assert found.lines["currencies"]["fact"] == "2 with their places; no longer in ISO 4217: BGN (2 places)"


def test_an_overdue_payment(doctor: Doctor, engine: Engine) -> None:
    """A payment that a release should have taken is counted, with since when."""
    with engine.begin() as connection:
        place_hold(connection, held_at=NOON, release_date=NOON)

    require_wrong(doctor(), "overdue", "1 payment due", "2026-03-02T12:00:00Z", "`buffer-pipeline release`")


def test_a_payment_frozen_without_a_freeze(doctor: Doctor, engine: Engine, superuser_url: str) -> None:
    """It is named, with the way to let it go, also where the books are too large to prove."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, held_at=database_clock(connection))
    corrupt(superuser_url, "UPDATE buffer.unsettled_hold SET state = 'FROZEN'")

    require_wrong(
        doctor(), "frozen", f"1 payment frozen without an open freeze: hold {hold_id} ", "freeze` each"
    )


def test_dead_letters_and_messages_that_wait(doctor: Doctor, engine: Engine) -> None:
    """A message that waits since March is late; given up, it is a dead letter of its endpoint."""
    with engine.begin() as connection:
        place_hold(connection, held_at=NOON)
    late = doctor()
    with engine.begin() as connection:
        now = database_clock(connection)
        dispatch(connection, [Route(name="shop")], batch_limit=10, now=now)
        claimed = claim(
            connection, endpoint="shop", owners_limit=10, per_owner_limit=10, lease_seconds=60, now=now
        )
        settle_as_dead(connection, claimed, now)

    dead = doctor()

    require_wrong(late, "outbox", "1 notification waits", "since 2026-03-02T12:00:00Z")
    require_wrong(dead, "outbox", "dead letters: 1 of shop", "notifications replay")


def settle_as_dead(connection: Any, claimed: Any, now: datetime) -> None:
    """Give up what was claimed, as the drain does."""
    assert claimed
    settlements = [Settlement(claimed=each, outcome=Outcome.DEAD, reason="gone") for each in claimed]
    assert settle(connection, settlements, now=now)


def test_broken_books(doctor: Doctor, engine: Engine, superuser_url: str) -> None:
    """A balance that its transactions do not make is named by its invariant."""
    with engine.begin() as connection:
        place_hold(connection, held_at=database_clock(connection))
    corrupt(superuser_url, "UPDATE buffer.wallet SET pending_earnings_minor = pending_earnings_minor + 1")

    require_wrong(doctor(), "books", "broken: ", "wallet_equals_its_transactions", "stop releases")


def test_an_altered_past(doctor: Doctor, engine: Engine, superuser_url: str) -> None:
    """What no invariant sees, its seal does."""
    with engine.begin() as connection:
        place_hold(connection, held_at=database_clock(connection))
    seal(engine)
    corrupt(
        superuser_url, "UPDATE buffer.transaction SET recorded_at = recorded_at - interval '1 microsecond'"
    )

    require_wrong(doctor(), "books", "transaction 1", "verify")


def test_large_books_are_proved_by_night(
    doctor: Doctor,
    installed: Installed,
    database_url: str,
    superuser_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Books too large to prove at once are as Dagster's latest checks found them, and how long ago."""
    monkeypatch.setattr(looks, "SMALL_BOOKS_BYTES", -1)
    job = defs.resolve_job_def("reconcile_books")

    never = doctor()
    job.execute_in_process(instance=installed.instance)
    proved = doctor()
    in_two_days = health.proof(installed.instance, now=datetime.now(UTC) + timedelta(days=2))
    with make_engine(database_url).begin() as connection:
        place_hold(connection, held_at=database_clock(connection))
    corrupt(superuser_url, "UPDATE buffer.wallet SET pending_earnings_minor = pending_earnings_minor + 1")
    job.execute_in_process(instance=installed.instance, raise_on_error=False)
    broken = doctor()

    require_wrong(never, "books", "not yet proved as a whole", "reconcile_books")
    assert proved.wrong == []
    assert proved.lines["books"]["fact"].startswith("proved as a whole ")
    assert in_two_days[:2] == (
        False, "proved as a whole 2 days ago, by Dagster's checks, and nothing has failed since"
    )  # fmt: skip
    require_wrong(broken, "books", "failed when last checked: ", "wallet_equals_its_transactions")


def test_an_altered_amount_is_named_beside_what_it_breaks(
    doctor: Doctor,
    installed: Installed,
    engine: Engine,
    superuser_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Invariants say that something is wrong, the seals say which line: both are told, also by night."""
    job = defs.resolve_job_def("reconcile_books")
    with engine.begin() as connection:
        place_hold(connection, held_at=database_clock(connection))
    seal(engine)
    corrupt(superuser_url, "UPDATE buffer.transaction SET amount_minor = amount_minor + 1")

    small = doctor()
    monkeypatch.setattr(looks, "SMALL_BOOKS_BYTES", -1)
    job.execute_in_process(instance=installed.instance)
    large = doctor()
    corrupt(superuser_url, "UPDATE buffer.transaction SET amount_minor = amount_minor - 1")
    job.execute_in_process(instance=installed.instance)

    altered = "transaction 1: was altered"
    require_wrong(small, "books", "broken: ", "wallet_equals_its_transactions (1 row", altered)
    require_wrong(large, "books", f"history_as_sealed ({altered}", "wallet_equals_its_transactions (1 row)")


def test_a_disk_that_is_nearly_full(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of the embedded server's data: right with room, wrong once it has shrunk."""
    monkeypatch.delenv("BUFFER_DATABASE_URL")
    with tiny_disk(2 * 2**30) as disk:
        monkeypatch.setenv("BUFFER_HOME", str(disk / "home"))
        with pytest.raises(SystemExit):
            main(["migrate"])
        roomy = doctor()
        subprocess.run(["mount", "-o", "remount,size=512M", str(disk)], check=True)

        full = doctor()

    assert roomy.wrong == []
    require_wrong(full, "disk", "of 512.0 MB free", "make room")


def test_a_log_that_is_kept_without_an_end(doctor: Doctor, server: EmbeddedServer) -> None:
    """A replication slot that nobody reads from is named before the log fills the disk."""
    with superuser(server) as execute:
        execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
        try:
            for _ in range(40):
                execute("SELECT pg_logical_emit_message(false, 'doctor', 'x')")
                execute("SELECT pg_switch_wal()")

            found = doctor()
        finally:
            execute("SELECT pg_drop_replication_slot('forgotten')")

    require_wrong(found, "disk", "forgotten", "pg_drop_replication_slot")


# ---- Dagster


def test_a_schedule_and_a_sensor_that_were_stopped(doctor: Doctor, installed: Installed) -> None:
    """What somebody turned off is named, and how to turn it on."""
    names = ("hourly_release", "overdue_releases")
    states = [state for state in installed.instance.all_instigator_state() if state.name in names]
    for state in states:
        installed.instance.update_instigator_state(state.with_status(InstigatorStatus.STOPPED))

    found = doctor()
    for state in states:
        installed.instance.update_instigator_state(state.with_status(InstigatorStatus.RUNNING))

    require_wrong(found, "schedules", "stopped: hourly_release, overdue_releases", "turn them on")
    assert doctor().wrong == []


def test_a_daemon_that_has_never_been_there(
    doctor: Doctor, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one nothing is scheduled and nothing released, and a dry run is no release."""
    with a_dagster(server) as empty:
        monkeypatch.setenv("BUFFER_DAGSTER_DATABASE_URL", empty.storage_url)
        monkeypatch.setenv("DAGSTER_HOME", str(empty.home))
        release(empty.instance, dry_run=True)

        found = doctor()

    assert found.wrong == ["schedules", "daemon", "last release"]
    require_wrong(found, "schedules", "never evaluated: ", "hourly_release")
    require_wrong(found, "daemon", "no sign of life, ever", "SCHEDULER", "dagster-daemon run")
    require_wrong(found, "last release", "no release run has ended well")


def test_a_daemon_and_a_release_of_long_ago(installed: Installed) -> None:
    """Two hours later, with nothing heard since, both are wrong."""
    now = datetime.now(UTC) + timedelta(hours=2)

    daemon, ran = health.daemon(installed.instance, now=now), health.last_release(installed.instance, now=now)

    assert daemon[0] is False
    assert "for 2 hours" in daemon[1] or "for 119 minutes" in daemon[1]
    assert ran[0] is False


def test_a_release_that_failed(doctor: Doctor, installed: Installed) -> None:
    """The latest run has failed: it is named, until one ends well."""
    failed = release(installed.instance, raise_on_error=False, as_of="yesterday")
    broken = doctor()
    release(installed.instance)

    require_wrong(broken, "last release", f"run {failed.run_id} failed", "Dagster UI")
    assert doctor().wrong == []


def test_no_dagster_to_be_found(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Without DAGSTER_HOME, and with none that `dev` has made, the four lines say what to set."""
    monkeypatch.delenv("DAGSTER_HOME")
    monkeypatch.setenv("BUFFER_HOME", str(home))

    found = doctor()

    assert found.wrong == ["schedules", "daemon", "runs", "last release"]
    require_wrong(found, "daemon", "DAGSTER_HOME is not set", "buffer-pipeline dev")


def test_a_storage_of_dagsters_that_does_not_answer(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines say why, without the password; the books are looked at."""
    url = "postgresql+psycopg2://dagster:secret-17@127.0.0.1:1/dagster"
    monkeypatch.setenv("BUFFER_DAGSTER_DATABASE_URL", url)

    found = doctor()

    assert found.wrong == ["schedules", "daemon", "runs", "last release"]
    require_wrong(found, "daemon", "Connection refused")
    assert "secret-17" not in str(found)


# ---- logins


@contextmanager
def superuser(server: EmbeddedServer) -> Iterator[Callable[[str], None]]:
    """Yield what executes a statement as the server's superuser."""
    admin = make_engine(server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:

        def execute(statement: str) -> None:
            connection.execute(text(statement))

        yield execute
    admin.dispose()


@contextmanager
def own_role(server: EmbeddedServer, rights: str) -> Iterator[str]:
    """Yield the name of a role of the test's own."""
    name = f"login_{os.urandom(6).hex()}"
    with superuser(server) as execute:
        execute(f"CREATE ROLE {name} {rights}")
        yield name
        execute(f"DROP ROLE {name}")


def as_login(url: str, name: str) -> str:
    """Return the URL for another login."""
    return make_url(url).set(username=name).render_as_string(hide_password=False)
