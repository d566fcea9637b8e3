"""Rules that request and decide backjobs."""

from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.hold import BackjobState, HoldState
from buffer_pipeline.shares import ShareKind
from buffer_pipeline_tests.support.builders import ADMIN
from buffer_pipeline_tests.support.machine.comparing import there_are_holds
from buffer_pipeline_tests.support.machine.drawn import (
    DECIDED,
    KEYED,
    NAMED,
    PARTS,
    PICK,
    THE_JOBS,
    UNKNOWN_IDS,
    choose,
    part_text,
)
from buffer_pipeline_tests.support.machine.earning import EarningRules
from buffer_pipeline_tests.support.model.backjobs import MAX_BACKJOBS
from buffer_pipeline_tests.support.model.records import ModelBackjob


class BackjobRules(EarningRules):
    """Backjobs are requested, rejected, withdrawn and approved."""

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
            self._request(self._job_for_a_request(pick), reference=self._key(keyed))
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
            self._request(self._job_for_a_request(pick))
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
            self._request(self._job_for_a_request(pick))
            return
        before = set(self.done.values())
        backjob_id = self._backjob_id(which, pick)
        backjob = self.model.backjobs.get(backjob_id)
        if backjob and pick % 2 and len({hold.intake.currency for hold in backjob.holds}) > 1:
            # Backjobs of several currencies are rare: mostly approve a part of all holds, which is refused.
            part, named = "half", "all"
        elif backjob and pick % 4 == 0 and any(len(hold.earning.holds) > 1 for hold in backjob.holds):
            part, named = "a third", "all"
        self._approve(backjob_id, part, named, self._key(keyed), pick)
        # Few approvals succeed, so repeat such a one at once, also with another reason.
        for again in set(self.done.values()) - before if twice else ():
            again()
            again(reason="another")

    @precondition(lambda machine: bool(machine.done))
    @rule(reason=st.sampled_from(["the same", "another"]), pick=PICK)
    def repeat_with_reference(self, reason: str, pick: int) -> None:
        """Repeat the last call with a reference of some verbs, with the same reason or another."""
        calls = list(self.done.values())
        for number in range(min(4, len(calls))):
            again = choose(calls, pick + number * len(calls) // 4)
            again(**({"reason": "another"} if reason == "another" else {}))

    def _request(
        self,
        job: str,
        *,
        payer: str | None = None,
        reference: str | None = None,
        reason: str = "it leaks",
    ) -> None:
        payer = self.model.jobs.get(job, "client-1") if payer == THE_JOBS else payer
        arguments: dict[str, Any] = {
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
                **arguments,
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
            self._reach("a backjob of several payees", len({one.owner for one in backjob.holds}) > 1)
            self._reach(
                "a backjob of several currencies", len({one.intake.currency for one in backjob.holds}) > 1
            )
            kinds = {one.kind for one in backjob.holds}
            self._reach("a backjob freezes a fee and a reserve", {ShareKind.FEE, ShareKind.RESERVE} <= kinds)
            self._reach(
                "a backjob skips a hold with a closed window",
                len(backjob.holds) < sum(one.settled is None for one in self.model.holds_of(job)),
            )
            again = partial(self._request, job, payer=payer, reference=reference)
            return self._keep("request_backjob", reference, "done", again)

        self._call_both(
            "request_backjob",
            self._committed(lambda connection: request_backjob(connection, **arguments, now=self.now)),
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
        currency = holds[0].intake.currency if holds else "PHP"
        amount = None if part == "whole" else part_text(part, held, currency)
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
        **arguments: Any,
    ) -> None:
        again = partial(self._decide, verb, state, real, backjob_id, **arguments)
        arguments |= {"backjob_id": backjob_id, "by": ADMIN, "reason": reason}

        def model(got: Backjob | None) -> str:
            replayed = ("decision", arguments["reference"]) in self.model.keys
            backjob = self.model.decide_backjob(state, **arguments, now=self.now)
            self._same_backjob(got, backjob, replayed=replayed)
            if replayed:
                return "replayed"
            self._reach(
                f"{verb} leaves a hold frozen",
                any(hold.state is HoldState.FROZEN for hold in backjob.holds),
            )
            if state is BackjobState.APPROVED:
                rests = [hold.held_minor for hold in backjob.holds]
                divided = [hold for hold in backjob.holds if hold is not hold.earning.first]
                self._reach("shares are refunded in part", any(hold.held_minor for hold in divided))
                self._reach("a backjob of several holds is refunded in part", len(rests) > 1 and any(rests))
                self._reach(
                    "a hold gets nothing of a refund", any(hold.refunded_minor == 0 for hold in backjob.holds)
                )
            return self._keep(verb, arguments["reference"], "done", again)

        self._call_both(
            verb, self._committed(lambda connection: real(connection, **arguments, now=self.now)), model
        )

    def _same_backjob(self, got: Backjob | None, backjob: ModelBackjob, *, replayed: bool) -> None:
        assert got == Backjob(
            backjob_id=backjob.backjob_id,
            job=backjob.job,
            state=backjob.state,
            hold_ids=tuple(sorted(hold.hold_id for hold in backjob.holds)),
            replayed=replayed,
        )

    # ---- which job or backjob

    def _open_backjobs(self) -> list[int]:
        return [
            backjob_id
            for backjob_id, backjob in self.model.backjobs.items()
            if backjob.state is BackjobState.OPEN
        ]

    def _lacks_backjob(self, which: str, pick: int) -> bool:
        """Return True if a backjob should be requested instead of decided."""
        return not self.model.backjobs or (which == "open" and not self._open_backjobs() and pick % 8 != 1)

    def _backjob_states(self, job: str) -> list[BackjobState]:
        return [backjob.state for backjob in self.model.backjobs.values() if backjob.job == job]

    def _backjob_id(self, which: str, pick: int) -> int:
        backjobs = self.model.backjobs
        if which == "unknown":
            return choose(UNKNOWN_IDS, pick)
        still_open = self._open_backjobs()
        return choose(still_open if which == "open" and still_open else list(backjobs), pick)

    def _job_for_a_request(self, pick: int) -> str:
        """Return a job that may get a backjob; mostly the one with the most rejections."""
        rejected: dict[str, int] = {}
        for hold in self.model.unsettled():
            states = self._backjob_states(hold.intake.job)
            in_window = hold.kind is ShareKind.PAYEE and hold.release_date > self.now
            if in_window and BackjobState.OPEN not in states:
                rejected[hold.intake.job] = states.count(BackjobState.REJECTED)
        allowed = [job for job, times in rejected.items() if times < MAX_BACKJOBS]
        if not allowed:
            return self._new_job(pick)
        return choose(allowed, pick) if pick % 4 == 2 else max(allowed, key=lambda job: rejected[job])

    def _job_to_refuse(self, pick: int) -> str | None:
        """Return a job with holds whose request is refused although no backjob is open."""
        waiting = self.model.unsettled()
        in_window = {
            hold.intake.job
            for hold in waiting
            if hold.kind is ShareKind.PAYEE and hold.release_date > self.now
        }
        rejected_often = [
            job for job in in_window if self._backjob_states(job).count(BackjobState.REJECTED) >= MAX_BACKJOBS
        ]
        late = [hold.intake.job for hold in waiting if hold.intake.job not in in_window]
        jobs = sorted(rejected_often) or late
        return choose(jobs, pick) if jobs else None
