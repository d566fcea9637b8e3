"""The command line as real processes: concurrent, killed, stopped."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from buffer_pipeline.database import database_clock
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.release_run.batch_size import FIRST_BATCH
from buffer_pipeline_tests.support.processes import (
    WAIT_SECONDS_MAX,
    batches_at_a_gate,
    figures,
    finish,
    hold_many,
    line_with,
    read_until,
    start,
    start_on,
    wait_until,
    waiting,
    waiting_at_the_gate,
)


def test_four_concurrent_releases_pay_every_hold_once(engine: Engine, database_url: str) -> None:
    """On the same 20,000 due holds, and the books balance."""
    hold_many(engine, holds=20_000, wallets=500)

    processes = [start("release", "--json", BUFFER_DATABASE_URL=database_url) for _ in range(4)]
    answers = [json.loads(finish(process)) for process in processes]

    assert sum(answer["holds_released"] for answer in answers) == 20_000
    assert figures(engine) == (20_000, 20_000, 20_000 * 1000, [])


def test_concurrent_releases_with_workers_pay_every_hold_once(engine: Engine, database_url: str) -> None:
    """Two processes with three workers each, and the books balance."""
    hold_many(engine, holds=10_000, wallets=500)

    processes = [
        start("release", "--workers", "3", "--json", BUFFER_DATABASE_URL=database_url) for _ in range(2)
    ]
    answers = [json.loads(finish(process)) for process in processes]

    assert sum(answer["holds_released"] for answer in answers) == 10_000
    assert figures(engine) == (10_000, 10_000, 10_000 * 1000, [])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_release_after_the_current_batch(
    engine: Engine, database_url: str, number: signal.Signals, code: int, workers: int
) -> None:
    """Batches in progress are committed, no other begins, the output says so, and the next release releases
    the rest.
    """
    hold_many(engine, holds=6_000, wallets=50)
    with batches_at_a_gate(engine) as gate:
        process = start("release", "--json", "--workers", str(workers), BUFFER_DATABASE_URL=database_url)
        wait_until(lambda: waiting_at_the_gate(engine) == workers)

        process.send_signal(number)
        line_with(process, "finishing the current batch")
        gate.rollback()
        out, err = process.communicate(timeout=WAIT_SECONDS_MAX)

    released = workers * FIRST_BATCH
    answer = json.loads(out)
    assert process.returncode == code
    assert (answer["interrupted"], answer["batches"]) == (True, workers)
    assert (answer["holds_released"], answer["amounts"]) == (released, {"PHP": f"{released * 10}.00"})
    assert "Interrupted: the rest is still due" in err
    assert figures(engine) == (released, released, released * 1000, [])
    rest = json.loads(finish(start("release", "--json", BUFFER_DATABASE_URL=database_url)))
    assert (rest["holds_released"], rest["interrupted"]) == (6_000 - released, False)


def test_signal_during_sealing_keeps_the_output(engine: Engine, database_url: str) -> None:
    """After its last batch a release waits for a writer's transaction. A signal ends the wait, and it prints
    what it released.
    """
    hold_many(engine, holds=10, wallets=5)
    with engine.connect() as other:
        other.execute(text("SELECT buffer.enter_hour(now())"))
        process = start("release", "--json", BUFFER_DATABASE_URL=database_url)
        wait_until(lambda: figures(engine)[0] == 10)

        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=WAIT_SECONDS_MAX)

    answer = json.loads(out)
    assert (answer["holds_released"], answer["anchor"]) == (10, None)
    # If the signal came before the run saw that nothing is left, the run itself was interrupted.
    assert process.returncode == (143 if answer["interrupted"] else 0)
    assert answer["interrupted"] or "the next release will seal it" in err


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_second_ctrl_c_ends_a_release_at_once(
    engine: Engine, database_url: str, first: signal.Signals, workers: int
) -> None:
    """The current batches are rolled back without waiting for their locks."""
    hold_many(engine, holds=4_000, wallets=50)
    with batches_at_a_gate(engine):
        process = start("release", "--workers", str(workers), BUFFER_DATABASE_URL=database_url)
        wait_until(lambda: waiting_at_the_gate(engine) == workers)
        process.send_signal(first)
        line_with(process, "Ctrl-C stops immediately")

        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT_SECONDS_MAX)
        waiting_at_the_end = waiting_at_the_gate(engine)

    assert process.returncode == 130
    assert waiting_at_the_end == 0
    assert figures(engine) == (0, 0, 0, [])
    rest = json.loads(finish(start("release", "--json", BUFFER_DATABASE_URL=database_url)))
    assert rest["holds_released"] == 4_000


def test_terminal_shows_progress_rate_and_time_left(engine: Engine, database_url: str) -> None:
    """Released and due holds, holds per second, and the remaining time."""
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
    """SIGKILL in the middle of a batch rolls it back, and the next run releases everything."""
    hold_many(engine, holds=FIRST_BATCH, wallets=50)
    with engine.connect() as blocker:
        # The release waits for this wallet in the middle of its batch.
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
    """The file that exists while the embedded server of `home` runs."""
    return home / "postgres" / "postmaster.pid"


def test_commands_start_join_and_stop_the_embedded_server(home: Path, postmaster: Path) -> None:
    """Without a database setting, a command starts the server or joins a running one, and finds the data."""
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
    """On SIGTERM its transaction is rolled back and the server stopped."""
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
def test_parent_folders_stay_unreadable(home: Path, tmp_path: Path) -> None:
    """The server's user may pass through them; nobody may list them."""
    tmp_path.chmod(0o700)

    finish(start("migrate", BUFFER_HOME=str(home)))

    assert tmp_path.stat().st_mode & 0o777 == 0o711


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_concurrent_first_commands_create_one_user(tmp_path: Path) -> None:
    """On a fresh machine, all of them get the same user for the server."""
    copy = tmp_path / "etc"
    shutil.copytree("/etc", copy, symlinks=True)
    for name in ("passwd", "shadow", "group", "gshadow"):
        lines = (copy / name).read_text().splitlines(keepends=True)
        (copy / name).write_text("".join(line for line in lines if not line.startswith("embedded_postgres:")))
    ask = (
        "import pwd; from buffer_pipeline.embedded import make_user; make_user();"
        " print(pwd.getpwnam('embedded_postgres').pw_uid)"
    )
    script = 'mount --bind "$1" /etc; for n in 1 2 3 4 5 6; do "$2" -c "$3" & done; wait'

    answer = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(copy), sys.executable, ask],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS_MAX,
        check=True,
    )

    user_ids = answer.stdout.split()
    assert len(user_ids) == 6, answer.stderr
    assert len(set(user_ids)) == 1


def test_server_survives_a_killed_command(home: Path, postmaster: Path) -> None:
    """The next command joins the server and stops it."""
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


INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupt:
    modules = 0

    def find_spec(self, name, path=None, target=None):
        if self.modules or name == "buffer_pipeline":
            self.modules += 1
            with open(os.environ["MODULES_FILE"], "w") as file:
                print(self.modules, file=file)
            if self.modules == int(os.environ["INTERRUPT_AT"]):
                os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""
"""Python runs this at startup. It counts the modules that the command imports and sends Ctrl-C at one of
them. A signal from outside would arrive some modules later, or after the end.
"""


def start_interrupted(folder: Path, module: int, *arguments: str) -> subprocess.Popen[str]:
    """Start the installed command, which gets Ctrl-C when it imports that module; 1 is its own first one."""
    (folder / "sitecustomize.py").write_text(INTERRUPTED_IMPORT)
    settings = {
        "PYTHONPATH": str(folder),
        "MODULES_FILE": str(folder / "modules"),
        "INTERRUPT_AT": str(module),
    }
    return subprocess.Popen(
        [SCRIPT, *arguments],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def modules_loaded(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Return the number of modules that the command imports until it has answered."""
    folder = tmp_path_factory.mktemp("modules")
    finish(start_interrupted(folder, 0, "--help"))
    return int((folder / "modules").read_text())


@pytest.mark.parametrize("twentieth", range(20))
def test_ctrl_c_while_the_command_loads_ends_it_quietly(
    modules_loaded: int, twentieth: int, tmp_path: Path
) -> None:
    """From its first module on: exit code 130 and no traceback."""
    module = 1 + twentieth * (modules_loaded - 1) // 19
    process = start_interrupted(tmp_path, module, "--help")
    out, err = process.communicate(timeout=WAIT_SECONDS_MAX)

    assert process.returncode == 130
    assert "Traceback" not in err
    assert "KeyboardInterrupt" not in err
    assert out == ""
