"""The text for a payee is read by that payee only, not by the owners of other shares."""

from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.explain import explain_hold
from buffer_pipeline.explain.words import payee_reasons
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.notifications.contact import change_contact
from buffer_pipeline.release import release_matured
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline_tests.support.builders import ADMIN, DAY_7, NOON, PAYEE, WITH_A_FEE, place_hold
from buffer_pipeline_tests.support.deliveries import claim_from, dispatch_all
from buffer_pipeline_tests.support.messages import BUILT_IN
from buffer_pipeline_tests.support.read_rows import all_holds

TEXT: Final = "Please send us a copy of your card."
FREEZE: Final[dict[str, Any]] = {"kind": FreezeKind.RISK, "by": ADMIN, "reason": "a look", "payee_text": TEXT}
LATE_FEE: Final = (
    Share(kind=ShareKind.PAYEE),
    Share(kind=ShareKind.FEE, owner="platform", percent=12, days=30),
    Share(kind=ShareKind.RESERVE, percent=10, days=90),
)
"""When the payee's own share is released, the fee and the reserve still wait."""


def told(connection: Connection) -> dict[str, str]:
    """Return what the owner of each unsettled share reads, by its kind."""
    return {
        row["kind"]: str(
            payee_reasons(
                explain_hold(connection, hold_id=row["hold_id"], now=DAY_7), moment=lambda at: at.isoformat()
            )
        )
        for row in all_holds(connection)
        if row["settled_at"] is None
    }


@pytest.mark.parametrize("frozen_before", [False, True])
def test_the_owner_of_a_fee_does_not_read_it(connection: Connection, frozen_before: bool) -> None:
    """A freeze of the earning covers the fee; its text is shown with the payee's own share and reserve."""
    hold_id = place_hold(connection, shares=WITH_A_FEE)
    if frozen_before:
        freeze_hold(connection, hold_id=hold_id, **{**FREEZE, "payee_text": None}, now=NOON)

    freeze_hold(connection, hold_id=hold_id, now=NOON, **FREEZE)

    assert {kind for kind, text in told(connection).items() if TEXT in text} == {"PAYEE", "RESERVE"}
    assert "FREEZE" in told(connection)["FEE"]


def test_a_freeze_of_the_fee_tells_its_owner(connection: Connection) -> None:
    """By the id of the fee, the text is for the owner of the fee."""
    place_hold(connection, shares=WITH_A_FEE)
    (fee,) = (row["hold_id"] for row in all_holds(connection, kind="FEE"))

    freeze_hold(connection, hold_id=fee, now=NOON, **FREEZE)

    assert {kind for kind, text in told(connection).items() if TEXT in text} == {"FEE"}


def test_a_fee_that_waits_longer_than_the_payees_share(connection: Connection) -> None:
    """The fee is the first unsettled share, and yet only the reserve has the text. A retry finds it."""
    hold_id = place_hold(connection, shares=LATE_FEE)
    release_matured(connection, now=DAY_7, batch_limit=10)

    done = freeze_hold(connection, hold_id=hold_id, reference="case-1", now=DAY_7, **FREEZE)
    again = freeze_hold(connection, hold_id=hold_id, reference="case-1", now=DAY_7, **FREEZE)

    assert {kind for kind, text in told(connection).items() if TEXT in text} == {"RESERVE"}
    assert (again.freeze_id, again.replayed) == (done.freeze_id, True)
    assert again.hold_ids == done.hold_ids == (hold_id + 1, hold_id + 2)
    closed = unfreeze_hold(connection, freeze_id=done.freeze_id, by=ADMIN, reason="cleared", now=DAY_7)
    assert closed.hold_ids == done.hold_ids


def test_a_text_for_nobody_is_refused(connection: Connection) -> None:
    """Nothing of the payee's waits any more: the freeze of the fee needs no text for them."""
    hold_id = place_hold(connection, shares=LATE_FEE[:2])
    release_matured(connection, now=DAY_7, batch_limit=10)

    with pytest.raises(InvalidInput, match="only shares of other owners are unsettled; leave it out"):
        freeze_hold(connection, hold_id=hold_id, now=DAY_7, **FREEZE)
    frozen = freeze_hold(connection, hold_id=hold_id, now=DAY_7, **{**FREEZE, "payee_text": None})

    assert frozen.hold_ids == (hold_id + 1,)


def test_the_message_to_the_owner_of_a_fee_is_without_it(connection: Connection) -> None:
    """PAYMENT_FROZEN of the payee's share has the text, that of the fee has not."""
    change_contact(connection, owner="platform", changes={"notify_of_shares": True}, now=NOON)
    hold_id = place_hold(connection, shares=WITH_A_FEE)
    freeze_hold(connection, hold_id=hold_id, now=NOON, **FREEZE)
    dispatch_all(connection, now=NOON)

    frozen = {
        claimed.notification.owner: BUILT_IN.render(claimed.notification, None).text
        for claimed in claim_from(connection, now=NOON + timedelta(minutes=1))
        if claimed.notification.type == "PAYMENT_FROZEN"
    }

    assert set(frozen) == {PAYEE, "platform"}
    assert TEXT in frozen[PAYEE]
    assert TEXT not in frozen["platform"]
