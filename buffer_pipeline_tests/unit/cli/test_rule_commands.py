"""`rule …`, and the rule of a hold."""

import shlex
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine

from buffer_pipeline_tests.support.builders import PAYEE, place_hold, row_counts
from buffer_pipeline_tests.support.commands import Run, hold_add
from buffer_pipeline_tests.support.pages import DOCS, blocks_of

WHO: Final = ("--by", "admin-1", "--reason", "terms of 2026")
FEE: Final = ("--fee-percent", "12", "--fee-owner", "shop")
AMOUNT: Final = ("--amount", "1250.55", "--currency", "PHP", "--held-at", "2026-03-02T12:00Z")


def test_a_rule_is_added_shown_and_listed(run: Run) -> None:
    """JSON has each term; percents and amounts are text, as exact as they were given."""
    first = run("rule", "add", "seller", *FEE, *WHO, "--json")
    second = run(
        *("rule", "add", "seller", "--currency", "PHP", "--days", "14", "--min-days", "3"),
        *("--cooldown-hours", "48", "--max-backjobs", "5", "--fee-percent", "12.50", "--fee-fixed", "5"),
        *("--fee-owner", "shop", "--fee-on-refund", "KEEP", "--tax-percent", "2", "--tax-of", "net"),
        *("--tax-owner", "treasury", "--reserve-percent", "10", "--reserve-days", "90", *WHO, "--json"),
    )
    shown = run("rule", "show", "seller", "--json").json
    older = run("rule", "show", "seller", "--version", "1", "--json").json
    listed = run("rule", "list", "--json").json

    assert (first.json, second.json) == ({"rule": "seller", "version": 1}, {"rule": "seller", "version": 2})
    added_at = shown.pop("added_at")
    assert added_at.endswith("Z")
    assert shown == {
        "rule": "seller",
        "version": 2,
        "currency": "PHP",
        "days": 14,
        "min_days": 3,
        "cooldown_hours": 48,
        "max_backjobs": 5,
        "fee_percent": "12.5",
        "fee_fixed": "5.00",
        "fee_owner": "shop",
        "fee_on_refund": "keep",
        "tax_percent": "2",
        "tax_of": "net",
        "tax_owner": "treasury",
        "reserve_percent": "10",
        "reserve_days": 90,
        "recovery_percent": None,
        "added_by": "admin-1",
        "reason": "terms of 2026",
        "retired_by": None,
        "retirement_reason": None,
        "retired_at": None,
        "owners": 0,
    }
    assert (older["version"], older["fee_percent"], older["fee_fixed"]) == (1, "12", None)
    assert older["fee_on_refund"] == "return"
    assert [list(row) for row in listed] == [list(older)] * 3
    assert [(row["rule"], row["version"], row["currency"]) for row in listed] == [
        ("standard", None, None),
        ("seller", 2, "PHP"),
        ("seller", 1, None),
    ]
    line = run("rule", "list").out.splitlines()[2]
    assert "12.5 % + 5.00 PHP to shop, keep" in line
    assert "2 % of net to treasury" in line
    assert "10 % for 90 days" in line
    assert "fee_percent: 12.5\n" in run("rule", "show", "seller").out


def test_standard_has_the_settings_numbers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a rule with that name is added, from then on for everybody; after it is retired again."""
    monkeypatch.setenv("BUFFER_DAYS", "10")
    monkeypatch.setenv("BUFFER_COOLDOWN_HOURS", "36")
    monkeypatch.setenv("BUFFER_MAX_BACKJOBS_PER_JOB", "2")

    before = run("rule", "show", "standard", "--json").json
    tried = run("rule", "try", "standard", *AMOUNT, "--json").json
    refused = run("rule", "add", "fast", "--min-days", "11", *WHO)
    run("rule", "add", "standard", "--days", "3", *FEE, *WHO)
    after = run("rule", "try", "standard", *AMOUNT, "--json").json
    run("rule", "retire", "standard")
    again = run("rule", "show", "standard", "--json").json

    assert (before["version"], before["days"], before["cooldown_hours"], before["max_backjobs"]) == (
        None, 10, 36, 2
    )  # fmt: skip
    assert tried == {
        "rule": "standard",
        "version": None,
        "shares": [
            {"kind": "PAYEE", "owner": "payee", "amount": "1250.55", "release_date": "2026-03-12T12:00:00Z"}
        ],
    }
    assert (refused.code, refused.err) == (1, "min_days 11: above days, 10\n")
    assert (after["version"], after["shares"][0]["release_date"]) == (1, "2026-03-05T12:00:00Z")
    assert again == before


def test_a_rule_is_tried_without_writing_anything(run: Run, engine: Engine) -> None:
    """Each share with its owner, its amount and its release date; a new currency is not brought in."""
    run("rule", "add", "seller", *FEE, "--reserve-percent", "10", "--reserve-days", "90", *WHO)
    with engine.connect() as connection:
        before = row_counts(connection)

    tried = run("rule", "try", "seller", *AMOUNT, "--json").json
    in_yen = run("rule", "try", "seller", "--amount", "1251", "--currency", "JPY", "--payee", PAYEE, "--json")
    lines = run("rule", "try", "seller", *AMOUNT).out.splitlines()

    week, quarter = "2026-03-09T12:00:00Z", "2026-05-31T12:00:00Z"
    assert tried == {
        "rule": "seller",
        "version": 1,
        "shares": [
            {"kind": "PAYEE", "owner": "payee", "amount": "990.43", "release_date": week},
            {"kind": "FEE", "owner": "shop", "amount": "150.07", "release_date": week},
            {"kind": "RESERVE", "owner": "payee", "amount": "110.05", "release_date": quarter},
        ],
    }
    assert [(share["owner"], share["amount"]) for share in in_yen.json["shares"]] == [
        (PAYEE, "991"), ("shop", "150"), (PAYEE, "110")
    ]  # fmt: skip
    assert [line.split() for line in lines[1:]] == [
        [share["kind"], share["owner"], share["amount"], share["release_date"]] for share in tried["shares"]
    ]
    with engine.connect() as connection:
        assert row_counts(connection) == before


def test_a_rule_is_assigned_unassigned_and_retired(run: Run) -> None:
    """--by and --reason are optional there; a rule that an owner has is not retired."""
    run("rule", "add", "seller", *FEE, *WHO)

    assigned = run("rule", "assign", PAYEE, "seller", "--json").json
    named = run("rule", "assign", "worker-18", "seller", *WHO, "--json").json
    owned = run("rule", "list", "--owner", PAYEE, "--json").json
    refused = run("rule", "retire", "seller", "--json")
    ended = run("rule", "unassign", PAYEE, *WHO, "--json").json
    run("rule", "unassign", "worker-18")
    default = run("rule", "list", "--owner", PAYEE, "--json").json
    retired = run("rule", "retire", "seller", *WHO, "--json").json
    again = run("rule", "retire", "seller")

    assert assigned | {"assigned_at": ""} == {
        "owner": PAYEE, "rule": "seller", "assigned_by": None, "reason": None, "assigned_at": ""
    }  # fmt: skip
    assert (named["assigned_by"], named["reason"]) == ("admin-1", "terms of 2026")
    assert [(row["rule"], row["owners"]) for row in owned] == [("seller", 2)]
    assert refused.code == 1
    assert refused.json["error"] | {"message": ""} == {
        "type": "RuleRefused", "message": "", "rule": "seller", "state": "ASSIGNED"
    }  # fmt: skip
    assert refused.json["error"]["message"].startswith("rule 'seller': assigned to 2 owners; ")
    assert (ended["owner"], ended["rule"], ended["assigned_by"]) == (PAYEE, None, "admin-1")
    assert [(row["rule"], row["version"]) for row in default] == [("standard", None)]
    assert (retired["rule"], retired["version"], retired["retired_at"][-1]) == ("seller", 1, "Z")
    assert run("rule", "show", "seller", "--json").json["retired_by"] == "admin-1"
    assert (again.code, again.err.startswith("rule 'seller': retired since ")) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("add", "seller", *FEE[:2], *WHO), 1, "fee_owner: missing; fee_percent or fee_fixed needs it"),
        (("add", "seller", "--days", "4000", *WHO), 1, "days 4000: must be from 0 to 3650"),
        (("add", "seller", *FEE, "--fee-on-refund", "lose", *WHO), 2, "--fee-on-refund"),
        (("add", "seller", "--tax-of", "all", *WHO), 2, "--tax-of"),
        (("add", "seller", "--reason", "why"), 2, "--by"),
        (("add", "seller", "--by", "admin-1"), 2, "--reason"),
        (("show", "seller"), 1, "rule 'seller': does not exist"),
        (("retire", "seller"), 1, "rule 'seller': does not exist"),
        (("assign", PAYEE, "seller"), 1, "rule 'seller': does not exist"),
        (("unassign", PAYEE), 1, "owner 'worker-17': has no rule of their own"),
        (("try", "seller", *AMOUNT), 1, "rule 'seller': does not exist"),
        (("try", "pesos", "--amount", "5", "--currency", "JPY"), 1, "version 1: is for PHP, not for JPY"),
        (
            ("try", "pesos", "--amount", "5", "--currency", "PHP"),
            1,
            "rule 'pesos' version 1: a fee above the amount; nothing is left for payee 'payee'",
        ),
        (("try", "pesos", "--amount", "5.001", "--currency", "PHP"), 1, "amount 5.001: PHP has 2 places"),
        (("try", "pesos", *AMOUNT[:4], "--held-at", "soon"), 1, "held_at 'soon': not an ISO 8601 time"),
        (
            ("try", "long", *AMOUNT[:4], "--held-at", "2999-12-31T00:00Z"),
            1,
            "release_date 3009-12-29T00:00:00+00:00: lies outside the years 1970 to 2999",
        ),
    ],
)  # fmt: skip
def test_a_refusal_names_it_and_writes_nothing(
    run: Run, engine: Engine, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """One line, and the exit code of a refusal or of wrong usage."""
    run("rule", "add", "pesos", "--currency", "PHP", "--fee-fixed", "6", "--fee-owner", "shop", *WHO)
    run("rule", "add", "long", "--days", "3650", *WHO)
    with engine.connect() as connection:
        before = row_counts(connection)

    refused = run("rule", *arguments)

    assert refused.code == code
    assert message in refused.err
    assert refused.err.count("\n") == 1
    with engine.connect() as connection:
        assert row_counts(connection) == before


def test_hold_show_names_the_rule(run: Run, engine: Engine) -> None:
    """And its version, which stays the hold's after a newer one was added."""
    run("rule", "add", "seller", *FEE, *WHO)
    with engine.begin() as connection:
        plain = place_hold(connection)
        ruled = place_hold(connection, rule="seller")
    run("rule", "add", "seller", *FEE, *WHO)
    shown: dict[int, Any] = {
        hold_id: run("hold", "show", str(hold_id), "--json").json for hold_id in (plain, ruled)
    }

    assert (shown[plain]["rule"], shown[plain]["rule_version"]) == ("standard", None)
    assert (shown[ruled]["rule"], shown[ruled]["rule_version"]) == ("seller", 1)
    assert "rule: seller\nrule_version: 1\n" in run("hold", "show", str(ruled)).out


def test_an_added_earning_has_the_named_rule(run: Run) -> None:
    """`hold add --rule` divides it, and another rule in the repetition is refused."""
    run("rule", "add", "seller", *FEE, *WHO)

    added = hold_add(run, rule="seller")
    again = hold_add(run, rule="seller")
    other = hold_add(run, rule="standard")
    unknown = hold_add(run, reference="another", rule="nobody")

    assert [(row["kind"], row["owner"]) for row in added.json["shares"]] == [
        ("PAYEE", "worker-17"),
        ("FEE", "shop"),
    ]
    assert again.json["replayed"]
    assert other.code == 1
    assert "not rule 'standard'" in other.err
    assert unknown.code == 1
    assert "rule 'nobody': does not exist" in unknown.err


def test_import_takes_the_rule_of_each_line(run: Run, tmp_path: Path) -> None:
    """An empty field has the payee's rule; a rule that is retired refuses its line only."""
    for name in ("seller", "old", "own"):
        run("rule", "add", name, *FEE, *WHO)
    run("rule", "retire", "old", *WHO)
    run("rule", "assign", "worker-2", "own", *WHO)
    file = tmp_path / "earnings.csv"
    file.write_text(
        "reference,job,payee,payer,amount,currency,rule\n"
        "a,job-1,worker-1,client-1,100,PHP,\n"
        "b,job-1,worker-1,client-1,100,PHP,seller\n"
        "c,job-1,worker-2,client-1,100,PHP,\n"
        "d,job-1,worker-2,client-1,100,PHP,old\n"
    )

    imported = run("hold", "import", str(file), "--json")
    listed = run("hold", "list", "--json").json

    assert [row["line"] for row in imported.json["refused"]] == [5]
    assert "rule 'old': retired since" in imported.json["refused"][0]["reason"]
    assert sorted((row["reference"], row["kind"], row["amount"]) for row in listed) == [
        ("a", "PAYEE", "100.00"),
        ("b", "FEE", "12.00"),
        ("b", "PAYEE", "88.00"),
        ("c", "FEE", "12.00"),
        ("c", "PAYEE", "88.00"),
    ]


def test_the_examples_of_the_page_print_what_stands_below_them(run: Run) -> None:
    """Each command of docs/rules.md succeeds; the last one before an output prints it, digit by digit."""
    compared = 0
    printed = ""
    for block in blocks_of(DOCS / "rules.md"):
        if block.kind == "text":
            compared += 1
            assert [line.rstrip() for line in printed.splitlines()] == [
                line.rstrip() for line in block.body.splitlines()
            ]
            continue
        for line in block.body.splitlines():
            done = run(*shlex.split(line)[1:])
            assert (done.code, done.err) == (0, "")
            printed = done.out

    assert compared == 6


def test_an_approval_leaves_a_kept_fee(run: Run) -> None:
    """`backjob approve` prints the fee's hold with nothing refunded; more than the rest is refused."""
    run("rule", "add", "seller", *FEE, "--fee-on-refund", "keep", *WHO)
    hold_add(run, rule="seller")
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "it leaks")

    refused = run("backjob", "approve", "1", *WHO, "--amount", "1100.45", "--json")
    approved = run("backjob", "approve", "1", *WHO)

    assert refused.code == 1
    assert "the fee of 150.06 PHP, hold 2, is kept by rule 'seller' version 1" in refused.err + refused.out
    assert approved.code == 0
    lines = approved.out.splitlines()
    assert lines[1].startswith("hold 1: REFUNDED, 1100.44 PHP held, 1100.44 refunded, 0.00 left")
    assert lines[2].startswith("hold 2: BUFFERED, 150.06 PHP held, 0.00 refunded, 150.06 left")
