"""The command line: its JSON, its exit codes and its one-line refusals, command by command."""

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from buffer_pipeline.cli import main
from buffer_pipeline.cli.output import facts_of, iso, times_in
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.errors import Refused
from buffer_pipeline_tests.builders import place_hold
from buffer_pipeline_tests.runs import corrupt


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run the command line on fresh books, in this process."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", database_url)
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        captured = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Result(code=stopped.value.code, out=captured.out, err=captured.err)

    yield call
    signal.signal(signal.SIGTERM, handler)


EARNING = {
    "reference": "job-8-done",
    "job": "job-8",
    "payee": "worker-17",
    "payer": "client-3",
    "amount": "1250.50",
    "currency": "PHP",
}
LONG_AGO = "2026-01-05T00:00:00Z"


def hold_add(run: Run, **changes: str) -> Result:
    """Run `hold add` with the example's options, changed."""
    options = {**EARNING, **changes}
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    return run("hold", "add", *arguments, "--json")


def row_counts(engine: Engine) -> dict[str, int]:
    """Return how many rows each table has."""
    tables = ("wallet", "hold", "transaction", "notification", "hold_freeze", "backjob", "batch")
    with engine.connect() as connection:
        return {
            table: connection.execute(text(f"SELECT count(*) FROM buffer.{table}")).scalar_one()
            for table in tables
        }


def test_hold_add_answers_with_the_hold_and_repeats_itself(run: Run) -> None:
    """The same earning twice is one hold, and the second answer says so."""
    first = hold_add(run, held_at=LONG_AGO)
    second = hold_add(run, held_at=LONG_AGO)

    assert first.code == second.code == 0
    assert first.json == {
        "hold_id": 1,
        "reference": "job-8-done",
        "state": "BUFFERED",
        "release_date": "2026-01-12T00:00:00Z",
        "replayed": False,
    }
    assert second.json == {**first.json, "replayed": True}


def test_json_may_stand_before_or_behind_the_command(run: Run) -> None:
    """`--json` means the same wherever it stands, and stdout is one document."""
    hold_add(run)

    before = run("--json", "hold", "list")
    behind = run("hold", "list", "--json")

    assert before.json == behind.json
    assert len(before.json) == 1


def test_buffer_days_zero_means_zero(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """BUFFER_DAYS=0 releases an earning at once: 0 is not "unset"."""
    monkeypatch.setenv("BUFFER_DAYS", "0")
    added = hold_add(run, held_at=LONG_AGO)

    released = run("release", "--json")

    assert added.json["release_date"] == LONG_AGO
    assert released.json["holds_released"] == 1


def test_release_for_programs_and_for_people(run: Run) -> None:
    """JSON has the six keys; people read what began and what came of it."""
    hold_add(run, held_at=LONG_AGO)

    people = run("release", "--verbose")
    again = run("release")
    programs = run("release", "--json")

    assert people.code == again.code == programs.code == 0
    assert people.out.startswith("Starting payment release job at 20")
    assert "hold 1: 1250.50 PHP to worker-17, job job-8" in people.out
    assert "Released 1 payment, 1250.50 PHP, in 1 batch" in people.out
    assert "No payments ready for release." in again.out
    as_of = programs.json.pop("as_of") if isinstance(programs.json, dict) else ""
    assert as_of.endswith("Z")
    assert {**programs.json, "as_of": "", "anchor": ""} == {
        "as_of": "",
        "dry_run": False,
        "holds_released": 0,
        "amounts": {},
        "batches": 0,
        "interrupted": False,
        "anchor": "",
    }
    assert "Starting payment release job" in programs.err


def test_release_dry_run_limit_and_as_of(run: Run, engine: Engine) -> None:
    """A dry run says what would be released and changes nothing; a limit and a time narrow it."""
    for day in (5, 6, 7):
        hold_add(run, reference=f"r-{day}", held_at=f"2026-01-0{day}T00:00:00Z")
    before = row_counts(engine)

    dry = run("release", "--dry-run", "--json")
    unchanged = row_counts(engine)
    early = run("release", "--as-of", "2026-01-12T00:00:00Z", "--json")
    limited = run("release", "--limit", "1", "--json")
    rest = run("release", "--json")

    assert dry.json["holds_released"] == 3
    assert dry.json["amounts"] == {"PHP": "3751.50"}
    assert dry.json["dry_run"] is True
    assert unchanged == before
    assert [early.json["holds_released"], early.json["as_of"]] == [1, "2026-01-12T00:00:00Z"]
    assert [limited.json["holds_released"], rest.json["holds_released"]] == [1, 1]


def test_release_with_workers_lists_each_hold_once(run: Run) -> None:
    """However many workers there are, `--verbose` has a line for each hold, and no bar without a terminal."""
    for number in range(12):
        hold_add(run, reference=f"r-{number}", payee=f"worker-{number}", held_at=LONG_AGO)

    dry = run("release", "--workers", "5", "--dry-run", "--verbose")
    released = run("release", "--workers", "5", "--verbose")

    for result in (dry, released):
        lines = [line for line in result.out.splitlines() if line.startswith("hold ")]
        assert sorted(line.split()[1] for line in lines) == sorted(f"{number}:" for number in range(1, 13))
        assert result.err == ""
    assert "Would release 12 payments" in dry.out
    assert "Released 12 payments, 15006.00 PHP" in released.out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("release", "--as-of", "2026-01-12T00:00:00"), "as_of"),
        (("release", "--as-of", "2999-01-12T00:00:00Z"), "as_of"),
        (("release", "--as-of", "yesterday"), "as_of"),
        (("release", "--limit", "0"), "limit"),
        (("release", "--workers", "0"), "workers 0"),
        (("release", "--workers", "65"), "workers 65"),
        (("hold", "show", "99"), "hold 99"),
        (("hold", "show", "--reference", "nothing"), "nothing"),
        (("wallet", "show", "worker-99"), "worker-99"),
        (("wallet", "statement", "worker-99"), "worker-99"),
        (("wallet", "statement", "worker-17", "--as-of", "2026-01-12"), "as_of"),
        (("backjob", "approve", "99", "--by", "admin-1", "--reason", "x"), "backjob 99"),
        (("backjob", "request", "--job", "job-99", "--by", "client-3", "--reason", "x"), "job-99"),
        (("freeze", "99", "--kind", "risk", "--by", "risk-2", "--reason", "x"), "hold 99"),
        (("unfreeze", "99", "--by", "risk-2", "--reason", "x"), "freeze 99"),
        (("refund", "99", "--by", "admin-1", "--reason", "x", "--reference", "r"), "hold 99"),
        (("refund", "1", "--by", "admin-1", "--reason", "x", "--reference", "r"), "BUFFERED"),
        (("release-now", "--hold", "99", "--by", "client-3", "--reason", "x"), "hold 99"),
        (("release-now", "--hold", "1", "--by", "client-4", "--reason", "x"), "client-4"),
        (("wallet", "deposit", "c", "--amount", "x", "--currency", "PHP", "--reference", "r"), "amount"),
        (
            ("wallet", "withdraw", "worker-17", "--amount", "1", "--currency", "PHP", "--reference", "r"),
            "1.00",
        ),
        (("stuck", "--older-than", "3 days"), "older_than"),
        (("stuck", "--older-than", "999999d"), "older_than"),
        (("wallet", "statement", "worker-17", "--as-of", "2999-01-12T00:00:00Z"), "as_of"),
        (("wallet", "show", "\udcff"), "argument"),
        (("hold", "import", "no-such-file.csv"), "no-such-file.csv"),
    ],
)
def test_a_refusal_is_one_line_and_writes_nothing(
    run: Run, engine: Engine, arguments: tuple[str, ...], named: str
) -> None:
    """Bad input exits 1 with one line that names the thing; with --json stdout still parses."""
    hold_add(run)
    before = row_counts(engine)

    refused = run(*arguments)
    as_json = run(*arguments, "--json")

    assert refused.code == as_json.code == 1
    assert len(refused.err.splitlines()) == 1, refused.err
    assert named in refused.err
    assert named in as_json.json["error"]["message"]
    assert row_counts(engine) == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"amount": "-5"}, "amount -5"),
        ({"amount": "0"}, "amount 0"),
        ({"amount": "1.234"}, "amount 1.234"),
        ({"amount": "1" + "0" * 20}, "too large"),
        ({"amount": "NaN"}, "NaN"),
        ({"amount": "ten"}, "ten"),
        ({"amount": "1.5", "currency": "JPY"}, "JPY"),
        ({"currency": "XYZ"}, "XYZ"),
        ({"payee": ""}, "payee"),
        ({"payee": "w" * 201}, "payee"),
        ({"reference": ""}, "reference"),
        ({"reference": "r" * 201}, "reference"),
        ({"held_at": LONG_AGO, "release_date": "2026-01-04T00:00:00Z"}, "release_date"),
        ({"held_at": "2026-01-05"}, "held_at"),
        ({"release_date": "9999-12-31T23:00:00Z"}, "release_date"),
        ({"held_at": "0001-01-01T05:00:00Z"}, "held_at"),
        ({"payer": "worker-17"}, "payer"),
    ],
)
def test_a_bad_earning_is_refused(run: Run, engine: Engine, changes: dict[str, str], named: str) -> None:
    """Each value that cannot be held is named, and no table gains a row."""
    before = row_counts(engine)

    refused = hold_add(run, **changes)

    assert refused.code == 1
    assert named in refused.err
    assert len(refused.err.splitlines()) == 1
    assert row_counts(engine) == before


def test_other_content_under_a_reference_is_refused(run: Run) -> None:
    """A reference stands for one earning; the refusal says what differs."""
    hold_add(run)

    refused = hold_add(run, amount="99.00")

    assert refused.code == 1
    assert "job-8-done" in refused.err
    assert "1250.50" in refused.err


def test_wrong_usage_exits_2(run: Run) -> None:
    """What the command line cannot parse is usage, not a refusal."""
    missing_option = run("hold", "add", "--job", "job-8")
    both = run("hold", "show", "1", "--reference", "r")
    unknown = run("release", "--unknown")
    as_json = run("hold", "list", "--state", "LOST", "--json")

    assert [missing_option.code, both.code, unknown.code, as_json.code] == [2, 2, 2, 2]
    assert len(unknown.err.splitlines()) == 1
    assert "LOST" in as_json.json["error"]["message"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BUFFER_DAYS", "soon"),
        ("BUFFER_DAYS", "-1"),
        ("BUFFER_COOLDOWN_HOURS", "1.5"),
        ("BUFFER_MAX_BACKJOBS_PER_JOB", "many"),
        ("BUFFER_STUCK_AFTER_HOURS", "x"),
        ("BUFFER_DATABASE_URL", "mysql://somewhere/else"),
        ("BUFFER_DATABASE_URL", "not a url"),
        ("BUFFER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing"),
        ("BUFFER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing?foo=bar"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A setting that cannot be used exits 2 and is named."""
    monkeypatch.setenv(name, value)

    wrong = run("stuck")

    assert wrong.code == 2
    assert wrong.err.startswith(f"{name}: ")
    assert len(wrong.err.splitlines()) == 1


def test_a_backjob_from_request_to_partial_approval(run: Run) -> None:
    """Request freezes, approval of a part refunds it and puts the rest back."""
    hold_add(run)

    asked = run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips", "--json")
    listed = run("backjob", "list", "--state", "OPEN", "--json")
    approved = run(
        "backjob", "approve", "1", "--by", "admin-1", "--reason", "ok", "--amount", "250.50", "--json"
    )
    payer = run("wallet", "show", "client-3", "--json")
    shown = run("hold", "show", "1", "--json")

    assert {**asked.json, "holds": []} == {
        "backjob_id": 1,
        "job": "job-8",
        "state": "OPEN",
        "replayed": False,
        "holds": [],
    }
    assert asked.json["holds"][0]["state"] == "FROZEN"
    assert [row["backjob_id"] for row in listed.json] == [1]
    assert approved.json["state"] == "APPROVED"
    assert approved.json["holds"][0]["refunded"] == "250.50"
    assert payer.json == [
        {"owner": "client-3", "currency": "PHP", "balance": "250.50", "pending_earnings": "0.00"}
    ]
    assert shown.json["state"] == "BUFFERED"
    assert [row["type"] for row in shown.json["transactions"]] == ["PENDING_EARNING", "REFUND"]
    assert [row["kind"] for row in shown.json["freezes"]] == ["BACKJOB"]


def test_backjob_reject_and_withdraw(run: Run) -> None:
    """Both put the hold back; a rejection adds the cooldown, a withdrawal nothing."""
    date = hold_add(run).json["release_date"]

    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")
    withdrawn = run("backjob", "withdraw", "1", "--by", "client-3", "--reason", "fine", "--json")
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")
    rejected = run("backjob", "reject", "2", "--by", "admin-1", "--reason", "done well", "--json")

    assert withdrawn.json["state"] == "WITHDRAWN"
    assert withdrawn.json["holds"][0]["release_date"] == date
    assert rejected.json["state"] == "REJECTED"
    assert rejected.json["holds"][0]["release_date"] > date


def test_freeze_unfreeze_and_stuck(run: Run) -> None:
    """A frozen hold is listed once it is older than asked for, and not after the unfreeze."""
    hold_add(run)

    frozen = run("freeze", "1", "--kind", "risk", "--by", "risk-2", "--reason", "card stolen", "--json")
    stuck = run("stuck", "--older-than", "0m", "--json")
    not_yet = run("stuck", "--json")
    unfrozen = run("unfreeze", "1", "--by", "risk-2", "--reason", "cleared", "--json")
    after = run("stuck", "--older-than", "0m")

    assert frozen.json == {"freeze_id": 1, "hold_id": 1, "state": "FROZEN", "replayed": False}
    assert [row["hold_id"] for row in stuck.json] == [1]
    assert not_yet.json == []
    assert unfrozen.json == {"freeze_id": 1, "hold_id": 1, "state": "BUFFERED", "replayed": False}
    assert after.out == "Nothing is stuck.\n"


def test_an_approval_takes_from_the_holds_that_are_named(run: Run) -> None:
    """`--hold` may be repeated; the job's other holds go back into the buffer."""
    for number in (1, 2, 3):
        hold_add(run, reference=f"part-{number}")
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")
    decided = ("backjob", "approve", "1", "--by", "admin-1", "--reason", "ok", "--json")

    stranger = run(*decided, "--hold", "99")
    approved = run(*decided, "--hold", "1", "--hold", "3")

    assert (stranger.code, stranger.json["error"]["type"]) == (1, "NotFound")
    assert stranger.json["error"]["message"] == "backjob 1: does not freeze hold 99"
    assert (stranger.json["error"]["backjob_id"], stranger.json["error"]["hold_id"]) == (1, 99)
    assert [(row["hold_id"], row["state"]) for row in approved.json["holds"]] == [
        (1, "REFUNDED"),
        (2, "BUFFERED"),
        (3, "REFUNDED"),
    ]


def test_a_backjob_of_another_payer_is_refused(run: Run) -> None:
    """`--payer` says whose job it has to be; an earning of another payer is refused as well."""
    hold_add(run)
    asked = ("backjob", "request", "--job", "job-8", "--by", "client-4", "--reason", "mine", "--json")

    refused = run(*asked, "--payer", "client-4")
    earning = hold_add(run, reference="other", payer="client-4")
    accepted = run(*asked, "--payer", "client-3")

    message = "job 'job-8': its payer is 'client-3', not 'client-4'"
    assert refused.json == {"error": {"type": "NotAllowed", "message": message, "job": "job-8"}}
    assert earning.json == {"error": {"type": "JobConflict", "message": message, "job": "job-8"}}
    assert accepted.json["state"] == "OPEN"


def test_an_earning_during_a_backjob_is_frozen(run: Run) -> None:
    """`hold add` says so."""
    hold_add(run)
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")

    late = hold_add(run, reference="late")

    assert late.json["state"] == "FROZEN"


@pytest.mark.parametrize(
    ("command", "person", "said"),
    [
        (
            "backjob request --job job-9",
            "client-3",
            ("Backjob 2 of job-9: OPEN.", "Nothing changed: backjob 2 of job-9 is OPEN."),
        ),
        (
            "backjob reject 1",
            "admin-1",
            ("Backjob 1 of job-8: REJECTED.", "Nothing changed: backjob 1 of job-8 is REJECTED."),
        ),
        (
            "backjob withdraw 1",
            "client-3",
            ("Backjob 1 of job-8: WITHDRAWN.", "Nothing changed: backjob 1 of job-8 is WITHDRAWN."),
        ),
        (
            "backjob approve 1",
            "admin-1",
            ("Backjob 1 of job-8: APPROVED.", "Nothing changed: backjob 1 of job-8 is APPROVED."),
        ),
        (
            "freeze 2 --kind risk",
            "risk-2",
            ("Freeze 3 is open; hold 2 is FROZEN.", "Freeze 3 was opened before; hold 2 is FROZEN."),
        ),
        (
            "unfreeze 2",
            "risk-2",
            ("Freeze 2 is closed; hold 3 is BUFFERED.", "Freeze 2 was closed already; hold 3 is BUFFERED."),
        ),
        (
            "refund 3",
            "admin-1",
            (
                "Hold 3: refunded 1250.50 PHP, 0.00 left; it is REFUNDED.",
                "Hold 3: refunded already 1250.50 PHP, 0.00 left; it is REFUNDED.",
            ),
        ),
    ],
)
def test_a_command_sent_again_with_its_reference(
    run: Run, engine: Engine, command: str, person: str, said: tuple[str, str]
) -> None:
    """It says what was done before and writes nothing; other content is refused by the reference's name."""
    for number in (8, 9, 10):
        hold_add(run, reference=f"done-{number}", job=f"job-{number}")
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")
    run("freeze", "3", "--kind", "risk", "--by", "risk-2", "--reason", "a look")
    asked = (*command.split(), "--by", person, "--reference", "case-12", "--reason")

    first = run(*asked, "so be it")
    before = row_counts(engine)
    again = run(*asked, "so be it")
    in_json = run(*asked, "so be it", "--json")
    conflict = run(*asked, "something else", "--json")

    assert (first.code, first.out.splitlines()[0]) == (0, said[0])
    assert (again.code, again.out.splitlines()[0]) == (0, said[1])
    assert in_json.json["replayed"] is True
    assert (conflict.code, conflict.json["error"]["type"]) == (1, "ReferenceConflict")
    assert conflict.json["error"]["reference"] == "case-12"
    assert row_counts(engine) == before


def test_a_frozen_hold_is_refunded_in_parts(run: Run) -> None:
    """`refund` says what went back and what is left; while a backjob covers the hold it names that."""
    hold_add(run)
    refund = ("refund", "1", "--by", "admin-1", "--reason", "stolen card", "--json", "--reference")

    not_frozen = run(*refund, "r-1")
    run("freeze", "1", "--kind", "risk", "--by", "risk-2", "--reason", "card stolen")
    part = run(*refund, "r-1", "--amount", "250.50")
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")
    covered = run(*refund, "r-2")
    run("backjob", "withdraw", "1", "--by", "client-3", "--reason", "fine")
    rest = run(*refund, "r-2")
    payer = run("wallet", "show", "client-3", "--json")

    assert not_frozen.json["error"]["message"] == (
        "hold 1: cannot refund without a backjob from BUFFERED; that needs FROZEN"
    )
    assert part.json == {
        "transaction_id": 2,
        "hold_id": 1,
        "amount": "250.50",
        "left": "1000.00",
        "state": "FROZEN",
        "replayed": False,
        "currency": "PHP",
    }
    assert covered.json["error"] == {
        "type": "BackjobRefused",
        "message": "hold 1: backjob 1 covers it; approve, reject or withdraw that",
        "hold_id": 1,
        "backjob_id": 1,
        "state": "OPEN",
        "allowed": ["approve", "reject", "withdraw"],
    }
    assert (rest.json["amount"], rest.json["left"], rest.json["state"]) == ("1000.00", "0.00", "REFUNDED")
    assert payer.json[0]["balance"] == "1250.50"


def test_release_now_by_the_payer(run: Run) -> None:
    """The payer may release before the date; the answer is a release's."""
    hold_add(run)

    released = run("release-now", "--job", "job-8", "--by", "client-3", "--reason", "well done", "--json")

    assert released.code == 0
    assert released.json["holds_released"] == 1
    assert released.json["amounts"] == {"PHP": "1250.50"}


def test_wallet_movements_and_statement(run: Run) -> None:
    """Deposits and withdrawals answer with the balance, replays say so, the statement adds up."""
    movement = ("--amount", "500", "--currency", "PHP", "--reference", "top-up-9", "--json")

    first = run("wallet", "deposit", "client-3", *movement)
    again = run("wallet", "deposit", "client-3", *movement)
    out = run(
        "wallet",
        "withdraw",
        "client-3",
        "--amount",
        "120.25",
        "--currency",
        "PHP",
        "--reference",
        "w",
        "--json",
    )
    statement = run("wallet", "statement", "client-3", "--json")
    long_ago = run("wallet", "statement", "client-3", "--as-of", LONG_AGO, "--json")

    assert first.json == {"transaction_id": 1, "replayed": False, "balance": "500.00"}
    assert again.json == {"transaction_id": 1, "replayed": True, "balance": "500.00"}
    assert out.json == {"transaction_id": 2, "replayed": False, "balance": "379.75"}
    assert [(row["type"], row["balance_after"]) for row in statement.json] == [
        ("DEPOSIT", "500.00"),
        ("WITHDRAWAL", "379.75"),
    ]
    assert long_ago.json == []


def test_a_statement_is_signed_as_the_wallet_has_it(run: Run) -> None:
    """A refund leaves the worker's wallet and comes into the client's; a release adds what it takes."""
    hold_add(run, amount="1000")
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")
    run("backjob", "approve", "1", "--by", "admin-1", "--reason", "ok", "--amount", "250.10")
    run("release-now", "--hold", "1", "--by", "client-3", "--reason", "well done")
    run("wallet", "withdraw", "worker-17", "--amount", "49.90", "--currency", "PHP", "--reference", "w")

    worker = run("wallet", "statement", "worker-17", "--json").json
    client = run("wallet", "statement", "client-3", "--json").json
    said = run("wallet", "statement", "worker-17").out.splitlines()

    signed = [(row["type"], row["amount"], row["change"], row["pending_change"]) for row in worker]
    assert signed == [
        ("PENDING_EARNING", "1000.00", "0.00", "1000.00"),
        ("REFUND", "-250.10", "0.00", "-250.10"),
        ("EARNING", "749.90", "749.90", "-749.90"),
        ("WITHDRAWAL", "-49.90", "-49.90", "0.00"),
    ]
    assert [(row["type"], row["amount"]) for row in client] == [("REFUND", "250.10")]
    for after, change in (("balance_after", "change"), ("pending_earnings_after", "pending_change")):
        assert Decimal(worker[-1][after]) == sum(Decimal(row[change]) for row in worker)
    assert "balance change" in said[0]
    assert "pending change" in said[0]
    assert [[part for part in line.split() if part[0] in "+-"] for line in said[1:]] == [
        ["+1000.00"],
        ["-250.10"],
        ["+749.90", "-749.90"],
        ["-49.90"],
    ]


def test_a_hold_says_what_was_held_refunded_and_is_left(run: Run) -> None:
    """After a partial refund no list says the first amount alone; of a settled hold nothing is left."""
    hold_add(run, amount="1000")
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")

    approved = run("backjob", "approve", "1", "--by", "admin-1", "--reason", "ok", "--amount", "250.10")
    listed, shown = run("hold", "list"), run("hold", "show", "1")
    waiting = run("hold", "list", "--json").json[0]
    run("freeze", "1", "--kind", "risk", "--by", "risk-2", "--reason", "card stolen")
    stuck = run("stuck", "--older-than", "0m")
    run("unfreeze", "2", "--by", "risk-2", "--reason", "cleared")
    run("release-now", "--hold", "1", "--by", "client-3", "--reason", "well done")
    released = run("hold", "show", "1", "--json").json

    headings, line = listed.out.splitlines()
    assert headings.split()[5:8] == ["held", "refunded", "left"]
    assert line.split()[4:8] == ["1000.00", "250.10", "749.90", "PHP"]
    assert "held: 1000.00\nrefunded: 250.10\nleft: 749.90\n" in shown.out
    assert "1000.00 PHP held, 250.10 refunded, 749.90 left" in approved.out
    assert (waiting["amount"], waiting["refunded"], waiting["left"]) == ("1000.00", "250.10", "749.90")
    assert "749.90" in stuck.out
    assert "1000.00" not in stuck.out
    assert (released["amount"], released["refunded"], released["left"]) == ("1000.00", "250.10", "0.00")
    assert [(row["type"], row["to"], row["balance_after"]) for row in released["transactions"]] == [
        ("PENDING_EARNING", "worker-17", None),
        ("REFUND", "client-3", "250.10"),
        ("EARNING", "worker-17", "749.90"),
    ]


def test_words_are_known_in_either_case(run: Run) -> None:
    """States, types and kinds are taken as somebody types them; a wrong one is told which there are."""
    hold_add(run)
    frozen = run("freeze", "1", "--kind", "RISK", "--by", "risk-2", "--reason", "card stolen")
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")

    holds = run("hold", "list", "--state", "frozen", "--json")
    backjobs = run("backjob", "list", "--state", "Open", "--json")
    told = run("notifications", "list", "--state", "waiting", "--type", "backjob_received", "--json")
    wrong = run("hold", "list", "--state", "frozn")

    assert frozen.code == 0
    assert [row["hold_id"] for row in holds.json] == [1]
    assert [row["backjob_id"] for row in backjobs.json] == [1]
    assert {row["type"] for row in told.json} == {"BACKJOB_RECEIVED"}
    assert wrong.code == 2
    assert wrong.err.startswith("Invalid value for '--state': 'frozn' is not one of ")


def test_times_are_shown_in_a_zone(run: Run) -> None:
    """With `--tz`, for people and programs, with the offset from UTC; without it in UTC."""
    hold_add(run, held_at="2026-01-05T18:30:00Z")

    listed = run("hold", "list", "--tz", "Asia/Manila")
    document = run("--tz=Asia/Manila", "hold", "show", "1", "--json")
    statement = run("wallet", "statement", "worker-17", "--json", "--tz", "America/St_Johns")
    released = run("release", "--verbose", "--tz", "Asia/Manila")
    without = run("hold", "show", "1", "--json")

    assert "2026-01-13T02:30:00+08:00" in listed.out
    assert document.json["held_at"] == "2026-01-06T02:30:00+08:00"
    assert document.json["transactions"][0]["recorded_at"].endswith("+08:00")
    assert statement.json[0]["recorded_at"][-6:] in {"-03:30", "-02:30"}
    assert "due 2026-01-13T02:30:00+08:00" in released.out
    assert without.json["held_at"] == "2026-01-05T18:30:00Z"


@pytest.mark.parametrize("name", ["Mars/Base", "Asia", "../../etc/passwd", "", "asia manila"])
def test_a_zone_that_does_not_exist_is_refused(run: Run, name: str) -> None:
    """By its name, before anything is asked."""
    refused = run("hold", "list", "--tz", name)

    assert (refused.code, refused.out) == (2, "")
    assert refused.err == f"--tz {name!r}: not in the IANA database, such as Asia/Manila\n"


def test_the_last_day_of_all_has_a_zone_too() -> None:
    """A time that is in the year 10000 over there is shown in UTC."""
    with times_in("Asia/Manila"):
        shown = iso(datetime(9999, 12, 31, 23, tzinfo=UTC))

    assert shown == "9999-12-31T23:00:00Z"


def test_a_refusal_carries_its_facts(run: Run) -> None:
    """In JSON a refusal has what it knows as fields of their own, so that no program parses its message."""
    hold_add(run, held_at=LONG_AGO)
    run("release")

    refused = run("freeze", "1", "--kind", "risk", "--by", "risk-2", "--reason", "late", "--json")

    assert refused.json["error"] == {
        "type": "StateRefused",
        "message": "hold 1: cannot freeze from RELEASED; that needs BUFFERED or FROZEN",
        "hold_id": 1,
        "state": "RELEASED",
        "verb": "freeze",
        "allowed": ["BUFFERED", "FROZEN"],
    }


def test_facts_of_a_refusal_are_what_json_can_have() -> None:
    """Times as ISO 8601 and tuples as lists; nothing private, nothing that JSON has no form for."""
    refusal = Refused("hold 1: no")
    vars(refusal).update(
        hour=datetime(2026, 1, 5, tzinfo=UTC),
        freeze_ids=(3, 4),
        amount_minor=125050,
        message="another",
        _engine=object(),
        engine=object(),
    )

    facts = facts_of(refusal)

    assert facts == {"hour": "2026-01-05T00:00:00Z", "freeze_ids": [3, 4], "amount_minor": 125050}


def test_minor_units_say_so_where_no_currency_is_known(run: Run, superuser_url: str) -> None:
    """An invariant's row without a currency names its figures `_minor`; one with it has amounts."""
    hold_add(run)
    corrupt(superuser_url, "UPDATE buffer.transaction SET amount_minor = 1")

    broken = run("reconcile", "--json")
    said = run("reconcile")

    rows = {each["invariant"]: each["rows"][0] for each in broken.json["violations"]}
    assert rows["hold_equals_its_transactions"]["transactions_held_minor"] == 1
    assert rows["books_balance"]["currency"] == "PHP"
    assert not any(name.endswith("_minor") for name in rows["books_balance"])
    assert "transactions_held_minor 1" in said.out


def test_statement_of_a_worker_carries_both_sums(run: Run) -> None:
    """A release moves pending earnings into the balance, in one line."""
    hold_add(run, held_at=LONG_AGO)
    run("release")

    statement = run("wallet", "statement", "worker-17", "--json")

    assert [(row["type"], row["balance_after"], row["pending_earnings_after"]) for row in statement.json] == [
        ("PENDING_EARNING", "0.00", "1250.50"),
        ("EARNING", "1250.50", "0.00"),
    ]


def test_reconcile_names_the_rows_that_break_an_invariant(run: Run, superuser_url: str) -> None:
    """Sound books are ok; a balance that was changed behind their back is found and exits 1."""
    from buffer_pipeline.database import make_engine

    hold_add(run, held_at=LONG_AGO)
    run("release")
    sound = run("reconcile", "--json")
    superuser = make_engine(superuser_url)
    with superuser.begin() as connection:
        connection.execute(
            text("UPDATE buffer.wallet SET balance_minor = balance_minor + 1 WHERE owner = 'worker-17'")
        )
    superuser.dispose()

    broken = run("reconcile", "--json")

    assert (sound.code, sound.json) == (0, {"ok": True, "violations": []})
    assert broken.code == 1
    assert broken.json["ok"] is False
    names = [violation["invariant"] for violation in broken.json["violations"]]
    assert names == ["books_balance", "wallet_equals_its_transactions"]
    assert broken.json["violations"][1]["rows"][0]["owner"] == "worker-17"
    assert broken.json["violations"][1]["rows"][0]["balance"] == "1250.51"


def test_hold_list_filters(run: Run) -> None:
    """Each filter narrows the list."""
    hold_add(run, reference="a", held_at=LONG_AGO)
    hold_add(run, reference="b", job="job-9", payee="worker-18")

    def references(*arguments: str) -> list[str]:
        return [row["reference"] for row in run("hold", "list", *arguments, "--json").json]

    assert references() == ["a", "b"]
    assert references("--payee", "worker-18") == ["b"]
    assert references("--job", "job-8") == ["a"]
    assert references("--due") == ["a"]
    assert references("--state", "FROZEN") == []
    assert references("--limit", "1") == ["a"]


CSV_HEADER = "reference,job,payee,payer,amount,currency,title,held_at,release_date\n"


def test_release_seals_and_verify_proves(run: Run, engine: Engine, superuser_url: str) -> None:
    """A release says what to verify by; verify names the line that was altered since, and exits 1."""
    with engine.begin() as connection:
        place_hold(connection)
    released = run("release", "--json")
    dry = run("release", "--dry-run", "--json")
    sound = run("verify", "--anchor", released.json["anchor"], "--json")

    corrupt(superuser_url, "UPDATE buffer.transaction SET amount_minor = 1 WHERE type = 'EARNING'")
    broken = run("verify", "--json")
    said = run("verify")

    with engine.connect() as connection:
        number = connection.scalar(text("SELECT max(transaction_id) FROM buffer.transaction"))
    assert (sound.code, broken.code, said.code) == (0, 1, 1)
    assert dry.json["anchor"] is None
    assert sound.json == {
        "ok": True,
        "offence": None,
        "transaction_id": None,
        "seals": 1,
        "transactions": 2,
        "unsealed": 0,
        "anchor": released.json["anchor"],
    }
    assert (broken.json["ok"], broken.json["transaction_id"]) == (False, number)
    assert said.out.startswith(f"transaction {number}: was altered; it is not what was sealed.\n")


def test_release_that_cannot_seal_says_what_it_released(run: Run, engine: Engine, superuser_url: str) -> None:
    """What was released is told all the same; the next release seals it."""
    with engine.begin() as connection:
        place_hold(connection)
    corrupt(superuser_url, "REVOKE INSERT ON buffer.seal FROM buffer")

    refused = run("release", "--json")
    corrupt(superuser_url, "GRANT INSERT ON buffer.seal TO buffer")
    following = run("release", "--json")

    assert (refused.code, refused.json["holds_released"], refused.json["anchor"]) == (0, 1, None)
    assert "Not sealed, which the next release makes up for: permission denied" in refused.err
    assert following.json["anchor"].startswith("1:")
    assert "Sealed 2 transactions" in following.err


def test_import_takes_the_good_lines_and_reports_the_bad(run: Run, tmp_path: Path) -> None:
    """Bad lines are reported with line and reason, good ones go in, and again they are replays."""
    file = tmp_path / "earnings.csv"
    file.write_text(
        CSV_HEADER
        + "a,job-1,worker-1,client-1,10.00,PHP,Fix,,\n"
        + "b,job-1,worker-2,client-1,-1,PHP,Fix,,\n"
        + "c,job-1,worker-2,client-1\n"
        + 'd,job-2,worker-2,client-1,5,PHP,"Two\nlines? no",,\n'
        + "e,job-2,worker-2,client-1,5,PHP,Ünïcode 🚰,2026-01-05T00:00:00Z,2026-01-06T00:00:00Z\n"
        + "f,job-2,worker-2,client-1,5,PHP,Fix,2026-01-05,\n",
        encoding="utf-8",
    )

    first = run("hold", "import", str(file), "--json")
    second = run("hold", "import", str(file), "--json")

    assert first.code == 1
    assert (first.json["read"], first.json["added"], first.json["replayed"]) == (6, 2, 0)
    assert [row["line"] for row in first.json["refused"]] == [3, 4, 5, 8]
    assert "amount -1" in first.json["refused"][0]["reason"]
    assert "4 fields" in first.json["refused"][1]["reason"]
    assert "title" in first.json["refused"][2]["reason"]
    assert "held_at" in first.json["refused"][3]["reason"]
    assert (second.json["added"], second.json["replayed"]) == (0, 2)


def test_import_goes_on_over_many_transactions(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of more lines than a transaction has is read to its end, each line under its own number."""
    monkeypatch.setattr("buffer_pipeline.cli.hold_import.CHUNK", 2)
    file = tmp_path / "earnings.csv"
    rows = [f"r{number},job-1,worker-1,client-1,{number},PHP,,,\n" for number in (1, 2, 3, 0, 5, 0, 7)]
    file.write_text(CSV_HEADER + "".join(rows) + "r1,job-1,worker-1,client-1,1,PHP,,,\n")

    imported = run("hold", "import", str(file), "--json")

    assert (imported.json["read"], imported.json["added"], imported.json["replayed"]) == (8, 5, 1)
    assert [row["line"] for row in imported.json["refused"]] == [5, 7]


def test_import_holds_the_first_of_two_lines_with_a_reference(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that are held at the same time do not race for a reference, nor wait for each other for ever."""
    monkeypatch.setattr("buffer_pipeline.cli.hold_import.CHUNK", 2)
    file = tmp_path / "earnings.csv"
    pairs = [(f"r{number}", f"s{number}") for number in range(50)]
    rows = [
        f"{reference},job-1,worker-1,client-1,{amount},PHP,,,\n"
        for first, second in pairs
        for reference, amount in ((first, 1), (second, 1), (second, 2), (first, 2))
    ]
    file.write_text(CSV_HEADER + "".join(rows))

    imported = run("hold", "import", str(file), "--json")

    assert (imported.json["read"], imported.json["added"]) == (200, 100)
    later = [line for pair in range(50) for line in (4 * pair + 4, 4 * pair + 5)]
    assert [row["line"] for row in imported.json["refused"]] == later


def test_import_names_the_line_where_a_quote_was_opened(run: Run, tmp_path: Path) -> None:
    """A quote that is never closed takes the lines behind it along, and the report says which."""
    file = tmp_path / "earnings.csv"
    rows = [
        f"q{number},job-1,worker-1,client-1,1,PHP,{title},,\n"
        for number, title in enumerate(["a", '"b', "c"])
    ]
    file.write_text(CSV_HEADER + "".join(rows))

    imported = run("hold", "import", str(file), "--json")

    assert (imported.code, imported.json["added"]) == (1, 1)
    assert [row["line"] for row in imported.json["refused"]] == [3]
    assert imported.json["refused"][0]["reason"].endswith("line 4 was not read")


def test_text_of_others_is_no_markup(run: Run) -> None:
    """Brackets in a job or a title are shown as they were written."""
    hold_add(run, job="[/x]", title="[bold]hi[/bold] [a]")

    listed = run("hold", "list")
    statement = run("wallet", "statement", "worker-17")

    assert "[/x]" in listed.out
    assert "[bold]hi[/bold] [a]" in statement.out


def test_a_reason_may_have_lines(run: Run) -> None:
    """What a client typed into a form comes back as it was typed."""
    hold_add(run)
    reason = "It leaks.\nPlease redo."

    asked = run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", reason, "--json")
    listed = run("backjob", "list", "--json")

    assert asked.code == 0
    assert listed.json[0]["reason"] == reason


def test_import_all_or_nothing(run: Run, engine: Engine, tmp_path: Path) -> None:
    """One bad line refuses the file; a good file goes in with exit 0."""
    bad, good = tmp_path / "bad.csv", tmp_path / "good.csv"
    good.write_text(CSV_HEADER + "a,job-1,worker-1,client-1,10.00,PHP,Fix,,\n")
    bad.write_text(good.read_text() + "b,job-1,worker-2,client-1,x,PHP,Fix,,\n")
    before = row_counts(engine)

    refused = run("hold", "import", str(bad), "--all-or-nothing", "--json")
    unchanged = row_counts(engine)
    taken = run("hold", "import", str(good), "--all-or-nothing", "--json")

    assert refused.code == 1
    assert refused.json["added"] == 0
    assert [row["line"] for row in refused.json["refused"]] == [3]
    assert unchanged == before
    assert (taken.code, taken.json["added"]) == (0, 1)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"reference,job,payee,payer,amount\nr,j,w,c,1\n", "currency"),
        (CSV_HEADER.replace("title", "tittle").encode(), "tittle"),
        (CSV_HEADER.encode() + "a,job-1,worker-1,client-1,1,PHP,Fün,,\n".encode("latin-1"), "UTF-8"),
        (b"", "reference"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    run: Run, engine: Engine, tmp_path: Path, content: bytes, named: str
) -> None:
    """A missing or unknown column or a wrong encoding refuses the file before anything is written."""
    file = tmp_path / "earnings.csv"
    file.write_bytes(content)
    before = row_counts(engine)

    refused = run("hold", "import", str(file))

    assert refused.code == 1
    assert named in refused.err
    assert len(refused.err.splitlines()) == 1
    assert row_counts(engine) == before


def test_books_that_are_not_migrated_say_what_to_type(
    run: Run, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a database of one's own a command does not migrate; it says how to."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", server.url("postgres").render_as_string())

    refused = run("hold", "list")

    assert refused.code == 1
    assert "buffer-pipeline migrate" in refused.err


def test_help_of_every_command_has_an_example(run: Run) -> None:
    """Each command explains itself with an example."""
    commands = """
        hold add, hold import, hold show, hold list, backjob request, backjob reject, backjob approve,
        backjob withdraw, backjob list, wallet show, wallet statement, wallet deposit, wallet withdraw,
        release, release-now, freeze, unfreeze, refund, stuck, reconcile, doctor, migrate, import-legacy, dev
    """

    for command in commands.split(","):
        explained = run(*command.split(), "--help")

        assert explained.code == 0
        assert "Example: " in explained.out, command


def test_simulate_says_what_the_books_have(run: Run, engine: Engine) -> None:
    """As counts and amounts, early releases among them; the second time the books are refused."""
    played = run("simulate", "--days", "9", "--seed", "7", "--start", "2026-03-01T00:00:00Z", "--json")
    again = run("simulate", "--days", "9")
    refused = run("simulate", "--days", "9", "--json")
    waiting = run("hold", "list", "--state", "BUFFERED", "--json")
    frozen = run("hold", "list", "--state", "FROZEN", "--json")

    assert (played.code, again.code, refused.code) == (0, 1, 1)
    assert played.json["start"] == "2026-03-01T00:00:00Z"
    assert played.json["end"] == "2026-03-10T00:00:00Z"
    assert (played.json["seed"], played.json["ticks"], played.json["checks"]) == (7, 216, 9)
    assert played.json["violations"] == []
    assert played.json["refunded_in_part"] > 0
    held, released, refunded = (
        Decimal(played.json[name]["amounts"]["PHP"]) for name in ("held", "released", "refunded")
    )
    assert held - released - refunded == sum(
        Decimal(row["amount"]) - Decimal(row["refunded"])
        for row in (*waiting.json, *frozen.json)
        if row["currency"] == "PHP"
    )
    with engine.connect() as connection:
        early = connection.execute(
            text(
                "SELECT count(*) FROM buffer.transaction JOIN buffer.batch USING (batch_id)"
                " WHERE kind = 'EARLY'"
            )
        ).scalar_one()
    assert 0 < early == played.json["released_early"]["transactions"]
    assert set(played.json["held"]["amounts"]) == {"PHP", "JPY"}
    assert again.err.startswith("books: not empty (backjob, batch, currency, hold, ")
    assert refused.json["error"]["type"] == "Refused"


def test_simulate_ends_with_the_hour_before_now(run: Run, engine: Engine) -> None:
    """Without a start the last day is the one that has just gone by, so that reports have something."""
    people = run("simulate", "--days", "1")

    with engine.connect() as connection:
        now = database_clock(connection)
    first_line, *lines = people.out.splitlines()
    end = first_line.removesuffix(".").rpartition(" to ")[2]
    assert people.code == 0
    assert first_line.startswith("Simulated 24 hours with seed 7: ")
    # The test may run into the next hour.
    assert timedelta(0) <= now - datetime.fromisoformat(end) < timedelta(hours=2)
    assert any(line.startswith("held: ") and line.endswith(" PHP") for line in lines)
    assert lines[-1] == "1 check of the books: 13 invariants held each day."


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("2026-03-01T00:30:00Z", "start 2026-03-01T00:30:00+00:00: must be a full hour"),
        ("2026-03-01T00:00:00", "has no time zone"),
        ("2999-01-01T00:00:00Z", "2 days from it end after the database's clock"),
        ("soon", "not an ISO 8601 time"),
    ],
)
def test_simulate_refuses_a_start_that_cannot_be(run: Run, start: str, message: str) -> None:
    """One line says what is wrong with it."""
    refused = run("simulate", "--days", "2", "--start", start)

    assert refused.code == 1
    assert message in refused.err
    assert refused.err.count("\n") == 1


def test_simulate_stops_at_books_that_are_wrong(run: Run, superuser_url: str) -> None:
    """Exit 1, with the invariant and its rows, once a wallet has a cent too much."""
    superuser = make_engine(superuser_url)
    with superuser.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION public.a_cent_too_much() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN NEW.balance_minor := NEW.balance_minor + 1; RETURN NEW; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE TRIGGER a_cent_too_much BEFORE UPDATE ON buffer.wallet FOR EACH ROW"
                " WHEN (NEW.balance_minor > 0) EXECUTE FUNCTION public.a_cent_too_much()"
            )
        )
    superuser.dispose()

    stopped = run("simulate", "--days", "9", "--start", "2026-03-01T00:00:00Z")

    assert stopped.code == 1
    assert "Stopped at 2026-03-02T00:00:00Z, in the books:" in stopped.out
    assert "books_balance: 2 rows" in stopped.out
    assert "  currency PHP, " in stopped.out
    assert "invariants held" not in stopped.out


def test_shadow_exits_1_where_the_legacy_command_did_something_else(run: Run) -> None:
    """Compared with an export in which nothing was released, each due payment is a difference."""
    export = str(Path(__file__).parent / "legacy_export")

    for_people = run("shadow", export, export, "--at", "2026-11-18T23:35Z")
    before_any_was_due = run("shadow", export, export, "--at", "2026-11-10T00:00Z", "--json")
    no_time = run("shadow", export, export, "--at", "yesterday")

    assert for_people.code == 1
    assert for_people.out.startswith(
        "66 payments waited at 2026-11-18T23:35:00Z: 0 released by both, 0.00 PHP; 62 kept by both;"
        " 4 differences.\naccounts_transaction "
    )
    assert before_any_was_due.code == 0
    assert before_any_was_due.json == {
        "at": "2026-11-10T00:00:00Z",
        "waiting": 66,
        "released": 0,
        "released_amount": "0.00",
        "kept": 66,
        "differences": [],
        "quarantined": [],
    }
    assert (no_time.code, no_time.err.count("\n")) == (1, 1)
