"""`release`: its report, dry run and limits, and who may release early."""

import pytest
from sqlalchemy import Engine

from buffer_pipeline_tests.support.commands import LONG_AGO, Run, hold_add, rows_in_books


def test_buffer_days_zero_means_zero(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """BUFFER_DAYS=0 releases an earning at once."""
    monkeypatch.setenv("BUFFER_DAYS", "0")
    added = hold_add(run, held_at=LONG_AGO)

    released = run("release", "--json")

    assert added.json["release_date"] == LONG_AGO
    assert released.json["holds_released"] == 1


def test_release_prints_json_or_text(run: Run) -> None:
    """JSON has six keys. The text shows the beginning and the result."""
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
        "recovered": {},
        "batches": 0,
        "interrupted": False,
        "anchor": "",
    }
    assert "Starting payment release job" in programs.err


def test_release_dry_run_limit_and_as_of(run: Run, engine: Engine) -> None:
    """A dry run prints the result and changes nothing. A limit and a time narrow it."""
    for day in (5, 6, 7):
        hold_add(run, reference=f"r-{day}", held_at=f"2026-01-0{day}T00:00:00Z")
    before = rows_in_books(engine)

    dry = run("release", "--dry-run", "--json")
    unchanged = rows_in_books(engine)
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
    """`--verbose` prints one line per hold, without a progress bar outside a terminal."""
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


def test_release_now_by_the_payer(run: Run) -> None:
    """The payer may release before the date. The output is that of a release."""
    hold_add(run)

    released = run("release-now", "--job", "job-8", "--by", "client-3", "--reason", "well done", "--json")

    assert released.code == 0
    assert released.json["holds_released"] == 1
    assert released.json["amounts"] == {"PHP": "1250.50"}
