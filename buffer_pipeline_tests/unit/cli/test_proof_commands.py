"""`reconcile` and `verify`: broken invariants and altered lines."""

from sqlalchemy import Engine, text

from buffer_pipeline_tests.support.builders import place_hold
from buffer_pipeline_tests.support.commands import LONG_AGO, Run, hold_add
from buffer_pipeline_tests.support.runs import corrupt


def test_amounts_without_a_currency_are_labelled_minor(run: Run, superuser_url: str) -> None:
    """A row without a currency has `_minor` figures, one with a currency has amounts."""
    hold_add(run)
    corrupt(superuser_url, "UPDATE buffer.transaction SET amount_minor = 1")

    broken = run("reconcile", "--json")
    output = run("reconcile")

    rows = {each["invariant"]: each["rows"][0] for each in broken.json["violations"]}
    assert rows["hold_equals_its_transactions"]["transactions_held_minor"] == 1
    assert rows["books_balance"]["currency"] == "PHP"
    assert not any(name.endswith("_minor") for name in rows["books_balance"])
    assert "transactions_held_minor 1" in output.out


def test_reconcile_names_the_rows_that_break_an_invariant(run: Run, superuser_url: str) -> None:
    """Sound books pass. A balance changed by raw SQL is found, with exit code 1."""
    from buffer_pipeline.database import make_engine

    hold_add(run, held_at=LONG_AGO)
    run("release")
    sound = run("reconcile", "--json")
    superuser = make_engine(superuser_url)
    with superuser.begin() as connection:
        connection.execute(
            text("UPDATE buffer.wallet SET balance_minor = balance_minor + 1 WHERE owner = 'worker-17'")
        )
    superuser.dispose()

    broken = run("reconcile", "--json")

    assert (sound.code, sound.json) == (0, {"ok": True, "violations": []})
    assert broken.code == 1
    assert broken.json["ok"] is False
    names = [violation["invariant"] for violation in broken.json["violations"]]
    assert names == ["books_balance", "wallet_equals_its_transactions"]
    assert broken.json["violations"][1]["rows"][0]["owner"] == "worker-17"
    assert broken.json["violations"][1]["rows"][0]["balance"] == "1250.51"


def test_release_seals_and_verify_proves(run: Run, engine: Engine, superuser_url: str) -> None:
    """A release prints an anchor. `verify` names a line altered since, with exit code 1."""
    with engine.begin() as connection:
        place_hold(connection)
    released = run("release", "--json")
    dry = run("release", "--dry-run", "--json")
    sound = run("verify", "--anchor", released.json["anchor"], "--json")

    corrupt(superuser_url, "UPDATE buffer.transaction SET amount_minor = 1 WHERE type = 'EARNING'")
    broken = run("verify", "--json")
    output = run("verify")

    with engine.connect() as connection:
        number = connection.scalar(text("SELECT max(transaction_id) FROM buffer.transaction"))
    assert (sound.code, broken.code, output.code) == (0, 1, 1)
    assert dry.json["anchor"] is None
    assert sound.json == {
        "ok": True,
        "offence": None,
        "transaction_id": None,
        "seals": 1,
        "transactions": 2,
        "unsealed": 0,
        "anchor": released.json["anchor"],
    }
    assert (broken.json["ok"], broken.json["transaction_id"]) == (False, number)
    assert output.out.startswith(f"transaction {number}: was altered; it is not what was sealed.\n")


def test_release_without_a_seal_reports_and_notifies(run: Run, engine: Engine, superuser_url: str) -> None:
    """The next release seals its lines."""
    with engine.begin() as connection:
        place_hold(connection)
    corrupt(superuser_url, "REVOKE INSERT ON buffer.seal FROM buffer")

    refused = run("release", "--json")
    corrupt(superuser_url, "GRANT INSERT ON buffer.seal TO buffer")
    following = run("release", "--json")

    assert (refused.code, refused.json["holds_released"], refused.json["anchor"]) == (0, 1, None)
    assert "Not sealed; the next release will seal it: permission denied" in refused.err
    assert following.json["anchor"].startswith("1:")
    assert "Sealed 2 transactions" in following.err
