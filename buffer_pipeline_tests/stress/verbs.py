"""The verbs, and how their targets and arguments are drawn."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeAlias

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.database import AnyConnection
from buffer_pipeline.errors import Refused
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_early
from buffer_pipeline.reschedule import reschedule_hold
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.stress.market import CURRENCIES, Job, Market
from buffer_pipeline_tests.stress.record import Call
from buffer_pipeline_tests.support.builders import ADMIN

VERBS: Final[dict[str, Callable[..., Any]]] = {
    "add": add_pending_earnings,
    "add many": add_many_pending_earnings,
    "request": request_backjob,
    "reject": reject_backjob,
    "approve": approve_backjob,
    "withdraw the backjob": withdraw_backjob,
    "freeze": freeze_hold,
    "unfreeze": unfreeze_hold,
    "refund": refund_hold,
    "release early": release_early,
    "release a part": release_early,
    "reschedule": reschedule_hold,
    "deposit": deposit,
    "withdraw": withdraw,
}

MAY_HAVE_A_REFERENCE: Final = (
    "request",
    "reject",
    "approve",
    "withdraw the backjob",
    "freeze",
    "unfreeze",
    "reschedule",
)

Arguments: TypeAlias = dict[str, Any]


def perform(connection: AnyConnection, call: Call) -> None:
    """Run the call's verb and record its answer, which may be a refusal."""
    verb = VERBS[call.verb]
    try:
        if call.verb == "add many":
            call.answer = verb(connection, call.arguments["earnings"], now=call.now)
        else:
            call.answer = verb(connection, **call.arguments, now=call.now)
    except Refused as refusal:
        call.answer = refusal


@dataclass
class Draw:
    """Draws calls for one thread."""

    market: Market
    chance: random.Random
    weights: Mapping[str, int]
    """Relative frequency of each verb."""
    mine: list[int] = field(default_factory=list)
    """Holds of the current transaction, unknown to others."""

    def call(self) -> Call:
        """Return a call with a random verb and arguments."""
        while True:
            verb = self.chance.choices(list(self.weights), weights=list(self.weights.values()))[0]
            arguments = _ARGUMENTS[verb](self)
            if arguments is not None:
                if verb in MAY_HAVE_A_REFERENCE:
                    arguments = self._with_a_reference(verb, arguments)
                return Call(verb=verb, arguments=arguments, now=self.market.clock.read())

    def _with_a_reference(self, verb: str, arguments: Arguments) -> Arguments:
        """Return the arguments with a reference, or those of an earlier call, sometimes changed."""
        if (sent := self.market.sent[verb]) and self.chance.random() < 0.1:
            again = dict(self.chance.choice(list(sent)))
            return {**again, "reason": "another"} if self.chance.random() < 0.3 else again
        if self.chance.random() < 0.5:
            arguments = {**arguments, "reference": f"{verb}-{self.market.number()}"}
            sent.append(arguments)
        return arguments

    def _add(self) -> Arguments:
        return dict(vars(self.market.earning(self.chance)))

    def _add_many(self) -> Arguments:
        # Some are those of a team: several for one job, which may have an open backjob.
        job = self.market.job(self.chance) if self.chance.random() < 0.3 else None
        earnings = [self.market.earning(self.chance, job) for _ in range(self.chance.randint(2, 12))]
        self.chance.shuffle(earnings)
        return {"earnings": earnings}

    def _hold(self) -> tuple[Job, int] | None:
        job = self.market.job(self.chance)
        if self.mine and self.chance.random() < 0.3:
            return job, self.chance.choice(self.mine)
        # The newest are rarely settled.
        return (job, self.chance.choice(job.holds[-12:])) if job.holds else None

    def _request(self) -> Arguments:
        job = self.market.job(self.chance)
        arguments: Arguments = {"job": job.name, "by": job.payer, "reason": "it leaks"}
        if self.chance.random() < 0.4:
            arguments["payer"] = job.payer if self.chance.random() < 0.9 else "a stranger"
        return arguments

    def _decide(self, job: Job | None = None) -> Arguments | None:
        job = job or self.market.job(self.chance)
        if not job.backjobs:
            return None
        backjob_id = job.backjobs[-1] if self.chance.random() < 0.9 else job.backjobs[0]
        return {"backjob_id": backjob_id, "by": ADMIN, "reason": "looked at"}

    def _approve(self) -> Arguments | None:
        job = self.market.job(self.chance)
        arguments = self._decide(job)
        if arguments is not None and self.chance.random() < 0.6:
            arguments["amount"] = str(self.chance.randint(1, 4_000))
        if arguments is not None and job.holds and self.chance.random() < 0.4:
            newest = job.holds[-6:]
            arguments["hold_ids"] = self.chance.sample(newest, min(len(newest), self.chance.randint(1, 2)))
        return arguments

    def _freeze(self) -> Arguments | None:
        found = self._hold()
        kind = self.chance.choice((FreezeKind.ADMIN, FreezeKind.RISK))
        return found and {"hold_id": found[1], "kind": kind, "by": "risk-2", "reason": "a look"}

    def _unfreeze(self) -> Arguments | None:
        freezes = dict(self.market.job(self.chance).freezes)
        # Mostly on holds with several freezes, of which two are sometimes closed at once.
        held = Counter(freezes.values())
        several = [freeze_id for freeze_id, hold_id in freezes.items() if held[hold_id] > 1]
        choice = several if several and self.chance.random() < 0.7 else list(freezes)
        return {"freeze_id": self.chance.choice(choice), "by": ADMIN, "reason": "cleared"} if choice else None

    def _refund(self) -> Arguments | None:
        market = self.market
        if market.refunds and self.chance.random() < 0.15:
            again = dict(self.chance.choice(list(market.refunds)))
            return {**again, "reason": "another"} if self.chance.random() < 0.3 else again
        freezes = market.job(self.chance).freezes
        frozen = list(dict(freezes).values())
        if not frozen:
            return None
        refund: Arguments = {
            "hold_id": self.chance.choice(frozen),
            "by": ADMIN,
            "reason": "a fraud",
            "reference": f"refund-{market.number()}",
        }
        if self.chance.random() < 0.6:
            refund["amount"] = str(self.chance.randint(1, 1_500))
        market.refunds.append(refund)
        return refund

    def _release_early(self) -> Arguments | None:
        drawn = self.chance.random()
        if (found := self._hold()) is None:
            return None
        job, hold_id = found
        what: Arguments = {"hold_id": hold_id} if drawn < 0.6 else {"job": job.name}
        if drawn % 0.1 < 0.05:
            return {**what, "by": ADMIN, "as_admin": True, "reason": "well done"}
        return {**what, "by": job.payer if drawn < 0.95 else "a stranger", "reason": "well done"}

    def _release_part(self) -> Arguments | None:
        if (parts := self.market.parts) and self.chance.random() < 0.15:
            again = dict(self.chance.choice(list(parts)))
            return {**again, "amount": "7"} if self.chance.random() < 0.3 else again
        if (found := self._hold()) is None:
            return None
        job, hold_id = found
        part: Arguments = {
            "hold_id": hold_id,
            "amount": str(self.chance.randint(1, 2_500)),
            "by": job.payer if self.chance.random() < 0.9 else "a stranger",
            "reason": "a part is done",
            "reference": f"part-{self.market.number()}",
        }
        parts.append(part)
        return part

    def _reschedule(self) -> Arguments | None:
        if (found := self._hold()) is None:
            return None
        job, hold_id = found
        drawn = self.chance.random()
        # From just before now to beyond the cap. An earlier date is due soon.
        hours = self.chance.choice((-1, 0, 0, 1, 6, 48, 24 * 30, 24 * 200))
        to = self.market.clock.read() + timedelta(hours=hours, seconds=self.chance.randint(1, 3_000))
        what: Arguments = {"hold_id": hold_id, "to": to, "reason": "agreed"}
        if drawn < 0.6:
            return {**what, "by": ADMIN, "as_admin": True}
        return {**what, "by": job.payer if drawn < 0.95 else "a stranger"}

    def _move(self, most: int) -> Arguments:
        if self.market.movements and self.chance.random() < 0.15:
            return dict(self.chance.choice(list(self.market.movements)))
        moved = {
            "owner": self.market.owner(self.chance),
            "amount": str(self.chance.randint(1, most)),
            "currency": self.chance.choice(CURRENCIES),
            "reference": f"movement-{self.market.number()}",
        }
        self.market.movements.append(moved)
        return moved


_ARGUMENTS: Final[dict[str, Callable[[Draw], Arguments | None]]] = {
    "add": Draw._add,
    "add many": Draw._add_many,
    "request": Draw._request,
    "reject": Draw._decide,
    "approve": Draw._approve,
    "withdraw the backjob": Draw._decide,
    "freeze": Draw._freeze,
    "unfreeze": Draw._unfreeze,
    "refund": Draw._refund,
    "release early": Draw._release_early,
    "release a part": Draw._release_part,
    "reschedule": Draw._reschedule,
    "deposit": partial(Draw._move, most=3_000),
    "withdraw": partial(Draw._move, most=6_000),
}

ALL_VERBS: Final = {
    "add": 10,
    "add many": 24,
    "request": 8,
    "reject": 5,
    "approve": 4,
    "withdraw the backjob": 3,
    "freeze": 14,
    "unfreeze": 14,
    "refund": 8,
    "release early": 5,
    "release a part": 6,
    "reschedule": 8,
    "deposit": 10,
    "withdraw": 8,
}
MOSTLY_FREEZES: Final = {**ALL_VERBS, "add many": 6, "reject": 8, "freeze": 20, "unfreeze": 40}
