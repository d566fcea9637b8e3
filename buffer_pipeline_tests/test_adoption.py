"""From the Django application to the books and back: docs/adoption.md on real Django tables."""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Connection, Engine, make_url, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.database import database_clock, make_engine, migrate
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.embedded import DAGSTER, EmbeddedServer
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.legacy import import_legacy
from buffer_pipeline.legacy_export import read_export
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.release import release_early
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.conftest import fresh_books
from buffer_pipeline_tests.pages import run_blocks, sections
from buffer_pipeline_tests.platforms import login, manage, superuser

ROOT: Final = Path(__file__).parents[1]
EXPORT: Final = Path(__file__).parent / "legacy_export"
LEGACY_APP: Final = Path(__file__).parent / "legacy_app"
DEPLOY: Final = ROOT / "deploy" / "django"
EXAMPLE: Final = ROOT / "examples" / "django"
TABLES: Final = ("accounts_accounts", "jobs", "accounts_wallet", "accounts_transaction", "job_disputes")
"""In the order of their references."""


@dataclass(frozen=True)
class Platform:
    """A database with the Django application's tables, filled, and empty books beside them."""

    server: EmbeddedServer
    url: str
    engine: Engine

    @property
    def libpq_url(self) -> str:
        """Its address as psql takes it."""
        return make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def platform(server: EmbeddedServer) -> Iterator[Platform]:
    """The shipped export, loaded into tables that Django made, by the platform's login."""
    with login(server, "buffer") as role, fresh_books(server) as url:
        engine = make_engine(url)
        with superuser(url).begin() as connection:
            connection.execute(text(f"GRANT CREATE ON SCHEMA public TO {role}"))
        found = Platform(server, url.replace("//buffer@", f"//{role}@"), engine)
        manage(LEGACY_APP, "migrate", "--run-syncdb", PLATFORM_DATABASE_URL=found.url)
        load(found)
        yield found
        engine.dispose()
        with superuser(url).begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))


def load(platform: Platform) -> None:
    with psycopg.connect(platform.libpq_url) as connection:
        for table in TABLES:
            content = (EXPORT / f"{table}.csv").read_text(encoding="utf-8")
            header = next(csv.reader([content.partition("\n")[0]]))
            columns = ", ".join(f'"{column}"' for column in header)
            with connection.cursor().copy(
                f"COPY public.{table} ({columns}) FROM STDIN WITH (FORMAT csv, HEADER)"
            ) as copy:
                copy.write(content)
            connection.execute(
                f"SELECT setval(pg_get_serial_sequence('public.{table}', '{header[0]}'), 100000)"
            )


def psql(platform: Platform, script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [programs(platform) / "psql", platform.libpq_url, "--quiet", "--file", DEPLOY / script],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def programs(platform: Platform) -> Path:
    """Return where the server's own psql is."""
    admin = make_engine(platform.server.url("postgres", user="postgres"))
    with admin.connect() as connection:
        found = connection.scalar(text("SELECT setting FROM pg_config WHERE name = 'BINDIR'"))
    admin.dispose()
    return Path(str(found))


def export(platform: Platform, directory: Path) -> Path:
    directory.mkdir()
    done = psql(platform, "export.sql", directory)
    assert done.stderr == ""
    return directory


def rollback(platform: Platform, cwd: Path) -> None:
    done = psql(platform, "rollback.sql", cwd)
    assert done.stderr == ""


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


def standing(connection: Connection) -> list[list[tuple[Any, ...]]]:
    """Return what waits, when each job's is due at last, whose money is where, and what is disputed."""
    return [
        [tuple(row) for row in connection.execute(text(query))]
        for query in (WAITING, LATEST, WALLETS, OPEN_BACKJOBS)
    ]


# The page.


def test_page_from_shadow_to_rollback(platform: Platform, tmp_path: Path) -> None:
    """Each command of docs/adoption.md, in order, ends as the page says and prints what stands below it.

    The platform's login has no right to the books but those that the page gives it.
    """
    login_name = make_url(platform.libpq_url).username
    with superuser(platform.url.replace(f"//{login_name}@", "//buffer@")).begin() as connection:
        connection.execute(text(f"REVOKE buffer FROM {login_name}"))
    (tmp_path / "manage.py").symlink_to(LEGACY_APP / "manage.py")
    for part in ("settings.py", "accounts"):
        (tmp_path / part).symlink_to(LEGACY_APP / part)
    shadow, shop = (f"{name}_{os.urandom(6).hex()}" for name in ("shadow", "shop"))
    url = make_url(platform.libpq_url)
    owner = url.set(username="buffer")
    admin = make_engine(platform.server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(
            [str(Path(sys.executable).parent), str(programs(platform)), os.environ["PATH"]]
        ),
        "BUFFER_HOME": str(tmp_path / "home"),
        "BUFFER_DATABASE_URL": url.set(username=DAGSTER).render_as_string(),
        "PLATFORM_DATABASE_URL": platform.libpq_url,
        "DJANGO_URL": platform.libpq_url,
        "OWNER_URL": owner.render_as_string(),
        "SHADOW_URL": owner.set(database=shadow).render_as_string(),
        "ADMIN_URL": url.set(username="postgres", database="postgres").render_as_string(),
        "SHOP": shop,
        "SHOP_URL": url.set(database=shop).render_as_string(),
        "SHOP_OWNER_URL": owner.set(database=shop).render_as_string(),
        "DJANGO_LOGIN": login_name or "",
        "DEPLOY": str(DEPLOY),
        "EXAMPLE": str(EXAMPLE),
    }
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {shadow} OWNER buffer"))
    try:
        for blocks in sections("adoption.md").values():
            run_blocks(blocks, cwd=tmp_path, environment=environment)
    finally:
        with admin.connect() as connection:
            for name in (shadow, shop):
                connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        admin.dispose()

    export_behind = read_export(export(platform, tmp_path / "behind"), currency="PHP", places=2)
    assert export_behind.quarantined == ()
    with platform.engine.connect() as connection:
        assert not reconcile(connection)


# Back.


def everything_happens(connection: Connection, now: datetime) -> None:
    """After the switch: releases, early ones, decisions, new payments, freezes, deposits, withdrawals."""

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
    asked = request_backjob(connection, job="1", by="57", reason="drips too", now=now)
    approve_backjob(connection, backjob_id=asked.backjob_id, by="admin-1", reason="yes", now=now)
    deposit(connection, owner="43", amount="250.00", currency="PHP", reference="top-up-1", now=now)
    withdraw(connection, owner="41", amount="600.10", currency="PHP", reference="bank-1", now=now)


def test_what_the_books_did_goes_back_and_comes_over_again_alike(
    platform: Platform, server: EmbeddedServer, tmp_path: Path
) -> None:
    """After the rollback an import of Django's tables into empty books gives the books as they were."""
    with platform.engine.begin() as connection:
        taken_over = import_legacy(
            connection, export(platform, tmp_path / "over"), now=database_clock(connection), strict=True
        )
        everything_happens(connection, database_clock(connection))
    with platform.engine.connect() as connection:
        due_by = database_clock(connection)
    assert drain_matured(platform.engine, due_by=due_by, source="a test").holds_released > 0
    with platform.engine.connect() as connection:
        expected = standing(connection)

    rollback(platform, tmp_path)

    back = export(platform, tmp_path / "back")
    assert read_export(back, currency="PHP", places=2).quarantined == ()
    with fresh_books(server) as url, make_engine(url).begin() as connection:
        again = import_legacy(connection, back, now=due_by, strict=True)
        assert standing(connection) == expected
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
    """What is there already is neither written again nor added to a balance again."""
    with platform.engine.begin() as connection:
        import_legacy(connection, export(platform, tmp_path / "over"), now=database_clock(connection))
        everything_happens(connection, database_clock(connection))
    rollback(platform, tmp_path)
    once = export(platform, tmp_path / "once")

    rollback(platform, tmp_path)

    twice = export(platform, tmp_path / "twice")
    for table in TABLES:
        assert (twice / f"{table}.csv").read_text() == (once / f"{table}.csv").read_text()


def test_rollback_that_nothing_happened_before_changes_nothing(platform: Platform, tmp_path: Path) -> None:
    """Right behind an import Django's tables stay as they are, to the byte."""
    over = export(platform, tmp_path / "over")
    with platform.engine.begin() as connection:
        import_legacy(connection, over, now=database_clock(connection))

    rollback(platform, tmp_path)

    back = export(platform, tmp_path / "back")
    for table in TABLES:
        assert (back / f"{table}.csv").read_text() == (over / f"{table}.csv").read_text()


def refused(platform: Platform, tmp_path: Path) -> str:
    """Return what a rollback says that must write nothing."""
    before = export(platform, tmp_path / "before")
    done = psql(platform, "rollback.sql", tmp_path)
    assert done.returncode != 0
    behind = export(platform, tmp_path / "behind")
    for table in TABLES:
        assert (behind / f"{table}.csv").read_text() == (before / f"{table}.csv").read_text()
    return done.stderr


def test_wallet_that_something_else_wrote_refuses_the_rollback(platform: Platform, tmp_path: Path) -> None:
    """A balance that Django changed behind the import is named, and nothing is written."""
    bring_over(platform, tmp_path)
    in_django(platform, 'UPDATE accounts_wallet SET balance = balance + 1 WHERE "walletID" = 1')

    assert "wallet 1: balance 129607.65 and pending 0.00 there, 129606.65 and 0.00 here" in refused(
        platform, tmp_path
    )


def test_owner_that_django_does_not_know_refuses_the_rollback(platform: Platform, tmp_path: Path) -> None:
    """A payment to somebody without a wallet there is named, and nothing is written."""
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
    """Import Django's tables, and return the time."""
    with platform.engine.begin() as connection:
        now = database_clock(connection)
        import_legacy(connection, export(platform, tmp_path / "over"), now=now, strict=strict)
    return now


def in_django(platform: Platform, *statements: str) -> None:
    """Write Django's tables, as the application does."""
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
"""A worker without a balance and with a payment that waits."""


def test_payment_that_both_moved_refuses_the_rollback(platform: Platform, tmp_path: Path) -> None:
    """What the old command released while a backjob refunded it here is named, and not paid twice."""
    in_django(platform, *NEWCOMER)
    now = bring_over(platform, tmp_path)
    with platform.engine.begin() as connection:
        asked = request_backjob(connection, job="9001", by="57", reason="drips", now=now)
        approve_backjob(connection, backjob_id=asked.backjob_id, by="admin-1", reason="yes", now=now)
    in_django(
        platform,
        """
        UPDATE accounts_transaction SET "transactionType" = 'EARNING', status = 'COMPLETED',
          "completedAt" = now(), "balanceAfter" = 500 WHERE "transactionID" = 9001
        """,
        'UPDATE accounts_wallet SET balance = 500, "pendingEarnings" = 0 WHERE "walletID" = 9001',
    )

    assert "JOB-9001: is released there, and not here" in refused(platform, tmp_path)


def test_balance_that_was_put_right_here_alone_refuses_the_rollback(
    platform: Platform, tmp_path: Path
) -> None:
    """A quarantined balance that somebody deposited here stands in Django still, and is not added to it."""
    in_django(platform, 'UPDATE accounts_wallet SET "pendingEarnings" = 5 WHERE "walletID" = 1')
    now = bring_over(platform, tmp_path, strict=False)
    with platform.engine.begin() as connection:
        deposit(connection, owner="41", amount="129606.65", currency="PHP", reference="by-hand-1", now=now)

    assert "wallet 1: balance 259213.30 and pending " in refused(platform, tmp_path)


def test_account_with_two_wallets_refuses_the_rollback(platform: Platform, tmp_path: Path) -> None:
    """Into which of them its payments go is not guessed."""
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
    """A payment under the reference of one that Django cancelled long ago waits there after the rollback."""
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


def test_lines_follow_their_times_on_the_way_back(platform: Platform, tmp_path: Path) -> None:
    """Two deposits of clocks that disagree leave the balance that the last one by its time says."""
    now = bring_over(platform, tmp_path)
    for number, at in enumerate((now + timedelta(milliseconds=200), now)):
        with platform.engine.begin() as connection:
            deposit(connection, owner="41", amount="10.00", currency="PHP", reference=f"in-{number}", now=at)

    rollback(platform, tmp_path)

    assert read_export(export(platform, tmp_path / "back"), currency="PHP", places=2).quarantined == ()


def test_second_switch_and_second_way_back(platform: Platform, tmp_path: Path) -> None:
    """Books that begin anew count from one again; their lines are others than those of the books before."""
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
