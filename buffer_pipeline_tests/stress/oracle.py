"""The expected books, in plain Python: the committed answers applied one after the other.

The order is that of the calls' serials, each taken while the call held its locks. So two calls that wanted
the same
lock are in the order in which they got it. For other calls the order does not matter. Data that is read
without a
lock, for example the holds of a job, may be as old as the beginning of the transaction.

The rules are those of the model (support/model/), which runs one verb at a time. Here many calls ran
concurrently
and have answered, so the oracle checks if these answers were possible in this order.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from buffer_pipeline.backjob import Backjob
from buffer_pipeline.errors import Refused
from buffer_pipeline.freeze import Freeze
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState, Verb
from buffer_pipeline.intake import AddedHold, Earning
from buffer_pipeline.refund import Refund
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.reschedule import Rescheduled
from buffer_pipeline.wallet import Movement
from buffer_pipeline_tests.stress.oracle_books import Wrong
from buffer_pipeline_tests.stress.oracle_parts import OracleParts
from buffer_pipeline_tests.stress.oracle_rows import Batch, FreezeName, Line, OracleBackjob, OracleHold
from buffer_pipeline_tests.stress.record import Attempt, Call
from buffer_pipeline_tests.stress.refusals import (
    content_of,
    date_is_impossible,
    key_of,
    refusal_is_wrong,
)
from buffer_pipeline_tests.support.model.amounts import largest_remainder, minor
from buffer_pipeline_tests.support.model.backjobs import COOLDOWN_HOURS


class Oracle(OracleParts):
    """The expected books, changed by each answer."""

    def apply(self, call: Call, attempt: Attempt, *, batches: Mapping[int, Batch]) -> None:
        """Change the books as the call's answer says. `batches` are those of the books, by id.

        Raises:
            Wrong: the answer was impossible after the earlier ones.
        """
        answer = call.answer
        if isinstance(answer, list):
            for earning, added in zip(call.arguments["earnings"], answer, strict=True):
                self._add(earning, added, call, attempt)
        elif call.verb == "add":
            assert isinstance(answer, AddedHold | Refused)
            self._add(Earning(**call.arguments), answer, call, attempt)
        elif isinstance(answer, Refused):
            if why := refusal_is_wrong(self, call, answer, attempt):
                raise Wrong(f"refused {answer!r}: {why}")
        elif isinstance(answer, Movement):
            self._move(call, answer)
        elif call.verb == "release a part":
            assert isinstance(answer, ReleaseBatch)
            self._release_part(call, answer, batches)
        elif isinstance(answer, ReleaseBatch):
            self._release(call, answer, attempt, batches)
        elif isinstance(answer, Rescheduled):
            self._reschedule(call, answer)
        elif isinstance(answer, Freeze | Backjob | Refund):
            if not self._repeats(call, answer):
                self._decided(call, answer)
        else:
            raise Wrong(f"no answer: {answer!r}")

    def _decided(self, call: Call, answer: Freeze | Backjob | Refund) -> None:
        if isinstance(answer, Refund):
            self._refund(call, answer)
        elif isinstance(answer, Freeze):
            self._freeze(call, answer) if call.verb == "freeze" else self._unfreeze(call, answer)
        else:
            self._request(call, answer) if call.verb == "request" else self._decide(call, answer)

    def _repeats(self, call: Call, answer: Freeze | Backjob | Refund) -> bool:
        """Return True if the answer is a replay by its reference."""
        if "reference" not in call.arguments:
            if answer.replayed:
                raise Wrong(f"{answer}: replays, and has no reference")
            return False
        found = (
            answer.amount_minor
            if isinstance(answer, Refund)
            else answer.backjob_id
            if isinstance(answer, Backjob)
            else answer.freeze_id
        )
        known, used = self.keys.get(key_of(call)), (content_of(call), found)
        if known != (used if answer.replayed else None):
            raise Wrong(f"{answer}: the reference was already used for {known}")
        self.keys[key_of(call)] = used
        return answer.replayed

    def _reschedule(self, call: Call, answer: Rescheduled) -> None:
        hold, arguments = self.holds[answer.hold_id], call.arguments
        asked = (arguments["hold_id"], (arguments["hold_id"],), arguments["to"])
        if (answer.hold_id, answer.hold_ids, answer.release_date) != asked:
            raise Wrong(f"{answer}: asked for {arguments}")
        used = (content_of(call), answer.was)
        if "reference" in arguments:
            known = self.keys.get(key_of(call))
            if known != (used if answer.replayed else None):
                raise Wrong(f"{answer}: the reference was already used for {known}")
            self.keys[key_of(call)] = used
        if answer.replayed:
            return
        if answer.was != hold.release_date or (why := date_is_impossible(hold, call)):
            raise Wrong(f"{answer}: {hold}, {why}")
        self._go(hold, Verb.RESCHEDULE)
        hold.release_date = answer.release_date

    # ---- adding

    def _add(self, earning: Earning, answer: AddedHold | Refused, call: Call, attempt: Attempt) -> None:
        first = self.by_reference.get(earning.reference)
        if isinstance(answer, Refused):
            if why := refusal_is_wrong(self, call, answer, attempt, earning=earning):
                raise Wrong(f"refused {answer!r}: {why}")
            return
        if answer.replayed:
            if first is None or first.hold_id != answer.hold_id or first.earning != earning:
                raise Wrong(f"{answer} replays {first} with {earning}")
            return
        if first is not None:
            raise Wrong(f"{answer}: the reference was already used for {first}")
        amount_minor = minor(str(earning.amount), earning.currency)
        assert earning.release_date is not None
        hold = OracleHold(
            hold_id=answer.hold_id,
            earning=earning,
            amount_minor=amount_minor,
            release_date=earning.release_date,
            held_minor=amount_minor,
            added_by=attempt,
        )
        self.holds[hold.hold_id] = self.by_reference[earning.reference] = hold
        self.by_job.setdefault(earning.job, []).append(hold)
        if self.payers.setdefault(earning.job, earning.payer) != earning.payer:
            raise Wrong(f"{answer}: the job is {self.payers[earning.job]}'s")
        self.wallet(earning.payee, earning.currency).pending_minor += amount_minor
        self._write("PENDING_EARNING", None, earning.payee, hold, amount_minor, call.now)
        backjob = self.open_backjob(earning.job)
        late = backjob is not None and call.now < earning.release_date
        if late is not (answer.state is HoldState.FROZEN):
            raise Wrong(f"{answer}: on {earning.job} is open {backjob}")
        if backjob is not None and late:
            backjob.hold_ids = sorted([*backjob.hold_ids, hold.hold_id])
            self._put_on(hold, FreezeName(FreezeKind.BACKJOB, backjob.backjob_id), call.now)

    # ---- releasing

    def _release(
        self, call: Call, batch: ReleaseBatch, attempt: Attempt, batches: Mapping[int, Batch]
    ) -> None:
        written = batches.get(batch.batch_id or 0)
        if written is None:
            raise Wrong(f"{batch}: has no lines in the books")
        holds = [self.holds[hold_id] for hold_id in written.hold_ids]
        due_by: datetime | None = call.arguments.get("due_by")
        if due_by is None:
            self._require_asked_for(call, holds, attempt)
        if written.recorded_at < call.now:
            raise Wrong(f"{batch}: recorded at {written.recorded_at}, it was {call.now}")
        amounts_minor: dict[str, int] = {}
        for hold in holds:
            if due_by is not None and hold.release_date > due_by:
                raise Wrong(f"released before its date: {hold}")
            currency = hold.earning.currency
            amounts_minor[currency] = amounts_minor.get(currency, 0) + hold.held_minor
            self._go(hold, Verb.RELEASE if due_by else Verb.RELEASE_EARLY)
        if (batch.holds_released, batch.amounts_minor) != (len(holds), amounts_minor):
            raise Wrong(f"{batch}: its lines are {len(holds)} of {amounts_minor}")
        for hold in holds:
            payee, amount_minor = hold.earning.payee, hold.held_minor
            wallet = self.wallet(payee, hold.earning.currency)
            wallet.pending_minor -= amount_minor
            wallet.balance_minor += amount_minor
            hold.held_minor = 0
            self._write("EARNING", payee, payee, hold, amount_minor, written.recorded_at, hold.release_date)

    def _require_asked_for(self, call: Call, holds: list[OracleHold], attempt: Attempt) -> None:
        asked = {call.arguments.get("hold_id")}
        if "job" in call.arguments:
            asked = {hold.hold_id for hold in self.unsettled(call.arguments["job"])}
        missing = asked - {hold.hold_id for hold in holds}
        if len(holds) + len(missing) != len(asked) or not self.came_in_meanwhile(missing, attempt):
            raise Wrong(f"released {[hold.hold_id for hold in holds]}, asked for {asked}")

    # ---- backjobs and freezes

    def _request(self, call: Call, answer: Backjob) -> None:
        if self.open_backjob(answer.job) is not None or self.has_enough_rejected(answer.job):
            raise Wrong(f"{answer}: {self.backjobs_of[answer.job]}")
        in_window = {hold.hold_id for hold in self.unsettled(answer.job) if hold.release_date > call.now}
        # Adding to a job writes its row, so no request misses what was added since its snapshot.
        if set(answer.hold_ids) != in_window or call.arguments.get("payer") not in (
            None,
            self.payers[answer.job],
        ):
            raise Wrong(
                f"{answer}: in the window were {sorted(in_window)} of {self.payers[answer.job]}'s job"
            )
        for hold_id in answer.hold_ids:
            self._put_on(self.holds[hold_id], FreezeName(FreezeKind.BACKJOB, answer.backjob_id), call.now)
        backjob = OracleBackjob(
            backjob_id=answer.backjob_id, job=answer.job, hold_ids=sorted(answer.hold_ids)
        )
        self.backjobs[backjob.backjob_id] = backjob
        self.backjobs_of.setdefault(answer.job, []).append(backjob)

    def _decide(self, call: Call, answer: Backjob) -> None:
        backjob = self.backjobs[answer.backjob_id]
        if backjob.state is not BackjobState.OPEN or sorted(answer.hold_ids) != backjob.hold_ids:
            raise Wrong(f"{answer}: it was {backjob}")
        backjob.state = answer.state
        holds = [self.holds[hold_id] for hold_id in backjob.hold_ids]
        name = FreezeName(FreezeKind.BACKJOB, backjob.backjob_id)
        # The clocks of two threads: an end is at its beginning or later.
        now = max(call.now, *(hold.opened_at[name] for hold in holds))
        if answer.state is BackjobState.APPROVED:
            self._approve(call, backjob, holds, now=now)
            return
        cooldown = timedelta(hours=COOLDOWN_HOURS) if answer.state is BackjobState.REJECTED else None
        for hold in holds:
            self._take_off(hold, name)
            if cooldown is not None and not hold.freezes:
                hold.release_date = max(hold.release_date, now) + cooldown

    def _approve(self, call: Call, backjob: OracleBackjob, holds: list[OracleHold], *, now: datetime) -> None:
        name = FreezeName(FreezeKind.BACKJOB, backjob.backjob_id)
        if any(hold.freezes != {name} for hold in holds):
            raise Wrong(f"approved while another freeze was open: {holds}")
        named = call.arguments.get("hold_ids")
        if named is not None and not set(named) <= {hold.hold_id for hold in holds}:
            raise Wrong(f"approved {named}, it freezes {backjob.hold_ids}")
        shares = held = [hold.held_minor if named is None or hold.hold_id in named else 0 for hold in holds]
        if "amount" in call.arguments:
            total = minor(call.arguments["amount"], holds[0].earning.currency)
            if total > sum(held):
                raise Wrong(f"approved {total} of {sum(held)}")
            shares = largest_remainder(total, held)
        backjob.refunded_minor = sum(shares)
        for hold, share in zip(holds, shares, strict=True):
            earning = hold.earning
            if share:
                hold.refunds += 1
                self.wallet(earning.payee, earning.currency).pending_minor -= share
                self.wallet(earning.payer, earning.currency).balance_minor += share
                self._write(
                    "REFUND",
                    earning.payee,
                    earning.payer,
                    hold,
                    share,
                    now,
                    hold.release_date,
                    backjob.backjob_id,
                )
            if share == hold.held_minor:
                self._go(hold, Verb.REFUND)
                hold.freezes.clear()
            else:
                self._go(hold, Verb.REFUND_PARTLY)
                hold.freezes.discard(name)
            hold.held_minor -= share

    def _refund(self, call: Call, answer: Refund) -> None:
        arguments, hold = call.arguments, self.holds[answer.hold_id]
        amount_minor = hold.held_minor
        if "amount" in arguments:
            amount_minor = minor(arguments["amount"], hold.earning.currency)
        if any(name.kind is FreezeKind.BACKJOB for name in hold.freezes):
            raise Wrong(f"{answer}: a backjob covers {hold}")
        now = max(call.now, *(hold.opened_at[name] for name in hold.freezes))
        left_minor = hold.held_minor - amount_minor
        self._go(hold, Verb.REFUND_ALONE_PARTLY if left_minor else Verb.REFUND_ALONE)
        used = (answer.hold_id, answer.amount_minor, answer.left_minor, answer.state)
        if used != (arguments["hold_id"], amount_minor, left_minor, hold.state) or left_minor < 0:
            raise Wrong(f"{answer}: {hold}")
        if not left_minor:
            hold.freezes.clear()
        hold.held_minor = left_minor
        hold.refunds += 1
        earning = hold.earning
        self.wallet(earning.payee, earning.currency).pending_minor -= amount_minor
        self.wallet(earning.payer, earning.currency).balance_minor += amount_minor
        self._write(
            "REFUND",
            earning.payee,
            earning.payer,
            hold,
            amount_minor,
            now,
            hold.release_date,
            reference=arguments["reference"],
        )

    def _freeze(self, call: Call, answer: Freeze) -> None:
        if answer.freeze_id in self.freezes or answer.hold_id != call.arguments["hold_id"]:
            raise Wrong(f"{answer}: not a new freeze of this hold")
        self.freezes[answer.freeze_id] = answer.hold_id
        name = FreezeName(call.arguments["kind"], answer.freeze_id)
        self._put_on(self.holds[answer.hold_id], name, call.now)

    def _unfreeze(self, call: Call, answer: Freeze) -> None:
        hold = self.holds[answer.hold_id]
        names = [
            name
            for name in hold.freezes
            if name.kind is not FreezeKind.BACKJOB and name.id == answer.freeze_id
        ]
        if not names or answer.freeze_id != call.arguments["freeze_id"]:
            raise Wrong(f"{answer}: not open on {hold}")
        self._take_off(hold, names[0])
        if answer.state is not hold.state:
            raise Wrong(f"{answer}: {hold}")

    # ---- wallets

    def _move(self, call: Call, answer: Movement) -> None:
        arguments = call.arguments
        amount_minor = minor(arguments["amount"], arguments["currency"])
        content = (call.verb, arguments["owner"], arguments["currency"], amount_minor)
        known = self.movements.get(arguments["reference"])
        if answer.replayed:
            if known != (content, answer.transaction_id):
                raise Wrong(f"{answer}: replays {known}")
            return
        if known is not None:
            raise Wrong(f"{answer}: the reference was already used for {known}")
        self.movements[arguments["reference"]] = (content, answer.transaction_id)
        wallet = self.wallet(arguments["owner"], arguments["currency"])
        wallet.balance_minor += amount_minor if call.verb == "deposit" else -amount_minor
        if answer.balance_minor != wallet.balance_minor or wallet.balance_minor < 0:
            raise Wrong(f"{answer}: the balance is {wallet}")
        comes_in = call.verb == "deposit"
        self.lines.add(
            Line(
                type="DEPOSIT" if comes_in else "WITHDRAWAL",
                from_owner=None if comes_in else arguments["owner"],
                to_owner=arguments["owner"] if comes_in else None,
                currency=arguments["currency"],
                amount_minor=amount_minor,
                recorded_at=call.now,
                reference=arguments["reference"],
            )
        )
