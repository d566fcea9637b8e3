"""Rules that add earnings."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from buffer_pipeline.errors import JobConflict, NotFound, Refused, RuleRefused
from buffer_pipeline.hold import BackjobState, HoldState
from buffer_pipeline.intake import (
    AddedHold,
    AddedShare,
    Earning,
    add_many_pending_earnings,
    add_pending_earnings,
)
from buffer_pipeline.notifications.contact import Contact, change_contact
from buffer_pipeline_tests.support.machine.comparing import ComparingMachine
from buffer_pipeline_tests.support.machine.drawn import (
    CHANGES,
    DIVIDED,
    EARNINGS,
    PICK,
    THE_JOBS,
    TICK,
    Drawn,
    amount_text,
    choose,
)
from buffer_pipeline_tests.support.model.amounts import minor
from buffer_pipeline_tests.support.model.backjobs import PAYEES
from buffer_pipeline_tests.support.model.earning import MISDATED
from buffer_pipeline_tests.support.model.records import Intake, ModelEarning, ModelHold


class EarningRules(ComparingMachine):
    """Earnings are added, one or several per call, new and repeated ones."""

    @initialize(earnings=st.lists(EARNINGS, min_size=3, max_size=8))
    def begin(self, earnings: list[Drawn]) -> None:
        self._add_many([self._earning(drawn) for drawn in earnings])

    @rule(
        verb=st.sampled_from([*["add", "add", "add again", "add many"] * 2, *["tell of shares"] * 2]),
        earnings=st.lists(EARNINGS, min_size=1, max_size=4),
        repeated=st.sampled_from(["", "", "the first", "the first, changed"]),
        change=st.sampled_from(CHANGES),
        pick=PICK,
    )
    def earn(self, verb: str, earnings: list[Drawn], repeated: str, change: str, pick: int) -> None:
        if verb == "tell of shares":
            self._choose_messages_of_shares(
                choose(("platform-1", "platform-1", "tax-1", "worker-1"), pick), pick % 3 > 0
            )
        elif verb == "add again":
            self._add(self._again(pick, change) if self.model.earnings else self._earning(earnings[0]))
        elif verb == "add":
            open_jobs = [one.job for one in self.model.backjobs.values() if one.state is BackjobState.OPEN]
            intake = self._earning(earnings[0])
            if open_jobs and pick % 3 == 0:
                job = choose(open_jobs, pick)
                intake = replace(intake, job=job, payer=self.model.jobs[job])
            self._add(intake)
        else:
            added = [self._earning(drawn) for drawn in earnings]
            if repeated:
                added.append(added[0] if repeated == "the first" else replace(added[0], job="job-9"))
            if self.model.earnings and pick % 2:
                added.insert(pick % len(added), self._again(pick, change))
            self._add_many(added)

    def _choose_messages_of_shares(self, owner: str, notified: bool) -> None:
        """Set whether an owner wants messages about each fee and tax."""

        def model(got: Contact | None) -> str:
            assert got is not None
            assert got.notify_of_shares is notified
            (
                self.model.wants_messages_of_shares.add
                if notified
                else self.model.wants_messages_of_shares.discard
            )(owner)
            return "done"

        changes = {"notify_of_shares": notified}
        self._call_both(
            "change_contact",
            self._committed(
                lambda connection: change_contact(connection, owner=owner, changes=changes, now=self.now)
            ),
            model,
        )

    def _earning(self, drawn: Drawn) -> Intake:
        job, payee, payer, currency, amount_minor, held_ago, lasts, divided, by_rule = drawn
        held_at = None if held_ago is None else self.now - held_ago
        return Intake(
            reference=f"reference-{next(self.numbers)}",
            job=job,
            payee=payee,
            payer=self.model.jobs.get(job, "client-1") if payer == THE_JOBS else payer,
            amount=amount_text(amount_minor, currency),
            currency=currency,
            held_at=held_at,
            release_date=None if lasts is None else (held_at or self.now) + lasts,
            shares=DIVIDED[divided],
            rule=by_rule,
        )

    def _again(self, pick: int, change: str) -> Intake:
        """Return an earning that was added before, with some of it changed or written differently."""
        earning = choose(list(self.model.earnings.values()), pick)
        first = earning.first
        changes: dict[str, Any] = {
            "nothing": {},
            "dates omitted": {"held_at": None, "release_date": None},
            "dates given": {"held_at": first.held_at, "release_date": first.original_release_date},
            "amount": {"amount": amount_text(earning.amount_minor + 1, first.intake.currency)},
            "currency": {"amount": "1", "currency": "JPY" if first.intake.currency == "PHP" else "PHP"},
            "payee": {"payee": "worker-9"},
            "payer": {"payer": "client-9"},
            "job": {"job": "job-9"},
            "title": {"title": "another"},
            "held at": {"held_at": first.held_at - TICK},
            "release date": {"release_date": first.original_release_date + TICK},
            "shares": {"shares": DIVIDED["a team" if len(earning.holds) == 2 else "a fee"]},
            "shares omitted": {"shares": ()},
            "rule": {"rule": "trusted"},
            "rule omitted": {"rule": None},
        }
        return replace(first.intake, **changes[change])

    def _new_job(self, pick: int) -> str:
        """Add earnings of three payees on a job, for a sequence without a usable job."""
        job = f"job-{next(self.numbers) + 10}"
        self._add_many(
            [
                self._earning((job, payee, "client-1", "PHP", amount_minor, None, None, "not", None))
                for payee, amount_minor in (("worker-1", 1 + pick), ("worker-2", 10), ("worker-3", 10))
            ]
        )
        return job

    def _add_by_rule(self, name: str) -> list[ModelHold]:
        """Add an earning by this rule, and return its holds: none if the rule is retired."""
        job = f"job-{next(self.numbers) + 10}"
        drawn = (job, "worker-1", "client-1", "PHP", 99_999, None, None, "not", name)
        self._add_many([self._earning(drawn)])
        return self.model.holds_of(job)

    def _add(self, intake: Intake) -> None:
        def model(got: AddedHold | None) -> str:
            standing = intake.reference in self.model.earnings
            earning = self._add_to_model(intake, got)
            self._same_hold(got, earning, replayed=standing)
            return "replayed" if standing else "done"

        self._call_both(
            "add",
            self._committed(
                lambda connection: add_pending_earnings(connection, **vars(intake), now=self.now)
            ),
            model,
        )

    def _add_many(self, earnings: list[Intake]) -> None:
        def model(outcomes: list[AddedHold | Refused] | None) -> str:
            assert outcomes is not None
            changed = False
            conflicts: dict[str, Refused] = {}
            for earning, outcome in zip(earnings, outcomes, strict=True):
                standing = earning.reference in self.model.earnings
                got = None if isinstance(outcome, Refused) else outcome
                expected: ModelEarning | Refused
                try:
                    # What repeats one that is refused for its job, its rule or its dates is refused with it,
                    # whatever it says.
                    if earning.reference in conflicts and minor(earning.amount, earning.currency):
                        raise conflicts[earning.reference]
                    expected = self._add_to_model(earning, got)
                except Refused as refusal:
                    expected = refusal
                if isinstance(expected, Refused) and (
                    isinstance(expected, JobConflict | NotFound | RuleRefused) or str(expected) == MISDATED
                ):
                    conflicts[earning.reference] = expected
                if isinstance(expected, Refused):
                    self._count("add_many, one", expected)
                    assert type(outcome) is type(expected), f"{outcome!r}, the model says {expected!r}"
                else:
                    self._count("add_many, one", "replayed" if standing else "done")
                    self._same_hold(got, expected, replayed=standing)
                    changed |= not standing
            return "done" if changed else "nothing"

        self._call_both(
            "add_many",
            self._committed(
                lambda connection: add_many_pending_earnings(
                    connection, [Earning(**vars(earning)) for earning in earnings], now=self.now
                )
            ),
            model,
        )

    def _add_to_model(self, intake: Intake, got: AddedHold | None) -> ModelEarning:
        hold_ids = [] if got is None else [share.hold_id for share in got.shares] or [got.hold_id]
        backjob = self.model.open_backjob(intake.job)
        freezes = [
            (freeze.hold_id, freeze_id, freeze)
            for freeze_id, freeze in self.seen.freezes.items()
            if freeze.hold_id in hold_ids
        ]
        lines_before = len(self.model.lines)
        earning = self.model.add(
            intake,
            now=self.now,
            hold_ids=hold_ids,
            freeze_ids={
                hold_id: freeze_id
                for hold_id, freeze_id, freeze in freezes
                if backjob is not None and freeze.backjob_id == backjob.backjob_id
            },
            owners_freeze_ids={
                hold_id: freeze_id
                for hold_id, freeze_id, freeze in sorted(freezes)
                if freeze.owner_freeze_id is not None
            },
        )
        new = len(self.model.lines) > lines_before
        holds = earning.holds
        frozen = [hold for hold in holds if self.model.frozen_owner(hold.owner) is not None]
        self._reach("a hold is added for a frozen owner", new and bool(frozen))
        self._reach("a share is added for a frozen owner", new and 0 < len(frozen) < len(holds))
        late = new and backjob is not None
        self._reach(
            "a hold is added to a job with an open backjob", late and holds[0].state is HoldState.FROZEN
        )
        self._reach("an earning is divided", new and len(holds) > 1)
        wants = self.model.wants_messages_of_shares
        notified = any(hold.kind not in PAYEES and hold.owner in wants for hold in holds)
        self._reach("an owner of fees is notified", new and notified)
        self._reach("a rule divides an earning", new and earning.rule is not None and len(holds) > 1)
        self._reach("a rule is the payee's", new and earning.rule is not None and intake.rule is None)
        self._reach("a share rounds to nothing", new and 0 < len(holds) < len(intake.shares))
        return earning

    def _same_hold(self, got: AddedHold | None, earning: ModelEarning, *, replayed: bool) -> None:
        first = earning.first
        assert got == AddedHold(
            hold_id=first.hold_id,
            reference=first.intake.reference,
            state=first.state,
            release_date=first.release_date,
            replayed=replayed,
            shares=tuple(
                AddedShare(
                    hold_id=hold.hold_id,
                    kind=hold.kind,
                    owner=hold.owner,
                    amount_minor=hold.amount_minor,
                    release_date=hold.original_release_date,
                )
                for hold in earning.holds
            )
            if len(earning.holds) > 1
            else (),
        )
