"""Payouts of a marketplace: each week some workers are paid out, in batches that somebody else approves."""

from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection, select

from buffer_pipeline.errors import PayoutRefused
from buffer_pipeline.payouts import (
    PayoutMethod,
    PayoutResult,
    approve_payout_batch,
    cancel_payout,
    cancel_payout_batch,
    make_payout_batch,
    mark_payouts,
    request_payout,
    send_payout_batch,
    set_destination,
)
from buffer_pipeline.payouts.bank_ids import bank_ids
from buffer_pipeline.payouts.result import Outcome
from buffer_pipeline.simulation.plans import DAY, Plans
from buffer_pipeline.tables import payout, wallet

_PAID_OUT_FROM_MINOR: Final = 10_000
"""A worker requests no payout of a smaller balance."""
_HOUR: Final = timedelta(hours=1)
_BATCHES_AFTER: Final = 6 * DAY
"""The first batches are made so long after the start, and then each week."""


class Payouts:
    """Pays workers out, and plans the next week."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def begin(self, *, start: datetime, workers: int) -> None:
        """Plan the payouts of every second worker, and the batches."""
        for number in range(2, workers + 1, 2):
            owner = f"worker-{number}"
            self._plans.add(start, partial(self._set_destination, owner=owner, version=1))
            moment = start + timedelta(seconds=self._plans.payout_chance.randrange(7 * 24 * 3600))
            self._plans.add(moment, partial(self._request, owner=owner, week=1))
        self._plans.add(start + _BATCHES_AFTER, self._make_batches)

    def _set_destination(self, connection: Connection, *, owner: str, version: int, now: datetime) -> None:
        set_destination(
            connection,
            owner=owner,
            method=PayoutMethod.TOKEN,
            account=f"token-{version}-of-{owner}",
            by=owner,
            reason="A new account",
            now=now,
        )

    def _request(self, connection: Connection, *, owner: str, week: int, now: datetime) -> None:
        self._plans.add(now + 7 * DAY, partial(self._request, owner=owner, week=week + 1))
        currencies = connection.scalars(
            select(wallet.c.currency)
            .where(wallet.c.owner == owner, wallet.c.balance_minor >= _PAID_OUT_FROM_MINOR)
            .order_by(wallet.c.currency)
        )
        for currency in currencies.all():
            override = self._plans.happens(5, self._plans.payout_chance)
            done = request_payout(
                connection,
                owner=owner,
                currency=currency,
                everything=True,
                by="admin-2" if override else owner,
                override=override,
                reason="Checked by phone" if override else None,
                reference=f"payout-{owner}-{week}-{currency}",
                now=now,
            )
            if self._plans.happens(4, self._plans.payout_chance):
                self._plans.add(now + _HOUR, partial(self._cancel, payout_id=done.payout_id))

    def _cancel(self, connection: Connection, *, payout_id: int, now: datetime) -> None:
        cancel_payout(connection, payout_id=payout_id, by="admin-2", reason="The worker asked", now=now)

    # ---- batches

    def _make_batches(self, connection: Connection, *, now: datetime) -> None:
        self._plans.add(now + 7 * DAY, self._make_batches)
        currencies = connection.scalars(
            select(payout.c.currency)
            .where(payout.c.state == "REQUESTED")
            .group_by(payout.c.currency)
            .order_by(payout.c.currency)
        )
        # Each currency in an act of its own, so that a refusal of one stops no other.
        for currency in currencies.all():
            self._plans.add(now, partial(self._make_batch, currency=currency))

    def _make_batch(self, connection: Connection, *, currency: str, now: datetime) -> None:
        made = make_payout_batch(connection, currency=currency, by="finance-1", now=now)
        id_ = made.payout_batch_id
        if self._plans.happens(10, self._plans.payout_chance):
            self._plans.add(now + _HOUR, partial(self._approve, batch_id=id_, by="finance-1"))
        self._plans.add(now + 2 * _HOUR, partial(self._approve, batch_id=id_, by="finance-2"))
        self._plans.add(now + 3 * _HOUR, partial(self._send, batch_id=id_))

    def _approve(self, connection: Connection, *, batch_id: int, by: str, now: datetime) -> None:
        approve_payout_batch(connection, payout_batch_id=batch_id, by=by, now=now)

    def _send(self, connection: Connection, *, batch_id: int, now: datetime) -> None:
        try:
            send_payout_batch(connection, payout_batch_id=batch_id, by="finance-1", now=now)
        except PayoutRefused:
            # Somebody in it was frozen, owes a debt or has another account since.
            cancel_payout_batch(
                connection,
                payout_batch_id=batch_id,
                by="finance-1",
                reason="An owner cannot be paid",
                now=now,
            )
            raise
        self._plans.add(now + 2 * DAY, partial(self._bank_answers, batch_id=batch_id))

    def _bank_answers(self, connection: Connection, *, batch_id: int, now: datetime) -> None:
        """The bank reports each payout. Some accounts are closed, a few of them weeks later."""
        plans, chance = self._plans, self._plans.payout_chance
        rows = connection.execute(
            select(payout.c.payout_id, wallet.c.owner)
            .join(wallet, wallet.c.wallet_id == payout.c.wallet_id)
            .where(payout.c.payout_batch_id == batch_id)
            .order_by(payout.c.payout_id)
        ).all()
        closed = {id_ for id_, _ in rows if plans.happens(4, chance)}
        self._mark(connection, batch_id, {id_: id_ in closed for id_, _ in rows}, now=now)
        for id_, owner in rows:
            if id_ in closed:
                new = partial(self._set_destination, owner=owner, version=id_ + 1)
                plans.add(now + DAY, new)
            elif plans.happens(2, chance):
                plans.add(now + 10 * DAY, partial(self._return_late, batch_id=batch_id, payout_id=id_))

    def _return_late(self, connection: Connection, *, batch_id: int, payout_id: int, now: datetime) -> None:
        self._mark(connection, batch_id, {payout_id: True}, now=now)

    def _mark(
        self, connection: Connection, batch_id: int, is_returned: dict[int, bool], *, now: datetime
    ) -> None:
        ids = bank_ids(connection)
        mark_payouts(
            connection,
            payout_batch_id=batch_id,
            results=[
                PayoutResult(
                    end_to_end_id=ids.of_payout(id_),
                    outcome=Outcome.RETURNED if back else Outcome.PAID,
                    reason="AC04: account closed" if back else None,
                )
                for id_, back in is_returned.items()
            ],
            by="finance-1",
            file_digest=sha256(f"{batch_id} at {now.isoformat()}".encode()).digest(),
            now=now,
        )
