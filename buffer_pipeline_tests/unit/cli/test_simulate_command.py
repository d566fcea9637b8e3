"""`simulate` and `shadow`."""

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Engine, text

from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline_tests.support.commands import Run
from buffer_pipeline_tests.support.legacy import EXPORT


def test_simulate_prints_the_totals_of_the_books(run: Run, engine: Engine) -> None:
    """Counts and amounts, including early releases. Non-empty books are refused."""
    played = run("simulate", "--days", "9", "--seed", "9", "--start", "2026-03-01T00:00:00Z", "--json")
    again = run("simulate", "--days", "9")
    refused = run("simulate", "--days", "9", "--json")
    waiting = run("hold", "list", "--state", "BUFFERED", "--json")
    frozen = run("hold", "list", "--state", "FROZEN", "--json")

    assert (played.code, again.code, refused.code) == (0, 1, 1)
    assert played.json["start"] == "2026-03-01T00:00:00Z"
    assert played.json["end"] == "2026-03-10T00:00:00Z"
    assert (played.json["seed"], played.json["ticks"], played.json["checks"]) == (9, 216, 9)
    assert played.json["violations"] == []
    assert played.json["refunded_in_part"] > 0
    held, released, parts, refunded = (
        Decimal(played.json[name]["amounts"]["PHP"])
        for name in ("held", "released", "parts_released_early", "refunded")
    )
    assert held - released - parts - refunded == sum(
        Decimal(row["left"]) for row in (*waiting.json, *frozen.json) if row["currency"] == "PHP"
    )
    with engine.connect() as connection:
        early = connection.execute(
            text(
                "SELECT count(*) FROM buffer.transaction JOIN buffer.batch USING (batch_id)"
                " WHERE kind = 'EARLY' AND type = 'EARNING'"
            )
        ).scalar_one()
    assert 0 < early == played.json["released_early"]["transactions"]
    assert set(played.json["held"]["amounts"]) == {"PHP", "JPY"}
    assert again.err.startswith("books: not empty (audit_line, backjob, batch, currency, hold, ")
    assert refused.json["error"]["type"] == "Refused"


def test_simulate_ends_with_the_hour_before_now(run: Run, engine: Engine) -> None:
    """Without `--start`, the last day is the past one, so that reports have data."""
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
    assert lines[-1] == "1 check of the books: 28 invariants held each day."


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("2026-03-01T00:30:00Z", "start 2026-03-01T00:30:00+00:00: must be a full hour"),
        ("2026-03-01T00:00:00", "has no time zone"),
        ("2999-01-01T00:00:00Z", "2 days from it end after the database's clock"),
        ("soon", "not an ISO 8601 time"),
    ],
)
def test_simulate_refuses_an_invalid_start(run: Run, start: str, message: str) -> None:
    """In one line that names the problem."""
    refused = run("simulate", "--days", "2", "--start", start)

    assert refused.code == 1
    assert message in refused.err
    assert refused.err.count("\n") == 1


def test_simulate_stops_at_a_broken_invariant(run: Run, superuser_url: str) -> None:
    """Exit code 1, with the invariant and its rows, once a wallet has a cent too much."""
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


def test_shadow_exits_1_on_a_difference(run: Run) -> None:
    """In an export without releases, each due payment is a difference."""
    export = str(EXPORT)

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
