"""Payments of a marketplace that are taken back after their release, and the debts that this leaves."""

from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy import Connection, func, or_, select

from buffer_pipeline.currencies import places_of
from buffer_pipeline.debts import ClawbackTo, claw_back, forgive_debt, recover_debts
from buffer_pipeline.hours import HOUR
from buffer_pipeline.money import format_amount
from buffer_pipeline.simulation.plans import DAY, Plans
from buffer_pipeline.simulation.terms import FEE_OWNER
from buffer_pipeline.tables import clawback_share, debt, hold, hold_status, wallet
from buffer_pipeline.wallet import withdraw

_DISPUTED_AFTER_DAYS: Final = (10, 30, 30, 60)


class Chargebacks:
    """Takes back what was released, and plans what becomes of the debts."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def plan(self, *, hold_id: int, now: datetime) -> None:
        """Few payments are disputed, weeks later: some by the client, most by the client's bank."""
        plans, chance = self._plans, self._plans.debt_chance
        if plans.happens(6, chance):
            moment = now + chance.choice(_DISPUTED_AFTER_DAYS) * DAY
            to = ClawbackTo.BANK if plans.happens(60, chance) else ClawbackTo.PAYER
            percent = 100 if plans.happens(70, chance) else 50
            advanced = to is ClawbackTo.PAYER and plans.happens(50, chance)
            if plans.happens(50, chance):
                plans.add(moment - HOUR, partial(self._take_everything, hold_id=hold_id))
            plans.add(
                moment,
                partial(self._take_back, hold_id=hold_id, to=to, percent=percent, advanced=advanced),
            )

    def _take_everything(self, connection: Connection, *, hold_id: int, now: datetime) -> None:
        """A worker who knows of the dispute withdraws the whole balance before it."""
        row = connection.execute(
            select(wallet.c.owner, wallet.c.currency, wallet.c.balance_minor)
            .join(hold, hold.c.payee_wallet_id == wallet.c.wallet_id)
            .where(hold.c.hold_id == hold_id)
        ).one()
        if row.balance_minor:
            withdraw(
                connection,
                owner=row.owner,
                amount=format_amount(row.balance_minor, places_of(connection)[row.currency]),
                currency=row.currency,
                reference=f"before-dispute-{hold_id}",
                now=now,
            )

    def _take_back(
        self,
        connection: Connection,
        *,
        hold_id: int,
        to: ClawbackTo,
        percent: int,
        advanced: bool,
        now: datetime,
    ) -> None:
        currency, left_minor = _left(connection, hold_id)
        amount_minor = max(1, left_minor * percent // 100)
        done = claw_back(
            connection,
            hold_id=hold_id,
            amount=format_amount(amount_minor, places_of(connection)[currency]),
            to=to,
            by="admin-1",
            reason="Chargeback" if to is ClawbackTo.BANK else "The client was right after all",
            reference=f"chargeback-{hold_id}-{now:%Y%m%dT%H%M%S}",
            advanced_by=FEE_OWNER if advanced else None,
            now=now,
        )
        plans, chance = self._plans, self._plans.debt_chance
        for debt_id in done.debt_ids:
            if plans.happens(25, chance):
                plans.add(now + 2 * DAY, partial(self._recover, debt_id=debt_id))
            if plans.happens(40, chance):
                plans.add(now + DAY, partial(self._forgive, debt_id=debt_id))

    def _recover(self, connection: Connection, *, debt_id: int, now: datetime) -> None:
        """A worker pays from what is in the balance."""
        owner = connection.scalars(
            select(wallet.c.owner)
            .join(debt, debt.c.wallet_id == wallet.c.wallet_id)
            .where(debt.c.debt_id == debt_id)
        ).one()
        recover_debts(connection, owner=owner, by="admin-1", reference=f"recovery-{debt_id}", now=now)

    def _forgive(self, connection: Connection, *, debt_id: int, now: datetime) -> None:
        forgive_debt(
            connection,
            debt_id=debt_id,
            by="admin-1",
            reason="The worker has left",
            reference=f"forgiven-{debt_id}",
            now=now,
        )


def _left(connection: Connection, hold_id: int) -> tuple[str, int]:
    """Return the currency of an earning, and what its shares have released and not given back."""
    of_earning = or_(hold_status.c.hold_id == hold_id, hold_status.c.earning_id == hold_id)
    currency, released_minor = connection.execute(
        select(func.min(hold_status.c.currency), func.sum(hold_status.c.released_minor)).where(of_earning)
    ).one()
    taken_minor = connection.scalar(
        select(func.coalesce(func.sum(clawback_share.c.amount_minor), 0))
        .join(hold, hold.c.hold_id == clawback_share.c.hold_id)
        .where(or_(hold.c.hold_id == hold_id, hold.c.earning_id == hold_id))
    )
    return currency, int(released_minor) - int(taken_minor or 0)
