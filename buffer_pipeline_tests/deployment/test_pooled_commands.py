"""Commands and runs through a real PgBouncer in transaction mode."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, Final

import dagster as dg
import pytest
import typer
from sqlalchemy import Engine

from buffer_pipeline.cli.app import app
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline_tests.support.commands import WITHOUT_BOOKS, commands
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.hostile import run_command
from buffer_pipeline_tests.support.legacy import EXPORT
from buffer_pipeline_tests.support.metrics import endpoint, series
from buffer_pipeline_tests.support.payouts import IDS
from buffer_pipeline_tests.support.pooler import Pooler
from buffer_pipeline_tests.support.processes import (
    WAIT_SECONDS_MAX,
    batches_at_a_gate,
    figures,
    finish,
    hold_many,
    line_with,
    start,
    wait_until,
    waiting_at_the_gate,
)
from buffer_pipeline_tests.support.runs import outcomes, release, reported

EARNING: Final = "--payee worker-17 --payer client-3 --amount 10 --currency PHP"
DECIDED: Final = "--by admin-1 --reason agreed"
MOVED: Final = "--amount 5 --currency PHP"
LONG_AGO: Final = "--held-at 2026-01-05T00:00:00Z"
SOON: Final = f"{datetime.now(UTC) + timedelta(days=20):%Y-%m-%dT%H:%MZ}"

ON_NEW_BOOKS: Final = (
    "migrate",
    f"hold add --reference r-1 --job job-1 {EARNING} {LONG_AGO}",
    *(f"hold add --reference r-{number} --job job-{number} {EARNING}" for number in range(2, 7)),
    "hold import earnings.csv",
    "hold import whole.csv --all-or-nothing",
    "hold show 1",
    "hold list",
    "backjob request --job job-2 --by client-3 --reason drips",
    f"backjob reject 1 {DECIDED}",
    "backjob request --job job-3 --by client-3 --reason drips",
    f"backjob approve 2 {DECIDED}",
    "backjob request --job job-4 --by client-3 --reason drips",
    f"backjob withdraw 3 {DECIDED}",
    "backjob list",
    "release-now --hold 5 --by client-3 --reason agreed",
    f"freeze 6 --kind risk {DECIDED}",
    f"unfreeze 4 {DECIDED}",
    f"freeze 6 --kind admin {DECIDED}",
    "stuck",
    "explain 1",
    f"refund 6 {DECIDED} --reference refund-1",
    f"hold reschedule 4 --to {SOON} {DECIDED} --admin",
    f"freeze-owner worker-17 --kind risk {DECIDED}",
    "frozen-owners",
    f"unfreeze-owner worker-17 {DECIDED}",
    f"rule add trusted --days 1 {DECIDED}",
    "rule list",
    "rule show trusted",
    "rule try trusted --amount 10 --currency PHP",
    f"rule assign worker-17 trusted {DECIDED}",
    f"rule unassign worker-17 {DECIDED}",
    f"rule retire trusted {DECIDED}",
    "audit list",
    "release --dry-run",
    "release --workers 3",
    "release",
    "wallet show worker-17",
    "wallet statement worker-17",
    f"wallet deposit worker-17 {MOVED} --reference in",
    f"wallet withdraw worker-17 {MOVED} --reference out",
    "hold add --reference r-9 --job job-9 --payee worker-9 --payer client-3 --amount 10 --currency PHP",
    "release-now --job job-9 --by client-3 --reason agreed",
    "wallet withdraw worker-9 --amount 10 --currency PHP --reference out-9",
    f"claw-back --reference r-9 --amount 10 --to payer {DECIDED} --key taken-9",
    "debt list",
    "wallet deposit worker-9 --amount 4 --currency PHP --reference in-9",
    "debt recover worker-9 --by admin-1",
    f"debt forgive 1 {DECIDED}",
    "wallet deposit worker-8 --amount 60 --currency PHP --reference in-8",
    f"payout destination set worker-8 --method token --account acct-8 {DECIDED}",
    "payout destination show worker-8",
    f"payout schedule worker-8 weekly {DECIDED}",
    *(
        f"payout request worker-8 --amount 20 --currency PHP --key payday-{number} --override {DECIDED}"
        for number in range(1, 4)
    ),
    f"payout cancel 3 {DECIDED}",
    "payout list",
    "payout batch make --currency PHP --by finance-1",
    "payout batch cancel 1 --by finance-1",
    "payout batch make --currency PHP --by finance-1",
    "payout batch approve 2 --by finance-2",
    "payout batch send 2 --by finance-1",
    "payout batch show 2",
    "payout export 2 --out batch.csv",
    "payout import-status 2 status.csv --by finance-1",
    "payout request-scheduled --by finance-1",
    "contact set worker-17 --locale fil_PH",
    "contact show worker-17",
    "api-key create --name shop --role platform",
    "api-key list",
    "api-key revoke shop",
    "notifications list",
    "notifications drain",
    "notifications replay --all",
    "report",
    "reconcile",
    "verify",
    "doctor",
)
"""Commands in an order in which each has work to do, on books whose first hold is hold 1."""

ON_EMPTY_BOOKS: Final = (
    "simulate --days 2 --seed 7",
    f"import-legacy {EXPORT}",
    f"shadow {EXPORT} {EXPORT} --at 2026-11-18T23:35Z",
    "clock start 2026-01-01T00:00Z; clock show; clock advance 7d",
)
"""Lines on books of their own; one has several commands."""
SERVERS: Final = {"metrics", "dev", "serve"}
"""Commands that run until they are stopped."""


@contextmanager
def neighbours(url: str) -> Iterator[None]:
    """Let other clients use the sessions in turn, so that no client gets one session twice in a row."""
    engine, over = make_engine(url), Event()

    def take_turns() -> None:
        while not over.wait(0.005):
            with engine.begin() as connection:
                database_clock(connection)

    with ThreadPoolExecutor(3) as others:
        under_way = [others.submit(take_turns) for _ in range(3)]
        try:
            yield
        finally:
            over.set()
    for each in under_way:
        each.result()
    engine.dispose()


def test_every_command_works_through_a_pooler(
    pooler: Pooler,
    pooled_url: str,
    server: EmbeddedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the pooler's URL and no other setting."""
    names = {name for name in commands(typer.main.get_command(app)) if name not in SERVERS | WITHOUT_BOOKS}
    all_lines = [*ON_NEW_BOOKS, *(each for line in ON_EMPTY_BOOKS for each in line.split("; "))]
    tried = {name for name in names for line in all_lines if f"{line} ".startswith(f"{name} ")}
    monkeypatch.chdir(tmp_path)
    Path("status.csv").write_text(
        f"end_to_end_id,outcome\n{IDS.of_payout(1)},PAID\n{IDS.of_payout(2)},RETURNED\n"
    )
    for name in ("earnings", "whole"):
        lines = "".join(f"{name}-{number},{name},w-{number},c,1,PHP\n" for number in range(100))
        Path(f"{name}.csv").write_text("reference,job,payee,payer,amount,currency\n" + lines)

    monkeypatch.setenv("BUFFER_DATABASE_URL", pooled_url)
    with neighbours(pooled_url):
        for line in ON_NEW_BOOKS:
            done = run_command(*line.split(), "--json")
            # The doctor misses Dagster here, with or without a pooler.
            assert done.code == (1 if line == "doctor" else 0), (line, done)
            assert not done.out.startswith('{"error"'), (line, done)
    for line in ON_EMPTY_BOOKS:
        with fresh_books(server) as empty:
            monkeypatch.setenv("BUFFER_DATABASE_URL", pooler.url(empty))
            for each in line.split("; "):
                done = run_command(*each.split(), "--json")
                # The command finds the differences of the two exports, with or without a pooler.
                assert done.code == (1 if each.startswith("shadow") else 0), (each, done)
                assert not done.out.startswith('{"error"'), (each, done)

    assert tried == names


def test_concurrent_releases_share_two_sessions(engine: Engine, pooled_url: str) -> None:
    """Two processes with four workers each release each hold once and seal their transactions."""
    hold_many(engine, holds=6_000, wallets=300)

    processes = [
        start("release", "--workers", "4", "--json", BUFFER_DATABASE_URL=pooled_url) for _ in range(2)
    ]
    answers = [json.loads(finish(process)) for process in processes]

    assert sum(answer["holds_released"] for answer in answers) == 6_000
    assert figures(engine) == (6_000, 6_000, 6_000 * 1000, [])
    assert any(answer["anchor"] for answer in answers)


def test_second_ctrl_c_cancels_through_the_pooler(engine: Engine, pooled_url: str) -> None:
    """The current batch is rolled back without waiting for its lock."""
    hold_many(engine, holds=1_000, wallets=50)
    with batches_at_a_gate(engine):
        process = start("release", BUFFER_DATABASE_URL=pooled_url)
        wait_until(lambda: waiting_at_the_gate(engine) == 1)
        process.send_signal(signal.SIGINT)
        line_with(process, "Interrupted")

        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT_SECONDS_MAX)
        waiting_at_the_end = waiting_at_the_gate(engine)

    assert process.returncode == 130
    assert waiting_at_the_end == 0
    assert figures(engine) == (0, 0, 0, [])


def test_metrics_are_served_from_behind_a_pooler(engine: Engine, pooled_url: str) -> None:
    """Every scrape has the books' figures."""
    hold_many(engine, holds=10, wallets=5)

    with endpoint(pooled_url) as scrape:
        seen: list[Any] = [scrape()[series("buffer_up")] for _ in range(3)]

    assert seen == [1.0] * 3


def test_a_run_in_dagster_releases_through_a_pooler(
    engine: Engine, pooled_url: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The books may be behind a pooler even if Dagster's storage is not."""
    hold_many(engine, holds=2_000, wallets=50)
    monkeypatch.setenv("BUFFER_DATABASE_URL", pooled_url.replace("//buffer@", "//dagster@"))

    result = release(instance, workers=3)

    assert reported(result, "released_transactions")["holds_released"] == 2_000
    assert all(outcomes(result).values())
    assert figures(engine) == (2_000, 2_000, 2_000 * 1000, [])
