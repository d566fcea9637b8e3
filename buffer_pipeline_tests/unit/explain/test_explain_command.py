"""`explain`, the texts for payees, and the messages that have them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from buffer_pipeline.errors import InvalidInput, ReferenceConflict
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.notifications.messages import Messages, samples
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, place_hold
from buffer_pipeline_tests.support.commands import Run, hold_add


def test_an_operator_reads_who_and_why(run: Run) -> None:
    """The hold, each reason, and what would release it."""
    hold_add(run)
    run(
        *("freeze", "1", "--kind", "risk", "--by", "risk-2", "--reason", "stolen card"),
        *("--payee-text", "Please send your papers."),
    )

    shown = run("explain", "1")
    by_reference = run("explain", "--reference", "job-8-done", "--json")

    assert shown.code == 0
    assert shown.out.startswith("Hold 1 of 1250.50 PHP for worker-17, job job-8: FROZEN.\n")
    assert "by risk-2: stolen card" in shown.out
    assert "An admin closes freeze 1 now: released at" in shown.out
    document = by_reference.json
    assert [reason["code"] for reason in document["reasons"]] == ["RISK_FREEZE", "IN_WINDOW"]
    assert (document["state"], document["left"], document["released_at"]) == ("FROZEN", "1250.50", None)
    way = document["reasons"][0]["ways"][0]
    assert (way["verb"], way["who"], way["target_id"]) == ("unfreeze_hold", "ADMIN", 1)


def test_a_payee_reads_the_text(run: Run) -> None:
    """Neither the reason, nor who, nor which kind of freeze."""
    hold_add(run)
    run(
        *("freeze-owner", "worker-17", "--kind", "risk", "--by", "risk-2", "--reason", "stolen card"),
        *("--payee-text", "Please send your papers."),
    )

    shown = run("explain", "1", "--for", "payee")
    as_json = run("explain", "1", "--for", "payee", "--json")

    for out in (shown.out, as_json.out):
        assert "Please send your papers." in out
        assert "stolen card" not in out
        assert "risk" not in out.lower()
    assert set(as_json.json["reasons"][0]) == {"code", "since", "until", "text"}


def test_a_moved_date(run: Run) -> None:
    """An operator reads who moved it and why; a payee only from when to when."""
    hold_add(run)
    to = f"{datetime.now(UTC) + timedelta(days=9):%Y-%m-%dT%H:00Z}"
    moved = run(
        *("hold", "reschedule", "1", "--to", to, "--by", "risk-2", "--admin"),
        *("--reason", "a look at the card"),
    )

    shown = run("explain", "1", "--json")
    told = run("explain", "1", "--for", "payee", "--json")

    assert moved.code == 0, moved.err
    reason = shown.json["reasons"][1]
    assert (reason["code"], reason["by"], reason["reason"]) == ("DATE_MOVED", "risk-2", "a look at the card")
    assert reason["to_date"] == shown.json["reasons"][0]["until"]
    assert reason["from_date"] < reason["to_date"]
    assert told.json["reasons"][1]["code"] == "DATE_MOVED"
    assert told.json["reasons"][1]["text"].endswith(f" to {reason['to_date']}.")
    assert "card" not in told.out
    assert "risk-2" not in told.out


def test_wrong_arguments(run: Run) -> None:
    """One of the two names; a hold that exists."""
    assert run("explain").code == 2
    assert run("explain", "1", "--reference", "a").code == 2
    assert run("explain", "7").err == "hold 7: does not exist\n"


BY: dict[str, Any] = {"by": ADMIN, "reason": "a look", "now": NOON}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "payee_text: must not be empty"),
        ("x" * 501, "payee_text: 501 characters long; at most 500"),
        ("two\nlines", "contains a control character"),
        (" spaced", "starts or ends with a space"),
        ("nul\x00", "contains a control character"),
    ],
)
def test_a_text_for_payees_is_one_line(connection: Connection, text: str, message: str) -> None:
    """Of at most 500 characters; it is refused before anything is written."""
    hold_id = place_hold(connection)

    for freeze in (
        lambda: freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, payee_text=text, **BY),
        lambda: freeze_owner(connection, owner=PAYEE, kind=FreezeKind.RISK, payee_text=text, **BY),
    ):
        with pytest.raises(InvalidInput) as refused:
            freeze()
        assert message in str(refused.value)


def test_a_repeated_freeze_has_the_same_text(connection: Connection) -> None:
    """Another text under the same reference is refused."""
    hold_id = place_hold(connection)
    first: dict[str, Any] = {"kind": FreezeKind.RISK, **BY}
    freeze_hold(connection, hold_id=hold_id, reference="case-1", payee_text="Call us.", **first)
    freeze_owner(connection, owner=PAYEE, reference="case-2", payee_text="Call us.", **first)

    again = freeze_hold(connection, hold_id=hold_id, reference="case-1", payee_text="Call us.", **first)

    assert again.replayed
    for other in (None, "Write to us."):
        with pytest.raises(ReferenceConflict):
            freeze_hold(connection, hold_id=hold_id, reference="case-1", payee_text=other, **first)
        with pytest.raises(ReferenceConflict):
            freeze_owner(connection, owner=PAYEE, reference="case-2", payee_text=other, **first)


def test_the_message_has_the_same_words() -> None:
    """PAYMENT_FROZEN says why in the words of the explanation."""

    sample = next(iter(samples("PAYMENT_FROZEN")))
    asked = replace(sample, backjob_id=None, payee_text="Please send your papers.")

    with_text = Messages().render(asked, None)
    without = Messages().render(replace(asked, payee_text=None), None)
    unended = Messages().render(replace(asked, payee_text="Call us"), None)
    of_backjob = Messages().render(replace(sample, backjob_id=12, payee_text=None), None)

    assert "is frozen while it is checked: Please send your papers. It stays" in with_text.text
    assert "is frozen while it is checked: Call us. It stays" in unended.text
    assert with_text.payload["data"]["payee_text"] == "Please send your papers."
    assert "is frozen while it is checked. It stays" in without.text
    assert "is frozen while a backjob is open. It stays" in of_backjob.text
