"""The command line as real processes: started together, killed, stopped, each on its own."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import dropwhile
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from buffer_pipeline.batch_size import FIRST_BATCH
from buffer_pipeline.database import database_clock
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline_tests.builders import waiting_for_a_lock

WAIT_SECONDS_MAX = 120
COMMAND = (sys.executable, "-c", "from buffer_pipeline.cli import main; main()")


def start(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start a command with these settings and no others."""
    return start_on(subprocess.PIPE, *arguments, **settings)


def start_on(stderr: int, /, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start a command whose stderr is this file."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BUFFER_")}
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env={**environment, **settings},
        stdout=subprocess.PIPE,
        stderr=stderr,
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


def waiting(engine: Engine) -> int:
    """Return how many sessions of these books wait for a lock."""
    with engine.connect() as observer:
        return waiting_for_a_lock(observer)


def line_with(process: subprocess.Popen[str], words: str) -> str:
    """Read the command's stderr up to the line that has these words, and return it."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"it ended without saying {words!r}")


def read_until(terminal: int, shown: re.Pattern[str]) -> None:
    """Read what a command shows on a terminal until this is in it."""
    seen = ""
    while not shown.search(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)):
        assert select.select([terminal], [], [], WAIT_SECONDS_MAX)[0], seen
        seen += os.read(terminal, 4096).decode(errors="replace")


def test_four_releases_together_pay_every_hold_once(engine: Engine, database_url: str) -> None:
    """Four processes on the same 20,000 due holds release each once, and the books balance."""
    hold_many(engine, holds=20_000, wallets=500)

    processes = [start("release", "--json", BUFFER_DATABASE_URL=database_url) for _ in range(4)]
    answers = [json.loads(finish(process)) for process in processes]

    assert sum(answer["holds_released"] for answer in answers) == 20_000
    assert figures(engine) == (20_000, 20_000, 20_000 * 1000, [])


def test_releases_with_workers_together_pay_every_hold_once(engine: Engine, database_url: str) -> None:
    """Two processes of three workers each release each hold once, and the books balance."""
    hold_many(engine, holds=10_000, wallets=500)

    processes = [
        start("release", "--workers", "3", "--json", BUFFER_DATABASE_URL=database_url) for _ in range(2)
    ]
    answers = [json.loads(finish(process)) for process in processes]

    assert sum(answer["holds_released"] for answer in answers) == 10_000
    assert figures(engine) == (10_000, 10_000, 10_000 * 1000, [])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_release_behind_the_batch_in_hand(
    engine: Engine, database_url: str, number: signal.Signals, code: int, workers: int
) -> None:
    """The batches that wait when the signal comes are committed, no other begins, the answer says so,
    and the next release takes the rest.
    """
    hold_many(engine, holds=6_000, wallets=50)
    with engine.connect() as blocker:
        blocker.execute(text("SELECT FROM buffer.wallet FOR UPDATE"))
        process = start("release", "--json", "--workers", str(workers), BUFFER_DATABASE_URL=database_url)
        wait_until(lambda: waiting(engine) == workers)

        process.send_signal(number)
        line_with(process, "finishing the batch in hand")
        blocker.rollback()
        out, err = process.communicate(timeout=WAIT_SECONDS_MAX)

    released = workers * FIRST_BATCH
    answer = json.loads(out)
    assert process.returncode == code
    assert (answer["interrupted"], answer["batches"]) == (True, workers)
    assert (answer["holds_released"], answer["amounts"]) == (released, {"PHP": f"{released * 10}.00"})
    assert "Interrupted: what is still due stays due" in err
    assert figures(engine) == (released, released, released * 1000, [])
    rest = json.loads(finish(start("release", "--json", BUFFER_DATABASE_URL=database_url)))
    assert (rest["holds_released"], rest["interrupted"]) == (6_000 - released, False)


def test_a_signal_while_it_seals_loses_no_answer(engine: Engine, database_url: str) -> None:
    """Behind its last batch a release waits for an open transaction; a signal ends that, and it says what it
    has released.
    """
    hold_many(engine, holds=10, wallets=5)
    with engine.connect() as other:
        other.execute(text("SELECT pg_current_xact_id()"))
        process = start("release", "--json", BUFFER_DATABASE_URL=database_url)
        wait_until(lambda: figures(engine)[0] == 10)

        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=WAIT_SECONDS_MAX)

    answer = json.loads(out)
    assert (answer["holds_released"], answer["anchor"]) == (10, None)
    # Where the signal came before the run saw that nothing is left, the run itself was interrupted.
    assert process.returncode == (143 if answer["interrupted"] else 0)
    assert answer["interrupted"] or "Not all is sealed" in err


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_another_ctrl_c_ends_a_release_at_once(
    engine: Engine, database_url: str, first: signal.Signals, workers: int
) -> None:
    """The batches in hand are rolled back without waiting for the lock that they wait for."""
    hold_many(engine, holds=4_000, wallets=50)
    with engine.connect() as blocker:
        blocker.execute(text("SELECT FROM buffer.wallet FOR UPDATE"))
        process = start("release", "--workers", str(workers), BUFFER_DATABASE_URL=database_url)
        wait_until(lambda: waiting(engine) == workers)
        process.send_signal(first)
        line_with(process, "Ctrl-C stops at once")

        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT_SECONDS_MAX)
        waiting_at_the_end = waiting(engine)

    assert process.returncode == 130
    assert waiting_at_the_end == 0
    assert figures(engine) == (0, 0, 0, [])
    rest = json.loads(finish(start("release", "--json", BUFFER_DATABASE_URL=database_url)))
    assert rest["holds_released"] == 4_000


def test_a_terminal_shows_the_rate_and_the_time_that_is_left(engine: Engine, database_url: str) -> None:
    """On a terminal a release says how many of how many, how fast, and for how long still."""
    hold_many(engine, holds=8_000, wallets=50)
    with engine.begin() as connection:
        now = database_clock(connection)
        last = Earning(
            reference="last",
            job="job-last",
            payee="worker-last",
            payer="client-3",
            amount="10.00",
            currency="PHP",
            held_at=now - timedelta(days=7, minutes=1),
        )
        add_many_pending_earnings(connection, [last], now=now)
    ours, theirs = pty.openpty()
    shown = re.compile(r"\d/8001 [\d,]+ holds/s \d:\d\d:\d\d")
    with engine.connect() as blocker:
        blocker.execute(text("SELECT FROM buffer.wallet WHERE owner = 'worker-last' FOR UPDATE"))

        process = start_on(theirs, "release", TERM="xterm", BUFFER_DATABASE_URL=database_url)
        os.close(theirs)
        read_until(ours, shown)
        blocker.rollback()
    out, _ = process.communicate(timeout=WAIT_SECONDS_MAX)
    os.close(ours)

    assert process.returncode == 0
    assert "Released 8,001 payments" in out


def test_a_killed_release_leaves_nothing_half_done(engine: Engine, database_url: str) -> None:
    """SIGKILL in the middle of a batch: nothing of the batch stands, and the next run takes it all."""
    hold_many(engine, holds=FIRST_BATCH, wallets=50)
    with engine.connect() as blocker:
        # The release waits for this wallet with its batch half done.
        blocker.execute(text("SELECT FROM buffer.wallet WHERE owner = 'worker-7' FOR UPDATE"))
        process = start("release", "--json", BUFFER_DATABASE_URL=database_url)
        wait_until(lambda: waiting(engine) == 1)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=WAIT_SECONDS_MAX)
        process.communicate()
    after_kill = figures(engine)

    answer = json.loads(finish(start("release", "--json", BUFFER_DATABASE_URL=database_url)))

    assert after_kill == (0, 0, 0, [])
    assert answer["holds_released"] == FIRST_BATCH
    assert figures(engine) == (FIRST_BATCH, FIRST_BATCH, FIRST_BATCH * 1000, [])


@pytest.fixture
def postmaster(home: Path) -> Path:
    """The file that stands as long as the embedded server of `home` runs."""
    return home / "postgres" / "postmaster.pid"


def test_commands_start_join_and_stop_the_embedded_server(home: Path, postmaster: Path) -> None:
    """Without a database of one's own a command brings the server up, shares it, and finds the data."""
    add = "hold add --job job-8 --payee worker-17 --payer client-3 --amount 10 --currency PHP --reference"
    settings = {"BUFFER_HOME": str(home)}
    finish(start("migrate", **settings))

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
    finish(start("migrate", **settings))

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

    finish(start("migrate", BUFFER_HOME=str(home)))

    assert tmp_path.stat().st_mode & 0o777 == 0o711


def test_the_server_survives_a_killed_user(home: Path, postmaster: Path) -> None:
    """A user that was killed leaves the server running; the next one joins it and stops it."""
    settings = {"BUFFER_HOME": str(home)}
    finish(start("migrate", **settings))
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


SCRIPT = Path(sys.executable).with_name("buffer-pipeline")


def lines_of_imports(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield what the process says as it loads module after module, from the command's own first one on."""
    assert process.stderr is not None
    loading = (line for line in process.stderr if line.startswith("import '"))
    return dropwhile(lambda line: not line.startswith("import 'buffer_pipeline_start'"), loading)


def start_slowly(*arguments: str) -> subprocess.Popen[str]:
    """Start the installed command, which names each module that it has loaded."""
    return subprocess.Popen(
        [SCRIPT, *arguments],
        env={**os.environ, "PYTHONVERBOSE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def modules_loaded() -> int:
    """How many modules the command loads until it has answered."""
    with start_slowly("--help") as process:
        return sum(1 for _ in lines_of_imports(process))


@pytest.mark.parametrize("twentieth", range(20))
def test_ctrl_c_while_the_command_loads_ends_it_quietly(modules_loaded: int, twentieth: int) -> None:
    """At any moment from its first module on: exit 130, and no traceback."""
    with start_slowly("--help") as process:
        modules = lines_of_imports(process)
        for _ in range(2 + twentieth * (modules_loaded - 2) // 20):
            next(modules)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_SECONDS_MAX)

    assert process.returncode == 130
    assert "Traceback" not in err
    assert "KeyboardInterrupt" not in err
    assert out == ""
