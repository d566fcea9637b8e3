"""Absurd arguments for every command: each ends with an exit code and one line, with nothing half written."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final

import prometheus_client
import pytest
import typer
from hypothesis import event, given
from hypothesis import strategies as st
from sqlalchemy import Engine

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.cli.app import app
from buffer_pipeline.cli.commands import CommandList
from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hold import HoldState
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import NOON, PAYEE, PAYER, place_hold
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.hostile import (
    ODD_CURRENCIES,
    Outcome,
    amounts,
    bytes_as_arguments,
    cases,
    digest,
    environment_of,
    numbers,
    run_command,
    texts,
    times,
)
from buffer_pipeline_tests.support.rules import FEE, add, assign, retire

COMMAND: Final = Path(sys.executable).with_name("buffer-pipeline")
CODES: Final = {0, 1, 2}
PATHS: Final = (
    ".",
    "nowhere.csv",
    "folder",
    "fifo",
    "empty.csv",
    "latin.csv",
    "bom.csv",
    "quotes.csv",
    "nul.csv",
    "long.csv",
    "good.csv",
    "export",
    "nowhere/report.html",
    "/dev/null",
    "/dev/zero",
    "a\x00b",
    "x" * 300,
    "caf\udce9",
    "",
)
URLS: Final = (
    "http://127.0.0.1:1/hook?token=t",
    "https://127.0.0.1:1/",
    "https://[::1",
    "http://127.0.0.1:99999/",
    "https://localhost:1/",
    "ftp://x",
    "javascript:alert(1)",
    "https://" + "a" * 70 + ".invalid/",
    "//x",
)


METADATA: Final = (
    '{"order": "A-17"}',
    "order=A-17",
    "order=17",
    "{}",
    "[]",
    '{"order": {"id": 17}}',
    '{"order": 1, "order": 2}',
    '{"order": "\\u0000"}',
    '{"order": "\\ud800"}',
    '{"order": 1e999, "n": NaN}',
    '{"order": %s}' % ("9" * 5_000),
    '{"order": "%s"}' % ("x" * 501),
    '{"order":' * 20_000,
    "order=" + "[" * 100_000,
    "=",
)


def commands() -> dict[tuple[str, ...], Any]:
    """Return every command by its words, as Typer knows it."""
    found: dict[tuple[str, ...], Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        if isinstance(command, CommandList):
            for name in command.commands:
                walk(command.load(name), (*words, name))
        else:
            found[words] = command

    walk(typer.main.get_command(app), ())
    return found


COMMANDS: Final = commands()


def values_of(parameter: Any) -> st.SearchStrategy[str]:
    """Return values for a parameter, expected and unexpected ones."""
    annotation, name = parameter.type_descriptor.annotation, parameter.name
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        members = [str(member.value) for member in annotation]
        expected = st.sampled_from([*members, members[0].swapcase()])
    elif annotation in {int, float} or name.endswith("id") or name in {"hold", "ids"}:
        expected = st.one_of(st.integers(1, 9).map(str), numbers)
    elif annotation is Path:
        return st.sampled_from(PATHS)
    elif name in {"amount", "fee_fixed"} or name.endswith("_percent"):
        expected = st.one_of(st.sampled_from(("12", "99.9999", "0.00001")), amounts)
    elif name == "currency":
        expected = st.sampled_from(ODD_CURRENCIES)
    elif name in {"held_at", "release_date", "as_of", "since", "until", "to"}:
        expected = times
    elif name == "metadata":
        expected = st.sampled_from(METADATA)
    elif name == "url":
        expected = st.sampled_from(URLS)
    else:
        expected = st.sampled_from(
            (
                *(PAYEE, PAYER, "job-8", "job-9", "seller", "standard", "gone"),
                *("admin-1", "why not", "en_PH", "UTC", "24h", "a@example.com"),
            )
        )
    return st.one_of(expected, expected, expected, texts)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Draw a command with its parameters, most of them present and some broken, repeated or unknown."""
    words = draw(st.sampled_from(sorted(COMMANDS)))
    arguments: list[str] = []
    for parameter in COMMANDS[words].params:
        if not draw(st.integers(0, 9)) < (9 if parameter.required else 4):
            continue
        for _ in range(draw(st.sampled_from((1, 1, 1, 1, 1, 2)))):
            if parameter.param_type_name == "argument":
                arguments += [draw(values_of(parameter))]
            elif getattr(parameter, "is_flag", False):
                arguments += [draw(st.sampled_from([*parameter.opts, *parameter.secondary_opts]))]
            else:
                option, value = draw(st.sampled_from(parameter.opts)), draw(values_of(parameter))
                arguments += [f"{option}={value}"] if draw(st.booleans()) else [option, value]
    if draw(st.integers(0, 9)) == 0:
        arguments.insert(
            draw(st.integers(0, len(arguments))),
            draw(st.one_of(texts, st.sampled_from(("--help", "--nonsense", "--", "-x", "--json=1")))),
        )
    if draw(st.booleans()):
        arguments.insert(draw(st.integers(0, len(arguments))), "--json")
    return [*words, *arguments]


@st.composite
def nonsense(draw: st.DrawFn) -> list[str]:
    """Draw words in random order: commands and options among arbitrary text."""
    known = sorted({word for words in COMMANDS for word in words})
    options = sorted(
        {
            option
            for command in COMMANDS.values()
            for parameter in command.params
            for option in parameter.opts
            if option.startswith("-")
        }
    )
    of_all = st.sampled_from(("--json", "--json", "--home", "--tz", "--tz=UTC", "--home="))
    word = st.one_of(st.sampled_from(known), st.sampled_from(options), texts, bytes_as_arguments, of_all)
    return draw(st.lists(word, max_size=6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are wrong arguments."""
    folder = tmp_path_factory.mktemp("files")
    header = "reference,job,payee,payer,amount,currency\n"
    (folder / "folder").mkdir()
    (folder / "export").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "empty.csv").write_bytes(b"")
    (folder / "latin.csv").write_bytes(header.encode() + b"r,caf\xe9,a,b,1,PHP\n")
    (folder / "bom.csv").write_bytes(b"\xff\xfe" + header.encode("utf-16-le"))
    (folder / "quotes.csv").write_text(header + 'r,"j"x,a,b,1,PHP\n"r2,j,a,b,1,PHP\n')
    (folder / "nul.csv").write_text(header + "r,j\x00,a,b,1,PHP\n")
    (folder / "long.csv").write_text(header + "r," + "j" * 10_000_000 + ",a,b,1,PHP\n")
    (folder / "good.csv").write_text(header + f"good-1,job-8,{PAYEE},{PAYER},12.50,PHP\n")
    return folder


@pytest.fixture(scope="module")
def books_url(server: EmbeddedServer) -> Iterator[str]:
    """Books with holds in every state, a backjob and money, shared by all cases of this file."""
    with fresh_books(server) as url:
        engine = make_engine(url)
        with engine.begin() as connection:
            deposit(connection, owner=PAYER, amount="5000", currency="PHP", reference="d-1", now=NOON)
            for number, state in enumerate(HoldState):
                place_hold(connection, state=state, job=f"job-{number}")
            place_hold(connection, job="job-8")
            request_backjob(connection, job="job-8", by=PAYER, reason="drips", now=NOON)
            place_hold(connection, job="job-9", currency="JPY", amount="700")
            for name in ("seller", "gone"):
                add(connection, name, **FEE)
            assign(connection)
            retire(connection, "gone")
        engine.dispose()
        yield url


def _taken(*_: object) -> None:
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


@pytest.fixture(autouse=True)
def _nothing_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers end at once: `dev` because of a setting, `metrics` and `serve` because their port is taken."""
    monkeypatch.setenv("BUFFER_ALERT_URLS", "nonsense")
    monkeypatch.setattr(prometheus_client, "start_http_server", _taken)
    monkeypatch.setattr("socket.socket.listen", _taken)


@pytest.fixture
def shared(books_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine on the shared books, with the settings for them and the folder with the files."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BUFFER_DATABASE_URL", books_url)
    engine = make_engine(books_url)
    yield engine
    engine.dispose()


def require_well_behaved(arguments: list[str], outcome: Outcome) -> None:
    """Fail unless the command ended as every command must."""
    assert outcome.code in CODES, arguments
    assert "Traceback" not in outcome.err
    assert "Traceback" not in outcome.out
    if outcome.code == 2:
        assert len(outcome.err.splitlines()) == 1, outcome.err
    is_help = "--help" in arguments and outcome.code == 0
    if "--json" in arguments and not is_help:
        json.loads(outcome.out)
        assert outcome.out.count("\n") == 1


@pytest.mark.usefixtures("shared")
def test_impossible_host_name_is_a_failed_attempt() -> None:
    """A label that is too long is refused before DNS is asked."""
    outcome = run_command("notifications", "test-webhook", f"https://{'a' * 70}.invalid/", "--allow-private")

    assert outcome.code == 1
    require_well_behaved([], outcome)
    assert "No such name can exist" in outcome.out + outcome.err


@cases(900)
@given(arguments=command_lines())
def test_every_command_line_ends_cleanly(shared: Engine, arguments: list[str]) -> None:
    """It exits with 0, 1 or 2 and never with a traceback. A failed command has written nothing."""
    before = digest(shared)

    outcome = run_command(*arguments)

    event(f"exit {outcome.code}")
    require_well_behaved(arguments, outcome)
    goes_in_parts = arguments[:2] == ["hold", "import"] and "--all-or-nothing" not in arguments
    if outcome.code != 0 and not goes_in_parts:
        assert digest(shared) == before


def test_books_are_sound_after_hostile_commands(shared: Engine) -> None:
    """Every accepted command keeps every invariant."""
    with shared.begin() as connection:
        assert reconcile(connection) == []


@cases(1_500)
@given(arguments=nonsense())
def test_nonsense_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """Random words end with an exit code and one line, without books."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", "postgresql:///?host=/nowhere")
    # `--home` sets it for the process; undo that.
    monkeypatch.setenv("BUFFER_HOME", "/nowhere")

    outcome = run_command(*arguments)

    require_well_behaved(arguments, outcome)


# ---- as real processes


def run_process(*arguments: str | bytes, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command line as a separate process."""
    return subprocess.run(
        [COMMAND, *arguments],
        env=environment_of(**variables),
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (b"hold", b"list", b"--payee", b"caf\xe9"),
        (b"hold", b"import", b"fifo"),
        (b"hold", b"import", b"/dev/zero"),
        (b"hold", b"import", b"folder"),
        (b"hold", b"import", b"long.csv", b"--all-or-nothing"),
        (b"import-legacy", b"fifo"),
        (b"payout", b"import-status", b"1", b"fifo"),
        (b"wallet",),
        (b"wallet", b"deposit", b"--", b"--amount"),
        (b"notifications", b"test-webhook", b"http://127.0.0.1:1/?t=1", b"--allow-private"),
        (b"\xff\xfe", b"\xc3\x28"),
    ],
)
def test_process_ends_cleanly(shared: Engine, books_url: str, arguments: tuple[bytes, ...]) -> None:
    """Bytes that are not UTF-8, a pipe without a writer, an endless device."""
    before = digest(shared)

    ended = run_process(*arguments, b"--json", BUFFER_DATABASE_URL=books_url)

    assert ended.returncode in {1, 2}
    assert b"Traceback" not in ended.stderr
    json.loads(ended.stdout)
    assert digest(shared) == before


@pytest.mark.parametrize("as_json", [True, False])
def test_ascii_output_is_escaped(shared: Engine, books_url: str, as_json: bool) -> None:
    """In JSON and in text."""
    with shared.begin() as connection:
        place_hold(connection, payee="Łódź-2")
    arguments = ["hold", "list", "--payee", "Łódź-2", *["--json"] * as_json]

    ended = run_process(*arguments, BUFFER_DATABASE_URL=books_url, PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert (ended.returncode, ended.stderr) == (0, b"")
    if as_json:
        assert json.loads(ended.stdout)[0]["payee"] == "Łódź-2"
    else:
        assert b"\\u0141" in ended.stdout


def list_into(stdout: int, books_url: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Run `hold list` with this stdout."""
    return subprocess.run(
        [COMMAND, "hold", "list", *options],
        env=environment_of(BUFFER_DATABASE_URL=books_url),
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )


def test_closed_pipe_ends_a_command_quietly(shared: Engine, books_url: str) -> None:
    """As in `buffer-pipeline hold list | head -1`."""
    with shared.begin() as connection:
        for _ in range(300):
            place_hold(connection, payee="worker-300", job="j" * 190)
    reader, writer = os.pipe()
    os.close(reader)

    ended = list_into(writer, books_url, "--payee", "worker-300")
    os.close(writer)

    assert (ended.returncode, ended.stderr) == (1, b"")


def test_full_disk_is_reported_in_one_line(books_url: str) -> None:
    """When stdout is on a full disk."""
    with Path("/dev/full").open("wb") as full:
        ended = list_into(full.fileno(), books_url)

    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert b"No space left" in ended.stderr
