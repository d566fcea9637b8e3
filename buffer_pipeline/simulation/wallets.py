"""Deposits of a marketplace's clients and withdrawals of its workers."""

from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy import Connection, select

from buffer_pipeline.currencies import places_of
from buffer_pipeline.money import format_amount
from buffer_pipeline.simulation.plans import DAY, Plans
from buffer_pipeline.tables import wallet
from buffer_pipeline.wallet import deposit, withdraw

_WITHDRAWN_FROM_MINOR: Final = 10_000
"""A worker withdraws nothing from a smaller balance."""


class Wallets:
    """Moves money in and out, and plans the next time."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def deposit(self, connection: Connection, *, client: int, month: int, now: datetime) -> None:
        """A client deposits money for a month."""
        for currency, amount in (("PHP", "250000.00"), ("JPY", "400000")):
            if currency == "PHP" or client % 6 == 0:
                deposit(
                    connection,
                    owner=f"client-{client}",
                    amount=amount,
                    currency=currency,
                    reference=f"deposit-{client}-{month}-{currency}",
                    now=now,
                )
        self._plans.add(now + 30 * DAY, partial(self.deposit, client=client, month=month + 1))

    def withdraw(self, connection: Connection, *, worker: int, week: int, now: datetime) -> None:
        """A worker withdraws a part of each balance, once a week."""
        self._plans.add(now + 7 * DAY, partial(self.withdraw, worker=worker, week=week + 1))
        owner = f"worker-{worker}"
        rows = connection.execute(
            select(wallet.c.currency, wallet.c.balance_minor)
            .where(wallet.c.owner == owner, wallet.c.balance_minor >= _WITHDRAWN_FROM_MINOR)
            .order_by(wallet.c.currency)
        )
        places = places_of(connection)
        for currency, balance_minor in rows.all():
            # Sometimes a worker asks for more than the balance, which is refused.
            percent = 110 if self._plans.happens(3) else self._plans.chance.randint(30, 100)
            withdraw(
                connection,
                owner=owner,
                amount=format_amount(balance_minor * percent // 100, places[currency]),
                currency=currency,
                reference=f"withdrawal-{worker}-{week}-{currency}",
                now=now,
            )
