"""Rule 9: money enters and leaves a balance once per reference, which never falls below zero."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select

from buffer_pipeline.errors import InsufficientFunds, InvalidInput, NotFound, ReferenceConflict
from buffer_pipeline.hold import HoldState
from buffer_pipeline.release import release_matured
from buffer_pipeline.tables import transaction
from buffer_pipeline.wallet import Movement, deposit, open_balance, withdraw
from buffer_pipeline_tests.support.builders import (
    DAY_7,
    NOON,
    PAYEE,
    Wallet,
    all_at_once,
    books,
    next_generation,
    one_after_the_other,
    place_hold,
    row_counts,
    wallet_of,
)
from buffer_pipeline_tests.support.read_rows import all_lines

Move = Callable[..., Movement]


def move(connection: Connection, movement: Move, reference: str, **changes: Any) -> Movement:
    """Move 100 pesos of PAYEE, with some arguments changed."""
    moved = {"owner": PAYEE, "amount": "100.00", "currency": "PHP", "reference": reference, "now": NOON}
    return movement(connection, **{**moved, **changes})


def put_in(connection: Connection, reference: str = "transfer-1", **changes: Any) -> Movement:
    """Deposit 100 pesos."""
    return move(connection, deposit, reference, **changes)


def take_out(connection: Connection, reference: str = "bank-1", **changes: Any) -> Movement:
    """Withdraw 100 pesos."""
    return move(connection, withdraw, reference, **changes)


@pytest.mark.parametrize(
    ("movement", "movement_type", "from_account"),
    [(deposit, "DEPOSIT", "EXTERNAL"), (open_balance, "OPENING_BALANCE", "OPENING")],
)
def test_money_comes_in_from_a_system_account(
    connection: Connection, movement: Move, movement_type: str, from_account: str
) -> None:
    """A deposit opens the wallet, raises its balance and is in the books."""
    moved = move(connection, movement, "transfer-1")

    row = connection.execute(select(transaction)).mappings().one()
    assert (moved.transaction_id, moved.balance_minor, moved.replayed) == (
        row["transaction_id"],
        10_000,
        False,
    )
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=10_000)
    assert (row["type"], row["from_account"], row["to_account"]) == (movement_type, from_account, "BALANCE")
    assert (row["amount_minor"], row["balance_after_minor"], row["currency"]) == (10_000, 10_000, "PHP")
    assert (row["reference"], row["recorded_at"]) == ("transfer-1", NOON)


def test_money_goes_out_to_a_system_account(connection: Connection) -> None:
    """A withdrawal lowers the balance and has the new one."""
    put_in(connection)

    moved = take_out(connection, amount="30.50")

    row = connection.execute(select(transaction).where(transaction.c.type == "WITHDRAWAL")).mappings().one()
    assert (moved.balance_minor, moved.replayed) == (6_950, False)
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=6_950)
    assert (row["from_account"], row["to_account"]) == ("BALANCE", "EXTERNAL")
    assert (row["amount_minor"], row["balance_after_minor"]) == (3_050, 6_950)


@pytest.mark.parametrize(("amount", "currency", "minor"), [("500", "JPY", 500), ("0.001", "KWD", 1)])
def test_each_currency_is_a_wallet_of_its_own(
    connection: Connection, amount: str, currency: str, minor: int
) -> None:
    """A withdrawal in another currency cannot use it."""
    put_in(connection)
    put_in(connection, "transfer-2", amount=amount, currency=currency)

    assert wallet_of(connection, PAYEE, currency) == Wallet(balance_minor=minor)
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=10_000)
    with pytest.raises(InsufficientFunds):
        take_out(connection, currency=currency, amount=Decimal("1000"))


def test_whole_balance_can_be_withdrawn_and_no_more(connection: Connection) -> None:
    """To the last centavo. The refusal names the wallet and its balance."""
    put_in(connection)
    before = books(connection)

    with pytest.raises(InsufficientFunds, match=r"cannot withdraw 100\.01 PHP; its balance is 100\.00"):
        take_out(connection, amount="100.01")

    assert books(connection) == before
    assert take_out(connection, amount="100.00").balance_minor == 0


def test_pending_earnings_cannot_be_withdrawn(connection: Connection) -> None:
    """They can once they are released."""
    place_hold(connection, amount="100.00")
    before = books(connection)

    with pytest.raises(InsufficientFunds, match=r"its balance is 0\.00"):
        take_out(connection, amount="0.01")

    assert books(connection) == before
    release_matured(connection, now=DAY_7, batch_limit=10)
    assert take_out(connection).balance_minor == 0


def test_frozen_earnings_cannot_be_withdrawn(connection: Connection) -> None:
    """They are no balance either."""
    place_hold(connection, state=HoldState.FROZEN)

    with pytest.raises(InsufficientFunds):
        take_out(connection, amount="0.01")


@pytest.mark.parametrize(("owner", "currency"), [("worker-404", "PHP"), (PAYEE, "USD")])
def test_withdrawal_without_a_wallet_is_refused(connection: Connection, owner: str, currency: str) -> None:
    """By name, and none is opened."""
    put_in(connection)
    before = books(connection)

    with pytest.raises(NotFound, match=f"wallet of '{owner}' in {currency}: does not exist"):
        take_out(connection, owner=owner, currency=currency)

    assert books(connection) == before


@pytest.mark.parametrize("again", [put_in, take_out])
def test_replay_moves_no_money(connection: Connection, again: Callable[..., Movement]) -> None:
    """The same content at any later time."""
    put_in(connection, "transfer-0", amount="150.00")
    first = again(connection, "twice")
    before = books(connection)

    second = again(connection, "twice", amount=Decimal(100), now=DAY_7)

    assert second.replayed
    assert (second.transaction_id, second.balance_minor) == (first.transaction_id, first.balance_minor)
    assert books(connection) == before


def test_replay_of_a_withdrawal_needs_no_balance(connection: Connection) -> None:
    """A withdrawal that emptied the wallet can be replayed."""
    put_in(connection)
    take_out(connection)

    again = take_out(connection)

    assert (again.replayed, again.balance_minor) == (True, 0)


@pytest.mark.parametrize(
    ("movement", "change"),
    [
        (deposit, {"amount": "100.01"}),
        (deposit, {"owner": "worker-18"}),
        (deposit, {"currency": "USD"}),
        (withdraw, {}),
        (open_balance, {}),
    ],
)
def test_same_reference_for_another_movement_is_refused(
    connection: Connection, movement: Move, change: dict[str, Any]
) -> None:
    """The refusal names the movement, and no wallet is opened."""
    first = put_in(connection)
    before = books(connection)

    with pytest.raises(
        ReferenceConflict, match=f"'transfer-1': already used for transaction {first.transaction_id}"
    ):
        move(connection, movement, "transfer-1", **change)

    assert books(connection) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": "-1"}, "above zero"),
        ({"amount": 0}, "above zero"),
        ({"amount": "1.001"}, "PHP has 2 places"),
        ({"amount": "10000000000000.01"}, "too large"),
        ({"amount": 1.5}, "never a float"),
        ({"amount": "NaN"}, "not a plain decimal number"),
        ({"currency": "QQQ"}, "not an ISO 4217 code"),
        ({"owner": ""}, "owner: must not be empty"),
        ({"owner": "x" * 201}, "owner: 201 characters"),
        ({"reference": ""}, "reference: must not be empty"),
        ({"reference": "x" * 201}, "reference: 201 characters"),
        ({"reference": "a\nb"}, "control character"),
        ({"now": NOON.replace(tzinfo=None)}, "now .* no time zone"),
    ],
)
def test_bad_input_moves_nothing(connection: Connection, change: dict[str, Any], message: str) -> None:
    """It is refused by name."""
    for movement in (deposit, withdraw, open_balance):
        with pytest.raises(InvalidInput, match=message):
            move(connection, movement, **{"reference": "transfer-1", **change})

    assert set(row_counts(connection).values()) == {0}


@pytest.mark.parametrize("movement", [put_in, take_out])
def test_same_reference_raced_moves_once(engine: Engine, movement: Callable[..., Movement]) -> None:
    """In concurrent threads, with a new wallet or an existing one."""
    if movement is take_out:
        with engine.begin() as connection:
            put_in(connection, amount="1000.00")

    outcomes = all_at_once(engine, *[movement] * 6)

    moved = [outcome for outcome in outcomes if isinstance(outcome, Movement)]
    assert sorted(outcome.replayed for outcome in moved) == [False, *[True] * 5]
    assert len({outcome.transaction_id for outcome in moved}) == 1
    with engine.connect() as connection:
        expected = 10_000 if movement is put_in else 90_000
        assert wallet_of(connection, PAYEE) == Wallet(balance_minor=expected)


def test_one_of_two_concurrent_withdrawals_is_refused(engine: Engine) -> None:
    """If the balance covers one."""
    with engine.begin() as connection:
        put_in(connection)

    outcomes = all_at_once(
        engine,
        lambda connection: take_out(connection, "bank-1"),
        lambda connection: take_out(connection, "bank-2"),
    )

    assert sum(isinstance(outcome, Movement) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, InsufficientFunds) for outcome in outcomes) == 1
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE) == Wallet()


def test_withdrawal_after_another_sees_what_is_left(engine: Engine) -> None:
    """It waits for the other and uses the new balance."""
    with engine.begin() as connection:
        put_in(connection)

    _, second = one_after_the_other(
        engine,
        lambda connection: take_out(connection, "bank-1", amount="60.00"),
        lambda connection: take_out(connection, "bank-2", amount="40.00"),
    )

    assert isinstance(second, Movement)
    assert second.balance_minor == 0


def test_reference_raced_over_two_wallets_belongs_to_one(engine: Engine) -> None:
    """The other is refused and moves nothing."""
    _, refusal = one_after_the_other(engine, put_in, lambda connection: put_in(connection, owner="worker-18"))

    assert isinstance(refusal, ReferenceConflict)
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE) == Wallet(balance_minor=10_000)
        assert wallet_of(connection, "worker-18") == Wallet()
        assert row_counts(connection)["wallet"] == 1


def test_movements_raced_with_a_release_add_up(engine: Engine) -> None:
    """Concurrent deposits, withdrawals and a release leave the correct balance."""
    with engine.begin() as connection:
        put_in(connection, "transfer-0", amount="1000.00")
        for _ in range(5):
            place_hold(connection, amount="10.00")

    all_at_once(
        engine,
        lambda connection: put_in(connection, "transfer-1"),
        lambda connection: put_in(connection, "transfer-2"),
        lambda connection: take_out(connection, "bank-1"),
        lambda connection: release_matured(connection, now=DAY_7, batch_limit=10),
    )

    with engine.begin() as connection:
        # The release skips the wallet while another transaction has it locked.
        release_matured(connection, now=DAY_7, batch_limit=10)
        assert wallet_of(connection, PAYEE) == Wallet(balance_minor=115_000)


def test_statement_keeps_the_sums_of_lines_that_it_leaves_out(connection: Connection) -> None:
    """A line written earlier with a later time counts in the balance of those after it."""
    deposit(
        connection, owner=PAYEE, amount="10", currency="PHP", reference="late", now=NOON + timedelta(hours=1)
    )
    deposit(connection, owner=PAYEE, amount="5", currency="PHP", reference="early", now=NOON)

    lines = all_lines(connection, owner=PAYEE, as_of=NOON)

    assert [(line["reference"], line["balance_after_minor"]) for line in lines] == [("early", 1_500)]


def test_statement_has_the_lines_of_every_generation(connection: Connection) -> None:
    """However many transactions of others lie between them, including withdrawals."""
    deposit(connection, owner=PAYEE, amount="10", currency="PHP", reference="in-1", now=NOON)
    next_generation(connection)
    withdraw(connection, owner=PAYEE, amount="4", currency="PHP", reference="out-1", now=NOON)
    next_generation(connection, generations=3)
    place_hold(connection, amount="2.00")
    release_matured(connection, now=DAY_7, batch_limit=1)
    next_generation(connection)
    deposit(connection, owner="worker-18", amount="1", currency="PHP", reference="in-2", now=NOON)

    lines = all_lines(connection, owner=PAYEE)

    assert [(line["type"], line["balance_after_minor"]) for line in lines] == [
        ("DEPOSIT", 1_000),
        ("WITHDRAWAL", 600),
        ("PENDING_EARNING", 600),
        ("EARNING", 800),
    ]
    generations = [line["transaction_id"] >> 17 for line in lines]
    assert [generation - generations[0] for generation in generations] == [0, 1, 4, 4]
