"""The books under random load for a minute, and what the load itself would find (`stress/`).

Longer, and with another seed:

    uv run python -m buffer_pipeline_tests.stress --hours 2 --seed 7
"""

import io
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Final

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import NotFound, StateRefused
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline_tests.stress.clock import Clock
from buffer_pipeline_tests.stress.findings import Findings
from buffer_pipeline_tests.stress.judge import may_run_again
from buffer_pipeline_tests.stress.market import Market
from buffer_pipeline_tests.stress.oracle import Oracle
from buffer_pipeline_tests.stress.record import Attempt, Call, Kind
from buffer_pipeline_tests.stress.refusals import refusal_is_wrong
from buffer_pipeline_tests.stress.rounds import Run
from buffer_pipeline_tests.stress.sessions import READ_COMMITTED, Sessions, driver_error
from buffer_pipeline_tests.stress.stage import Gate, Mode, Round
from buffer_pipeline_tests.stress.tally import Tally
from buffer_pipeline_tests.stress.transactions import Ground, Transaction
from buffer_pipeline_tests.stress.verbs import ALL_VERBS
from buffer_pipeline_tests.stress.watcher import Stalls
from buffer_pipeline_tests.support.builders import NOON, WAIT_SECONDS_MAX, bring_in
from buffer_pipeline_tests.support.scale import count

SECONDS: Final = count("STRESS_SECONDS", part=20, whole=60)

MUST_HAPPEN: Final = {
    *(f"verb {verb}" for verb in ALL_VERBS),
    *(f"isolation {level}" for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")),
    "comparison",
    "holds released",
    "kill",
    "release beside locked wallets",
    "replayed",
    "savepoint rolled back",
    "seal",
    "session killed",
    "sqlstate 40001",
    "transaction given up",
    "unknown outcome, committed",
}
"""Events without which a run has tested nothing."""


@pytest.fixture
def out() -> io.StringIO:
    """The program's output."""
    return io.StringIO()


def stress(server: EmbeddedServer, out: io.StringIO, **options: object) -> Run:
    """Run the load and return its result."""
    run = Run(server=server, findings=Findings(out), out=out, **options)  # type: ignore[arg-type]
    run.go()
    return run


def test_books_under_load_match_the_answers(server: EmbeddedServer, out: io.StringIO) -> None:
    """Threads call verbs at all isolation levels; their transactions roll back, idle and are killed, during
    releases. No single-verb transaction ends in a deadlock, no release waits for an idle transaction, and the
    books match the committed results.
    """
    run = stress(server, out, seed=16, seconds=SECONDS, threads=6, round_seconds=SECONDS / 4)

    assert run.findings.counts == {}, out.getvalue()
    assert {what for what in MUST_HAPPEN if not run.tally.counts[what]} == set()


def test_hold_of_a_rolled_back_transaction_is_not_found() -> None:
    """A retried transaction may use the id of its first hold, and gets NotFound."""
    call = Call(
        verb="freeze",
        arguments={"hold_id": 67, "kind": FreezeKind.RISK, "by": "risk-2", "reason": "a look"},
        now=NOON,
    )
    attempt = Attempt(actor="actor-6", kind=Kind.SEVERAL, isolation="READ COMMITTED")
    released = StateRefused(hold_id=67, state="RELEASED", verb="freeze", allowed=["BUFFERED"])

    assert refusal_is_wrong(Oracle(), call, NotFound("no hold 67"), attempt) is None
    assert refusal_is_wrong(Oracle(), call, released, attempt) == "there is no such hold"


def test_time_without_cpu_does_not_count_as_holding_locks() -> None:
    """The duration of a release's transaction excludes the time in which the load itself did not run."""
    stalls = Stalls()
    stalls.slept(10.0, 10.3)
    stalls.slept(20.0, 30.25)

    assert stalls.within(0.0, 20.25) == 0.0
    assert stalls.within(15.0, 35.0) == 10.0
    assert stalls.within(25.25, 26.25) == 1.0


SPOILT: Final = {
    "UPDATE buffer.unsettled_hold SET state = 'FROZEN' WHERE state = 'BUFFERED'": {
        "holds differ",
        "invariant frozen_iff_open_freeze",
    },
    "UPDATE buffer.unsettled_hold SET release_date = release_date + interval '1 hour'": {"holds differ"},
    "UPDATE buffer.wallet SET balance_minor = balance_minor + 1": {
        "wallets differ",
        "invariant books_balance",
        "invariant wallet_equals_its_transactions",
    },
    "UPDATE buffer.hold_freeze SET closed_at = opened_at, closed_by = 'nobody', closing_reason = 'none'": {
        "open freezes differ",
    },
    "DELETE FROM buffer.transaction WHERE type = 'DEPOSIT'": {"lines differ"},
    "DELETE FROM buffer.notification": {"messages differ"},
    "UPDATE buffer.backjob SET reason = reason, job = job || 'x'": {"backjobs differ"},
    "DELETE FROM stress.call": {"committed, but not in the books"},
}


@pytest.mark.parametrize("statement", SPOILT)
def test_corrupted_books_are_found(server: EmbeddedServer, out: io.StringIO, statement: str) -> None:
    """Books that are corrupted during the load differ from the oracle. The finding names the difference."""

    def spoil(superuser: Engine) -> None:
        with superuser.begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            assert connection.execute(text(statement)).rowcount

    run = stress(server, out, seed=16, seconds=3, threads=3, disturb=spoil)

    assert SPOILT[statement] <= set(run.findings.counts), out.getvalue()
    assert "actor-0: " in out.getvalue()


@pytest.fixture
def round_(engine: Engine, out: io.StringIO) -> Round:
    """A round with the test's own threads."""
    return Round(
        seed="16",
        mode=Mode.ALONE,
        platform=engine,
        releaser=engine,
        superuser=engine,
        market=Market("16"),
        ground=Ground(),
        gate=Gate(),
        findings=Findings(out),
        tally=Tally(),
    )


@pytest.mark.parametrize(("other", "found"), [(Kind.ALONE, 1), (Kind.NOTES, 1), (Kind.SEVERAL, 0)])
def test_deadlock_of_single_verbs_is_a_finding(round_: Round, other: Kind, found: int) -> None:
    """Two transactions that wait for each other are a finding if each has a single verb."""
    with round_.platform.begin() as connection:
        bring_in(connection, PHP=2)
        connection.execute(
            text("INSERT INTO buffer.wallet (owner, currency) VALUES ('a', 'PHP'), ('b', 'PHP')")
        )
    barrier = Barrier(2)

    def lock(kind: Kind, owners: str) -> psycopg.Error | None:
        trail, sessions = round_.findings.trail(kind), Sessions(round_.platform)
        try:
            with Transaction(
                round_.ground, sessions, trail, kind=kind, isolation=READ_COMMITTED
            ) as transaction:
                for owner in owners:
                    transaction.execute(
                        "SELECT FROM buffer.wallet WHERE owner = %(owner)s FOR UPDATE", {"owner": owner}
                    )
                    if owner == owners[0]:
                        barrier.wait(timeout=WAIT_SECONDS_MAX)
        except DBAPIError as error:
            caused = driver_error(error)
            assert caused is not None
            # The other transaction continues and still knows its content.
            may_run_again(round_, trail, caused, transaction=transaction)
            return caused
        return None

    with ThreadPoolExecutor(2) as threads:
        ended = list(threads.map(lock, (Kind.ALONE, other), ("ab", "ba")))

    assert [error.sqlstate for error in ended if error] == ["40P01"]
    assert round_.findings.counts["deadlock of single verbs"] == found


def test_clock_readings_are_unique() -> None:
    """A call's rows are found by its time. Four threads read the clock a thousand times each."""
    clock = Clock()

    with ThreadPoolExecutor(4) as threads:
        readings = [
            list(times) for times in threads.map(lambda _: [clock.read() for _ in range(1_000)], range(4))
        ]

    assert len({time for times in readings for time in times}) == 4_000
    assert all(times == sorted(times) for times in readings)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder that the server's user can enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("TMPDIR", folder)
        # The server's package keeps a lock file there.
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        yield Path(folder)


def start(*options: str) -> subprocess.Popen[str]:
    """Start the program, and return when its server is up."""
    process = subprocess.Popen(
        [sys.executable, "-m", "buffer_pipeline_tests.stress", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("the server is up"):
            return process
    raise AssertionError(f"it ended with {process.wait()}")


def left_over(scratch: Path) -> list[str]:
    """Return the folders and processes that remain."""
    folders = [path.name for path in scratch.iterdir()]
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(path.read_text())
        except OSError:  # It has ended meanwhile.
            continue
    return folders + [command for command in commands if str(scratch) in command]


def test_program_runs_for_its_time_and_prints_its_counts(scratch: Path) -> None:
    """It prints its seed, each round and all counts, exits with 0, and leaves nothing behind."""
    process = start("--minutes", "0.1", "--seed", "16", "--threads", "2")

    output, _ = process.communicate(timeout=WAIT_SECONDS_MAX * 4)

    assert process.returncode == 0, output
    assert "round 16/0 (" in output
    assert output.rstrip().endswith("findings: none")
    assert left_over(scratch) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_program_cleanly(scratch: Path, number: signal.Signals) -> None:
    """It ends its threads and its server, prints its counts, and exits with 130."""
    process = start("--hours", "1", "--threads", "2")

    process.send_signal(number)
    output, _ = process.communicate(timeout=WAIT_SECONDS_MAX * 4)

    assert process.returncode == 130, output
    assert "interrupted" in output
    assert "Traceback" not in output
    assert left_over(scratch) == []
