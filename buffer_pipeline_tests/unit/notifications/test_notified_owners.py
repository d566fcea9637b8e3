"""Which owners are notified of a new earning: intake's own condition, and the function of all other verbs."""

from typing import Final

import pytest
from sqlalchemy import Connection, select, text

from buffer_pipeline.notifications.contact import change_contact
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline.tables import notification
from buffer_pipeline_tests.support.builders import NOON, PAYEE
from buffer_pipeline_tests.support.earnings import WAYS, Add

SHARES: Final = (
    Share(kind=ShareKind.PAYEE),
    Share(kind=ShareKind.PAYEE, owner="worker-18", percent=10),
    Share(kind=ShareKind.FEE, owner="platform", percent=12),
    Share(kind=ShareKind.TAX, owner="tax-office", percent=2),
    Share(kind=ShareKind.RESERVE, percent=10, days=90),
)
"""A share of each kind, and a PAYEE share of another worker."""


@WAYS
@pytest.mark.parametrize(
    ("wishing", "kinds"),
    [
        (None, ["PAYEE", "PAYEE"]),
        (False, ["PAYEE", "PAYEE"]),
        (True, ["FEE", "PAYEE", "PAYEE", "TAX"]),
    ],
)
def test_intake_notifies_whom_the_function_names(
    connection: Connection, add: Add, wishing: bool | None, kinds: list[str]
) -> None:
    """For each kind of share, with and without the wish to be told, `notifies_of` names the same owners.

    Intake has the condition in a statement of its own. An owner without a contact has no wish.
    """
    if wishing is not None:
        for owner in (PAYEE, "worker-18", "platform", "tax-office"):
            change_contact(connection, owner=owner, changes={"notify_of_shares": wishing}, now=NOON)

    add(connection, shares=SHARES)

    named = connection.execute(
        text(
            "SELECT hold_id, kind FROM buffer.hold INNER JOIN buffer.wallet ON payee_wallet_id = wallet_id"
            " WHERE buffer.notifies_of(hold_id, kind, owner) ORDER BY hold_id"
        )
    ).all()
    assert sorted(row.kind for row in named) == kinds
    notified = connection.scalars(select(notification.c.hold_id).order_by(notification.c.hold_id)).all()
    assert notified == [row.hold_id for row in named]
