"""Shares on the command line: given as text or in a file, listed by kind, and shown with their earning."""

from pathlib import Path
from typing import Final

import pytest

from buffer_pipeline_tests.support.commands import LONG_AGO, Run, hold_add

DIVIDED: Final = (
    "PAYEE:worker-17:rest",
    "FEE:platform:12%",
    "TAX:tax:office:0.10:0d",
    "RESERVE:worker-17:10%:90d",
)


def test_hold_add_divides_an_earning(run: Run) -> None:
    """The output and `hold show` list the hold of each share."""
    shares = ("PAYEE:worker-17:80%", "FEE:platform:250.00", "TAX:tax:office:0.10")

    added = hold_add(run, share=[*shares])
    again = hold_add(
        run,
        share=[
            *shares,
        ],
    )
    shown = run("hold", "show", "1")
    listed = run("hold", "list", "--json").json

    assert [(row["hold_id"], row["kind"], row["owner"], row["amount"]) for row in added.json["shares"]] == [
        (1, "PAYEE", "worker-17", "1000.40"),
        (2, "FEE", "platform", "250.00"),
        (3, "TAX", "tax:office", "0.10"),
    ]
    assert again.json == {**added.json, "replayed": True}
    assert "shares of the earning" in shown.out
    assert [row["kind"] for row in listed] == ["PAYEE", "FEE", "TAX"]


@pytest.mark.parametrize(
    ("share", "words"),
    [
        ("FEE:platform", "needs KIND:OWNER:AMOUNT"),
        ("TIP:platform:1", "kind 'TIP' is not one of PAYEE, FEE, TAX, RESERVE"),
        ("FEE:platform:1250.51", "add up to"),
        ("FEE:platform:12.34567%", "has 4 places"),
        ("FEE:client-3:1", "is the payer"),
    ],
)
def test_malformed_share_is_refused(run: Run, share: str, words: str) -> None:
    """By name, and nothing is held."""
    refused = hold_add(run, share=["PAYEE:worker-17:50%", share])

    assert refused.code == 1
    assert words in refused.err
    assert run("hold", "list", "--json").json == []


def test_a_share_may_take_the_rest_and_have_days_of_its_own(run: Run) -> None:
    """`rest` is what the others leave. Days count from the beginning of the hold."""
    added = hold_add(run, held_at=LONG_AGO, share=[*DIVIDED])

    assert [
        (row["kind"], row["owner"], row["amount"], row["release_date"]) for row in added.json["shares"]
    ] == [
        ("PAYEE", "worker-17", "975.29", "2026-01-12T00:00:00Z"),
        ("FEE", "platform", "150.06", "2026-01-12T00:00:00Z"),
        ("TAX", "tax:office", "0.10", "2026-01-05T00:00:00Z"),
        ("RESERVE", "worker-17", "125.05", "2026-04-05T00:00:00Z"),
    ]


def test_holds_are_listed_by_kind(run: Run) -> None:
    """Also with a state. An earning without shares is of kind PAYEE."""
    hold_add(run, share=[*DIVIDED])
    hold_add(run, reference="plain")

    fees = run("hold", "list", "--kind", "fee", "--json").json
    waiting = run("hold", "list", "--kind", "RESERVE", "--state", "BUFFERED", "--json").json
    settled = run("hold", "list", "--kind", "RESERVE", "--state", "RELEASED").out
    payees = run("hold", "list", "--kind", "PAYEE", "--json").json

    assert [(row["hold_id"], row["earning_id"], row["payee"]) for row in fees] == [(2, 1, "platform")]
    assert [row["hold_id"] for row in waiting] == [4]
    assert settled == "No holds found.\n"
    assert [(row["hold_id"], row["earning_id"]) for row in payees] == [(1, None), (5, None)]


def test_hold_show_names_the_earning_of_a_share(run: Run) -> None:
    """By the first hold's id, with all shares. A first hold has no such line."""
    hold_add(run, share=[*DIVIDED])
    hold_add(run, reference="plain")

    fee, first, plain = (run("hold", "show", number).out for number in ("2", "1", "5"))

    assert "\nkind: FEE\nearning_id: 1\n" in fee
    assert "earning_id" not in first
    shares = [text.partition("shares of the earning")[2].partition("freezes")[0] for text in (fee, first)]
    assert shares[0] == shares[1]
    assert shares[0].count("worker-17") == 2
    assert "earning_id" not in plain
    assert run("hold", "show", "1", "--json").json["earning_id"] is None


def test_statement_shows_the_kind_of_share(run: Run) -> None:
    """A deposit has none."""
    hold_add(run, share=[*DIVIDED])
    run("wallet", "deposit", "worker-17", "--amount", "5", "--currency", "PHP", "--reference", "top-up-1")

    lines = run("wallet", "statement", "worker-17", "--json").json

    assert [(line["type"], line["kind"], line["amount"]) for line in lines] == [
        ("PENDING_EARNING", "PAYEE", "975.29"),
        ("PENDING_EARNING", "RESERVE", "125.05"),
        ("DEPOSIT", None, "5.00"),
    ]


CSV_HEADER: Final = "reference,job,payee,payer,amount,currency,shares\n"


def test_import_divides_earnings(run: Run, tmp_path: Path) -> None:
    """A line without shares is one PAYEE hold. A wrong share refuses only its line. A second
    import replays.
    """
    file = tmp_path / "earnings.csv"
    file.write_text(
        CSV_HEADER
        + "a,job-1,worker-1,client-1,100,PHP,PAYEE:worker-1:rest;FEE:platform:12%; TAX:tax-office:2%:0d\n"
        + "b,job-1,worker-2,client-1,100,PHP,\n"
        + "c,job-1,worker-2,client-1,100,PHP,PAYEE:worker-2:rest;\n"
        + "d,job-1,worker-2,client-1,100,PHP,PAYEE:worker-2:80;FEE:platform:30\n"
        + "e,job-1,worker-2,client-1,100,PHP,PAYEE worker-2\n"
        + "f,job-2,worker-2,client-2,100,PHP,PAYEE:worker-2:99;RESERVE:worker-2:1:30d\n",
    )

    first = run("hold", "import", str(file), "--json")
    again = run("hold", "import", str(file), "--json")
    listed = run("hold", "list", "--json").json

    assert (first.json["read"], first.json["added"]) == (6, 3)
    assert [row["line"] for row in first.json["refused"]] == [4, 5, 6]
    reasons = [row["reason"] for row in first.json["refused"]]
    assert "share '': needs KIND:OWNER:AMOUNT" in reasons[0]
    assert "shares: add up to 110.00 PHP, the earning is 100.00" in reasons[1]
    assert "share 'PAYEE worker-2': needs KIND:OWNER:AMOUNT" in reasons[2]
    assert (again.json["added"], again.json["replayed"]) == (0, 3)
    assert sorted((row["reference"], row["kind"], row["payee"], row["amount"]) for row in listed) == [
        ("a", "FEE", "platform", "12.00"),
        ("a", "PAYEE", "worker-1", "86.00"),
        ("a", "TAX", "tax-office", "2.00"),
        ("b", "PAYEE", "worker-2", "100.00"),
        ("f", "PAYEE", "worker-2", "99.00"),
        ("f", "RESERVE", "worker-2", "1.00"),
    ]


def test_lines_of_two_transactions_may_pay_the_same_owners(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two concurrent transactions use the same wallets, and no line is lost."""
    monkeypatch.setattr("buffer_pipeline.cli.hold_import.EARNINGS_PER_TRANSACTION", 10)
    file = tmp_path / "earnings.csv"
    file.write_text(
        CSV_HEADER
        + "".join(
            f"r{number},job-{number},worker-{number % 7},client-1,100,PHP,"
            f"PAYEE:worker-{number % 7}:rest;FEE:platform-{number % 3}:12%;TAX:tax-{-number % 3}:2%\n"
            for number in range(400)
        )
    )

    imported = run("hold", "import", str(file), "--json")

    assert (imported.code, imported.json["added"]) == (0, 400)
    assert run("reconcile").code == 0
    assert len(run("hold", "list", "--kind", "FEE", "--json").json) == 400


def test_an_earning_is_frozen_and_refunded_as_one(run: Run) -> None:
    """`freeze`, `unfreeze` and `refund` print the holds that they cover."""
    hold_add(run, share=["PAYEE:worker-17:80%", "FEE:platform:20%"])
    by_options = ("--by", "risk-2", "--reason", "a look")

    frozen = run("freeze", "1", "--kind", "risk", *by_options, "--reference", "case-1")
    again = run("freeze", "1", "--kind", "risk", *by_options, "--reference", "case-1", "--json")
    of_share = run("unfreeze", "2", *by_options)
    part = run("refund", "1", *by_options, "--amount", "100.00", "--reference", "back-1", "--json")
    closed = run("unfreeze", "1", *by_options)
    run("freeze", "1", "--kind", "risk", *by_options)
    refunded = run("refund", "1", *by_options, "--reference", "back-2")

    assert frozen.out == "Freeze 1 is open; hold 1 is FROZEN. It covers holds 1, 2.\n"
    assert again.json == {
        "freeze_id": 1,
        "hold_id": 1,
        "state": "FROZEN",
        "hold_ids": [1, 2],
        "replayed": True,
    }
    assert of_share.code == 1
    assert "freeze 2: belongs to freeze 1 of the earning of hold 1; close that" in of_share.err
    assert (part.json["amount"], part.json["left"], part.json["hold_ids"]) == ("100.00", "1150.50", [1, 2])
    assert closed.out == "Freeze 1 is closed; hold 1 is BUFFERED. It covers holds 1, 2.\n"
    assert refunded.out == ("Hold 1: refunded 1150.50 PHP of holds 1, 2, 0.00 left; it is REFUNDED.\n")


def test_a_moved_earning_names_the_shares_that_moved(run: Run) -> None:
    """`hold reschedule` prints them; the reserve and the tax have other dates, and are not among them."""
    hold_add(run, release_date="2099-01-01T00:00:00Z", share=[*DIVIDED])
    by_options = ("--to", "2099-02-01T00:00:00Z", "--by", "admin-1", "--reason", "abroad", "--admin")

    moved = run("hold", "reschedule", "1", *by_options, "--reference", "move-1")
    again = run("hold", "reschedule", "1", *by_options, "--reference", "move-1", "--json")
    listed = run("hold", "list", "--json").json

    assert moved.out == (
        "Hold 1 is moved from 2099-01-01T00:00:00Z to 2099-02-01T00:00:00Z. Shares that moved with it: 2.\n"
    )
    assert (again.json["hold_ids"], again.json["replayed"]) == ([1, 2], True)
    assert [row["hold_id"] for row in listed if row["release_date"] == "2099-02-01T00:00:00Z"] == [1, 2]
