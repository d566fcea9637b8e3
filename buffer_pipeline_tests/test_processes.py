"""The command line as real processes: started together, killed, stopped, each on its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from buffer_pipeline.database import database_clock
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.reconcile import reconcile

WAIT_SECONDS_MAX = 120
COMMAND = (sys.executable, "-c", "from buffer_pipeline.cli import main; main()")


def start(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start a command with these settings and no others."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BUFFER_")}
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env={**environment, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a command that must succeed and return its stdout."""
    out, err = process.communicate(timeout=WAIT_SECONDS_MAX)
    assert process.returncode == 0, err
    return out


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll, with a deadline, for something that a process is about to do."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def hold_many(engine: Engine, *, holds: int, wallets: int) -> None:
    """Hold `holds` earnings of 10.00 PHP that are all due."""
    with engine.begin() as connection:
        now = database_clock(connection)
        for first in range(0, holds, 5_000):
            add_many_pending_earnings(
                connection,
                [
                    Earning(
                        reference=f"earning-{number}",
                        job=f"job-{number}",
                        payee=f"worker-{number % wallets}",
                        payer="client-3",
                        amount="10.00",
                        currency="PHP",
                        held_at=now - timedelta(days=8) + timedelta(seconds=number),
                    )
                    for number in range(first, min(first + 5_000, holds))
                ],
                now=now,
            )


def figures(engine: Engine) -> tuple[int, int, int, list[object]]:
    """Return the holds released, the EARNING transactions, all balances, and what is broken."""
    with engine.connect() as connection:
        released = connection.execute(
            text("SELECT count(*) FROM buffer.hold_status WHERE state = 'RELEASED'")
        ).scalar_one()
        earnings = connection.execute(
            text("SELECT count(*) FROM buffer.transaction WHERE type = 'EARNING'")
        ).scalar_one()
        balances = connection.execute(text("SELECT sum(balance_minor) FROM buffer.wallet")).scalar_one()
        return released, earnings, int(balances), list(reconcile(connection))


def test_four_releases_together_pay_every_hold_once(engine: Engine, database_url: str) -> None:
    """Four processes on the same 20,000 due holds release each once, and the books balance."""
    hold_many(engine, holds=20_000, wallets=500)

    processes = [start("release", "--json", BUFFER_DATABASE_URL=database_url) for _ in range(4)]
    answers = [json.loads(finish(process)) for process in processes]

    assert sum(answer["holds_released"] for answer in answers) == 20_000
    assert figures(engine) == (20_000, 20_000, 20_000 * 1000, [])


def test_a_killed_release_leaves_nothing_half_done(engine: Engine, database_url: str) -> None:
    """SIGKILL in the middle of a batch: nothing of the batch stands, and the next run takes it all."""
    hold_many(engine, holds=2_000, wallets=50)
    with engine.connect() as blocker:
        # The release waits for this wallet with its batch half done.
        blocker.execute(text("SELECT FROM buffer.wallet WHERE owner = 'worker-7' FOR UPDATE"))
        process = start("release", "--json", BUFFER_DATABASE_URL=database_url)

        def is_waiting() -> bool:
            with engine.connect() as observer:
                return bool(
                    observer.execute(
                        text(
                            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                            " AND datname = current_database()"
                        )
                    ).scalar_one()
                )

        wait_until(is_waiting)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=WAIT_SECONDS_MAX)
        process.communicate()
    after_kill = figures(engine)

    answer = json.loads(finish(start("release", "--json", BUFFER_DATABASE_URL=database_url)))

    assert after_kill == (0, 0, 0, [])
    assert answer["holds_released"] == 2_000
    assert figures(engine) == (2_000, 2_000, 2_000 * 1000, [])


@pytest.fixture
def postmaster(home: Path) -> Path:
    """The file that stands as long as the embedded server of `home` runs."""
    return home / "postgres" / "postmaster.pid"


def test_commands_start_join_and_stop_the_embedded_server(home: Path, postmaster: Path) -> None:
    """Without a database of one's own each command brings the server up, shares it, and finds the data."""
    add = "hold add --job job-8 --payee worker-17 --payer client-3 --amount 10 --currency PHP --reference"
    settings = {"BUFFER_HOME": str(home)}

    together = [start(*add.split(), f"earning-{number}", **settings) for number in range(3)]
    for process in together:
        finish(process)
    stopped_after_last = not postmaster.exists()
    holds = json.loads(finish(start("hold", "list", "--json", **settings)))

    assert stopped_after_last
    assert sorted(row["reference"] for row in holds) == ["earning-0", "earning-1", "earning-2"]
    assert not postmaster.exists()


def test_a_terminated_command_stops_the_server_that_it_started(
    home: Path, postmaster: Path, tmp_path: Path
) -> None:
    """SIGTERM ends a command in order: its transaction is rolled back and the server stopped."""
    fifo = tmp_path / "earnings.csv"
    rows = "".join(f"r-{number},j,w-{number % 999},c,1,PHP\n" for number in range(60_000))
    fifo.write_text("reference,job,payee,payer,amount,currency\n" + rows)
    settings = {"BUFFER_HOME": str(home)}

    process = start("hold", "import", str(fifo), "--all-or-nothing", **settings)
    wait_until(postmaster.exists)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=WAIT_SECONDS_MAX)
    stopped = not postmaster.exists()
    holds = json.loads(finish(start("hold", "list", "--json", **settings)))

    assert process.returncode != 0
    assert stopped
    assert holds == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_the_folders_above_stay_closed_to_readers(home: Path, tmp_path: Path) -> None:
    """The server's own user may pass through the folders above its data, and nobody may list them."""
    tmp_path.chmod(0o700)

    finish(start("hold", "list", BUFFER_HOME=str(home)))

    assert tmp_path.stat().st_mode & 0o777 == 0o711


def test_the_server_survives_a_killed_user(home: Path, postmaster: Path) -> None:
    """A user that was killed leaves the server running; the next one joins it and stops it."""
    settings = {"BUFFER_HOME": str(home)}
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from buffer_pipeline.embedded import embedded_server\n"
            f"with embedded_server(Path({str(home)!r})):\n"
            "    print('up', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.kill()
    process.communicate()
    still_running = postmaster.exists()

    finish(start("hold", "list", **settings))

    assert still_running
    assert not postmaster.exists()
