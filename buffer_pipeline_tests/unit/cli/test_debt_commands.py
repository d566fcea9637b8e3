"""`claw-back` and `debt …`."""

import re
import shlex
from typing import Final

import pytest

from buffer_pipeline_tests.support.commands import Run, hold_add
from buffer_pipeline_tests.support.pages import DOCS, blocks_of

CLAW_BACK: Final = (
    "claw-back",
    "--hold=1",
    "--amount=1250.50",
    "--to=payer",
    "--by=admin-1",
    "--reason=chargeback of 2 March",
    "--key=chargeback-12",
)


def release_and_spend(run: Run, amount: str) -> None:
    """Hold 1250.50, release it, and withdraw some of it."""
    hold_add(run)
    run("release-now", "--hold", "1", "--by", "client-3", "--reason", "well done")
    spent = ("--amount", amount, "--currency", "PHP", "--reference", "out-1")
    assert run("wallet", "withdraw", "worker-17", *spent).code == 0


def test_claw_back_prints_what_was_taken_and_is_owed(run: Run) -> None:
    """The same key again prints the same."""
    release_and_spend(run, "1000.00")

    first = run(*CLAW_BACK, "--json")
    again = run(*CLAW_BACK)

    assert first.json == {"clawback_id": 2, "taken": "250.50", "debt": "1000.00"}
    assert again.out == ("Claw-back 2 of hold 1: 250.50 PHP was taken back before; 1000.00 PHP is owed.\n")
    assert run("reconcile").code == 0


def test_a_release_says_what_paid_debts(run: Run) -> None:
    """As text and as JSON, and the replay of an early release too."""
    release_and_spend(run, "1000.00")
    run(*CLAW_BACK)
    hold_add(run, reference="second", job="job-9")
    part = ("release-now", "--hold", "2", "--amount", "50.00", "--by", "client-3", "--reason", "half is done")
    hold_add(run, reference="due", job="job-10", held_at="2026-01-05T00:00:00Z", amount="700.00")

    first = run(*part, "--json")
    again = run(*part, "--json")
    dry = run("release", "--dry-run")
    due = run("release", "--json")
    rest = run("release-now", "--hold", "2", "--by", "client-3", "--reason", "well done")

    assert first.json["recovered"] == again.json["recovered"] == {"PHP": "50.00"}
    assert "Of this, 700.00 PHP has paid debts of the payees." in dry.out
    assert (due.json["amounts"], due.json["recovered"]) == ({"PHP": "700.00"}, {"PHP": "700.00"})
    assert "Of this, 250.00 PHP has paid debts of the payees." in rest.out


def test_debts_are_listed(run: Run) -> None:
    """With exactly these keys; a bank is named as the creditor."""
    release_and_spend(run, "1000.00")
    run(*CLAW_BACK[:3], "--to=bank", *CLAW_BACK[4:])

    (row,) = run("debt", "list", "--json").json

    opened_at = row.pop("opened_at")
    assert row == {
        "debt_id": 1,
        "owner": "worker-17",
        "creditor": "bank",
        "currency": "PHP",
        "amount": "1000.00",
        "outstanding": "1000.00",
    }
    assert opened_at.endswith("Z")
    assert run("debt", "list", "--owner", "worker-18").out == "No debts.\n"
    assert run("debt", "list", "--open", "--owner", "worker-17").out.count("worker-17") == 1


def test_a_debt_is_recovered_and_forgiven(run: Run) -> None:
    """From a deposit, and the rest by an admin."""
    release_and_spend(run, "1000.00")
    run(*CLAW_BACK)
    run("wallet", "deposit", "worker-17", "--amount=400", "--currency=PHP", "--reference=in-1")

    recovered = run("debt", "recover", "worker-17", "--by", "admin-1", "--json")
    forgiven = run("debt", "forgive", "1", "--by", "admin-1", "--reason", "cannot pay")
    again = run("debt", "forgive", "1", "--by", "admin-1", "--reason", "cannot pay", "--json")

    assert recovered.json == {"owner": "worker-17", "recovered": {"PHP": "400.00"}}
    assert forgiven.out == "Debt 1 of worker-17 is forgiven: 600.00 PHP.\n"
    assert (again.code, again.json["error"]["type"]) == (1, "DebtRefused")
    assert run("debt", "list", "--open", "--json").json == []
    assert run("reconcile").code == 0


def test_an_earning_is_named_by_its_reference(run: Run) -> None:
    """And somebody else can advance the rest."""
    release_and_spend(run, "1000.00")
    run("wallet", "deposit", "shop", "--amount=1000", "--currency=PHP", "--reference=in-1")

    done = run("claw-back", "--reference=job-8-done", *CLAW_BACK[2:], "--advanced-by=shop")

    assert done.out == "Claw-back 2 of hold 1: 250.50 PHP is taken back; 1000.00 PHP is owed.\n"
    assert run("debt", "list", "--json").json[0]["creditor"] == "shop"


@pytest.mark.parametrize(
    ("arguments", "type_"),
    [
        (("--hold=1", "--amount=1250.51", *CLAW_BACK[3:]), "InsufficientFunds"),
        (("--hold=7", *CLAW_BACK[2:]), "NotFound"),
        (CLAW_BACK[2:], "InvalidInput"),
    ],
)
def test_wrong_claw_backs_are_refused(run: Run, arguments: tuple[str, ...], type_: str) -> None:
    """By name, with exit 1."""
    release_and_spend(run, "1000.00")

    refused = run("claw-back", *arguments, "--json")

    assert (refused.code, refused.json["error"]["type"]) == (1, type_)


def test_a_rule_shows_its_recovery_percent(run: Run) -> None:
    """As it was given; without one there is none."""
    run("rule", "add", "slow", "--recovery-percent", "25.5", "--by", "admin-1", "--reason", "terms")

    assert run("rule", "show", "slow", "--json").json["recovery_percent"] == "25.5"
    assert run("rule", "show", "standard", "--json").json["recovery_percent"] is None


def test_the_examples_of_the_page_print_what_stands_below_them(run: Run) -> None:
    """Each command of docs/debts.md succeeds; the last one before an output prints it, apart from times."""
    compared = 0
    printed = ""
    for block in blocks_of(DOCS / "debts.md"):
        if block.kind == "text":
            compared += 1
            assert without_times(printed) == without_times(block.body)
            continue
        for line in block.body.splitlines():
            done = run(*shlex.split(line)[1:])
            assert (done.code, done.err) == (0, "")
            printed = done.out

    assert compared == 4


def without_times(printed: str) -> list[str]:
    """Return the lines with single spaces, without times."""
    return [
        " ".join(re.sub(r"\d{4}-\d\d-\d\dT\S+", "", line).split()) for line in printed.strip().splitlines()
    ]
