"""The decimal places of the books' currencies are stored at first use, whatever ISO 4217's list
says later.
"""

from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from buffer_pipeline import wallet
from buffer_pipeline.backjob import approve_backjob, request_backjob
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row, fetch, make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import InsufficientFunds, InvalidInput, NotFound, ReferenceConflict, Refused
from buffer_pipeline.intake import (
    AddedHold,
    Earning,
    add_many_pending_earnings,
    add_pending_earnings,
    check_earning,
)
from buffer_pipeline.money import with_amounts
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    JOB,
    LEFT,
    NOON,
    PAYEE,
    PAYER,
    bring_in,
    hold_row,
    one_after_the_other,
    row_counts,
    wallet_of,
)
from buffer_pipeline_tests.support.databases import fresh_books

EARNING: Final[dict[str, Any]] = {
    "reference": "invoice-1",
    "job": JOB,
    "payee": PAYEE,
    "payer": PAYER,
    "amount": "10.50",
    "currency": "PHP",
}


def add(connection: Connection, **changes: Any) -> AddedHold:
    """Add the example's earning with some values changed."""
    return add_pending_earnings(connection, **{**EARNING, **changes}, now=NOON)


# ---- new currencies


def test_the_first_use_stores_the_lists_places(connection: Connection) -> None:
    """By every verb."""
    add(connection)
    deposit(connection, owner=PAYER, amount=7, currency="JPY", reference="top-up", now=NOON)
    many = [Earning(**{**EARNING, "reference": f"in-{code}", "currency": code}) for code in ("KWD", "CLF")]
    add_many_pending_earnings(connection, many, now=NOON)

    assert places_of(connection) == {"CLF": 4, "JPY": 0, "KWD": 3, "PHP": 2}


@pytest.mark.parametrize("currency", ["BGN", "QQQ", "XAU"])
def test_unknown_currency_is_refused_by_every_verb(connection: Connection, currency: str) -> None:
    """Nothing is written, and no currency is stored."""
    before = row_counts(connection)
    movement: dict[str, Any] = {
        "owner": PAYEE,
        "amount": 1,
        "currency": currency,
        "reference": "m",
        "now": NOON,
    }

    many = add_many_pending_earnings(connection, [Earning(**{**EARNING, "currency": currency})], now=NOON)
    for verb in (
        partial(add, connection, currency=currency),
        partial(deposit, connection, **movement),
        partial(withdraw, connection, **movement),
    ):
        with pytest.raises(InvalidInput, match=f"^currency '{currency}': "):
            verb()

    assert [type(refused) for refused in many] == [InvalidInput]
    assert row_counts(connection) == before


def test_refused_amount_stores_no_currency(connection: Connection) -> None:
    """A refusal writes nothing."""
    for amount in ("1.005", "0", "-1"):
        with pytest.raises(InvalidInput):
            add(connection, amount=amount)
        with pytest.raises(InvalidInput):
            deposit(connection, owner=PAYEE, amount=amount, currency="PHP", reference="m", now=NOON)

    assert places_of(connection) == {}


@pytest.mark.parametrize("currency", LEFT)
def test_known_currency_that_left_the_list_is_accepted(connection: Connection, currency: str) -> None:
    """Earnings, single and many, deposits and withdrawals."""
    bring_in(connection, **{currency: 2})

    first = add(connection, currency=currency)
    again = add(connection, currency=currency)
    (other,) = add_many_pending_earnings(
        connection, [Earning(**{**EARNING, "reference": "invoice-2", "currency": currency})], now=NOON
    )
    deposit(connection, owner=PAYEE, amount="5.25", currency=currency, reference="in", now=NOON)
    out = withdraw(connection, owner=PAYEE, amount="1.05", currency=currency, reference="out", now=NOON)

    assert (first.replayed, again.replayed, again.hold_id) == (False, True, first.hold_id)
    assert isinstance(other, AddedHold)
    assert wallet_of(connection, PAYEE, currency).pending_earnings_minor == 2_100
    assert out.balance_minor == 420


# ---- precedence


def test_decimal_places_of_the_books_override_the_list(connection: Connection) -> None:
    """With more or fewer places than the list."""
    bring_in(connection, PHP=3, KWD=1)

    hold_id = add(connection, amount="1.234").hold_id
    (many,) = add_many_pending_earnings(
        connection, [Earning(**{**EARNING, "reference": "invoice-2", "amount": Decimal("0.5")})], now=NOON
    )
    dinar = add(connection, reference="invoice-3", amount="1.5", currency="KWD").hold_id
    moved = deposit(connection, owner=PAYEE, amount="2", currency="PHP", reference="in", now=NOON)

    assert hold_row(connection, hold_id)["amount_minor"] == 1_234
    assert isinstance(many, AddedHold)
    assert hold_row(connection, many.hold_id)["amount_minor"] == 500
    assert hold_row(connection, dinar)["amount_minor"] == 15
    assert moved.balance_minor == 2_000
    with pytest.raises(InvalidInput, match="KWD has 1 places, this has 2"):
        add(connection, reference="invoice-4", amount="1.55", currency="KWD")
    with pytest.raises(ReferenceConflict, match=r"with amount 1\.234 PHP, not amount 1\.235 PHP"):
        add(connection, amount="1.235")


def test_earning_checked_with_other_places_is_checked_again(connection: Connection) -> None:
    """An earning checked before the books' places were known is added with those."""
    checked = check_earning(Earning(**EARNING), places={})
    bring_in(connection, PHP=3)

    (added,) = add_many_pending_earnings(connection, [checked], now=NOON)

    assert isinstance(added, AddedHold)
    assert hold_row(connection, added.hold_id)["amount_minor"] == 10_500


def test_refusals_use_the_decimal_places_of_the_books(connection: Connection) -> None:
    """In withdrawals, reference conflicts and backjob amounts."""
    bring_in(connection, PHP=3)
    deposit(connection, owner=PAYEE, amount="1.5", currency="PHP", reference="in", now=NOON)
    add(connection, amount="1.234")
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="not as agreed", now=NOON)
    decided: dict[str, Any] = {"backjob_id": backjob.backjob_id, "by": ADMIN, "reason": "a part", "now": NOON}

    with pytest.raises(InsufficientFunds, match=r"cannot withdraw 2\.000 PHP; its balance is 1\.500"):
        withdraw(connection, owner=PAYEE, amount=2, currency="PHP", reference="out", now=NOON)
    with pytest.raises(ReferenceConflict, match=r"a DEPOSIT of 1\.500 PHP"):
        deposit(connection, owner=PAYEE, amount=2, currency="PHP", reference="in", now=NOON)
    with pytest.raises(InsufficientFunds, match=r"1\.235 PHP is above the 1\.234 that"):
        approve_backjob(connection, **decided, amount="1.235")
    approve_backjob(connection, **decided, amount="0.034")

    assert wallet_of(connection, PAYER).balance_minor == 34
    assert wallet_of(connection, PAYEE).pending_earnings_minor == 1_200


def test_two_books_in_one_process_are_not_confused(engine: Engine, server: EmbeddedServer) -> None:
    """The same verbs on two databases with different places for a currency."""
    with fresh_books(server) as url:
        other = make_engine(url)
        with engine.begin() as here, other.begin() as there:
            bring_in(there, PHP=3)
            for number in range(3):
                add(here, reference=f"invoice-{number}", amount="10.50")
                add(there, reference=f"invoice-{number}", amount="10.505")
            found_here, found_there = wallet_of(here, PAYEE), wallet_of(there, PAYEE)
            places_here, places_there = places_of(here), places_of(there)
        other.dispose()

    assert found_here.pending_earnings_minor == 3 * 1_050
    assert found_there.pending_earnings_minor == 3 * 10_505
    assert (places_here, places_there) == ({"PHP": 2}, {"PHP": 3})


def test_first_of_two_concurrent_uses_stores_the_places(engine: Engine) -> None:
    """The second, with another list, is refused by name and writes nothing. Repeated, it succeeds."""

    def earlier(connection: Connection) -> None:
        bring_in(connection, KWD=2)

    def many(connection: Connection) -> list[AddedHold | Refused]:
        return add_many_pending_earnings(connection, [Earning(**{**EARNING, "currency": "KWD"})], now=NOON)

    _, second = one_after_the_other(engine, earlier, many)

    assert isinstance(second, Refused)
    assert str(second) == (
        "currency 'KWD': came in with 2 places meanwhile, not 3; roll back and state it again"
    )
    with engine.begin() as connection:
        assert row_counts(connection)["wallet"] == 0
        (again,) = many(connection)
        assert isinstance(again, AddedHold)
        assert hold_row(connection, again.hold_id)["amount_minor"] == 1_050


def test_single_earning_compares_its_decimal_places(engine: Engine) -> None:
    """Its statement compares the places that it used with those of the books."""

    def earlier(connection: Connection) -> None:
        bring_in(connection, KWD=2)
        deposit(connection, owner=PAYEE, amount=1, currency="KWD", reference="a", now=NOON)
        deposit(connection, owner=PAYER, amount=1, currency="KWD", reference="b", now=NOON)

    with engine.begin() as connection:
        earlier(connection)
        hold_id = add(connection, currency="KWD").hold_id
        amount_minor = hold_row(connection, hold_id)["amount_minor"]

    assert amount_minor == 1_050


def test_withdrawal_with_outdated_places_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its amount was read with the list's places, and the wallet's currency meanwhile got others."""

    def meanwhile(connection: AnyConnection, name: str, **parameters: object) -> Sequence[Row]:
        if name == "wallet/lock_wallet":
            monkeypatch.undo()
            with engine.begin() as other:
                bring_in(other, KWD=2)
                deposit(other, owner=PAYEE, amount=1, currency="KWD", reference="in", now=NOON)
        return fetch(connection, name, **parameters)

    monkeypatch.setattr(wallet, "fetch", meanwhile)
    with engine.begin() as connection:
        with pytest.raises(NotFound, match="wallet of 'worker-17' in KWD: does not exist"):
            withdraw(connection, owner=PAYEE, amount="0.050", currency="KWD", reference="out", now=NOON)
        balance_minor = wallet_of(connection, PAYEE, "KWD").balance_minor

    assert balance_minor == 100


@pytest.mark.parametrize("user", ["buffer", "postgres"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE buffer.currency SET places = 3",
        "UPDATE buffer.currency SET currency = 'KWD'",
        "DELETE FROM buffer.currency",
        "TRUNCATE buffer.currency CASCADE",
    ],
)
def test_stored_currency_cannot_be_changed(engine: Engine, user: str, statement: str) -> None:
    """Not by the owner and not by a superuser."""
    with engine.begin() as connection:
        add(connection)
    somebody = make_engine(engine.url.set(username=user))

    with (
        pytest.raises(ProgrammingError, match=r"refused; its rows are kept|permission denied"),
        somebody.begin() as connection,
    ):
        connection.execute(text(statement))

    with engine.connect() as connection:
        assert places_of(connection) == {"PHP": 2}
    somebody.dispose()


def test_wallet_needs_a_stored_currency(connection: Connection) -> None:
    """Also in raw SQL."""
    with pytest.raises(Exception, match="wallet_currency_fkey"), connection.begin_nested():
        connection.execute(text("INSERT INTO buffer.wallet (owner, currency) VALUES ('worker-17', 'PHP')"))


def test_psycopg_connection_stores_new_currencies(database_url: str) -> None:
    """The verbs do the same on the connection that a platform has open."""
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        connection.execute("INSERT INTO buffer.currency (currency, places) VALUES ('BGN', 2), ('JPY', 1)")
        for number, (currency, amount) in enumerate([("BGN", "1.25"), ("JPY", "1.5"), ("PHP", "3.75")]):
            add_pending_earnings(
                connection,
                **{**EARNING, "reference": f"in-{number}", "currency": currency, "amount": amount},
                now=NOON,
            )
        rows = connection.execute(
            "SELECT currency, amount_minor FROM buffer.hold ORDER BY hold_id"
        ).fetchall()

    assert rows == [("BGN", 125), ("JPY", 15), ("PHP", 375)]


@pytest.mark.parametrize(
    ("currency", "shown"),
    [
        ("PHP", {"amount": "10.50", "left": None, "hold_id": 7}),
        ("JPY", {"amount": "1050", "left": None, "hold_id": 7}),
        ("XYZ", {"amount_minor": 1050, "left_minor": None, "hold_id": 7}),
        (None, {"amount_minor": 1050, "left_minor": None, "hold_id": 7}),
    ],
)
def test_row_amounts_are_formatted_or_labelled_minor(currency: str | None, shown: dict[str, object]) -> None:
    """Formatted for known currencies, whatever the number type of the row."""
    for amount_minor in (1050, Decimal(1050)):
        row = {"amount_minor": amount_minor, "left_minor": None, "hold_id": 7}

        assert with_amounts(row, {"PHP": 2, "JPY": 0}, currency) == shown
