"""From the Django application to the books and back: docs/adoption.md on real tables, and the example."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import psycopg
import pytest
from sqlalchemy import Connection, Engine, make_url, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.database import database_clock, make_engine
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
from buffer_pipeline_tests.stack import WAIT_SECONDS_MAX, free_port, wait_for

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


def manage(directory: Path, *words: str, **settings: str) -> str:
    """Run a Django project's `manage.py`, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=directory,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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


def superuser(url: str) -> Engine:
    """Return an engine on the books, for what their owner may not."""
    return make_engine(url.replace("//buffer@", "//postgres@"))


@contextmanager
def login(server: EmbeddedServer, group: str) -> Iterator[str]:
    """Make a login that is a member of a role, and drop it behind what it owns."""
    role = f"platform_{os.urandom(6).hex()}"
    admin = make_engine(server.url("postgres", user="postgres"))
    with admin.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN IN ROLE {group}"))
    yield role
    with admin.begin() as connection:
        connection.execute(text(f"DROP ROLE {role}"))
    admin.dispose()


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
    """Each command of docs/adoption.md, in order, ends as the page says and prints what stands below it."""
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
        "SHOP_OWNER_URL": url.set(username="postgres", database=shop).render_as_string(),
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

    export_behind = read_export(export(platform, tmp_path / "behind"), currency="PHP")
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
    assert read_export(back, currency="PHP").quarantined == ()
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
    with platform.engine.begin() as connection:
        import_legacy(connection, export(platform, tmp_path / "over"), now=database_clock(connection))
    with psycopg.connect(platform.libpq_url) as there:
        there.execute('UPDATE public.accounts_wallet SET balance = balance + 1 WHERE "walletID" = 1')

    assert re.search(
        r"wallet 1: \d+\.\d\d there, \d+\.\d\d here: something else", refused(platform, tmp_path)
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


# The example.


@dataclass(frozen=True)
class Shop:
    """The example, served by Django's own server."""

    address: str

    def log_in(self, name: str) -> "Visitor":
        visitor = Visitor(self.address, build_opener(HTTPCookieProcessor(CookieJar())))
        status, page = visitor.post("/login", username=name, password="secret")
        assert (status, f"<h1>{name}</h1>" in page) == (200, True)
        return visitor


@dataclass(frozen=True)
class Visitor:
    """Somebody with a session."""

    address: str
    opener: OpenerDirector

    def page(self, path: str = "/") -> str:
        with self.opener.open(self.address + path) as answer:
            found: str = answer.read().decode()
            return found

    def post(self, path: str, **fields: str) -> tuple[int, str]:
        """Send a form with its session's token; return the status behind redirects, and the page."""
        form = self.page("/login")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
        body = urlencode({**fields, "csrfmiddlewaretoken": token[1] if token else ""}).encode()
        try:
            with self.opener.open(self.address + path, body) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture
def shop(server: EmbeddedServer, tmp_path: Path) -> Iterator[tuple[Shop, Engine]]:
    """The example on a database of its own, with two users and two jobs, by a login of the platform's."""
    with login(server, "buffer_platform") as role, fresh_books(server) as url:
        with superuser(url).begin() as connection:
            connection.execute(text(f"GRANT CREATE ON SCHEMA public TO {role}"))
        settings = {
            "SHOP_DATABASE_URL": url.replace("//buffer@", f"//{role}@"),
            "SHOP_SECRET_KEY": os.urandom(32).hex(),
        }
        manage(EXAMPLE, "migrate", **settings)
        manage(
            EXAMPLE,
            "shell",
            "-c",
            "from django.contrib.auth.models import User; from shop.models import Job;"
            "client, worker = (User.objects.create_user(name, password='secret')"
            " for name in ('client', 'worker'));"
            "[Job.objects.create(title=title, price=price, client=client, worker=worker)"
            " for title, price in (('Fix kitchen faucet', '1250.50'), ('Deep clean', '0.00'))]",
            **settings,
        )
        port = free_port()
        log = tmp_path / "log"
        process = subprocess.Popen(
            [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"],
            cwd=EXAMPLE,
            env={**os.environ, **settings},
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
        )
        served, books = Shop(f"http://127.0.0.1:{port}"), make_engine(url)
        try:
            wait_for(lambda: process.poll() is not None or answers(served.address), what="the example")
            assert process.poll() is None, log.read_text()
            yield served, books
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS_MAX)
            books.dispose()
            with superuser(url).begin() as connection:
                connection.execute(text(f"DROP OWNED BY {role}"))


def answers(address: str) -> bool:
    try:
        with build_opener().open(f"{address}/login"):
            return True
    except OSError:
        return False


def test_example_from_approval_to_the_workers_balance(shop: tuple[Shop, Engine]) -> None:
    """The client approves, the earning waits, matures and is the worker's; a backjob by then is refused."""
    served, books = shop
    client, worker = served.log_in("client"), served.log_in("worker")

    approvals = [client.post("/jobs/1/approve")[0] for _ in range(2)]
    waiting = worker.page()
    with books.connect() as connection:
        due_by = database_clock(connection) + timedelta(days=8)
    run = drain_matured(books, due_by=due_by, source="a test", clock=lambda _: due_by)
    released = worker.page()
    too_late, refusal = client.post("/jobs/1/backjob", reason="drips again")

    assert approvals == [200, 200]
    assert '<span id="balance">0.00</span>' in waiting
    assert '<span id="pending">1250.50</span>' in waiting
    assert "BUFFERED, releases " in waiting
    assert run.amounts_minor == {"PHP": 125_050}
    assert '<span id="balance">1250.50</span>' in released
    assert '<span id="pending">0.00</span>' in released
    assert "RELEASED" in released
    assert too_late == 409
    assert refusal == "job '1': all its holds are settled; a backjob needs an unsettled one\n"


def test_example_freezes_the_payment_of_a_backjob(shop: tuple[Shop, Engine]) -> None:
    """A backjob in time freezes the payment, and the release passes it by; a second one is refused."""
    served, books = shop
    client = served.log_in("client")
    client.post("/jobs/1/approve")

    asked, _ = client.post("/jobs/1/backjob", reason="drips again")
    again, _ = client.post("/jobs/1/backjob", reason="drips still")
    with books.connect() as connection:
        due_by = database_clock(connection) + timedelta(days=8)
    run = drain_matured(books, due_by=due_by, source="a test", clock=lambda _: due_by)

    assert (asked, again) == (200, 409)
    assert run.holds_released == 0
    assert "FROZEN" in client.page()


def test_example_rolls_its_own_row_back_with_a_refusal(shop: tuple[Shop, Engine]) -> None:
    """An approval that the buffer refuses leaves the job as it was: one commit, or none."""
    served, books = shop
    client = served.log_in("client")

    status, refusal = client.post("/jobs/2/approve")

    assert status == 409
    assert "amount" in refusal
    with books.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM buffer.hold")).scalar_one() == 0
    assert client.page().count("AGREED") == 2


def test_example_lets_nobody_approve_for_another(shop: tuple[Shop, Engine]) -> None:
    """The worker is not the job's client: not found, and nothing is held."""
    served, books = shop
    worker = served.log_in("worker")

    status, _ = worker.post("/jobs/1/approve")

    assert status == 404
    assert served.log_in("client").page().count("AGREED") == 2
    with books.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM buffer.hold")).scalar_one() == 0
