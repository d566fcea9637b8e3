"""`backjob …` and `refund`: requests, decisions, and their replays."""

import pytest
from sqlalchemy import Engine

from buffer_pipeline_tests.support.commands import Run, hold_add, rows_in_books


def test_a_backjob_from_request_to_partial_approval(run: Run) -> None:
    """A request freezes; a partial approval refunds a part and buffers the rest."""
    hold_add(run)

    requested = run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips", "--json")
    listed = run("backjob", "list", "--state", "OPEN", "--json")
    approved = run(
        "backjob", "approve", "1", "--by", "admin-1", "--reason", "ok", "--amount", "250.50", "--json"
    )
    payer = run("wallet", "show", "client-3", "--json")
    shown = run("hold", "show", "1", "--json")

    assert {**requested.json, "holds": []} == {
        "backjob_id": 1,
        "job": "job-8",
        "state": "OPEN",
        "replayed": False,
        "holds": [],
    }
    assert requested.json["holds"][0]["state"] == "FROZEN"
    assert [row["backjob_id"] for row in listed.json] == [1]
    assert approved.json["state"] == "APPROVED"
    assert approved.json["holds"][0]["refunded"] == "250.50"
    assert payer.json == [
        {
            "owner": "client-3",
            "currency": "PHP",
            "balance": "250.50",
            "pending_earnings": "0.00",
            "debt": "0.00",
        }
    ]
    assert shown.json["state"] == "BUFFERED"
    assert [row["type"] for row in shown.json["transactions"]] == ["PENDING_EARNING", "REFUND"]
    assert [row["kind"] for row in shown.json["freezes"]] == ["BACKJOB"]


def test_backjob_reject_and_withdraw(run: Run) -> None:
    """Both buffer the hold. A rejection adds the cooldown, a withdrawal nothing."""
    date = hold_add(run).json["release_date"]

    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")
    withdrawn = run("backjob", "withdraw", "1", "--by", "client-3", "--reason", "fine", "--json")
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")
    rejected = run("backjob", "reject", "2", "--by", "admin-1", "--reason", "done well", "--json")

    assert withdrawn.json["state"] == "WITHDRAWN"
    assert withdrawn.json["holds"][0]["release_date"] == date
    assert rejected.json["state"] == "REJECTED"
    assert rejected.json["holds"][0]["release_date"] > date


def test_approval_takes_from_the_named_holds(run: Run) -> None:
    """`--hold` may be repeated. The job's other holds return to the buffer."""
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
    """`--payer` must be the job's payer. An earning of another payer is refused too."""
    hold_add(run)
    arguments = ("backjob", "request", "--job", "job-8", "--by", "client-4", "--reason", "mine", "--json")

    refused = run(*arguments, "--payer", "client-4")
    earning = hold_add(run, reference="other", payer="client-4")
    accepted = run(*arguments, "--payer", "client-3")

    message = "job 'job-8': its payer is 'client-3', not 'client-4'"
    assert refused.json == {"error": {"type": "NotAllowed", "message": message, "job": "job-8"}}
    assert earning.json == {"error": {"type": "JobConflict", "message": message, "job": "job-8"}}
    assert accepted.json["state"] == "OPEN"


@pytest.mark.parametrize(
    ("command", "person", "output"),
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
def test_command_is_replayed_by_its_reference(
    run: Run, engine: Engine, command: str, person: str, output: tuple[str, str]
) -> None:
    """It prints the first result and writes nothing. Other content is refused."""
    for number in (8, 9, 10):
        hold_add(run, reference=f"done-{number}", job=f"job-{number}")
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")
    run("freeze", "3", "--kind", "risk", "--by", "risk-2", "--reason", "a look")
    arguments = (*command.split(), "--by", person, "--reference", "case-12", "--reason")

    first = run(*arguments, "so be it")
    before = rows_in_books(engine)
    again = run(*arguments, "so be it")
    in_json = run(*arguments, "so be it", "--json")
    conflict = run(*arguments, "something else", "--json")

    assert (first.code, first.out.splitlines()[0]) == (0, output[0])
    assert (again.code, again.out.splitlines()[0]) == (0, output[1])
    assert in_json.json["replayed"] is True
    assert (conflict.code, conflict.json["error"]["type"]) == (1, "ReferenceConflict")
    assert conflict.json["error"]["reference"] == "case-12"
    assert rows_in_books(engine) == before


def test_refund_says_that_a_kept_fee_is_left_in_other_shares(run: Run) -> None:
    """The earning's own hold is settled, and the amount left is the fee's."""
    why = ("--by", "admin-1", "--reason", "terms")
    terms = ("--fee-percent", "12", "--fee-owner", "shop", "--fee-on-refund", "keep")
    run("rule", "add", "marketplace", *terms, *why)
    hold_add(run, rule="marketplace")
    run("freeze", "1", "--kind", "RISK", *why)

    refunded = run("refund", "1", *why, "--reference", "r-1")

    assert refunded.out == "Hold 1: refunded 1100.44 PHP, 150.06 left in other shares; it is REFUNDED.\n"


def test_a_frozen_hold_is_refunded_in_parts(run: Run) -> None:
    """`refund` prints the refunded and the remaining amount. If a backjob covers the hold, it names that."""
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
        "hold_ids": [1],
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
