"""Earnings with shares in the books: concurrent calls, full wallets, linear time, and a migration."""

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.database import REVISION, books_revision, make_engine, migrate
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import WalletFull
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.intake import AddedHold, Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.notifications.contact import change_contact
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    WITH_A_FEE,
    all_at_once,
    books,
    notifications_of,
    place_hold,
    row_counts,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.full_wallets import fill_wallet

TEAM: Final = (
    Share(kind=ShareKind.PAYEE, days=1),
    Share(kind=ShareKind.PAYEE, owner="worker-18", percent=40),
)


def earning(reference: str = "invoice-1", amount: str = "1000.00", *, payee: str = PAYEE) -> Earning:
    """Return an earning with a fee and a reserve."""
    return Earning(
        reference=reference,
        job=JOB,
        payee=payee,
        payer=PAYER,
        amount=amount,
        currency="PHP",
        shares=WITH_A_FEE,
    )


def add(connection: Connection, reference: str = "invoice-1", amount: str = "1000.00") -> AddedHold:
    """Add one earning in a single call."""
    return add_pending_earnings(connection, **vars(earning(reference, amount)), now=NOON)


@pytest.mark.parametrize("wallets", ["new", "known"])
def test_concurrent_calls_for_one_earning_add_it_once(engine: Engine, wallets: str) -> None:
    """Calls for one earning and for many all return the same shares."""
    if wallets == "known":
        with engine.begin() as connection:
            add(connection, "invoice-0")

    outcomes = all_at_once(
        engine, *[add, lambda books: add_many_pending_earnings(books, [earning()], now=NOON)[0]] * 4
    )

    added = [outcome for outcome in outcomes if isinstance(outcome, AddedHold)]
    assert [hold.replayed for hold in added].count(False) == 1
    assert len(added) == 8
    assert len({hold.shares for hold in added}) == 1
    with engine.connect() as connection:
        assert row_counts(connection)["hold"] == (3 if wallets == "new" else 6)
        assert notifications_of(connection, PAYEE).count("PAYMENT_PENDING") == (1 if wallets == "new" else 2)
        assert reconcile(connection) == []


def test_wallet_must_have_room_for_all_its_shares(connection: Connection) -> None:
    """The payee's share and the reserve together: 88 of 100. An earning that does not fit writes nothing."""
    fill_wallet(connection, PAYEE, capacity_minor=100)
    add(connection, "fits", "1.00")
    before = books(connection)

    with pytest.raises(WalletFull, match=r"wallet of 'worker-17': cannot take 0\.88 PHP more"):
        add(connection, "does not", "1.00")
    assert books(connection) == before
    outcomes = add_many_pending_earnings(
        connection,
        [earning("neither", "1.00"), earning("other", "1.00", payee="worker-18"), earning("last", "0.10")],
        now=NOON,
    )

    assert [isinstance(outcome, AddedHold) for outcome in outcomes] == [False, True, True]
    assert wallet_of(connection, PAYEE).pending_earnings_minor == 97
    assert reconcile(connection) == []


def test_an_owner_of_fees_whose_wallet_is_full_is_named(connection: Connection) -> None:
    """If one share does not fit, none is added."""
    fill_wallet(connection, "platform", capacity_minor=11)

    with pytest.raises(WalletFull, match=r"wallet of 'platform': cannot take 0\.12 PHP more"):
        add(connection, "does not", "1.00")

    assert wallet_of(connection, PAYEE).pending_earnings_minor == 0


# ---- what the rules say where an earning has several payees, or is repeated


def test_an_earning_of_a_team_is_frozen_late_while_a_payee_waits(connection: Connection) -> None:
    """Its window is open until the last payee's own share is due, for late earnings and for requests."""
    place_hold(connection)
    request_backjob(connection, job=JOB, by=PAYER, reason="Leaks", now=NOON)

    added = add_pending_earnings(
        connection,
        **{**vars(earning()), "shares": TEAM, "held_at": NOON - timedelta(days=2)},
        now=NOON,
    )

    assert [state_of(connection, share.hold_id) for share in added.shares] == [
        HoldState.BUFFERED,
        HoldState.FROZEN,
    ]
    assert reconcile(connection) == []


def test_replay_does_not_compare_dates_that_depend_on_the_clock(connection: Connection) -> None:
    """A payee's share in days, and the date of the whole earning. A later replay matches."""
    stated = {**vars(earning()), "shares": (*TEAM, WITH_A_FEE[1]), "release_date": DAY_7}
    add_pending_earnings(connection, **stated, now=NOON)

    assert add_pending_earnings(connection, **stated, now=NOON + timedelta(hours=1)).replayed


@pytest.mark.parametrize("notified", [False, True])
def test_refund_of_a_fee_notifies_its_owner_on_request(connection: Connection, notified: bool) -> None:
    """As for every other change of a fee. The payer is always notified."""
    change_contact(connection, owner="platform", changes={"notify_of_shares": notified}, now=NOON)
    fee = add(connection).shares[1]
    freeze_hold(connection, hold_id=fee.hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="hm", now=NOON)

    refund_hold(connection, hold_id=fee.hold_id, by=ADMIN, reason="a gift", reference="back-1", now=NOON)

    assert ("PAYMENT_REFUNDED" in notifications_of(connection, "platform")) is notified
    assert notifications_of(connection, PAYER) == ["PAYMENT_REFUNDED"]


# ---- the migration


@pytest.fixture
def old_books(server: EmbeddedServer) -> Iterator[Engine]:
    """An engine on books of revision 0017, which have no shares."""
    name = f"old_{os.urandom(6).hex()}"
    admin = make_engine(server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} OWNER buffer"))
    engine = make_engine(server.url(name))
    migrate(engine, "0017")
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def downgrade(engine: Engine) -> None:
    """Bring the books back to revision 0017."""
    config = Config()
    config.set_main_option("script_location", "buffer_pipeline:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0017")


def holds(connection: Connection) -> list[tuple[object, ...]]:
    """Return the columns of the view that existed before shares."""
    rows = connection.execute(
        text(
            "SELECT hold_id, reference, job, title, amount_minor, refunded_minor, state, release_date,"
            " settled_at, metadata FROM buffer.hold_status ORDER BY hold_id"
        )
    )
    return [tuple(row) for row in rows]


def test_shares_migration_keeps_the_holds(old_books: Engine) -> None:
    """Without a divided earning, both directions work. With one, the downgrade is refused."""
    migrate(old_books)
    with old_books.begin() as connection:
        for state in HoldState:
            place_hold(connection, state=state, job=f"job-{state}")
        before = holds(connection)

    downgrade(old_books)

    with old_books.begin() as connection:
        assert holds(connection) == before
    migrate(old_books)
    with old_books.begin() as connection:
        assert books_revision(old_books) == REVISION
        assert holds(connection) == before
        assert reconcile(connection) == []
        add(connection)
    with pytest.raises(IntegrityError, match="hold_reference_key"):
        downgrade(old_books)
    with old_books.begin() as connection:
        assert books_revision(old_books) == REVISION
        assert len(holds(connection)) == len(before) + 3
        assert reconcile(connection) == []
