"""Refusals of a refund by the id of an earning's own hold."""

from typing import Final

import pytest
from sqlalchemy import Connection

from buffer_pipeline.errors import (
    BackjobRefused,
    FreezeRefused,
    InsufficientFunds,
    StateRefused,
    WalletFull,
)
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.release import release_matured
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline_tests.support.backjobs import request
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    PAYEE,
    PAYER,
    WITH_A_FEE,
    books,
    place_hold,
)
from buffer_pipeline_tests.support.full_wallets import fill_wallet
from buffer_pipeline_tests.support.refunds import freeze_for_risk, place_frozen, refund
from buffer_pipeline_tests.support.rules import shares_of

LATE_FEE: Final = (
    Share(kind=ShareKind.PAYEE),
    Share(kind=ShareKind.FEE, owner="platform", percent=12, days=30),
    Share(kind=ShareKind.RESERVE, percent=10, days=90),
)
"""Shares of an earning whose fee is released after the payee's own share."""


def test_a_refund_of_an_earning_that_is_not_frozen_is_refused(connection: Connection) -> None:
    """Even if another of its shares is frozen."""
    first = place_hold(connection, shares=WITH_A_FEE)
    freeze_for_risk(connection, shares_of(connection, first)["FEE"])

    with pytest.raises(StateRefused, match=rf"^hold {first}: cannot refund without a backjob from BUFFERED"):
        refund(connection, first)


def test_refund_of_a_partly_frozen_earning_is_refused(connection: Connection) -> None:
    """A payee's freeze does not cover the fee. The refusal names the fee, and `freeze_hold` freezes all
    shares.
    """
    first = place_hold(connection, shares=WITH_A_FEE)
    fee = shares_of(connection, first)["FEE"]
    freeze_owner(connection, owner=PAYEE, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=NOON)
    before = books(connection)

    with pytest.raises(
        StateRefused,
        match=rf"^hold {fee}: cannot refund without a backjob from BUFFERED; that needs FROZEN$",
    ):
        refund(connection, first)

    assert books(connection) == before
    freeze_for_risk(connection, first)
    assert refund(connection, first).amount_minor == 100_000


def test_refund_of_a_partly_frozen_rest_is_refused(connection: Connection) -> None:
    """After the payee is paid. If none or some of the rest is frozen, the unfrozen shares are named."""
    first = place_hold(connection, shares=LATE_FEE)
    fee, reserve = (shares_of(connection, first)[kind] for kind in ("FEE", "RESERVE"))
    release_matured(connection, now=DAY_7, batch_limit=10)

    with pytest.raises(StateRefused, match=rf"^hold {fee}: "):
        refund(connection, first, now=DAY_7)
    freeze_for_risk(connection, reserve)
    with pytest.raises(StateRefused, match=rf"^hold {fee}: "):
        refund(connection, first, now=DAY_7)


def test_a_refund_of_an_earning_with_a_backjob_is_refused(connection: Connection) -> None:
    """The backjob must be decided first."""
    first = place_frozen(connection)[0]
    opened = request(connection)

    with pytest.raises(BackjobRefused, match=rf"^hold {first}: backjob {opened.backjob_id} covers it"):
        refund(connection, first)


def test_an_amount_above_the_shares_is_refused(connection: Connection) -> None:
    """The refusal has the sum of the frozen shares."""
    first = place_frozen(connection)[0]

    with pytest.raises(
        InsufficientFunds,
        match=rf"^hold {first}: 1000.01 PHP is above the 1000.00 that its frozen shares hold$",
    ):
        refund(connection, first, amount="1000.01")


def test_a_refund_beyond_the_payers_wallet_is_refused(connection: Connection) -> None:
    """Nothing is written for any share."""
    first = place_frozen(connection)[0]
    fill_wallet(connection, PAYER, capacity_minor=99_999)
    before = books(connection)

    with pytest.raises(WalletFull, match=rf"^hold {first}: its payer's wallet"):
        refund(connection, first)

    assert books(connection) == before


def test_frozen_share_without_a_freeze_refuses_the_refund(connection: Connection) -> None:
    """In damaged books, that share is named."""
    first, fee, _ = place_frozen(connection)
    connection.exec_driver_sql(
        "UPDATE buffer.hold_freeze SET closed_by = 'nobody', closing_reason = '?', closed_at = opened_at"
        f" WHERE hold_id = {fee}"
    )

    with pytest.raises(FreezeRefused, match=rf"^hold {fee}: FROZEN without an open freeze"):
        refund(connection, first)
