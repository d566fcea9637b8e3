"""Admin and risk freezes of holds and owners in a marketplace, and refunds of payments that were fraud."""

from datetime import datetime
from functools import partial

from sqlalchemy import Connection, func, or_, select

from buffer_pipeline.currencies import places_of
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.hours import HOUR
from buffer_pipeline.money import format_amount
from buffer_pipeline.owner_freeze import freeze_owner, unfreeze_owner
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.simulation.plans import DAY, Plans
from buffer_pipeline.tables import hold, unsettled_hold, wallet


class Freezes:
    """Freezes holds and owners, and plans how each freeze ends."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def freeze(self, connection: Connection, *, hold_id: int, kind: FreezeKind, now: datetime) -> None:
        """Freeze a hold for some hours or days; an earning's own hold with all of its shares."""
        plans = self._plans
        by, reason = (
            ("risk-1", "Unusual amount for a new worker")
            if kind is FreezeKind.RISK
            else ("admin-1", "The client asked us to look into the invoice")
        )
        freeze = freeze_hold(connection, hold_id=hold_id, kind=kind, by=by, reason=reason, now=now)
        closed_at = plans.within(now, 6 * DAY, after=4 * HOUR)
        plans.add(closed_at, partial(self._unfreeze, freeze_id=freeze.freeze_id, by=by))
        if kind is FreezeKind.RISK and plans.happens(40, plans.late_chance):
            # All of it was fraud, or half of it. The other half is released after the freeze is closed.
            percent = 100 if plans.happens(60, plans.late_chance) else 50
            plans.add(now + 3 * HOUR, partial(self._refund, hold_id=hold_id, percent=percent))
        if kind is FreezeKind.RISK and plans.happens(10, plans.owner_chance):
            plans.add(now + HOUR, partial(self._freeze_owner, hold_id=hold_id))

    def _freeze_owner(self, connection: Connection, *, hold_id: int, now: datetime) -> None:
        """Freeze the payee of a suspicious hold for three days: all that waits, and what they earn then."""
        owner = connection.scalar(
            select(wallet.c.owner)
            .join(unsettled_hold, unsettled_hold.c.payee_wallet_id == wallet.c.wallet_id)
            .where(unsettled_hold.c.hold_id == hold_id)
        )
        if owner is None:
            return
        reason = "The account may be stolen"
        freeze_owner(connection, owner=owner, kind=FreezeKind.RISK, by="risk-1", reason=reason, now=now)
        self._plans.add(now + 3 * DAY, partial(self._unfreeze_owner, owner=owner))

    def _unfreeze_owner(self, connection: Connection, *, owner: str, now: datetime) -> None:
        unfreeze_owner(connection, owner=owner, by="risk-1", reason="The owner called back", now=now)

    def _refund(self, connection: Connection, *, hold_id: int, percent: int, now: datetime) -> None:
        # What is frozen of the hold, or of all shares of the earning.
        held = connection.execute(
            select(unsettled_hold.c.currency, func.sum(unsettled_hold.c.amount_minor))
            .join(hold, hold.c.hold_id == unsettled_hold.c.hold_id)
            .where(or_(hold.c.hold_id == hold_id, hold.c.earning_id == hold_id))
            .where(unsettled_hold.c.state == HoldState.FROZEN)
            .group_by(unsettled_hold.c.currency)
        ).one_or_none()
        if held is None:
            return
        currency, held_minor = held
        refund_hold(
            connection,
            hold_id=hold_id,
            by="admin-1",
            reason="The card was stolen",
            reference=f"refund-{hold_id}-{now:%Y%m%dT%H%M%S}",
            amount=format_amount(int(held_minor) * percent // 100, places_of(connection)[currency]),
            now=now,
        )

    def _unfreeze(self, connection: Connection, *, freeze_id: int, by: str, now: datetime) -> None:
        unfreeze_hold(connection, freeze_id=freeze_id, by=by, reason="All is in order", now=now)
