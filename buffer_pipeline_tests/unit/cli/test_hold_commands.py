"""`hold add`, `hold list` and `freeze`, as a platform and an operator use them."""

from datetime import datetime

import pytest
from sqlalchemy import Engine

from buffer_pipeline_tests.support.commands import LONG_AGO, Run, hold_add, rows_in_books


def test_hold_add_is_replayed(run: Run) -> None:
    """The same earning twice is one hold, and the second output says so."""
    first = hold_add(run, held_at=LONG_AGO)
    second = hold_add(run, held_at=LONG_AGO)

    assert first.code == second.code == 0
    assert first.json == {
        "hold_id": 1,
        "reference": "job-8-done",
        "state": "BUFFERED",
        "release_date": "2026-01-12T00:00:00Z",
        "replayed": False,
        "shares": [
            {
                "hold_id": 1,
                "kind": "PAYEE",
                "owner": "worker-17",
                "amount": "1250.50",
                "release_date": "2026-01-12T00:00:00Z",
            }
        ],
    }
    assert second.json == {**first.json, "replayed": True}


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
    """Each invalid value is named, and no table gains a row."""
    before = rows_in_books(engine)

    refused = hold_add(run, **changes)

    assert refused.code == 1
    assert named in refused.err
    assert len(refused.err.splitlines()) == 1
    assert rows_in_books(engine) == before


def test_other_content_under_a_reference_is_refused(run: Run) -> None:
    """The refusal names the difference."""
    hold_add(run)

    refused = hold_add(run, amount="99.00")

    assert refused.code == 1
    assert "job-8-done" in refused.err
    assert "1250.50" in refused.err


def test_freeze_unfreeze_and_stuck(run: Run) -> None:
    """A frozen hold is listed once it is older than the given age, until it is unfrozen."""
    hold_add(run)

    frozen = run("freeze", "1", "--kind", "risk", "--by", "risk-2", "--reason", "card stolen", "--json")
    stuck = run("stuck", "--older-than", "0m", "--json")
    not_yet = run("stuck", "--json")
    unfrozen = run("unfreeze", "1", "--by", "risk-2", "--reason", "cleared", "--json")
    after = run("stuck", "--older-than", "0m")

    assert frozen.json == {
        "freeze_id": 1,
        "hold_id": 1,
        "state": "FROZEN",
        "hold_ids": [1],
        "replayed": False,
    }
    assert [row["hold_id"] for row in stuck.json] == [1]
    assert not_yet.json == []
    assert unfrozen.json == {
        "freeze_id": 1,
        "hold_id": 1,
        "state": "BUFFERED",
        "hold_ids": [1],
        "replayed": False,
    }
    assert after.out == "Nothing is stuck.\n"


def test_freeze_and_unfreeze_an_owner(run: Run) -> None:
    """Their holds are one line of `stuck`. `hold show` and `frozen-owners` name the freeze."""
    hold_add(run)
    hold_add(run, reference="another", amount="49.50")
    by_options = ("worker-17", "--by", "risk-2", "--reason", "account stolen", "--reference", "case-1")

    frozen = run("freeze-owner", *by_options, "--kind", "risk", "--json")
    again = run("freeze-owner", *by_options, "--kind", "RISK")
    late = hold_add(run, reference="late")
    run("freeze", "1", "--kind", "admin", "--by", "admin-1", "--reason", "hm")
    stuck = run("stuck", "--older-than", "0m", "--json")
    table = run("stuck", "--older-than", "0m")
    shown = run("hold", "show", "2", "--json").json
    listed, listed_json = run("frozen-owners"), run("frozen-owners", "--json").json
    refused = run("unfreeze", "1", "--by", "risk-2", "--reason", "cleared", "--json")
    unfrozen = run("unfreeze-owner", *by_options, "--json")
    unfrozen_again = run("unfreeze-owner", *by_options)
    after = run("frozen-owners")

    done = {"owner_freeze_id": 1, "owner": "worker-17", "replayed": False}
    assert frozen.json == {**done, "frozen": True, "holds": 2}
    assert again.out == "Owner worker-17 was frozen before, with 2 holds.\n"
    assert late.json["state"] == "FROZEN"
    of_owner, of_hold = stuck.json
    assert (of_owner["hold_id"], of_owner["payee"], of_owner["owner_freeze_id"]) == (None, "worker-17", 1)
    assert (of_owner["holds"], of_owner["left"], of_owner["currency"]) == (2, "1300.00", "PHP")
    assert (of_owner["kinds"], of_owner["opened_by"]) == (["OWNER", "RISK"], "risk-2")
    assert (of_hold["hold_id"], of_hold["kinds"], of_hold["holds"]) == (1, ["ADMIN", "RISK"], 1)
    assert "OWNER, RISK" in table.out
    assert [freeze["owner_freeze_id"] for freeze in shown["freezes"]] == [1]
    assert [(row["owner"], row["holds"], row["reason"]) for row in listed_json] == [
        ("worker-17", 3, "account stolen")
    ]
    assert "account stolen" in listed.out
    moment = datetime.fromisoformat(listed_json[0]["opened_at"])
    assert f"{moment:%Y-%m-%dT%H:%M:%SZ}" in listed.out
    assert refused.code == 1
    assert unfrozen.json == {**done, "frozen": False, "holds": 2}
    assert unfrozen_again.out == "Owner worker-17 was unfrozen already; 2 holds returned to the buffer.\n"
    assert after.out == "No owner is frozen.\n"


def test_an_earning_during_a_backjob_is_frozen(run: Run) -> None:
    """`hold add` shows it."""
    hold_add(run)
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")

    late = hold_add(run, reference="late")

    assert late.json["state"] == "FROZEN"


def test_hold_shows_original_refunded_and_remaining_amounts(run: Run) -> None:
    """After a partial refund, every list shows all three. A settled hold has nothing left."""
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
    assert "held: 1000.00\nrefunded: 250.10\nreleased: 0.00\nleft: 749.90\n" in shown.out
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


def test_states_types_and_kinds_ignore_case(run: Run) -> None:
    """A wrong one is refused with the list."""
    hold_add(run)
    frozen = run("freeze", "1", "--kind", "RISK", "--by", "risk-2", "--reason", "card stolen")
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")

    holds = run("hold", "list", "--state", "frozen", "--json")
    backjobs = run("backjob", "list", "--state", "Open", "--json")
    notifications = run("notifications", "list", "--state", "waiting", "--type", "backjob_received", "--json")
    wrong = run("hold", "list", "--state", "frozn")

    assert frozen.code == 0
    assert [row["hold_id"] for row in holds.json] == [1]
    assert [row["backjob_id"] for row in backjobs.json] == [1]
    assert {row["type"] for row in notifications.json} == {"BACKJOB_RECEIVED"}
    assert wrong.code == 2
    assert wrong.err.startswith("Invalid value for '--state': 'frozn' is not one of ")


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
