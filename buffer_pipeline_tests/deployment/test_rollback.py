"""Changes in the books are written back to the Django application's tables, or refused by name."""

import csv
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.database import database_clock, make_engine, migrate
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.legacy.export import read_export
from buffer_pipeline.legacy.importer import import_legacy
from buffer_pipeline.release import release_early
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.django_platform import TABLES, Platform, export, psql, rollback
from buffer_pipeline_tests.support.legacy import EXPORT

WAITING: Final = """
SELECT hold.reference, hold.job, payee.owner, payer.owner, unsettled.amount_minor, unsettled.state
FROM buffer.unsettled_hold AS unsettled
JOIN buffer.hold ON hold.hold_id = unsettled.hold_id
JOIN buffer.wallet AS payee ON payee.wallet_id = hold.payee_wallet_id
JOIN buffer.wallet AS payer ON payer.wallet_id = hold.payer_wallet_id
ORDER BY hold.reference
"""
LATEST: Final = """
SELECT hold.job, max(unsettled.release_date)
FROM buffer.unsettled_hold AS unsettled JOIN buffer.hold ON hold.hold_id = unsettled.hold_id
GROUP BY hold.job ORDER BY hold.job
"""
WALLETS: Final = """
SELECT owner, balance_minor, pending_earnings_minor FROM buffer.wallet ORDER BY owner
"""
OPEN_BACKJOBS: Final = (
    "SELECT job, requested_by, reason FROM buffer.backjob WHERE state = 'OPEN' ORDER BY job"
)


def comparable_state(connection: Connection) -> list[list[tuple[Any, ...]]]:
    """Return what waits, the latest due date of each job, all balances, and all disputes."""
    return [
        [tuple(row) for row in connection.execute(text(query))]
        for query in (WAITING, LATEST, WALLETS, OPEN_BACKJOBS)
    ]


def everything_happens(connection: Connection, now: datetime) -> None:
    """After the switch: releases, early releases, decisions, payments, freezes, deposits, withdrawals."""

    open_backjobs = connection.execute(
        text("SELECT backjob_id, job FROM buffer.backjob WHERE state = 'OPEN' ORDER BY backjob_id")
    ).all()
    whole, partial, rejected = open_backjobs[:3]
    amount = connection.execute(
        text("SELECT sum(amount_minor) FROM buffer.hold WHERE job = :job"), {"job": partial.job}
    ).scalar_one()
    half = f"{int(amount) // 200}.00"
    approve_backjob(connection, backjob_id=whole.backjob_id, by="admin-1", reason="agreed", now=now)
    approve_backjob(
        connection, backjob_id=partial.backjob_id, by="admin-1", reason="half", amount=half, now=now
    )
    reject_backjob(connection, backjob_id=rejected.backjob_id, by="admin-1", reason="done well", now=now)
    waiting = connection.execute(
        text(
            "SELECT hold.hold_id, hold.job, payer.owner FROM buffer.unsettled_hold"
            " JOIN buffer.hold USING (hold_id)"
            " JOIN buffer.wallet AS payer ON payer.wallet_id = payer_wallet_id"
            " WHERE state = 'BUFFERED' ORDER BY release_date DESC LIMIT 3"
        )
    ).all()
    release_early(connection, hold_id=waiting[0].hold_id, by=waiting[0].owner, reason="well done", now=now)
    freeze_hold(
        connection, hold_id=waiting[1].hold_id, kind=FreezeKind.RISK, by="risk-2", reason="card", now=now
    )
    for number, (job, payer, payee) in enumerate(
        [("1", "57", "14"), ("2", "43", "36"), ("3", "48", "38"), ("3", "48", "1")]
    ):
        add_pending_earnings(
            connection,
            reference=f"new-{number}",
            job=job,
            payee=payee,
            payer=payer,
            amount="100.50",
            currency="PHP",
            title="Again",
            held_at=now,
            now=now,
        )
    request_backjob(connection, job="2", by="43", reason="drips again", now=now)
    requested = request_backjob(connection, job="1", by="57", reason="drips too", now=now)
    approve_backjob(connection, backjob_id=requested.backjob_id, by="admin-1", reason="yes", now=now)
    deposit(connection, owner="43", amount="250.00", currency="PHP", reference="top-up-1", now=now)
    withdraw(connection, owner="41", amount="600.10", currency="PHP", reference="bank-1", now=now)


def test_rollback_and_second_import_give_the_same_books(
    platform: Platform, server: EmbeddedServer, tmp_path: Path
) -> None:
    """After the rollback, an import of Django's tables into empty books gives the same state."""
    with platform.engine.begin() as connection:
        taken_over = import_legacy(
            connection, export(platform, tmp_path / "over"), now=database_clock(connection), strict=True
        )
        everything_happens(connection, database_clock(connection))
    with platform.engine.connect() as connection:
        due_by = database_clock(connection)
    assert release_all_due(platform.engine, due_by=due_by, source="a test").holds_released > 0
    with platform.engine.connect() as connection:
        expected = comparable_state(connection)

    rollback(platform, tmp_path)

    back = export(platform, tmp_path / "back")
    assert read_export(back, currency="PHP", places=2).quarantined == ()
    with fresh_books(server) as url, make_engine(url).begin() as connection:
        again = import_legacy(connection, back, now=due_by, strict=True)
        assert comparable_state(connection) == expected
    assert (taken_over.quarantined, again.quarantined) == ((), ())
    assert money(back) == money(EXPORT) + 25_000 - 60_010 + 4 * 10_050


def money(directory: Path) -> int:
    """Return all balances and all pending earnings, in minor units."""
    with (directory / "accounts_wallet.csv").open(encoding="utf-8", newline="") as opened:
        return sum(
            int(Decimal(row[column]).scaleb(2))
            for row in csv.DictReader(opened)
            for column in ("balance", "pendingEarnings")
        )


def test_second_rollback_changes_nothing(platform: Platform, tmp_path: Path) -> None:
    """Existing rows are neither written again nor added to a balance again."""
    with platform.engine.begin() as connection:
        import_legacy(connection, export(platform, tmp_path / "over"), now=database_clock(connection))
        everything_happens(connection, database_clock(connection))
    rollback(platform, tmp_path)
    once = export(platform, tmp_path / "once")

    rollback(platform, tmp_path)

    twice = export(platform, tmp_path / "twice")
    for table in TABLES:
        assert (twice / f"{table}.csv").read_text() == (once / f"{table}.csv").read_text()


def test_rollback_right_after_an_import_changes_nothing(platform: Platform, tmp_path: Path) -> None:
    """Django's tables stay identical."""
    over = export(platform, tmp_path / "over")
    with platform.engine.begin() as connection:
        import_legacy(connection, over, now=database_clock(connection))

    rollback(platform, tmp_path)

    back = export(platform, tmp_path / "back")
    for table in TABLES:
        assert (back / f"{table}.csv").read_text() == (over / f"{table}.csv").read_text()


def refused(platform: Platform, tmp_path: Path) -> str:
    """Return the message of a rollback that must write nothing."""
    before = export(platform, tmp_path / "before")
    done = psql(platform, "rollback.sql", tmp_path)
    assert done.returncode != 0
    behind = export(platform, tmp_path / "behind")
    for table in TABLES:
        assert (behind / f"{table}.csv").read_text() == (before / f"{table}.csv").read_text()
    return done.stderr


def test_wallet_changed_by_django_refuses_the_rollback(platform: Platform, tmp_path: Path) -> None:
    """A balance that Django changed after the import is named, and nothing is written."""
    bring_over(platform, tmp_path)
    in_django(platform, 'UPDATE accounts_wallet SET balance = balance + 1 WHERE "walletID" = 1')

    assert "wallet 1: balance 129607.65 and pending 0.00 there, 129606.65 and 0.00 here" in refused(
        platform, tmp_path
    )


def test_owner_that_django_does_not_know_refuses_the_rollback(platform: Platform, tmp_path: Path) -> None:
    """A payment to an owner without a Django wallet is named, and nothing is written."""
    with platform.engine.begin() as connection:
        now = database_clock(connection)
        import_legacy(connection, export(platform, tmp_path / "over"), now=now)
        add_pending_earnings(
            connection,
            reference="new-1",
            job="1",
            payee="worker-17",
            payer="57",
            amount="100.50",
            currency="PHP",
            now=now,
        )

    assert "of worker-17, job 1 of 57, in PHP: Django has no such wallet" in refused(platform, tmp_path)


def bring_over(platform: Platform, tmp_path: Path, *, strict: bool = True) -> datetime:
    """Import Django's tables; return the time."""
    with platform.engine.begin() as connection:
        now = database_clock(connection)
        import_legacy(connection, export(platform, tmp_path / "over"), now=now, strict=strict)
    return now


def in_django(platform: Platform, *statements: str) -> None:
    """Write to Django's tables, as the application does."""
    with psycopg.connect(platform.libpq_url) as there:
        for statement in statements:
            there.execute(statement.encode())


NEWCOMER: Final = (
    "INSERT INTO accounts_accounts VALUES (9001, 'worker9001@example.com')",
    """
    INSERT INTO accounts_wallet (
      "walletID", "accountFK_id", balance, "reservedBalance", "pendingEarnings", "createdAt", "updatedAt"
    ) VALUES (9001, 9001, 0, 0, 500, now(), now())
    """,
    """
    INSERT INTO jobs (
      "jobID", title, budget, status, "clientAccountID", "paymentReleaseDate", "paymentReleasedToWorker",
      "paymentHeldReason"
    ) VALUES (9001, 'Clean', 500, 'COMPLETED', 57, now() + interval '1 hour', false, 'BUFFER_PERIOD')
    """,
    """
    INSERT INTO accounts_transaction (
      "transactionID", "walletID_id", "transactionType", amount, "balanceAfter", status, description,
      "referenceNumber", "relatedJobPosting_id", "createdAt"
    ) VALUES (
      9001, 9001, 'PENDING_EARNING', 500, 0, 'PENDING', 'Pending', 'JOB-9001', 9001, now() - interval '6 days'
    )
    """,
)
"""A worker without a balance, with a payment that waits."""


def test_payment_that_both_moved_refuses_the_rollback(platform: Platform, tmp_path: Path) -> None:
    """A payment that the old command released and a backjob refunded is named, and not paid twice."""
    in_django(platform, *NEWCOMER)
    now = bring_over(platform, tmp_path)
    with platform.engine.begin() as connection:
        requested = request_backjob(connection, job="9001", by="57", reason="drips", now=now)
        approve_backjob(connection, backjob_id=requested.backjob_id, by="admin-1", reason="yes", now=now)
    in_django(
        platform,
        """
        UPDATE accounts_transaction SET "transactionType" = 'EARNING', status = 'COMPLETED',
          "completedAt" = now(), "balanceAfter" = 500 WHERE "transactionID" = 9001
        """,
        'UPDATE accounts_wallet SET balance = 500, "pendingEarnings" = 0 WHERE "walletID" = 9001',
    )

    assert "JOB-9001: is released there, and not here" in refused(platform, tmp_path)


def test_corrected_quarantined_balance_refuses_the_rollback(platform: Platform, tmp_path: Path) -> None:
    """A quarantined balance that was deposited in the books is still in Django, and is not added again."""
    in_django(platform, 'UPDATE accounts_wallet SET "pendingEarnings" = 5 WHERE "walletID" = 1')
    now = bring_over(platform, tmp_path, strict=False)
    with platform.engine.begin() as connection:
        deposit(connection, owner="41", amount="129606.65", currency="PHP", reference="by-hand-1", now=now)

    assert "wallet 1: balance 259213.30 and pending " in refused(platform, tmp_path)


def test_account_with_two_wallets_refuses_the_rollback(platform: Platform, tmp_path: Path) -> None:
    """The rollback does not guess which wallet gets the payments."""
    in_django(
        platform,
        """
        INSERT INTO accounts_wallet (
          "accountFK_id", balance, "reservedBalance", "pendingEarnings", "createdAt", "updatedAt"
        ) SELECT "accountFK_id", 0, 0, 0, now(), now() FROM accounts_wallet
        WHERE "pendingEarnings" > 0 LIMIT 1
        """,
    )
    bring_over(platform, tmp_path, strict=False)

    assert "has 2 wallets there" in refused(platform, tmp_path)


def test_reference_of_a_cancelled_row_is_free_again(platform: Platform, tmp_path: Path) -> None:
    """After the rollback, a payment waits under the reference of one that Django had cancelled."""
    now = bring_over(platform, tmp_path)
    with platform.engine.begin() as connection:
        add_pending_earnings(
            connection,
            reference="JOB-9-PENDING-finish",
            job="9",
            payee="38",
            payer="50",
            amount="4019.98",
            currency="PHP",
            now=now,
        )

    rollback(platform, tmp_path)

    back = read_export(export(platform, tmp_path / "back"), currency="PHP", places=2)
    assert back.quarantined == ()
    assert "JOB-9-PENDING-finish" in {payment.earning.reference for payment in back.payments}


def test_rollback_orders_lines_by_their_times(platform: Platform, tmp_path: Path) -> None:
    """Two deposits with disagreeing clocks leave the balance of the later one."""
    now = bring_over(platform, tmp_path)
    for number, at in enumerate((now + timedelta(milliseconds=200), now)):
        with platform.engine.begin() as connection:
            deposit(connection, owner="41", amount="10.00", currency="PHP", reference=f"in-{number}", now=at)

    rollback(platform, tmp_path)

    assert read_export(export(platform, tmp_path / "back"), currency="PHP", places=2).quarantined == ()


def test_second_import_and_second_rollback(platform: Platform, tmp_path: Path) -> None:
    """Ids of new books start at one again; their lines differ from those of the former books."""
    in_django(platform, *NEWCOMER)
    now = bring_over(platform, tmp_path)
    with platform.engine.begin() as connection:
        deposit(connection, owner="9001", amount="100.00", currency="PHP", reference="in-1", now=now)
        withdraw(connection, owner="9001", amount="100.00", currency="PHP", reference="out-1", now=now)
    rollback(platform, tmp_path)
    with platform.engine.begin() as connection:
        connection.execute(text("ALTER SCHEMA buffer RENAME TO buffer_before"))
    migrate(platform.engine)
    with platform.engine.begin() as connection:
        now = database_clock(connection)
        import_legacy(connection, export(platform, tmp_path / "again"), now=now, strict=True)
        for number in range(3):
            amount = f"{number + 1}.00"
            deposit(connection, owner="9001", amount=amount, currency="PHP", reference=f"n-{number}", now=now)

    rollback(platform, tmp_path)

    with psycopg.connect(platform.libpq_url) as there:
        found = there.execute('SELECT balance FROM accounts_wallet WHERE "walletID" = 9001').fetchone()
    assert found == (Decimal("6.00"),)
