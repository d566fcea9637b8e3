"""`wallet …` and statements."""

from decimal import Decimal

from buffer_pipeline_tests.support.commands import LONG_AGO, Run, hold_add


def test_wallet_movements_and_statement(run: Run) -> None:
    """Deposits and withdrawals print the balance, replays say so, and the statement adds up."""
    movement = ("--amount", "500", "--currency", "PHP", "--reference", "top-up-9", "--json")

    first = run("wallet", "deposit", "client-3", *movement)
    again = run("wallet", "deposit", "client-3", *movement)
    out = run(
        "wallet",
        "withdraw",
        "client-3",
        "--amount",
        "120.25",
        "--currency",
        "PHP",
        "--reference",
        "w",
        "--json",
    )
    statement = run("wallet", "statement", "client-3", "--json")
    long_ago = run("wallet", "statement", "client-3", "--as-of", LONG_AGO, "--json")

    assert first.json == {"transaction_id": 1, "replayed": False, "balance": "500.00"}
    assert again.json == {"transaction_id": 1, "replayed": True, "balance": "500.00"}
    assert out.json == {"transaction_id": 2, "replayed": False, "balance": "379.75"}
    assert [(row["type"], row["balance_after"]) for row in statement.json] == [
        ("DEPOSIT", "500.00"),
        ("WITHDRAWAL", "379.75"),
    ]
    assert long_ago.json == []


def test_statement_signs_are_the_wallets(run: Run) -> None:
    """A refund is negative for the worker and positive for the client. A release is positive."""
    hold_add(run, amount="1000")
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")
    run("backjob", "approve", "1", "--by", "admin-1", "--reason", "ok", "--amount", "250.10")
    run("release-now", "--hold", "1", "--by", "client-3", "--reason", "well done")
    run("wallet", "withdraw", "worker-17", "--amount", "49.90", "--currency", "PHP", "--reference", "w")

    worker = run("wallet", "statement", "worker-17", "--json").json
    client = run("wallet", "statement", "client-3", "--json").json
    output = run("wallet", "statement", "worker-17").out.splitlines()

    signed = [(row["type"], row["amount"], row["change"], row["pending_change"]) for row in worker]
    assert signed == [
        ("PENDING_EARNING", "1000.00", "0.00", "1000.00"),
        ("REFUND", "-250.10", "0.00", "-250.10"),
        ("EARNING", "749.90", "749.90", "-749.90"),
        ("WITHDRAWAL", "-49.90", "-49.90", "0.00"),
    ]
    assert [(row["type"], row["amount"]) for row in client] == [("REFUND", "250.10")]
    for after, change in (("balance_after", "change"), ("pending_earnings_after", "pending_change")):
        assert Decimal(worker[-1][after]) == sum(Decimal(row[change]) for row in worker)
    assert "balance change" in output[0]
    assert "pending change" in output[0]
    assert [[part for part in line.split() if part[0] in "+-"] for line in output[1:]] == [
        ["+1000.00"],
        ["-250.10"],
        ["+749.90", "-749.90"],
        ["-49.90"],
    ]


def test_statement_shows_balance_and_pending_earnings(run: Run) -> None:
    """A release moves pending earnings into the balance in one line."""
    hold_add(run, held_at=LONG_AGO)
    run("release")

    statement = run("wallet", "statement", "worker-17", "--json")

    assert [(row["type"], row["balance_after"], row["pending_earnings_after"]) for row in statement.json] == [
        ("PENDING_EARNING", "0.00", "1250.50"),
        ("EARNING", "1250.50", "0.00"),
    ]
