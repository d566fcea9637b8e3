"""Earnings whose money did not arrive are refused, and nothing of them remains."""

from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.database import make_engine
from buffer_pipeline.errors import BooksOutOfBalance, WalletFull
from buffer_pipeline.intake import AddedHold, Earning, add, add_many_pending_earnings
from buffer_pipeline.policy import Policy
from buffer_pipeline_tests.support.builders import NOON, books
from buffer_pipeline_tests.support.full_wallets import fill_wallet


def earning(number: int) -> Earning:
    """Return an earning with its own worker and job."""
    return Earning(
        reference=f"earning-{number}",
        job=f"job-{number}",
        payee=f"worker-{number}",
        payer="client-3",
        amount="10.00",
        currency="PHP",
    )


def test_credit_that_was_not_written_is_refused(engine: Engine, superuser_url: str) -> None:
    """The error has both sums."""
    earnings = [earning(number) for number in range(2)]
    with engine.connect() as connection:
        before = books(connection)
    with make_engine(superuser_url).begin() as superuser:
        superuser.execute(
            text("CREATE FUNCTION buffer.lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        )
        superuser.execute(
            text(
                "CREATE TRIGGER lose BEFORE UPDATE ON buffer.wallet FOR EACH ROW"
                " EXECUTE FUNCTION buffer.lose()"
            )
        )

    with engine.connect() as connection:
        with pytest.raises(BooksOutOfBalance) as refusal:
            add_many_pending_earnings(connection, earnings, policy=Policy(), now=NOON)
        connection.rollback()
        assert books(connection) == before

    assert str(refusal.value) == (
        "2 holds of 2000 minor units were added, wallets were credited with 0; roll back"
    )


def test_error_of_another_kind_is_not_tried_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a full wallet is handled; other database errors are raised at once."""
    tried = []

    def fail(*_: Any, **__: Any) -> Any:
        tried.append(1)
        raise psycopg.errors.DivisionByZero("no")

    monkeypatch.setattr("buffer_pipeline.intake.add.add_all", fail)

    with pytest.raises(psycopg.errors.DivisionByZero):
        add_many_pending_earnings(connection, [earning(1)], policy=Policy(), now=NOON)

    assert len(tried) == 1


def test_all_full_wallets_are_refused_over_several_attempts(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal of an earlier attempt is kept in later ones."""
    fill_wallet(connection, "worker-1", capacity_minor=0)
    fill_wallet(connection, "worker-2", capacity_minor=0)
    find_full = add._find_full

    def find_one(*arguments: Any) -> Any:
        return dict(list(find_full(*arguments).items())[:1])

    monkeypatch.setattr("buffer_pipeline.intake.add._find_full", find_one)
    first, second, third = add_many_pending_earnings(
        connection, [earning(1), earning(2), earning(3)], policy=Policy(), now=NOON
    )

    assert isinstance(first, WalletFull)
    assert isinstance(second, WalletFull)
    assert isinstance(third, AddedHold)
