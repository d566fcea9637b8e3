"""`payout …`: requests, destinations, schedules and batches."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from buffer_pipeline.payouts import set_payout_schedule
from buffer_pipeline_tests.support.commands import Run
from buffer_pipeline_tests.support.payouts import IBAN, MASKED

SET = (
    *("payout", "destination", "set", "worker-17", "--method", "iban", "--by", "admin-1", "--reason", "new"),
    *("--holder-name", "worker 17"),
)


@pytest.fixture
def rich(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command line whose worker-17 has 1000 pesos and a destination that waits for nothing."""
    monkeypatch.setenv("BUFFER_PAYOUT_DESTINATION_WAIT_HOURS", "0")
    run("wallet", "deposit", "worker-17", "--amount=1000", "--currency=PHP", "--reference=in-1")
    run(*SET, "--account", IBAN)
    return run


def request(run: Run, *more: str, key: str = "payday-4") -> object:
    """Request a payout of 800 pesos."""
    given = more or ("--amount", "800")
    return run("payout", "request", "worker-17", "--currency", "PHP", "--key", key, *given, "--json").json


def test_destination_is_masked_in_every_output(run: Run) -> None:
    """As text and as JSON; a wrong account is not shown either."""
    done = run(*SET, "--account", "DE89 3704 0044 0532 0130 00", "--json")
    text = run(*SET, "--account", IBAN)
    shown = run("payout", "destination", "show", "worker-17", "--json")
    wrong = run(*SET, "--account", "DE89370400440532013001")

    assert (done.json["account"], done.json["version"], shown.json["version"]) == (MASKED, 1, 2)
    assert "go to IBAN DE****3000 of worker 17, version 2, set by admin-1" in text.out
    assert shown.json["holder_name"] == "worker 17"
    for each in (done, text, shown, wrong):
        assert "0532013" not in each.out + each.err
    assert (wrong.code, "wrong check digits" in wrong.err) == (1, True)


def test_request_and_cancel(rich: Run) -> None:
    """The answers have the keys that programs read; a repetition is the same answer."""
    first = request(rich)
    again = request(rich)
    rest = request(rich, "--all", key="payday-5")
    cancelled = rich("payout", "cancel", "1", "--by", "admin-1", "--reason", "asked", "--json")

    assert first == again == {"payout_id": 1, "state": "REQUESTED", "amount": "800.00"}
    assert rest == {"payout_id": 2, "state": "REQUESTED", "amount": "200.00"}
    assert cancelled.json == {"payout_id": 1, "state": "CANCELLED", "amount": "800.00"}
    rows = rich("payout", "list", "--owner", "worker-17", "--json").json
    assert [(row["payout_id"], row["state"], row["amount"]) for row in rows] == [
        (2, "REQUESTED", "200.00"),
        (1, "CANCELLED", "800.00"),
    ]
    statement = rich("wallet", "statement", "worker-17", "--json").json
    assert [(row["type"], row["balance_after"]) for row in statement] == [
        ("DEPOSIT", "1000.00"),
        ("PAYOUT", "200.00"),
        ("PAYOUT", "0.00"),
        ("PAYOUT_CANCELLED", "800.00"),
    ]


def test_batch_goes_from_hand_to_hand(rich: Run) -> None:
    """Made, approved by somebody else, sent; each answer has the same keys."""
    request(rich)
    batch = ("payout", "batch")

    made = rich(*batch, "make", "--currency", "PHP", "--by", "finance-1", "--json")
    refused = rich(*batch, "approve", "1", "--by", "finance-1")
    approved = rich(*batch, "approve", "1", "--by", "finance-2", "--json")
    sent = rich(*batch, "send", "1", "--by", "finance-1", "--json")
    shown = rich(*batch, "show", "1", "--json")
    text = rich(*batch, "show", "1")
    late = rich(*batch, "cancel", "1", "--by", "finance-1")

    facts = {"batch_id": 1, "payouts": 1, "amount": "800.00"}
    assert made.json == {**facts, "state": "MADE"}
    assert approved.json == {**facts, "state": "APPROVED"}
    assert sent.json == {**facts, "state": "SENT"}
    assert shown.json == {**facts, "state": "SENT", "exports": [], "status_files": []}
    assert (refused.code, late.code) == (1, 1)
    assert "somebody else has to approve it" in refused.err
    assert "made by finance-1, approved by finance-2, sent by finance-1" in text.out
    assert "payout batch 1: cannot cancel, as it is SENT by 'finance-1'" in late.err
    (row,) = rich("payout", "list", "--batch", "1", "--state", "sent", "--json").json
    assert (row["batch_id"], row["account"]) == (1, MASKED)


def test_cancelled_batch_can_be_made_again(rich: Run) -> None:
    """Its payouts are requested again."""
    request(rich)
    rich("payout", "batch", "make", "--currency", "PHP", "--method", "iban", "--by", "finance-1")

    cancelled = rich("payout", "batch", "cancel", "1", "--by", "finance-1", "--json")
    again = rich("payout", "batch", "make", "--currency", "PHP", "--by", "finance-1", "--json")

    assert cancelled.json["state"] == "CANCELLED"
    assert (again.json["batch_id"], again.json["payouts"]) == (2, 1)


def test_settings_have_the_minimum_and_the_four_eyes(rich: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By currency, as JSON."""
    monkeypatch.setenv("BUFFER_PAYOUT_MINIMUMS", '{"PHP": "900.00"}')
    monkeypatch.setenv("BUFFER_PAYOUT_FOUR_EYES_ABOVE", '{"PHP": "1000.00"}')

    small = rich(
        "payout", "request", "worker-17", "--amount=800", "--currency=PHP", "--key=k")  # fmt: skip
    request(rich, "--all")
    rich("payout", "batch", "make", "--currency", "PHP", "--by", "finance-1")
    alone = rich("payout", "batch", "approve", "1", "--by", "finance-1", "--json")

    assert "800.00 PHP is below the minimum of a payout, 900.00" in small.err
    assert alone.json["state"] == "APPROVED"


@pytest.mark.parametrize(
    "value", ["x", "[]", '{"PHP": 5}', '{"php": "5"}', '{"PHP": "-5"}', '{"PHP": "5.12345"}']
)
def test_wrong_setting_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """One line with its name."""
    monkeypatch.setenv("BUFFER_PAYOUT_MINIMUMS", value)

    refused = run("payout", "list")

    assert refused.err.startswith("BUFFER_PAYOUT_MINIMUMS: ")


def test_schedule_is_set(run: Run) -> None:
    """By the words of the page."""
    done = run("payout", "schedule", "worker-17", "weekly", "--by", "admin-1", "--reason", "asked", "--json")

    assert (done.json["owner"], done.json["schedule"]) == ("worker-17", "WEEKLY")


def test_override_needs_a_reason(rich: Run) -> None:
    """An admin says who and why."""
    rich("freeze-owner", "worker-17", "--kind", "risk", "--by", "risk-2", "--reason", "a look")
    asked = ("payout", "request", "worker-17", "--amount", "5", "--currency", "PHP", "--key", "k")

    frozen = rich(*asked)
    bare = rich(*asked, "--override")
    done = rich(*asked, "--override", "--by", "admin-1", "--reason", "agreed", "--json")

    assert "frozen, so nothing is paid out" in frozen.err
    assert "an override needs a reason" in bare.err
    assert done.json["state"] == "REQUESTED"


def test_scheduled_payouts_are_requested(rich: Run, engine: Engine) -> None:
    """Once a day, by `schedule` or who is named; a day that was missed by its name, if it is not long ago."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with engine.begin() as connection:
        set_payout_schedule(
            connection, owner="worker-17", schedule="DAILY", by="admin-1", reason="asked", now=yesterday
        )

    first = rich("payout", "request-scheduled", "--json").json
    again = rich("payout", "request-scheduled")
    rich("wallet", "deposit", "worker-17", "--amount=5", "--currency=PHP", "--reference=in-2")
    missed = rich("payout", "request-scheduled", "--day", f"{yesterday:%Y-%m-%d}", "--by", "finance-1")
    old = rich("payout", "request-scheduled", "--day", "2020-01-06")
    wrong = rich("payout", "request-scheduled", "--day", "monday")
    future = rich("payout", "request-scheduled", "--day", "2999-01-01")

    assert first == {"payouts": 1, "amounts": {"PHP": "1000.00"}}
    assert again.out == "No payout is due that was not requested before.\n"
    assert missed.out == "1 payout requested: 5.00 PHP.\n"
    assert (old.code, "2020-01-06 is more than 31 days ago" in old.err) == (1, True)
    assert (wrong.code, "not a day such as 2026-03-02" in wrong.err) == (1, True)
    assert (future.code, "2999-01-01 has not begun" in future.err) == (1, True)
    rows = rich("payout", "list", "--json").json
    assert [row["requested_by"] for row in rows] == ["finance-1", "schedule"]
    assert rows[0]["reference"] == f"schedule:{yesterday:%Y-%m-%d}:worker-17:PHP"
