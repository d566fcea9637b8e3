"""The import from the Django app: the shipped export is imported completely, and a second import changes
nothing.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, func, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import reject_backjob
from buffer_pipeline.errors import Refused
from buffer_pipeline.legacy.export import Quarantined
from buffer_pipeline.legacy.importer import LegacyImport
from buffer_pipeline.locks import lock_holds, lock_job
from buffer_pipeline.tables import backjob, hold_freeze, hold_status, transaction, wallet
from buffer_pipeline_tests.support.builders import (
    WAIT_SECONDS_MAX,
    Wallet,
    all_at_once,
    books,
    row_counts,
    waiting_for_a_lock,
    wallet_of,
)
from buffer_pipeline_tests.support.legacy import TAKEN_AT
from buffer_pipeline_tests.support.legacy_import import (
    NOTHING_NEW,
    WAITING,
    WHOLE,
    Edit,
    account_of_wallet,
    append_copy,
    changes,
    edit,
    found,
    release_due_by,
    run_import,
    total,
    value_of,
)


def test_consistent_export_is_imported_whole(connection: Connection) -> None:
    """66 holds of 525,211.99, 5 of them frozen, 65 wallets, 5,000,000.00 in total; nobody is notified."""
    assert row_counts(connection)["wallet"] == 0

    done = run_import(connection, strict=True)

    assert done == WHOLE
    held = connection.execute(
        select(func.count(), func.sum(hold_status.c.amount_minor)).select_from(hold_status)
    ).one()
    assert tuple(held) == (66, 52_521_199)
    frozen = connection.execute(
        select(func.count(), func.count(hold_status.c.job.distinct())).where(hold_status.c.state == "FROZEN")
    ).one()
    assert tuple(frozen) == (5, 5)
    counts = row_counts(connection)
    assert (counts["wallet"], counts["backjob"], counts["hold_freeze"]) == (65, 5, 5)
    assert total(connection) == Decimal("5000000.00")
    assert counts["notification"] == 0
    assert reconcile(connection) == []


def test_waiting_row_becomes_a_hold_with_its_own_dates(connection: Connection) -> None:
    """A hold has the row's reference, job, owners, amount, title and dates."""
    run_import(connection)

    row = connection.execute(
        select(hold_status).where(hold_status.c.reference == "JOB-209-PENDING-finish")
    ).one()
    owner_of = {found.wallet_id: found.owner for found in connection.execute(select(wallet))}

    assert (row.job, row.title, row.amount_minor, row.currency) == ("209", "Roof leak repair", 377_332, "PHP")
    assert (row.state, owner_of[row.payee_wallet_id], owner_of[row.payer_wallet_id]) == (
        "BUFFERED",
        account_of_wallet("47"),
        value_of("jobs 209", "clientAccountID"),
    )
    assert row.held_at == datetime.fromisoformat("2026-11-11T12:23:45.011424+00:00")
    assert row.release_date == row.original_release_date
    assert row.release_date == datetime.fromisoformat(value_of("jobs 209", "paymentReleaseDate"))


def test_open_dispute_becomes_an_open_backjob(connection: Connection) -> None:
    """Requested by the client at its opening, even if the legacy app froze after the release date."""
    run_import(connection)

    row = connection.execute(select(backjob).where(backjob.c.reference == "legacy-dispute-42")).one()
    freeze = connection.execute(select(hold_freeze).where(hold_freeze.c.backjob_id == row.backjob_id)).one()

    assert (row.job, row.state, row.requested_by) == ("207", "OPEN", value_of("jobs 207", "clientAccountID"))
    assert row.reason == "Work needs redoing"
    assert row.requested_at == freeze.opened_at == datetime(2026, 11, 18, 22, 5, tzinfo=UTC)
    assert row.requested_at > connection.scalar(
        select(hold_status.c.release_date).where(hold_status.c.job == "207")
    )


def test_balance_becomes_an_opening_transaction(connection: Connection) -> None:
    """With the wallet's id in its reference. An empty wallet needs none."""
    run_import(connection)

    row = connection.execute(select(transaction).where(transaction.c.reference == "legacy-wallet-1")).one()

    assert (row.type, row.amount_minor, row.balance_after_minor) == (
        "OPENING_BALANCE",
        12_960_665,
        12_960_665,
    )
    assert wallet_of(connection, "41") == Wallet(balance_minor=12_960_665, pending_earnings_minor=0)


def test_wallet_without_a_balance_is_imported_empty(connection: Connection, export: Path) -> None:
    """A wallet of 0.00 without waiting payments is opened without a transaction."""
    append_copy(export, "accounts_accounts 1", accountID="900")
    append_copy(
        export,
        "accounts_wallet 1",
        walletID="900",
        accountFK_id="900",
        balance="0.00",
    )

    done = run_import(connection, export)

    assert done == replace(WHOLE, wallets=66, wallets_added=66)
    owner = select(wallet.c.owner).where(wallet.c.owner == "900")
    assert connection.scalars(owner).all() == ["900"]
    openings = select(transaction.c.reference).where(transaction.c.reference == "legacy-wallet-900")
    assert connection.scalars(openings).all() == []


def test_second_import_changes_nothing(engine: Engine) -> None:
    """It writes nothing and prints the same totals, with nothing new."""
    with engine.begin() as connection:
        run_import(connection)
    with engine.connect() as connection:
        before = books(connection)

    with engine.begin() as connection:
        again = run_import(connection, strict=True)

    assert again == NOTHING_NEW
    with engine.connect() as connection:
        assert books(connection) == before


def test_concurrent_imports_import_everything_once(engine: Engine) -> None:
    """One adds, and the other finds everything there."""
    first, second = all_at_once(engine, run_import, run_import)

    assert {first, second} == {WHOLE, NOTHING_NEW}
    with engine.connect() as connection:
        assert row_counts(connection)["hold"] == 66
        assert total(connection) == Decimal("5000000.00")


@pytest.mark.parametrize(
    ("due_by", "holds", "amount_minor"),
    [
        (datetime(2026, 11, 18, 23, 35, tzinfo=UTC), 4, 3_316_567),
        (datetime(2026, 11, 22, tzinfo=UTC), 30, 20_881_809),
        (datetime(2026, 12, 31, tzinfo=UTC), 61, 48_959_618),
    ],
    ids=lambda value: f"{value:%Y-%m-%d}" if isinstance(value, datetime) else "",
)
def test_hourly_job_releases_what_the_legacy_app_had_due(
    engine: Engine, due_by: datetime, holds: int, amount_minor: int
) -> None:
    """To the centavo, without frozen payments. A later import changes nothing."""
    with engine.begin() as connection:
        run_import(connection)

    released = release_due_by(engine, due_by)

    assert released == (holds, {"PHP": amount_minor})
    with engine.connect() as connection:
        assert total(connection) == Decimal("5000000.00")
        assert reconcile(connection) == []
        before = books(connection)
    with engine.begin() as connection:
        assert run_import(connection) == NOTHING_NEW
    with engine.connect() as connection:
        assert books(connection) == before
    assert release_due_by(engine, due_by) == (0, {})


def test_decided_backjob_is_not_opened_again(engine: Engine) -> None:
    """After a rejection, the same export neither reopens the backjob nor freezes its hold."""
    with engine.begin() as connection:
        run_import(connection)
        backjob_id = connection.execute(
            select(backjob.c.backjob_id).where(backjob.c.reference == "legacy-dispute-30")
        ).scalar_one()
        reject_backjob(connection, backjob_id=backjob_id, by="admin-1", reason="it works", now=TAKEN_AT)
        before = books(connection)

    with engine.begin() as connection:
        again = run_import(connection)

    assert again == replace(NOTHING_NEW, frozen=4)
    with engine.connect() as connection:
        assert books(connection) == before


def test_import_commits_nothing_by_itself(engine: Engine) -> None:
    """The caller can roll it back."""
    with engine.connect() as connection, connection.begin() as begun:
        run_import(connection)
        begun.rollback()

    with engine.connect() as connection:
        assert set(row_counts(connection).values()) == {0}


def test_quarantine_is_in_the_order_of_the_files(connection: Connection, export: Path) -> None:
    """Wallets, transactions, disputes, each in file order."""
    edit(export, "job_disputes 1", status="OPEN")
    edit(export, f"{WAITING} 449", createdAt="")
    edit(export, f"{WAITING} 447", createdAt="2026-12-31T00:00:00+00:00")
    edit(export, "accounts_wallet 1", balance="-1.00")

    done = run_import(connection, export)

    assert list(found(done)) == [
        "accounts_wallet 1",
        f"{WAITING} 447",
        f"{WAITING} 449",
        "job_disputes 1",
    ]
    assert done.quarantined[0] == Quarantined(row="accounts_wallet 1", reason="balance -1.00 is negative")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            changes(f"{WAITING} 447", relatedJobPosting_id=""),
            f"1 inconsistent row, nothing was imported; the first is {WAITING} 447: has no job",
        ),
        (
            changes("accounts_wallet 59", walletID="999"),
            "3 inconsistent rows, nothing was imported; the first is accounts_wallet 999:"
            " pendingEarnings 4719.73 differs from its waiting rows, 0.00",
        ),
    ],
    ids=["one row", "three rows"],
)
def test_strict_import_refuses_the_whole(
    connection: Connection, export: Path, change: Edit, message: str
) -> None:
    """One inconsistent row refuses everything in one line and leaves nothing in the caller's transaction."""
    change(export)

    with pytest.raises(Refused) as refusal:
        run_import(connection, export, strict=True)

    assert str(refusal.value) == f"{export}: {message}"
    assert set(row_counts(connection).values()) == {0}


def test_an_import_and_a_backjob_request_do_not_deadlock(engine: Engine, export: Path) -> None:
    """A later export disputes an imported job. Both lock the job before its holds."""
    with engine.begin() as connection:
        run_import(connection)
    append_copy(export, "job_disputes 42", disputeID="99", jobID_id="260")

    def import_again() -> LegacyImport:
        with engine.begin() as connection:
            return run_import(connection, export)

    with ThreadPoolExecutor(1) as threads, engine.connect() as watching:
        with engine.begin() as requesting:
            lock_job(requesting, "260")
            importing = threads.submit(import_again)
            while not waiting_for_a_lock(watching):
                pass
            lock_holds(requesting, job="260")

        assert importing.result(timeout=WAIT_SECONDS_MAX).frozen
