"""`doctor` on real books and a real Dagster with its daemon: sound, and with each fault that it finds."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from dagster._core.scheduler.instigation import InstigatorStatus
from sqlalchemy import Engine, text

from buffer_pipeline.audit.seals import seal
from buffer_pipeline.cli.app import main
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.monitoring import doctor as looks
from buffer_pipeline.orchestration import health
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline_tests.support.builders import NOON, place_hold
from buffer_pipeline_tests.support.cluster import tiny_disk
from buffer_pipeline_tests.support.doctor import (
    CHECKS,
    Doctor,
    as_login,
    doctor_of,
    give_up,
    own_role,
    require_wrong,
    superuser,
    unread_slot,
)
from buffer_pipeline_tests.support.installed import Installed, a_dagster, dagster_with_daemon
from buffer_pipeline_tests.support.runs import corrupt, release


@pytest.fixture(scope="module")
def installed(server: EmbeddedServer) -> Iterator[Installed]:
    """A running Dagster after its first release."""
    with dagster_with_daemon(server) as dagster:
        yield dagster


@pytest.fixture
def doctor(
    installed: Installed,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Doctor]:
    """A function that runs `doctor --json` in this process, on fresh books, with Dagster's login."""
    with doctor_of(installed, database_url, monkeypatch, capsys) as run:
        yield run


def test_a_sound_installation_passes_every_line(doctor: Doctor, engine: Engine) -> None:
    """With a payment in the buffer, a daemon and a recent release. The exit code is 0."""
    with engine.begin() as connection:
        place_hold(connection, held_at=database_clock(connection))

    found = doctor()

    assert found.wrong == []
    assert (found.code, found.ok) == (0, True)
    assert found.lines["roles"]["fact"].endswith("dagster is buffer_payouts and buffer_releaser")
    assert found.lines["books"]["fact"].startswith("proved now: 28 invariants hold")


def test_text_output_has_a_line_per_check(doctor: Doctor, capsys: pytest.CaptureFixture[str]) -> None:
    """The result, what was found, and what to do if it failed."""
    doctor()
    with pytest.raises(SystemExit):
        main(["doctor"])

    lines = capsys.readouterr().out.splitlines()

    assert [line[6:18].strip() for line in lines] == CHECKS
    assert {line[:5].strip() for line in lines} == {"ok"}


def test_a_reader_sees_all_but_the_outbox(
    doctor: Doctor, server: EmbeddedServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a login may not read is reported as wrong; everything else is checked."""
    with own_role(server, "LOGIN IN ROLE buffer_reader") as reader:
        monkeypatch.setenv("BUFFER_DATABASE_URL", as_login(database_url, reader))

        found = doctor()

    assert found.wrong == ["outbox"]
    require_wrong(found, "outbox", "permission denied", "docs/roles.md")


def test_a_database_that_does_not_answer(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line has the reason, lines that need the database refer to it, and Dagster is checked."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", "postgresql://dagster:secret-17@127.0.0.1:1/buffer")

    found = doctor()

    require_wrong(found, "database", "Connection refused")
    assert found.lines["overdue"]["fact"] == "cannot be checked: the database does not answer"
    assert not {"schedules", "daemon", "last release"} & set(found.wrong)
    assert "secret-17" not in str(found)


def test_an_old_migration_level(doctor: Doctor, engine: Engine) -> None:
    """Older books are named with their revision and `migrate`, and not migrated."""
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
    """The line has the statement that creates it."""
    with superuser(server) as execute:
        execute("ALTER ROLE buffer_reader RENAME TO somebody_else")
        try:
            found = doctor()
        finally:
            execute("ALTER ROLE somebody_else RENAME TO buffer_reader")

    require_wrong(found, "roles", "missing: buffer_reader", "CREATE ROLE buffer_reader;")


def test_roles_without_their_rights(doctor: Doctor, engine: Engine) -> None:
    """As after restoring a dump without privileges."""
    with engine.begin() as connection:
        connection.execute(text("REVOKE ALL ON SCHEMA buffer FROM buffer_platform"))

    require_wrong(doctor(), "roles", "without their rights in these books: buffer_platform")


def test_login_without_a_role(
    doctor: Doctor, server: EmbeddedServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can read nothing, and the line says what to grant."""
    with own_role(server, "LOGIN") as nobody:
        monkeypatch.setenv("BUFFER_DATABASE_URL", as_login(database_url, nobody))

        found = doctor()

        require_wrong(found, "roles", "is none of them", f"GRANT buffer_releaser TO {nobody}")
        require_wrong(found, "books", "permission denied")


def test_a_currency_with_other_places_than_the_list(doctor: Doctor, engine: Engine) -> None:
    """The books use their own decimal places, so the difference is reported."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO buffer.currency VALUES ('PHP', 3), ('JPY', 0), ('BGN', 2)"))

    found = doctor()

    require_wrong(
        found, "currencies", "PHP has 3 places in the books and 2 in the list", "the books' places apply"
    )
    assert found.wrong == ["currencies"]


def test_a_currency_that_left_the_list_is_named(doctor: Doctor, engine: Engine) -> None:
    """Nothing has to be done, because its decimal places are in the books."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO buffer.currency VALUES ('PHP', 2), ('BGN', 2)"))

    found = doctor()

    assert found.wrong == []
    assert found.lines["currencies"]["fact"] == "2 currencies; no longer in ISO 4217: BGN (2 places)"


def test_an_overdue_payment(doctor: Doctor, engine: Engine) -> None:
    """Payments that a release should have taken are counted, with the earliest due date."""
    with engine.begin() as connection:
        place_hold(connection, held_at=NOON, release_date=NOON)

    require_wrong(doctor(), "overdue", "1 payment due", "2026-03-02T12:00:00Z", "`buffer-pipeline release`")


def test_a_payment_frozen_without_a_freeze(doctor: Doctor, engine: Engine, superuser_url: str) -> None:
    """It is named, with the way to free it, also if the books are too large to prove."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, held_at=database_clock(connection))
    corrupt(superuser_url, "UPDATE buffer.unsettled_hold SET state = 'FROZEN'")

    require_wrong(
        doctor(),
        "frozen",
        f"1 payment frozen without an open freeze: hold {hold_id} ",
        "freeze` and then `unfreeze` for each",
    )


def test_dead_letters_and_messages_that_wait(doctor: Doctor, engine: Engine) -> None:
    """A message waiting since March is late. Given up, it is a dead letter of its endpoint."""
    with engine.begin() as connection:
        place_hold(connection, held_at=NOON)
    late = doctor()
    with engine.begin() as connection:
        give_up(connection, endpoint="shop")

    dead = doctor()

    require_wrong(late, "outbox", "1 notification waits", "since 2026-03-02T12:00:00Z")
    require_wrong(dead, "outbox", "dead letters: 1 of shop", "notifications replay")


def test_broken_books(doctor: Doctor, engine: Engine, superuser_url: str) -> None:
    """A balance that does not match its transactions is reported by its invariant."""
    with engine.begin() as connection:
        place_hold(connection, held_at=database_clock(connection))
    corrupt(superuser_url, "UPDATE buffer.wallet SET pending_earnings_minor = pending_earnings_minor + 1")

    require_wrong(doctor(), "books", "broken: ", "wallet_equals_its_transactions", "stop releases")


def test_an_altered_past(doctor: Doctor, engine: Engine, superuser_url: str) -> None:
    """A seal finds what no invariant sees."""
    with engine.begin() as connection:
        place_hold(connection, held_at=database_clock(connection))
    seal(engine)
    corrupt(
        superuser_url, "UPDATE buffer.transaction SET recorded_at = recorded_at - interval '1 microsecond'"
    )

    require_wrong(doctor(), "books", "transaction 1", "verify")


def test_large_books_use_the_nightly_checks(
    doctor: Doctor,
    installed: Installed,
    database_url: str,
    superuser_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dagster's latest results and their age."""
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


def test_altered_amount_is_reported_with_the_broken_invariants(
    doctor: Doctor,
    installed: Installed,
    engine: Engine,
    superuser_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The invariants show that something is wrong, the seals which line. Both are reported, also at night."""
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
    """The disk of the embedded server's data, with enough free space and with too little."""
    monkeypatch.delenv("BUFFER_DATABASE_URL")
    with tiny_disk(2 * 2**30) as disk:
        monkeypatch.setenv("BUFFER_HOME", str(disk / "home"))
        with pytest.raises(SystemExit):
            main(["migrate"])
        roomy = doctor()
        subprocess.run(["mount", "-o", "remount,size=512M", str(disk)], check=True)

        full = doctor()

    assert roomy.wrong == []
    require_wrong(full, "disk", "of 512.0 MB free", "free some space")


def test_unread_replication_slot_is_reported(doctor: Doctor, server: EmbeddedServer) -> None:
    """Before the WAL that it keeps fills the disk."""
    with unread_slot(server, "forgotten"):
        found = doctor()

    require_wrong(found, "disk", "forgotten", "pg_drop_replication_slot")


# ---- Dagster


def test_a_schedule_and_a_sensor_that_were_stopped(doctor: Doctor, installed: Installed) -> None:
    """They are named, with the way to turn them on."""
    names = ("hourly_release", "overdue_releases")
    states = [state for state in installed.instance.all_instigator_state() if state.name in names]
    for state in states:
        installed.instance.update_instigator_state(state.with_status(InstigatorStatus.STOPPED))

    found = doctor()
    for state in states:
        installed.instance.update_instigator_state(state.with_status(InstigatorStatus.RUNNING))

    require_wrong(found, "schedules", "stopped: hourly_release, overdue_releases", "turn them on")
    assert doctor().wrong == []


def test_missing_daemon(doctor: Doctor, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, nothing is scheduled or released. A dry run is no release."""
    with a_dagster(server) as empty:
        monkeypatch.setenv("BUFFER_DAGSTER_DATABASE_URL", empty.storage_url)
        monkeypatch.setenv("DAGSTER_HOME", str(empty.home))
        release(empty.instance, dry_run=True)

        found = doctor()

    assert found.wrong == ["schedules", "daemon", "last release"]
    require_wrong(found, "schedules", "never evaluated: ", "hourly_release")
    require_wrong(found, "daemon", "no heartbeat yet", "SCHEDULER", "dagster-daemon run")
    require_wrong(found, "last release", "no release run has succeeded yet")


def test_a_daemon_and_a_release_of_long_ago(installed: Installed) -> None:
    """Two hours later, without a heartbeat since, both are wrong."""
    now = datetime.now(UTC) + timedelta(hours=2)

    daemon, ran = health.daemon(installed.instance, now=now), health.last_release(installed.instance, now=now)

    assert daemon[0] is False
    assert "for 2 hours" in daemon[1] or "for 119 minutes" in daemon[1]
    assert ran[0] is False


def test_a_release_that_failed(doctor: Doctor, installed: Installed) -> None:
    """The latest run is named if it failed, until one succeeds."""
    failed = release(installed.instance, raise_on_error=False, as_of="yesterday")
    broken = doctor()
    release(installed.instance)

    require_wrong(broken, "last release", f"release run failed: {failed.run_id}", "Dagster UI")
    assert doctor().wrong == []


def test_no_dagster_to_be_found(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Without DAGSTER_HOME or one created by `dev`, the four lines say what to set."""
    monkeypatch.delenv("DAGSTER_HOME")
    monkeypatch.setenv("BUFFER_HOME", str(home))

    found = doctor()

    assert found.wrong == ["schedules", "daemon", "runs", "last release"]
    require_wrong(found, "daemon", "DAGSTER_HOME is not set", "buffer-pipeline dev")


def test_a_storage_of_dagsters_that_does_not_answer(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines have the reason without the password, and the books are checked."""
    url = "postgresql+psycopg2://dagster:secret-17@127.0.0.1:1/dagster"
    monkeypatch.setenv("BUFFER_DAGSTER_DATABASE_URL", url)

    found = doctor()

    assert found.wrong == ["schedules", "daemon", "runs", "last release"]
    require_wrong(found, "daemon", "Connection refused")
    assert "secret-17" not in str(found)
