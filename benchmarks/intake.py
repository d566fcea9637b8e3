"""How fast earnings are added: one by one, repeated (a replay), and from a file.

    uv run python -m benchmarks.intake                       # 2,000 singles, a file of 1,000,000 lines

Both sides of each figure are durable and have the same indexes, constraints and triggers.

Single: `add_pending_earnings` and a commit, over one plain psycopg connection, for wallets that exist. The
yardstick is a transaction of bare statements, one for each row that the verb writes: the hold, the unsettled
hold, the wallet's sum, the transaction and the notification. It knows the wallets' ids, reads nothing, checks
no input, and psycopg prepares its statements. The two take turns.

Replay: the same earning again and a commit, which flushes and waits like the first one. The yardstick is the
same statements rolled back. The two take turns over one connection.

File: `buffer-pipeline hold import` as a process, from its start to its end, into empty books, over its own
two connections. The yardstick is COPY in one transaction, over one connection, from files with exactly the
rows that the import wrote, with their ids: wallets without money, then the jobs, holds, unsettled holds,
transactions and notifications, then one UPDATE of the wallets.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import make_url

from benchmarks.figure import Figure
from benchmarks.server import BenchmarkServer, benchmark_server
from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.intake import Earning, add_many_pending_earnings, add_pending_earnings

WALLETS: Final = 10_000
ROUNDS: Final = 20
AMOUNT_MINOR: Final = 10_000
TITLE: Final = "Fix kitchen faucet"

_COLUMNS: Final = {
    "currency": None,
    "wallet": ("wallet_id", "owner", "currency"),
    "job": None,
    "hold": None,
    # Its other column, release_hour, is computed.
    "unsettled_hold": ("hold_id", "state", "payee_wallet_id", "currency", "amount_minor", "release_date"),
    "transaction": None,
    "notification": None,
}

_TOTALS: Final = """
UPDATE buffer.wallet SET pending_earnings_minor = pending_earnings_minor + total.amount_minor
FROM (
  SELECT payee_wallet_id, sum(amount_minor) AS amount_minor FROM buffer.hold GROUP BY payee_wallet_id
) AS total
WHERE wallet.wallet_id = total.payee_wallet_id
"""


def measure(server: BenchmarkServer, *, rows: int = 1_000_000, singles: int = 2_000) -> list[Figure]:
    """Measure all: `singles` earnings and replays on each side, and a file of `rows` lines."""
    return [
        _singles(server, singles=singles),
        _replays(server, replays=singles),
        _file(server, rows=rows),
    ]


def _replays(server: BenchmarkServer, *, replays: int) -> Figure:
    now = datetime.now(UTC)
    earning = {**vars(_earning("first", 0)), "now": now}
    kept_seconds: list[float] = []
    undone_seconds: list[float] = []
    with server.books() as database, psycopg.connect(dsn(server, database)) as connection:
        add_pending_earnings(connection, **earning)
        connection.commit()
        size = replays // ROUNDS
        sides = [(connection.commit, kept_seconds), (connection.rollback, undone_seconds)]
        for turn in range(-1, ROUNDS):  # The first warms both up.
            for end, seconds in sides if turn % 2 else sides[::-1]:
                began = time.perf_counter()
                for _ in range(size):
                    add_pending_earnings(connection, **earning)
                    end()
                if turn >= 0:
                    seconds.append((time.perf_counter() - began) / size)
    return Figure(
        benchmark="intake",
        name="a replay of add_pending_earnings, median",
        value=statistics.median(kept_seconds) * 1000,
        unit="ms",
        yardstick="rolled back, which flushes nothing,",
        yardstick_value=statistics.median(undone_seconds) * 1000,
        ratio=statistics.median(
            kept / undone for kept, undone in zip(kept_seconds, undone_seconds, strict=True)
        ),
        goal="none: the disk's flush",
        met=None,
    )


def _singles(server: BenchmarkServer, *, singles: int) -> Figure:
    now = datetime.now(UTC)
    verb_seconds: list[float] = []
    bare_seconds: list[float] = []
    with server.books() as database:
        with psycopg.connect(dsn(server, database)) as connection:
            add_many_pending_earnings(
                connection,
                [_earning(f"first-{number}", number) for number in range(WALLETS)],
                now=now,
                notify=False,
            )
            connection.commit()
            wallet_ids: dict[str, int] = dict(
                connection.execute("SELECT owner, wallet_id FROM buffer.wallet").fetchall()
            )
        server.admin("VACUUM (ANALYZE)", database=database)
        with (
            psycopg.connect(dsn(server, database)) as verb_connection,
            psycopg.connect(dsn(server, database)) as bare_connection,
        ):

            def verb(number: int) -> None:
                add_pending_earnings(
                    verb_connection, **vars(_earning(f"verb-{number}", number)) | {"now": now}
                )
                verb_connection.commit()

            def bare(number: int) -> None:
                _insert(bare_connection, wallet_ids, number, now)
                bare_connection.commit()

            size = singles // ROUNDS
            for turn in range(-1, ROUNDS):  # The first warms both up.
                places = range((turn + 1) * size, (turn + 2) * size)
                sides: list[tuple[Callable[[int], None], list[float]]] = [
                    (verb, verb_seconds),
                    (bare, bare_seconds),
                ]
                for side, seconds in sides if turn % 2 else sides[::-1]:
                    began = time.perf_counter()
                    for number in places:
                        side(number)
                    if turn >= 0:
                        seconds.append((time.perf_counter() - began) / size)
    ratio = statistics.median(
        verb_turn / bare_turn for verb_turn, bare_turn in zip(verb_seconds, bare_seconds, strict=True)
    )
    return Figure(
        benchmark="intake",
        name="single add_pending_earnings, median",
        value=statistics.median(verb_seconds) * 1000,
        unit="ms",
        yardstick="a bare INSERT of the same rows",
        yardstick_value=statistics.median(bare_seconds) * 1000,
        ratio=ratio,
        goal="within 2 times",
        met=ratio <= 2,
    )


def _earning(reference: str, number: int) -> Earning:
    return Earning(
        reference=reference,
        job=f"job-{number}",
        payee=f"worker-{number * 7919 % WALLETS}",
        payer=f"client-{number * 104729 % WALLETS}",
        amount="100.00",
        currency="PHP",
        title=TITLE,
    )


def _insert(
    connection: psycopg.Connection[Any], wallet_ids: dict[str, int], number: int, now: datetime
) -> None:
    earning = _earning(f"bare-{number}", number)
    payee, payer = wallet_ids[earning.payee], wallet_ids[earning.payer]
    release_date = now + timedelta(days=7)
    connection.execute(
        "INSERT INTO buffer.job (job, payer) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (earning.job, earning.payer),
    )
    row = connection.execute(
        "INSERT INTO buffer.hold (reference, job, title, payee_wallet_id, payer_wallet_id, currency,"
        " amount_minor, held_at, original_release_date) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " RETURNING hold_id",
        (earning.reference, earning.job, TITLE, payee, payer, "PHP", AMOUNT_MINOR, now, release_date),
    ).fetchone()
    assert row is not None
    connection.execute(
        "INSERT INTO buffer.unsettled_hold (hold_id, payee_wallet_id, currency, amount_minor, release_date)"
        " VALUES (%s, %s, %s, %s, %s)",
        (row[0], payee, "PHP", AMOUNT_MINOR, release_date),
    )
    connection.execute(
        "UPDATE buffer.wallet SET pending_earnings_minor = pending_earnings_minor + %s WHERE wallet_id = %s",
        (AMOUNT_MINOR, payee),
    )
    connection.execute(
        "INSERT INTO buffer.transaction (type, from_account, to_account, to_wallet_id, currency,"
        " amount_minor, hold_id, recorded_at)"
        " VALUES ('PENDING_EARNING', 'ESCROW', 'PENDING_EARNINGS', %s, %s, %s, %s, %s)",
        (payee, "PHP", AMOUNT_MINOR, row[0], now),
    )
    connection.execute(
        "INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, release_date,"
        " created_at) VALUES ('PAYMENT_PENDING', %s, %s, %s, %s, %s, %s)",
        (earning.payee, row[0], "PHP", AMOUNT_MINOR, release_date, now),
    )


def _file(server: BenchmarkServer, *, rows: int) -> Figure:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        _write(folder / "earnings.csv", rows)
        with server.books() as database:
            server.admin("CHECKPOINT")
            began = time.perf_counter()
            _import(server, database, folder / "earnings.csv", rows)
            import_seconds = time.perf_counter() - began
            engine = server.engine(database)
            with engine.connect() as connection:
                assert not reconcile(connection)
            engine.dispose()
            with psycopg.connect(dsn(server, database)) as source:
                for table in _COLUMNS:
                    _copy_out(source, table, folder)
        with server.books() as database:
            server.admin("CHECKPOINT")
            with psycopg.connect(dsn(server, database)) as target:
                began = time.perf_counter()
                for table in _COLUMNS:
                    _copy_in(target, table, folder)
                target.execute(_TOTALS.encode())
                target.commit()
                copy_seconds = time.perf_counter() - began
    ratio = copy_seconds / import_seconds
    return Figure(
        benchmark="intake",
        name=f"hold import of {rows:,} rows",
        value=rows / import_seconds,
        unit="rows/s",
        yardstick="COPY into the same tables",
        yardstick_value=rows / copy_seconds,
        ratio=ratio,
        goal="at least 0.5 of COPY's rate",
        met=ratio >= 0.5,
    )


def _write(file: Path, rows: int) -> None:
    """Write earnings of six days to a file, in the order of their dates."""
    began = datetime.now(UTC).replace(microsecond=0) - timedelta(days=6, hours=1)
    with file.open("w", encoding="utf-8") as stream:
        stream.write("reference,job,payee,payer,amount,currency,title,held_at\n")
        for number in range(rows):
            earning = _earning(f"earning-{number}", number)
            held_at = began + timedelta(seconds=number * 6 * 86_400 // rows)
            stream.write(
                f"{earning.reference},{earning.job},{earning.payee},{earning.payer},"
                f"{100 + number % 900}.{number % 100:02d},PHP,{TITLE},{held_at.isoformat()}\n"
            )


def _import(server: BenchmarkServer, database: str, file: Path, rows: int) -> None:
    command = [sys.executable, "-c", "from buffer_pipeline.cli.app import main; main()"]
    done = subprocess.run(
        [*command, "hold", "import", str(file), "--json"],
        env={**os.environ, "BUFFER_DATABASE_URL": server.url(database)},
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer == {"read": rows, "not_read": 0, "added": rows, "replayed": 0, "refused": []}, answer


def _copy_out(connection: psycopg.Connection[Any], table: str, folder: Path) -> None:
    with (
        (folder / table).open("wb") as file,
        connection.cursor() as cursor,
        cursor.copy(f"COPY buffer.{table}{_columns(table)} TO STDOUT".encode()) as copy,
    ):
        for block in copy:
            file.write(block)


def _copy_in(connection: psycopg.Connection[Any], table: str, folder: Path) -> None:
    with (
        (folder / table).open("rb") as file,
        connection.cursor() as cursor,
        cursor.copy(f"COPY buffer.{table}{_columns(table)} FROM STDIN".encode()) as copy,
    ):
        while block := file.read(1 << 17):
            copy.write(block)


def _columns(table: str) -> str:
    columns = _COLUMNS[table]
    return "" if columns is None else f" ({', '.join(columns)})"


def dsn(server: BenchmarkServer, database: str) -> str:
    url = make_url(server.url(database)).set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--singles", type=int, default=2_000)
    arguments = parser.parse_args()
    with benchmark_server() as server:
        for figure in measure(server, rows=arguments.rows, singles=arguments.singles):
            print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
