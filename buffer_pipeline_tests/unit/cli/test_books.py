"""Which books a command uses: those of the given folder, and never new ones by mistake."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Final

import pytest
import typer
from sqlalchemy import text

from buffer_pipeline.cli.app import app
from buffer_pipeline.database import REVISION, make_engine, migrate
from buffer_pipeline.embedded import embedded_server
from buffer_pipeline_tests.support.commands import WITHOUT_BOOKS, Run, commands
from buffer_pipeline_tests.support.legacy import EXPORT
from buffer_pipeline_tests.support.processes import COMMAND, WAIT_SECONDS_MAX, finish, start

DECIDED: Final = "--by admin-1 --reason agreed"
MOVED: Final = "--amount 5 --currency PHP --reference r-1"

MAKERS: Final = {"dev", "migrate", "simulate", "hold import", "import-legacy", "clock start"}
OTHERS: Final = {
    "hold add": f"--job job-8 --payee worker-17 --payer client-3 {MOVED}",
    "hold show": "1",
    "hold list": "",
    "explain": "1",
    "backjob request": "--job job-8 --by client-3 --reason drips",
    "backjob reject": f"1 {DECIDED}",
    "backjob approve": f"1 {DECIDED}",
    "backjob withdraw": f"1 {DECIDED}",
    "backjob list": "",
    "wallet show": "worker-17",
    "wallet statement": "worker-17",
    "wallet deposit": f"worker-17 {MOVED}",
    "wallet withdraw": f"worker-17 {MOVED}",
    "contact set": "worker-17 --locale fil_PH",
    "contact show": "worker-17",
    "notifications list": "",
    "notifications drain": "",
    "notifications replay": "--all",
    "release": "--dry-run",
    "release-now": f"--hold 1 {DECIDED}",
    "freeze": f"1 --kind risk {DECIDED}",
    "unfreeze": f"1 {DECIDED}",
    "freeze-owner": f"worker-17 --kind risk {DECIDED}",
    "unfreeze-owner": f"worker-17 {DECIDED}",
    "frozen-owners": "",
    "hold reschedule": f"1 --to 2026-12-01T00:00Z {DECIDED}",
    "audit list": "",
    "rule add": f"trusted --days 1 {DECIDED}",
    "rule list": "",
    "rule show": "trusted",
    "rule retire": f"trusted {DECIDED}",
    "rule assign": f"worker-17 trusted {DECIDED}",
    "rule unassign": f"worker-17 {DECIDED}",
    "rule try": "trusted --amount 100 --currency PHP",
    "refund": f"1 {DECIDED} --reference refund-1",
    "claw-back": "--hold 1 --amount 1 --to payer --by x --reason x --key x",
    "debt list": "",
    "debt forgive": "1 --by x --reason x",
    "debt recover": "worker-17 --by x",
    "payout request": "worker-17 --all --currency PHP --key x",
    "payout cancel": f"1 {DECIDED}",
    "payout list": "",
    "payout schedule": f"worker-17 weekly {DECIDED}",
    "payout request-scheduled": "",
    "payout destination set": f"worker-17 --method token --account x {DECIDED}",
    "payout destination show": "worker-17",
    "payout batch make": "--currency PHP --by x",
    "payout batch approve": "1 --by x",
    "payout batch send": "1 --by x",
    "payout batch cancel": f"1 {DECIDED}",
    "payout batch show": "1",
    "payout export": "1 --out /tmp/batch.csv",
    "payout import-status": f"1 {__file__} --by x",
    "stuck": "",
    "reconcile": "",
    "report": "",
    "shadow": f"{EXPORT} {EXPORT} --at 2026-11-18T23:35Z",
    "verify": "",
    "metrics": "",
    "serve": "",
    "api-key create": "--name shop --role platform",
    "api-key list": "",
    "api-key revoke": "shop",
    "clock show": "",
    "clock advance": "7d",
    "doctor": "",
}
"""Commands that read books or move money, with their required arguments."""


def test_only_some_commands_make_books(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder without books, every other command names the folder, exits with 2 and creates nothing."""
    monkeypatch.delenv("BUFFER_DATABASE_URL")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)

    refused = {name: run(*name.split(), *options.split()) for name, options in OTHERS.items()}

    assert set(commands(typer.main.get_command(app))) == MAKERS | WITHOUT_BOOKS | set(OTHERS)
    diagnosis = refused.pop("doctor")
    assert diagnosis.code == 1
    assert f"BUFFER_HOME: no books in {tmp_path}/.buffer" in diagnosis.out
    for name, result in refused.items():
        assert (result.code, result.out) == (2, ""), name
        assert result.err.startswith(f"BUFFER_HOME: no books in {tmp_path}/.buffer; "), name
        assert "--home" in result.err, name
        assert "BUFFER_DATABASE_URL" in result.err, name
        assert result.err.count("\n") == 1, name
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("maker", sorted(MAKERS - {"dev"}))
def test_command_that_makes_books_says_so(maker: str, home: Path, tmp_path: Path) -> None:
    """On stderr with the folder, the first time. test_dev checks `dev`."""
    earnings = tmp_path / "earnings.csv"
    earnings.write_text("reference,job,payee,payer,amount,currency\na,job-1,worker-1,client-1,10.00,PHP\n")
    options = {
        "migrate": [],
        "simulate": ["--days", "1"],
        "hold import": [str(earnings)],
        "import-legacy": [str(EXPORT)],
        "clock start": ["2026-01-01T00:00Z"],
    }

    made = start(*maker.split(), *options[maker], "--json", "--home", str(home))
    answer, output = made.communicate(timeout=WAIT_SECONDS_MAX)
    again = start("migrate", "--home", str(home))
    _, second_output = again.communicate(timeout=WAIT_SECONDS_MAX)

    assert made.returncode == again.returncode == 0
    assert output == f"Made new books in {home}.\n"
    assert isinstance(json.loads(answer), dict)
    assert second_output == ""


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_books_are_made_without_a_usable_stderr(stderr: str, home: Path) -> None:
    """A closed stderr, or a full disk behind it, does not stop the command."""
    command = " ".join(shlex.quote(word) for word in (*COMMAND, "migrate", "--home", str(home)))

    done = subprocess.run(["bash", "-c", f"{command} {stderr}"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, f"The books are at revision {REVISION}.\n")


def test_a_typing_error_makes_no_books(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import of a missing file creates no folder."""
    monkeypatch.delenv("BUFFER_DATABASE_URL")
    monkeypatch.setenv("BUFFER_HOME", str(home))

    csv = run("hold", "import", "eranings.csv")
    export = run("import-legacy", "exprot/")

    assert (csv.code, csv.err) == (1, "eranings.csv: No such file or directory\n")
    assert (export.code, export.err) == (1, "exprot: is not a directory\n")
    assert not home.exists()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("reference,job,payee,payer,amount", "column 'currency' is missing"),
        ("reference,job,payee,payer,amount,currency,colour", "column 'colour' is unknown"),
        ("reference,job,payee,payer,amount,currency,job", "a column occurs twice"),
        ('reference,"job', "line 1: broken line: unexpected end of data"),
    ],
)
def test_a_header_that_is_refused_makes_no_books(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, message: str
) -> None:
    """A file without the columns of earnings is refused first."""
    monkeypatch.delenv("BUFFER_DATABASE_URL")
    monkeypatch.setenv("BUFFER_HOME", str(home))
    earnings = tmp_path / "earnings.csv"
    earnings.write_text(f"{header}\n")

    refused = run("hold", "import", str(earnings))

    assert (refused.code, refused.err) == (1, f"{earnings}: {message}\n")
    assert not home.exists()


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("garbage", "start 'garbage': not an ISO 8601 time such as 2026-11-18T23:35Z"),
        ("2026-11-18T23:35Z", "start 2026-11-18T23:35:00+00:00: must be a full hour"),
    ],
)
def test_a_start_that_is_refused_makes_no_books(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, start: str, message: str
) -> None:
    """`simulate --start` is checked first."""
    monkeypatch.delenv("BUFFER_DATABASE_URL")
    monkeypatch.setenv("BUFFER_HOME", str(home))

    refused = run("simulate", "--days", "1", "--start", start)

    assert (refused.code, refused.err) == (1, f"{message}\n")
    assert not home.exists()


def test_books_of_another_revision(home: Path) -> None:
    """A server without books is refused, older books are migrated, newer ones are left alone."""
    output = {}
    with embedded_server(home) as server:
        engine = make_engine(server.books_url)

        def ask(*arguments: str) -> tuple[int, str, str]:
            process = start(*arguments, BUFFER_HOME=str(home))
            out, err = process.communicate(timeout=WAIT_SECONDS_MAX)
            return process.returncode, out, err

        output["none"] = ask("hold", "list")
        migrate(engine, "0009")
        output["older"] = ask("hold", "list")
        output["now"] = ask("hold", "list")
        with engine.begin() as connection:
            connection.execute(text("UPDATE buffer.alembic_version SET version_num = '9999'"))
        output["later"] = ask("hold", "list")
        output["migrate"] = ask("migrate")
        engine.dispose()

    code, out, err = output["none"]
    assert (code, out) == (2, "")
    assert err.startswith(f"BUFFER_HOME: no books in {home}; ")
    updated = f"Brought the books in {home} from revision 0009 to {REVISION}.\n"
    assert output["older"] == (0, "No holds found.\n", updated)
    assert output["now"] == (0, "No holds found.\n", "")
    refusal = (
        f"books: at revision 9999, this version needs {REVISION};"
        " install the version of buffer-pipeline that migrated them, or a newer one\n"
    )
    assert output["later"] == output["migrate"] == (1, "", refusal)


def test_home_option_may_be_anywhere_in_the_command(home: Path, tmp_path: Path) -> None:
    """`--home` chooses the books at any position and overrides BUFFER_HOME."""
    elsewhere = {"BUFFER_HOME": str(tmp_path / "elsewhere")}
    finish(start("migrate", "--home", str(home), **elsewhere))

    before = finish(start("--home", str(home), "hold", "list", "--json", **elsewhere))
    after = finish(start("hold", "list", f"--home={home}", "--json", **elsewhere))

    assert before == after == "[]\n"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hold", "list", "--home"), "Option '--home' requires an argument; see --help\n"),
        (("--home", "--json", "hold", "list"), "Option '--home' requires an argument; see --help\n"),
        (("hold", "list", "--home", ""), "--home: must not be empty\n"),
        (
            ("hold", "list", "--home", "shop"),
            "--home shop: BUFFER_DATABASE_URL is set and names other books; unset it or leave out --home\n",
        ),
    ],
)
def test_useless_home_option_is_refused(run: Run, arguments: tuple[str, ...], message: str) -> None:
    """Without a value, or together with a database setting."""
    refused = run(*arguments)

    assert (refused.code, refused.err) == (2, message)
    assert "BUFFER_HOME" not in os.environ
