"""Common behaviour of all commands: JSON, exit codes, one-line refusals."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from buffer_pipeline.cli.output import facts_of, iso, times_in
from buffer_pipeline.errors import Refused
from buffer_pipeline_tests.support.commands import LONG_AGO, Run, hold_add, rows_in_books


def test_json_option_may_be_anywhere_in_the_command(run: Run) -> None:
    """stdout is one document."""
    hold_add(run)

    before = run("--json", "hold", "list")
    after = run("hold", "list", "--json")

    assert before.json == after.json
    assert len(before.json) == 1


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
    """Bad input exits with 1 and one line that names the cause. With --json, stdout still parses."""
    hold_add(run)
    before = rows_in_books(engine)

    refused = run(*arguments)
    as_json = run(*arguments, "--json")

    assert refused.code == as_json.code == 1
    assert len(refused.err.splitlines()) == 1, refused.err
    assert named in refused.err
    assert named in as_json.json["error"]["message"]
    assert rows_in_books(engine) == before


def test_wrong_usage_exits_2(run: Run) -> None:
    """A command line that cannot be parsed is wrong usage, not a refusal."""
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
    """The exit code is 2."""
    monkeypatch.setenv(name, value)

    wrong = run("stuck")

    assert wrong.code == 2
    assert wrong.err.startswith(f"{name}: ")
    assert len(wrong.err.splitlines()) == 1


def test_times_are_shown_in_a_zone(run: Run) -> None:
    """With `--tz`, in text and JSON, with the offset from UTC. The default is UTC."""
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
    """By name, before the database is read."""
    refused = run("hold", "list", "--tz", name)

    assert (refused.code, refused.out) == (2, "")
    assert refused.err == f"--tz {name!r}: not in the IANA database, such as Asia/Manila\n"


def test_time_beyond_the_year_9999_is_shown_in_utc() -> None:
    """If it is in the year 10000 in the chosen zone."""
    with times_in("Asia/Manila"):
        shown = iso(datetime(9999, 12, 31, 23, tzinfo=UTC))

    assert shown == "9999-12-31T23:00:00Z"


def test_a_refusal_carries_its_facts(run: Run) -> None:
    """In JSON, a refusal has its ids and states as fields, so that programs need not parse the message."""
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


def test_facts_of_a_refusal_have_json_types() -> None:
    """Times are ISO 8601 and tuples are lists. Private attributes and other types are left out."""
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


def test_stored_text_is_no_markup(run: Run) -> None:
    """Brackets in a job or title are shown unchanged."""
    hold_add(run, job="[/x]", title="[bold]hi[/bold] [a]")

    listed = run("hold", "list")
    statement = run("wallet", "statement", "worker-17")

    assert "[/x]" in listed.out
    assert "[bold]hi[/bold] [a]" in statement.out


def test_multi_line_reason_is_shown_unchanged(run: Run) -> None:
    """With its line breaks."""
    hold_add(run)
    reason = "It leaks.\nPlease redo."

    asked = run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", reason, "--json")
    listed = run("backjob", "list", "--json")

    assert asked.code == 0
    assert listed.json[0]["reason"] == reason


def test_unmigrated_database_names_the_migrate_command(
    run: Run, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command does not migrate an existing server by itself."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", server.url("postgres").render_as_string())

    refused = run("hold", "list")

    assert refused.code == 1
    assert "buffer-pipeline migrate" in refused.err


def test_help_of_every_command_has_an_example(run: Run) -> None:
    """Every help text shows one."""
    commands = """
        hold add, hold import, hold show, hold list, backjob request, backjob reject, backjob approve,
        backjob withdraw, backjob list, wallet show, wallet statement, wallet deposit, wallet withdraw,
        release, release-now, freeze, unfreeze, refund, stuck, reconcile, doctor, migrate, import-legacy, dev
    """

    for command in commands.split(","):
        explained = run(*command.split(), "--help")

        assert explained.code == 0
        assert "Example: " in explained.out, command
