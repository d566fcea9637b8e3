"""Random sequences of every verb, asked of the real books and of the model, with a simulated clock.

After every step: the books sum to zero in each currency; pending earnings are what unsettled holds hold;
no hold is settled twice; a refused verb has changed nothing, by a digest of every table; and wallets, holds,
freezes, backjobs, lines and notifications are those that the model says.

    uv run pytest buffer_pipeline_tests/test_machine.py                             500 sequences of 50 steps
    uv run pytest buffer_pipeline_tests/test_machine.py --hypothesis-profile=long   10,000 of them
    uv run pytest buffer_pipeline_tests/test_machine.py --hypothesis-seed=17        the same ones again
    MACHINE_SEQUENCES=50 uv run pytest buffer_pipeline_tests/test_machine.py        50 of them

Each run draws sequences of its own. One that fails is shortened and printed as the calls to make, with the
seed of the run. `-s` prints how often each verb was done and refused, by reason; a run of
500 or more in which one of them does not come up fails too.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import count
from random import SystemRandom
from typing import Any, ClassVar, Final, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection

from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.crew import ReleaseRun
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.errors import JobConflict, Refused, StateRefused
from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.intake import (
    AddedHold,
    Earning,
    add_many_pending_earnings,
    add_pending_earnings,
)
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.refund import Refund, refund_hold
from buffer_pipeline.release import (
    ReleaseBatch,
    part_wallets,
    release_early,
    release_matured,
    release_stretch,
)
from buffer_pipeline.stretches import Course
from buffer_pipeline.wallet import Movement, deposit, withdraw
from buffer_pipeline_tests.builders import ADMIN
from buffer_pipeline_tests.conftest import NOON
from buffer_pipeline_tests.model import (
    MAX_BACKJOBS,
    PLACES,
    Asked,
    Model,
    ModelBackjob,
    ModelFreeze,
    ModelHold,
    minor,
)
from buffer_pipeline_tests.observed import RealBooks, SeenBackjob, SeenFreeze, SeenHold, real_books

ENOUGH: Final = 500
"""So many sequences reach everything."""
SEQUENCES: Final = int(os.environ.get("MACHINE_SEQUENCES", max(ENOUGH, settings().max_examples)))
"""Or as many as the profile says."""
STEPS: Final = 50
TICK: Final = timedelta(microseconds=1)
HOUR: Final = timedelta(hours=1)
SOURCE: Final = "a test"
UNKNOWN_IDS: Final = (0, 999_999, 2**70)

FINAL: Final = (HoldState.RELEASED, HoldState.REFUNDED)

ZERO: Final = 0
TOO_MANY_PLACES: Final = -1

# A few jobs, so that holds of several payees meet in each; an owner may be payee here and payer there.
JOBS: Final = st.sampled_from(["job-1", "job-1", "job-1", "job-2", "job-2", "job-3"])
PAYEES: Final = st.sampled_from(["worker-1", "worker-1", "worker-2", "worker-3", "client-2"])
THE_JOBS: Final = "the job's"
PAYERS: Final = st.sampled_from([THE_JOBS] * 24 + ["client-1"] * 4 + ["client-2"] * 3 + ["worker-1"])
OWNERS: Final = st.sampled_from(["worker-1", "worker-2", "client-1", "client-2", "stranger-1"])
CURRENCIES: Final = st.sampled_from(["PHP"] * 12 + ["JPY"] * 2 + ["KWD"] * 2)
# Few and small, so that shares have remainders and remainders are equal.
AMOUNTS: Final = st.sampled_from([*[1, 2, 3, 10, 10, 10, 333, 99_999] * 4, ZERO, TOO_MANY_PLACES])
HELD_AGO: Final = st.sampled_from(
    [None] * 10 + [3 * HOUR, timedelta(days=6), timedelta(days=7), timedelta(days=8), timedelta(0)]
)
LASTS: Final = st.sampled_from(
    [None] * 12 + [timedelta(0), timedelta(minutes=50), HOUR, 30 * HOUR, timedelta(days=3), -TICK]
)
EARNINGS: Final = st.tuples(JOBS, PAYEES, PAYERS, CURRENCIES, AMOUNTS, HELD_AGO, LASTS)
AGO: Final = st.sampled_from([timedelta(0)] * 4 + [TICK, timedelta(minutes=30), timedelta(days=1)])
CHANGES: Final = (
    "nothing",
    "dates unsaid",
    "dates said",
    "amount",
    "currency",
    "payee",
    "payer",
    "job",
    "title",
    "held at",
    "release date",
)
DECIDED: Final = st.sampled_from([*["open"] * 8, "any", "unknown"])
PARTS: Final = (
    *["whole"] * 6,
    *["one unit"] * 2,
    *["a third", "half", "all but one", "all"],
    *["above"] * 2,
    *["places", "zero"],
)
NAMED: Final = st.sampled_from([*["all"] * 5, "one", "one", "all but one", "a stranger", "none"])
"""Which of a backjob's holds an approval names."""
KEYED: Final = st.sampled_from([False, True, True])
"""Whether a verb comes with a reference."""
PICK: Final = st.integers(0, 31)
"""Which of those that there are."""

TO_BE_SEEN: Final = (
    "a backjob leaves a hold whose window is closed",
    "a backjob of several currencies",
    "a backjob of several holds is refunded in part",
    "a backjob of several payees",
    "a hold comes to a job with an open backjob",
    "a hold gets no share",
    "a job of several is released early",
    "a part is refunded, the rest released",
    "a release leaves what is due",
    "add: JobConflict: another's job",
    "add: ReferenceConflict: stands for another earning",
    "add: done",
    "add: replayed",
    "add_many, one: InvalidInput: not above zero",
    "add_many, one: InvalidInput: pays themselves",
    "add_many, one: InvalidInput: too many places",
    "add_many, one: JobConflict: another's job",
    "add_many, one: ReferenceConflict: stands for another earning",
    "add_many, one: done",
    "add_many, one: replayed",
    "approve_backjob, in part: BackjobRefused: decided already",
    "approve_backjob, in part: FreezeRefused: another freeze stands",
    "approve_backjob, in part: InsufficientFunds: more than is held",
    "approve_backjob, in part: InvalidInput: a part of several currencies",
    "approve_backjob, in part: NotFound: freezes no such hold",
    "approve_backjob, in part: done",
    "approve_backjob, whole: InvalidInput: names no hold",
    "approve_backjob, whole: ReferenceConflict: stands for another",
    "approve_backjob, whole: done",
    "approve_backjob, whole: replayed",
    "deposit: ReferenceConflict: stands for another movement",
    "deposit: done",
    "deposit: replayed",
    "drain_matured, dry: nothing",
    "drain_matured: done",
    "freeze_hold: ReferenceConflict: stands for another",
    "freeze_hold: StateRefused: RELEASED",
    "freeze_hold: done",
    "freeze_hold: replayed",
    "reject_backjob leaves a hold frozen",
    "reject_backjob: BackjobRefused: decided already",
    "reject_backjob: done",
    "reject_backjob: replayed",
    "refund_hold: BackjobRefused: covers it",
    "refund_hold: InsufficientFunds: more than it holds",
    "refund_hold: ReferenceConflict: stands for a movement",
    "refund_hold: ReferenceConflict: stands for another refund",
    "refund_hold: StateRefused: BUFFERED",
    "refund_hold: done",
    "refund_hold: done, in part",
    "refund_hold: replayed",
    "release_early: NotAllowed: neither payer nor admin",
    "release_early: StateRefused: FROZEN",
    "release_early: StateRefused: RELEASED",
    "release_early: done",
    "release_matured: done",
    "release_stretch: done",
    "request_backjob: BackjobRefused: enough were rejected",
    "request_backjob: BackjobRefused: one is open",
    "request_backjob: NotAllowed: another's job",
    "request_backjob: NotFound: no hold of such a job",
    "request_backjob: ReferenceConflict: stands for another",
    "request_backjob: WindowClosed: the release date is reached",
    "request_backjob: done",
    "request_backjob: replayed",
    "stacked freezes",
    "unfreeze_hold: FreezeRefused: is a backjob's",
    "unfreeze_hold: ReferenceConflict: stands for another",
    "unfreeze_hold: done",
    "unfreeze_hold: done, others stand",
    "unfreeze_hold: replayed",
    "withdraw: InsufficientFunds: more than the balance",
    "withdraw: NotFound: no such wallet",
    "withdraw: ReferenceConflict: stands for another movement",
    "withdraw: done",
    "withdraw: replayed",
    "withdraw_backjob: done",
)
"""What every run of so many sequences comes to: if it does not, they have lost their way."""

Drawn = tuple[str, str, str, str, int, timedelta | None, timedelta | None]
Got = TypeVar("Got")
Item = TypeVar("Item")


def amount_text(amount_minor: int, currency: str) -> str:
    """Return an amount as a platform writes it; of one that is to be refused, such a one."""
    if amount_minor == TOO_MANY_PLACES:
        return f"1.{'0' * PLACES[currency]}1"
    return f"{Decimal(amount_minor).scaleb(-PLACES[currency]):f}"


def choose(items: Sequence[Item], pick: int) -> Item:
    """Return one of these."""
    return items[pick % len(items)]


def there_are_holds(machine: "BooksMachine") -> bool:
    """Say whether anything was ever held."""
    return bool(machine.model.holds)


class BooksMachine(RuleBasedStateMachine):
    """One sequence of verbs."""

    books: ClassVar[RealBooks]
    begun: ClassVar[int]
    asked: ClassVar[Counter[str]]
    """How often each verb was done, and refused for each reason."""
    reached: ClassVar[Counter[str]]
    """In how many sequences a situation came up."""

    def __init__(self) -> None:
        super().__init__()
        self.books.clear()
        self.model = Model()
        self.now: datetime = NOON
        self.numbers = count(1)
        self.seen = self.books.observe()
        self.balances: Counter[tuple[str, str]] = Counter()
        self.paid_minor: Counter[int] = Counter()
        self.situations: set[str] = set()
        self.done: dict[str, Callable[..., None]] = {}
        """What each verb did last with a reference, to be asked again with a reason."""
        self.agreed = True
        type(self).begun += 1

    def teardown(self) -> None:
        """The books prove themselves too, and all of their lines are those of the model."""
        if not self.agreed:
            return
        with self.books.connection.begin():
            assert reconcile(self.books.connection) == []
        everything = self.books.observe()
        assert Counter(line for line, _ in everything.lines) == Counter(self.model.lines)
        assert Counter(everything.told) == Counter(self.model.told)
        self.reached.update(self.situations)

    # ---- holding

    def _earning(self, drawn: Drawn) -> Asked:
        job, payee, payer, currency, amount_minor, held_ago, lasts = drawn
        held_at = None if held_ago is None else self.now - held_ago
        return Asked(
            reference=f"reference-{next(self.numbers)}",
            job=job,
            payee=payee,
            payer=self.model.jobs.get(job, "client-1") if payer == THE_JOBS else payer,
            amount=amount_text(amount_minor, currency),
            currency=currency,
            held_at=held_at,
            release_date=None if lasts is None else (held_at or self.now) + lasts,
        )

    def _again(self, pick: int, change: str) -> Asked:
        """Return an earning that was held before, with some of it changed or said in other words."""
        first = choose(list(self.model.holds.values()), pick)
        changes: dict[str, Any] = {
            "nothing": {},
            "dates unsaid": {"held_at": None, "release_date": None},
            "dates said": {"held_at": first.held_at, "release_date": first.original_release_date},
            "amount": {"amount": amount_text(first.amount_minor + 1, first.asked.currency)},
            "currency": {"amount": "1", "currency": "JPY" if first.asked.currency == "PHP" else "PHP"},
            "payee": {"payee": "worker-9"},
            "payer": {"payer": "client-9"},
            "job": {"job": "job-9"},
            "title": {"title": "another"},
            "held at": {"held_at": first.held_at - TICK},
            "release date": {"release_date": first.original_release_date + TICK},
        }
        return replace(first.asked, **changes[change])

    @initialize(earnings=st.lists(EARNINGS, min_size=3, max_size=8))
    def begin(self, earnings: list[Drawn]) -> None:
        self._add_many([self._earning(drawn) for drawn in earnings])

    @rule(
        verb=st.sampled_from(["add", "add", "add again", "add many"]),
        earnings=st.lists(EARNINGS, min_size=1, max_size=4),
        repeated=st.sampled_from(["", "", "the first", "the first, changed"]),
        change=st.sampled_from(CHANGES),
        pick=PICK,
    )
    def earn(self, verb: str, earnings: list[Drawn], repeated: str, change: str, pick: int) -> None:
        if verb == "add again":
            self._add(self._again(pick, change) if self.model.holds else self._earning(earnings[0]))
        elif verb == "add":
            self._add(self._earning(earnings[0]))
        else:
            asked = [self._earning(drawn) for drawn in earnings]
            if repeated:
                asked.append(asked[0] if repeated == "the first" else replace(asked[0], job="job-9"))
            if self.model.holds and pick % 2:
                asked.insert(pick % len(asked), self._again(pick, change))
            self._add_many(asked)

    def _new_job(self, pick: int) -> str:
        """Hold what three payees earned on a job, for a sequence that has nothing to ask about."""
        job = f"job-{next(self.numbers) + 10}"
        self._add_many(
            [
                self._earning((job, payee, "client-1", "PHP", amount_minor, None, None))
                for payee, amount_minor in (("worker-1", 1 + pick), ("worker-2", 10), ("worker-3", 10))
            ]
        )
        return job

    def _add(self, asked: Asked) -> None:
        def model(got: AddedHold | None) -> str:
            standing = asked.reference in self.model.holds
            hold = self._add_to_model(asked, got)
            self._same_hold(got, hold, replayed=standing)
            return "replayed" if standing else "done"

        self._ask(
            "add",
            self._committed(lambda connection: add_pending_earnings(connection, **vars(asked), now=self.now)),
            model,
        )

    def _add_many(self, asked: list[Asked]) -> None:
        def model(outcomes: list[AddedHold | Refused] | None) -> str:
            assert outcomes is not None
            changed = False
            conflicts: dict[str, Refused] = {}
            for earning, outcome in zip(asked, outcomes, strict=True):
                standing = earning.reference in self.model.holds
                got = None if isinstance(outcome, Refused) else outcome
                expected: ModelHold | Refused
                try:
                    # What repeats one that is refused for its job is refused with it, whatever it says.
                    if earning.reference in conflicts and minor(earning.amount, earning.currency):
                        raise conflicts[earning.reference]
                    expected = self._add_to_model(earning, got)
                except Refused as refusal:
                    expected = refusal
                if isinstance(expected, JobConflict):
                    conflicts[earning.reference] = expected
                if isinstance(expected, Refused):
                    self._count("add_many, one", expected)
                    assert type(outcome) is type(expected), f"{outcome!r}, the model says {expected!r}"
                else:
                    self._count("add_many, one", "replayed" if standing else "done")
                    self._same_hold(got, expected, replayed=standing)
                    changed |= not standing
            return "done" if changed else "nothing"

        self._ask(
            "add_many",
            self._committed(
                lambda connection: add_many_pending_earnings(
                    connection, [Earning(**vars(earning)) for earning in asked], now=self.now
                )
            ),
            model,
        )

    def _add_to_model(self, earning: Asked, got: AddedHold | None) -> ModelHold:
        hold_id = None if got is None else got.hold_id
        backjob = self.model.open_backjob(earning.job)
        freeze_ids = [
            freeze_id
            for freeze_id, freeze in self.seen.freezes.items()
            if backjob is not None and (freeze.hold_id, freeze.backjob_id) == (hold_id, backjob.backjob_id)
        ]
        lines_before = len(self.model.lines)
        hold = self.model.add(
            earning, now=self.now, hold_id=hold_id, freeze_id=freeze_ids[0] if freeze_ids else None
        )
        late = backjob is not None and len(self.model.lines) > lines_before
        self._reach("a hold comes to a job with an open backjob", late and hold.state is HoldState.FROZEN)
        return hold

    def _same_hold(self, got: AddedHold | None, hold: ModelHold, *, replayed: bool) -> None:
        assert got == AddedHold(
            hold_id=hold.hold_id,
            reference=hold.asked.reference,
            state=hold.state,
            release_date=hold.release_date,
            replayed=replayed,
        )

    # ---- time

    @rule(
        way=st.sampled_from(["before", "at", "after", "minutes", "hours", "days"]),
        number=st.integers(1, 30),
        pick=PICK,
    )
    def wait(self, way: str, number: int, pick: int) -> None:
        """To just before, at or just after one of the next release dates, or some time further."""
        ahead = sorted(
            hold.release_date for hold in self.model.unsettled() if hold.release_date > self.now + TICK
        )
        if way in ("before", "at", "after") and ahead:
            self.now = choose(ahead[:4], pick) + {"before": -TICK, "at": timedelta(0), "after": TICK}[way]
            return
        unit = {"minutes": timedelta(minutes=1), "days": timedelta(hours=6)}.get(way, HOUR)
        self.now += number * unit

    # ---- releasing

    @rule(
        way=st.sampled_from(["release_matured"] * 3 + ["release_stretch"] * 2 + ["drain_matured"] * 2),
        waits=st.sampled_from([True, True, True, False]),
        holds=st.sampled_from([1, 1, 2, 3, 1000]),
        limit=st.sampled_from([None, None, 1, 3]),
        parts=st.integers(1, 2),
        dry_run=st.sampled_from([False, False, False, True]),
        ago=AGO,
        pick=PICK,
    )
    def release(
        self,
        way: str,
        waits: bool,
        holds: int,
        limit: int | None,
        parts: int,
        dry_run: bool,
        ago: timedelta,
        pick: int,
    ) -> None:
        """Release what is due by now or by a time before; mostly not before anything is."""
        if not self.model.unsettled():
            self._new_job(pick)
        if waits and not self.model.due(self.now - ago):
            dates = [hold.release_date for hold in self.model.unsettled() if hold.state is HoldState.BUFFERED]
            self.now = max([self.now, *[date + ago for date in sorted(dates)[:2]]])
        by = self.now - ago
        if way == "release_matured":
            real = self._committed(
                lambda connection: release_matured(
                    connection, now=self.now, batch_limit=holds, due_by=by if ago else None
                )
            )
            self._release(way, real, by=by, limit=holds)
        elif way == "release_stretch":
            self._release(way, partial(self._release_stretches, by, holds, parts), by=by, limit=None)
        else:
            self._release(
                "drain_matured, dry" if dry_run else way,
                partial(
                    drain_matured,
                    self.books.engine,
                    due_by=by,
                    source=SOURCE,
                    batch_limit=holds,
                    limit=limit,
                    # Which holds several workers leave at a limit is their race, and no sequence repeats it.
                    workers=parts if limit is None else 1,
                    dry_run=dry_run,
                    clock=lambda _connection: self.now,
                ),
                by=by,
                limit=limit,
                dry_run=dry_run,
            )

    def _release_stretches(self, by: datetime, holds: int, parts: int) -> ReleaseBatch:
        """As a run does, but that the milestones are close to each other."""
        connection = self.books.connection
        released, amounts_minor = 0, Counter[str]()
        with connection.begin():
            shards = part_wallets(connection, due_by=by, shards=parts)
        for shard in shards:
            course = Course(due_by=by, shard=shard, every=min(holds, 2))
            while True:
                with connection.begin():
                    ahead = course.next(connection, holds=holds)
                if ahead is None:
                    break
                stretch, held = ahead
                with connection.begin():
                    batch = release_stretch(
                        connection, stretch=stretch, now=self.now, due_by=by, source=SOURCE
                    )
                assert batch.holds_released <= held
                released += batch.holds_released
                amounts_minor.update(batch.amounts_minor)
        return ReleaseBatch(holds_released=released, amounts_minor=dict(amounts_minor))

    def _release(
        self,
        verb: str,
        real: Callable[[], ReleaseBatch | ReleaseRun | Refused],
        *,
        by: datetime,
        limit: int | None,
        dry_run: bool = False,
    ) -> None:
        waited = [hold_id for hold_id, hold in self.seen.holds.items() if hold.state not in FINAL]

        def model(got: ReleaseBatch | ReleaseRun | None) -> str:
            assert got is not None
            due = self.model.due(by)
            if dry_run:
                assert got.holds_released == (len(due) if limit is None else min(limit, len(due)))
                return "nothing"
            released = {hold_id for hold_id in waited if self.seen.holds[hold_id].state is HoldState.RELEASED}
            amounts_minor: Counter[str] = Counter()
            for hold in due:
                if hold.hold_id in released:
                    amounts_minor[hold.asked.currency] += hold.held_minor
                    self._reach("a part is refunded, the rest released", hold.refunded_minor > 0)
            self.model.release_due(by=by, now=self.now, limit=limit, released=released)
            assert (got.holds_released, got.amounts_minor) == (len(released), amounts_minor)
            self._reach("a release leaves what is due", len(due) > len(released) > 0)
            return "done" if released else "nothing"

        self._ask(verb, real, model)

    @precondition(there_are_holds)
    @rule(
        what=st.sampled_from([*["hold"] * 5, *["job"] * 3, "unknown hold", "unknown job"]),
        by=st.sampled_from(["payer", "payer", "payer", "admin", "payee", "stranger"]),
        which=st.sampled_from([*["waiting"] * 7, "refunded", "any"]),
        pick=PICK,
    )
    def release_early(self, what: str, by: str, which: str, pick: int) -> None:
        if not self.model.unsettled():
            self._new_job(pick)
        pool = {"waiting": self.model.unsettled(), "refunded": self._refunded()}
        hold = self._one_of(pool.get(which, []), pick)
        owner = {"payer": hold.asked.payer, "payee": hold.asked.payee, "admin": ADMIN}.get(by, "stranger-1")
        names: dict[str, dict[str, Any]] = {
            "hold": {"hold_id": hold.hold_id},
            "job": {"job": hold.asked.job},
            "unknown hold": {"hold_id": choose(UNKNOWN_IDS, pick)},
            "unknown job": {"job": "job-404"},
        }
        named = names[what]

        def model(got: ReleaseBatch | None) -> str:
            holds_before = self.model.unsettled()
            held = {one.hold_id: one.held_minor for one in holds_before}
            released = self.model.release_early(by=owner, now=self.now, as_admin=by == "admin", **named)
            assert got is not None
            amounts_minor: Counter[str] = Counter()
            self._reach("a part is refunded, the rest released", any(one.refunded_minor for one in released))
            for one in released:
                amounts_minor[one.asked.currency] += held[one.hold_id]
            assert (got.holds_released, got.amounts_minor) == (len(released), amounts_minor)
            self._reach("a job of several is released early", len(released) > 1)
            return "done"

        self._ask(
            "release_early",
            self._committed(
                lambda connection: release_early(
                    connection, by=owner, reason="well done", now=self.now, as_admin=by == "admin", **named
                )
            ),
            model,
        )

    # ---- backjobs

    @precondition(there_are_holds)
    @rule(
        way=st.sampled_from(["allowed", *["allowed, and reject"] * 3, *["refused"] * 3, "any"]),
        job=st.sampled_from(["job-1", "job-2", "job-3", "job-404"]),
        payer=st.sampled_from([None, THE_JOBS, THE_JOBS, "client-9"]),
        keyed=KEYED,
        pick=PICK,
    )
    def request(self, way: str, job: str, payer: str | None, keyed: bool, pick: int) -> None:
        if way == "any":
            self._request(job, payer=payer, reference=self._key(keyed))
        elif way == "refused":
            self._request(self._job_to_refuse(pick) or job, reference=self._key(keyed))
        else:
            self._request(self._job_to_ask_for(pick), reference=self._key(keyed))
            if way == "allowed, and reject":
                newest = len(self._open_backjobs()) - 1
                self._reject(BackjobState.REJECTED, self._backjob_id("open", newest), self._key(keyed))

    @precondition(there_are_holds)
    @rule(
        state=st.sampled_from([BackjobState.REJECTED, BackjobState.REJECTED, BackjobState.WITHDRAWN]),
        which=DECIDED,
        keyed=KEYED,
        pick=PICK,
    )
    def reject(self, state: BackjobState, which: str, keyed: bool, pick: int) -> None:
        if self._lacks_backjob(which, pick):
            self._request(self._job_to_ask_for(pick))
        else:
            self._reject(state, self._backjob_id(which, pick), self._key(keyed))

    @precondition(there_are_holds)
    @rule(
        which=DECIDED,
        part=st.sampled_from(PARTS),
        named=NAMED,
        keyed=KEYED,
        twice=st.booleans(),
        pick=PICK,
    )
    def approve(self, which: str, part: str, named: str, keyed: bool, twice: bool, pick: int) -> None:
        if self._lacks_backjob(which, pick):
            self._request(self._job_to_ask_for(pick))
            return
        before = set(self.done.values())
        self._approve(self._backjob_id(which, pick), part, named, self._key(keyed), pick)
        # Few approvals go through, so one that did is asked for again at once.
        for again in set(self.done.values()) - before if twice else ():
            again()

    @precondition(lambda machine: bool(machine.done))
    @rule(reason=st.sampled_from(["the same", "another"]), pick=PICK)
    def ask_again(self, reason: str, pick: int) -> None:
        """What was done with a reference is asked once more, with the same reason or with another."""
        again = choose(list(self.done.values()), pick)
        again(**({"reason": "another"} if reason == "another" else {}))

    def _key(self, keyed: bool) -> str | None:
        # A verb has references of its own: the same text may stand for one of each.
        return f"key-{next(self.numbers)}" if keyed else None

    def _keep(self, verb: str, reference: str | None, outcome: str, again: Callable[..., None]) -> str:
        if reference is not None and outcome != "replayed":
            self.done[verb] = again
        return outcome

    def _open_backjobs(self) -> list[int]:
        return [
            backjob_id
            for backjob_id, backjob in self.model.backjobs.items()
            if backjob.state is BackjobState.OPEN
        ]

    def _lacks_backjob(self, which: str, pick: int) -> bool:
        """Whether one is better asked for than decided."""
        return not self.model.backjobs or (which == "open" and not self._open_backjobs() and pick % 8 != 1)

    def _backjob_states(self, job: str) -> list[BackjobState]:
        return [backjob.state for backjob in self.model.backjobs.values() if backjob.job == job]

    def _job_to_ask_for(self, pick: int) -> str:
        """Return a job that may have a backjob; mostly the one that was rejected most often."""
        rejected: dict[str, int] = {}
        for hold in self.model.unsettled():
            states = self._backjob_states(hold.asked.job)
            if hold.release_date > self.now and BackjobState.OPEN not in states:
                rejected[hold.asked.job] = states.count(BackjobState.REJECTED)
        allowed = [job for job, times in rejected.items() if times < MAX_BACKJOBS]
        if not allowed:
            return self._new_job(pick)
        return choose(allowed, pick) if pick % 4 == 2 else max(allowed, key=lambda job: rejected[job])

    def _job_to_refuse(self, pick: int) -> str | None:
        """Return a job that has holds and may have no backjob, though none is open."""
        waiting = self.model.unsettled()
        in_window = {hold.asked.job for hold in waiting if hold.release_date > self.now}
        rejected_often = [
            job for job in in_window if self._backjob_states(job).count(BackjobState.REJECTED) >= MAX_BACKJOBS
        ]
        late = [hold.asked.job for hold in waiting if hold.asked.job not in in_window]
        jobs = sorted(rejected_often) or late
        return choose(jobs, pick) if jobs else None

    def _request(
        self,
        job: str,
        *,
        payer: str | None = None,
        reference: str | None = None,
        reason: str = "it leaks",
    ) -> None:
        payer = self.model.jobs.get(job, "client-1") if payer == THE_JOBS else payer
        said: dict[str, Any] = {
            "job": job,
            "by": "client-1",
            "reason": reason,
            "payer": payer,
            "reference": reference,
        }

        def model(got: Backjob | None) -> str:
            replayed = ("request", reference) in self.model.keys
            backjob_id = None if got is None else got.backjob_id
            backjob = self.model.request_backjob(
                **said,
                now=self.now,
                backjob_id=backjob_id,
                freeze_ids={
                    freeze.hold_id: freeze_id
                    for freeze_id, freeze in self.seen.freezes.items()
                    if freeze.backjob_id == backjob_id
                },
            )
            self._same_backjob(got, backjob, replayed=replayed)
            if replayed:
                return "replayed"
            self._reach("a backjob of several payees", len({one.asked.payee for one in backjob.holds}) > 1)
            self._reach(
                "a backjob of several currencies", len({one.asked.currency for one in backjob.holds}) > 1
            )
            self._reach(
                "a backjob leaves a hold whose window is closed",
                len(backjob.holds) < sum(one.settled is None for one in self.model.holds_of(job)),
            )
            again = partial(self._request, job, payer=payer, reference=reference)
            return self._keep("request_backjob", reference, "done", again)

        self._ask(
            "request_backjob",
            self._committed(lambda connection: request_backjob(connection, **said, now=self.now)),
            model,
        )

    def _approve(self, backjob_id: int, part: str, named: str, reference: str | None, pick: int) -> None:
        backjob = self.model.backjobs.get(backjob_id)
        holds = [] if backjob is None else backjob.holds
        hold_ids: list[int] | None = None
        if named != "all":
            chosen = [choose(holds, pick)] if holds else []
            rest = [hold for hold in holds if hold not in chosen]
            strangers = [hold for hold in self.model.holds.values() if hold not in holds]
            holds = {
                "one": chosen,
                "all but one": rest or chosen,
                "a stranger": chosen + strangers[:1],
                "none": [],
            }[named]
            hold_ids = [hold.hold_id for hold in holds]
        held = sum(hold.held_minor for hold in holds)
        currency = holds[0].asked.currency if holds else "PHP"
        amount = None if part == "whole" else self._part(part, held, currency)
        self._decide(
            "approve_backjob, whole"
            if part == "whole" and named in ("all", "none")
            else "approve_backjob, in part",
            BackjobState.APPROVED,
            approve_backjob,
            backjob_id,
            reference=reference,
            amount=amount,
            hold_ids=hold_ids,
        )

    @staticmethod
    def _part(part: str, held: int, currency: str) -> str:
        amount_minor = {
            "one unit": 1,
            "a third": max(1, held // 3),
            "half": max(1, held // 2),
            "all but one": max(1, held - 1),
            "all": max(1, held),
            "above": held + 1,
            "places": TOO_MANY_PLACES,
            "zero": ZERO,
        }
        return amount_text(amount_minor[part], currency)

    def _backjob_id(self, which: str, pick: int) -> int:
        backjobs = self.model.backjobs
        if which == "unknown":
            return choose(UNKNOWN_IDS, pick)
        still_open = self._open_backjobs()
        return choose(still_open if which == "open" and still_open else list(backjobs), pick)

    def _reject(self, state: BackjobState, backjob_id: int, reference: str | None) -> None:
        verb = reject_backjob if state is BackjobState.REJECTED else withdraw_backjob
        self._decide(verb.__name__, state, verb, backjob_id, reference=reference)

    def _decide(
        self,
        verb: str,
        state: BackjobState,
        real: Callable[..., Backjob],
        backjob_id: int,
        *,
        reason: str = "looked at it",
        **said: Any,
    ) -> None:
        again = partial(self._decide, verb, state, real, backjob_id, **said)
        said |= {"backjob_id": backjob_id, "by": ADMIN, "reason": reason}

        def model(got: Backjob | None) -> str:
            replayed = ("decision", said["reference"]) in self.model.keys
            backjob = self.model.decide_backjob(state, **said, now=self.now)
            self._same_backjob(got, backjob, replayed=replayed)
            if replayed:
                return "replayed"
            self._reach(
                f"{verb} leaves a hold frozen",
                any(hold.state is HoldState.FROZEN for hold in backjob.holds),
            )
            if state is BackjobState.APPROVED:
                rests = [hold.held_minor for hold in backjob.holds]
                self._reach("a backjob of several holds is refunded in part", len(rests) > 1 and any(rests))
                self._reach("a hold gets no share", any(hold.refunded_minor == 0 for hold in backjob.holds))
            return self._keep(verb, said["reference"], "done", again)

        self._ask(verb, self._committed(lambda connection: real(connection, **said, now=self.now)), model)

    def _same_backjob(self, got: Backjob | None, backjob: ModelBackjob, *, replayed: bool) -> None:
        assert got == Backjob(
            backjob_id=backjob.backjob_id,
            job=backjob.job,
            state=backjob.state,
            hold_ids=tuple(sorted(hold.hold_id for hold in backjob.holds)),
            replayed=replayed,
        )

    # ---- freezes

    @precondition(there_are_holds)
    @rule(
        kind=st.sampled_from([*[FreezeKind.ADMIN, FreezeKind.RISK] * 4, FreezeKind.BACKJOB]),
        which=st.sampled_from([*["waiting"] * 4, *["frozen"] * 4, "refunded", "any", "unknown"]),
        keyed=KEYED,
        pick=PICK,
    )
    def freeze(self, kind: FreezeKind, which: str, keyed: bool, pick: int) -> None:
        if not self.model.unsettled():
            self._new_job(pick)
        waiting = self.model.unsettled()
        frozen = [hold for hold in waiting if hold.state is HoldState.FROZEN]
        pool = {"waiting": waiting, "frozen": frozen, "refunded": self._refunded()}
        hold_id = self._one_of(pool.get(which, []), pick).hold_id
        if which == "unknown":
            # One fault at a time: which of two is named first is no rule.
            hold_id, kind = choose(UNKNOWN_IDS, pick), FreezeKind.ADMIN
        self._freeze(hold_id, kind, self._key(keyed))

    def _freeze(
        self, hold_id: int, kind: FreezeKind, reference: str | None, *, reason: str = "a look"
    ) -> None:
        said: dict[str, Any] = {
            "hold_id": hold_id,
            "kind": kind,
            "by": ADMIN,
            "reason": reason,
            "reference": reference,
        }

        def model(got: Freeze | None) -> str:
            replayed = ("freeze", reference) in self.model.keys
            freeze_id = None if got is None else got.freeze_id
            freeze = self.model.freeze_hold(**said, now=self.now, freeze_id=freeze_id)
            hold = self._same_freeze(got, freeze, replayed=replayed)
            self._reach("stacked freezes", sum(one.stands for one in hold.freezes) > 1)
            again = partial(self._freeze, hold_id, kind, reference)
            return self._keep("freeze_hold", reference, "replayed" if replayed else "done", again)

        self._ask(
            "freeze_hold",
            self._committed(lambda connection: freeze_hold(connection, **said, now=self.now)),
            model,
        )

    def _same_freeze(self, got: Freeze | None, freeze: ModelFreeze, *, replayed: bool) -> ModelHold:
        hold = self.model.find_hold(freeze.hold_id)
        assert hold is not None
        assert got == Freeze(
            freeze_id=freeze.freeze_id, hold_id=hold.hold_id, state=hold.state, replayed=replayed
        )
        return hold

    @precondition(there_are_holds)
    @rule(which=st.sampled_from([*["standing"] * 8, "any", "unknown"]), keyed=KEYED, pick=PICK)
    def unfreeze(self, which: str, keyed: bool, pick: int) -> None:
        own = [
            freeze_id
            for freeze_id, freeze in self.model.freezes.items()
            if freeze.stands and freeze.kind is not FreezeKind.BACKJOB
        ]
        if not self.model.freezes or (not own and pick % 4 != 1):
            self.freeze(FreezeKind.RISK, "waiting", keyed, pick)
            return
        freeze_id = choose(own if which == "standing" and own else list(self.model.freezes), pick)
        if which == "unknown":
            freeze_id = choose(UNKNOWN_IDS, pick)
        self._unfreeze(freeze_id, self._key(keyed))

    def _unfreeze(self, freeze_id: int, reference: str | None, *, reason: str = "all is well") -> None:
        said: dict[str, Any] = {
            "freeze_id": freeze_id,
            "by": ADMIN,
            "reason": reason,
            "reference": reference,
        }

        def model(got: Freeze | None) -> str:
            replayed = ("closing", reference) in self.model.keys
            freeze = self.model.unfreeze_hold(**said, now=self.now)
            hold = self._same_freeze(got, freeze, replayed=replayed)
            if replayed:
                return "replayed"
            frozen = hold.state is HoldState.FROZEN
            again = partial(self._unfreeze, freeze_id, reference)
            return self._keep("unfreeze_hold", reference, "done, others stand" if frozen else "done", again)

        self._ask(
            "unfreeze_hold",
            self._committed(lambda connection: unfreeze_hold(connection, **said, now=self.now)),
            model,
        )

    # ---- refunds by an admin

    @precondition(there_are_holds)
    @rule(
        which=st.sampled_from([*["frozen"] * 8, "a backjob's", "waiting", "any", "unknown"]),
        part=st.sampled_from(PARTS),
        used=st.sampled_from([*["no"] * 12, "a movement's", "a refund's"]),
        pick=PICK,
    )
    def refund(self, which: str, part: str, used: str, pick: int) -> None:
        """Mostly a hold that only an admin or risk keeps frozen."""
        waiting = self.model.unsettled()
        covered = [
            hold
            for hold in waiting
            if any(freeze.stands and freeze.kind is FreezeKind.BACKJOB for freeze in hold.freezes)
        ]
        frozen = [hold for hold in waiting if hold.state is HoldState.FROZEN and hold not in covered]
        if which == "frozen" and not frozen:
            self.freeze(FreezeKind.RISK, "waiting", False, pick)
            return
        pool = {"frozen": frozen, "a backjob's": covered, "waiting": waiting}
        hold = self._one_of(pool.get(which, []), pick)
        hold_id = choose(UNKNOWN_IDS, pick) if which == "unknown" else hold.hold_id
        amount = None if part == "whole" else self._part(part, hold.held_minor, hold.asked.currency)
        others = {"a movement's": [*self.model.movements], "a refund's": [*self.model.refunds]}.get(used)
        reference = choose(others, pick) if others else f"reference-{self._movements() + 1}"
        self._refund(hold_id, amount, reference)

    def _movements(self) -> int:
        # Holds and movements have references of their own: the same text may stand for one of each.
        return len(self.model.movements) + len(self.model.refunds)

    def _refund(self, hold_id: int, amount: str | None, reference: str, *, reason: str = "a fraud") -> None:
        said: dict[str, Any] = {
            "hold_id": hold_id,
            "by": ADMIN,
            "reason": reason,
            "reference": reference,
            "amount": amount,
        }

        def model(got: Refund | None) -> str:
            replayed = reference in self.model.refunds
            hold = self.model.refund_hold(**said, now=self.now)
            _, refunded_minor = self.model.refunds[reference]
            assert got is not None
            assert got == Refund(
                transaction_id=got.transaction_id,
                hold_id=hold_id,
                amount_minor=refunded_minor,
                left_minor=hold.held_minor,
                state=hold.state,
                replayed=replayed,
            )
            if replayed:
                return "replayed"
            again = partial(self._refund, hold_id, amount, reference)
            return self._keep("refund_hold", reference, "done, in part" if hold.held_minor else "done", again)

        self._ask(
            "refund_hold",
            self._committed(lambda connection: refund_hold(connection, **said, now=self.now)),
            model,
        )

    # ---- wallets

    @rule(
        verb=st.sampled_from(["deposit", "withdraw", "withdraw", "move again"]),
        owner=OWNERS,
        currency=CURRENCIES,
        amount_minor=AMOUNTS,
        part=st.sampled_from(["one unit", "half", "all", "above", "with what is pending"]),
        change=st.sampled_from(["nothing", "nothing", "type", "owner", "amount", "currency"]),
        pick=PICK,
    )
    def move(
        self, verb: str, owner: str, currency: str, amount_minor: int, part: str, change: str, pick: int
    ) -> None:
        if verb == "withdraw":
            self._withdraw(owner, currency, part, pick)
        elif verb == "move again" and self.model.movements:
            self._move_again(change, pick)
        else:
            self._move("DEPOSIT", owner, amount_text(amount_minor, currency), currency)

    def _withdraw(self, owner: str, currency: str, part: str, pick: int) -> None:
        wallets = self.model.wallets
        with_money = [whose for whose, wallet in wallets.items() if wallet.balance_minor]
        if with_money and pick % 5:
            owner, currency = choose(with_money, pick)
        wallet = wallets.get((owner, currency))
        balance_minor = wallet.balance_minor if wallet else 0
        amount_minor = {
            "one unit": 1,
            "half": balance_minor // 2,
            "all": balance_minor,
            "above": balance_minor + 1,
            "with what is pending": balance_minor + (wallet.pending_minor if wallet else 0),
        }[part]
        self._move("WITHDRAWAL", owner, amount_text(max(1, amount_minor), currency), currency)

    def _move_again(self, change: str, pick: int) -> None:
        reference = choose(list(self.model.movements), pick)
        type_, owner, currency, amount_minor = self.model.movements[reference]
        if change == "type":
            type_ = "WITHDRAWAL" if type_ == "DEPOSIT" else "DEPOSIT"
        elif change == "owner":
            owner = "stranger-9"
        elif change == "currency":
            currency = "JPY" if currency == "PHP" else "PHP"
        elif change == "amount":
            amount_minor += 1
        self._move(type_, owner, amount_text(amount_minor, currency), currency, reference=reference)

    def _move(self, type_: str, owner: str, amount: str, currency: str, *, reference: str = "") -> None:
        reference = reference or f"reference-{self._movements() + 1}"
        verb = deposit if type_ == "DEPOSIT" else withdraw
        asked = {"owner": owner, "amount": amount, "currency": currency, "reference": reference}

        def model(got: Movement | None) -> str:
            replayed = reference in self.model.movements
            balance_minor = self.model.move(type_, now=self.now, **asked)
            assert got is not None
            assert (got.balance_minor, got.replayed) == (balance_minor, replayed)
            return "replayed" if replayed else "done"

        self._ask(
            verb.__name__, self._committed(lambda connection: verb(connection, **asked, now=self.now)), model
        )

    # ---- asking both

    def _refunded(self) -> list[ModelHold]:
        return [hold for hold in self.model.holds.values() if hold.settled is HoldState.REFUNDED]

    def _one_of(self, holds: list[ModelHold], pick: int) -> ModelHold:
        return choose(holds or list(self.model.holds.values()), pick)

    def _committed(self, verb: Callable[[Connection], Got]) -> Callable[[], Got | Refused]:
        """Ask in a transaction that is committed also where the verb refuses, so that what it wrote stays."""

        def ask() -> Got | Refused:
            with self.books.connection.begin():
                try:
                    return verb(self.books.connection)
                except Refused as refusal:
                    return refusal

        return ask

    def _ask(self, verb: str, real: Callable[[], Any], model: Callable[[Any], str]) -> None:
        """Ask the books, look at them, ask the model, and compare.

        The model says "done", or that nothing, or nothing new, was to be written.
        """
        self.agreed = False
        before = self.seen
        lines_before, told_before = len(self.model.lines), len(self.model.told)
        answer = real()
        self.seen = self.books.observe(since=before)
        got = None if isinstance(answer, Refused) else answer
        refused = answer if isinstance(answer, Refused) else None
        outcome: str | Refused
        try:
            outcome = model(got)
        except Refused as refusal:
            outcome = refusal
        except (AssertionError, KeyError) as difference:
            raise AssertionError(f"{verb}: {answer!r}, which is not what the model says") from difference
        self._count(verb, outcome)
        expected = outcome if isinstance(outcome, Refused) else None
        assert type(refused) is type(expected), f"{verb}: {answer!r}, the model says {outcome!r}"
        if isinstance(refused, StateRefused) and isinstance(expected, StateRefused):
            assert (refused.hold_id, refused.state) == (expected.hold_id, expected.state)
        if expected is not None or outcome in ("nothing", "replayed"):
            assert self.seen.digests == before.digests, f"{verb}: wrote, and was to write nothing"
        self._check_the_books()
        self._compare(lines_before, told_before)
        self.agreed = True

    def _check_the_books(self) -> None:
        seen = self.seen
        assert not any(seen.sums_minor.values()), f"the books come to {seen.sums_minor}"
        for whose, wallet in seen.wallets.items():
            assert wallet.pending_minor == wallet.waiting_minor == wallet.pending_by_lines_minor, whose
            assert wallet.balance_minor == wallet.balance_by_lines_minor, whose
        for line, balance_after_minor in seen.lines:
            if line.type in ("EARNING", "REFUND"):
                assert line.hold_id is not None
                self.paid_minor[line.hold_id] += line.amount_minor
            for (account, owner), sign in ((line.source, -1), (line.target, 1)):
                if account == "BALANCE":
                    assert owner is not None
                    self.balances[owner, line.currency] += sign * line.amount_minor
                    assert balance_after_minor == self.balances[owner, line.currency], line
        for hold_id, hold in seen.holds.items():
            paid_minor = self.paid_minor[hold_id]
            assert paid_minor <= hold.amount_minor, f"hold {hold_id}: settled twice"
            assert (paid_minor == hold.amount_minor) == (hold.state in FINAL), f"hold {hold_id}: half settled"

    def _compare(self, lines_before: int, told_before: int) -> None:
        seen, model = self.seen, self.model
        assert {
            whose: (wallet.balance_minor, wallet.pending_minor) for whose, wallet in seen.wallets.items()
        } == {whose: (wallet.balance_minor, wallet.pending_minor) for whose, wallet in model.wallets.items()}
        assert seen.holds == {
            hold.hold_id: SeenHold(
                reference,
                hold.state,
                hold.amount_minor,
                hold.refunded_minor,
                hold.release_date,
                hold.settled_at,
            )
            for reference, hold in model.holds.items()
        }
        assert seen.freezes == {
            freeze.freeze_id: SeenFreeze(freeze.hold_id, freeze.kind, freeze.backjob_id, freeze.stands)
            for freeze in model.freezes.values()
        }
        assert seen.backjobs == {
            backjob.backjob_id: SeenBackjob(backjob.job, backjob.state, backjob.refunded_minor)
            for backjob in model.backjobs.values()
        }
        assert Counter(line for line, _ in seen.lines) == Counter(model.lines[lines_before:])
        assert Counter(seen.told) == Counter(model.told[told_before:])

    def _count(self, verb: str, outcome: str | Refused) -> None:
        if isinstance(outcome, StateRefused):
            outcome = f"StateRefused: {outcome.state}"
        elif isinstance(outcome, Refused):
            outcome = f"{type(outcome).__name__}: {outcome}"
        self.asked[f"{verb}: {outcome}"] += 1

    def _reach(self, situation: str, reached: bool) -> None:
        if reached:
            self.situations.add(situation)


@pytest.fixture
def books(database_url: str, superuser_url: str) -> Iterator[RealBooks]:
    """Real books of the machine's own."""
    with real_books(database_url, superuser_url) as books:
        yield books


@pytest.mark.timeout(900 + SEQUENCES)  # Shortening what failed takes its time.
def test_books_follow_the_model(books: RealBooks, request: pytest.FixtureRequest) -> None:
    """Whatever is asked, in whatever order and at whatever times, the books do what the rules say."""
    given = request.config.getoption("--hypothesis-seed")
    number = SystemRandom().getrandbits(32) if given is None else int(given)
    BooksMachine.books = books
    BooksMachine.begun = 0
    BooksMachine.asked, BooksMachine.reached = Counter(), Counter()
    seed(number)(BooksMachine)

    try:
        run_state_machine_as_test(
            BooksMachine,
            settings=settings(
                max_examples=SEQUENCES,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=False,
                print_blob=True,
                phases=[Phase.reuse, Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Exception as failure:
        failure.add_note(
            f"Seed {number}. Run again: uv run pytest {request.node.nodeid} --hypothesis-seed={number}"
        )
        raise

    seen = BooksMachine.asked + BooksMachine.reached
    assert BooksMachine.begun >= SEQUENCES
    for what, times in sorted(seen.items()):
        print(f"{times:8,}  {what}")
    assert SEQUENCES < ENOUGH or set(TO_BE_SEEN) <= set(seen), (
        f"never came up: {sorted(set(TO_BE_SEEN) - set(seen))}"
    )
