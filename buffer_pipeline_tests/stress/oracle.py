"""What the books must hold, in plain Python: the committed answers, taken in one after the other.

The order is that of the calls' serials, each taken while the call's locks were held. So two calls that wanted
the same lock are in the order in which they had it; for two others it makes no difference which comes first.
What is read without a lock, such as which holds a job has, may be what it was when the transaction began.

The rules are those of model.py, which decides one verb at a time. Here many ran at once and have answered, so
the question is: could these answers have been given in this order?
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from buffer_pipeline.backjob import Backjob
from buffer_pipeline.errors import Refused
from buffer_pipeline.freeze import Freeze
from buffer_pipeline.hold import NEXT_STATE, BackjobState, FreezeKind, HoldState, Verb
from buffer_pipeline.intake import AddedHold, Earning
from buffer_pipeline.refund import Refund
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.wallet import Movement
from buffer_pipeline_tests.model import COOLDOWN, MAX_BACKJOBS, largest_remainder, minor
from buffer_pipeline_tests.stress.entries import (
    Batch,
    FreezeName,
    Line,
    OracleBackjob,
    OracleHold,
    OracleWallet,
)
from buffer_pipeline_tests.stress.record import Attempt, Call
from buffer_pipeline_tests.stress.refusals import content_of, key_of, refusal_is_wrong


class Wrong(Exception):
    """An answer that cannot have been given, with what the oracle knows of it."""


class Oracle:
    """The books as they must be. `lines` are those that are not compared with the books yet."""

    def __init__(self) -> None:
        self.holds: dict[int, OracleHold] = {}
        self.by_reference: dict[str, OracleHold] = {}
        self.by_job: dict[str, list[OracleHold]] = {}
        self.wallets: dict[tuple[str, str], OracleWallet] = {}
        self.backjobs: dict[int, OracleBackjob] = {}
        self.backjobs_of: dict[str, list[OracleBackjob]] = {}
        self.freezes: dict[int, int] = {}
        """freeze_id -> hold_id, of all that an admin or risk has ever opened."""
        self.movements: dict[str, tuple[tuple[object, ...], int]] = {}
        """reference -> what it stands for, and its transaction's id."""
        self.payers: dict[str, str] = {}
        """Of each job, whoever was the first to pay for it."""
        self.keys: dict[tuple[str, str], tuple[tuple[object, ...], int]] = {}
        """What kind of thing was asked and its reference -> what was said, and the id or amount answered."""
        self.lines: set[Line] = set()

    def take_in(self, call: Call, attempt: Attempt, *, batches: Mapping[int, Batch]) -> None:
        """Change the books as the call says it did. `batches` are those of the books, by id.

        Raises:
            Wrong: it cannot have answered this, behind all that came before it.
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
        elif isinstance(answer, ReleaseBatch):
            self._release(call, answer, attempt, batches)
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
        """Return whether the answer is one that was given before, by its reference."""
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
        known, said = self.keys.get(key_of(call)), (content_of(call), found)
        if known != (said if answer.replayed else None):
            raise Wrong(f"{answer}: the reference stands for {known}")
        self.keys[key_of(call)] = said
        return answer.replayed

    # ---- what there is

    def wallet(self, owner: str, currency: str) -> OracleWallet:
        """Return a wallet, an empty one where there is none."""
        return self.wallets.setdefault((owner, currency), OracleWallet())

    def unsettled(self, job: str) -> list[OracleHold]:
        """Return the job's holds that wait, by id."""
        return [hold for hold in self.by_job.get(job, ()) if hold.held_minor]

    def open_backjob(self, job: str) -> OracleBackjob | None:
        """Return the job's open backjob."""
        of_job = self.backjobs_of.get(job, ())
        return next((backjob for backjob in of_job if backjob.state is BackjobState.OPEN), None)

    def has_enough_rejected(self, job: str) -> bool:
        """Return whether the job may have no further backjob."""
        states = [backjob.state for backjob in self.backjobs_of.get(job, ())]
        return states.count(BackjobState.REJECTED) >= MAX_BACKJOBS

    def due(self, moment: datetime) -> list[OracleHold]:
        """Return what a release must find: what is buffered, and its date is reached."""
        return [
            hold
            for hold in self.holds.values()
            if hold.state is HoldState.BUFFERED and hold.release_date <= moment
        ]

    def messages(self) -> list[tuple[int, str, int]]:
        """Return how many messages of each type that tells of money there must be about each hold."""
        told = [(hold_id, "PAYMENT_PENDING", 1) for hold_id in self.holds]
        told += [
            (hold.hold_id, "PAYMENT_RELEASED", 1)
            for hold in self.holds.values()
            if hold.state is HoldState.RELEASED
        ]
        # The payee and the payer are told.
        return told + [
            (hold.hold_id, "PAYMENT_REFUNDED", 2 * hold.refunds)
            for hold in self.holds.values()
            if hold.refunds
        ]

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
            raise Wrong(f"{answer}: the reference stands for {first} already")
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

    def came_in_meanwhile(self, hold_ids: Iterable[int | None], attempt: Attempt) -> bool:
        """Return whether a transaction may have missed these holds: who added them ended after it began."""
        holds = [self.holds.get(hold_id or 0) for hold_id in hold_ids]
        return all(hold is not None and hold.added_by.ended >= attempt.began for hold in holds)

    # ---- backjobs and freezes

    def _request(self, call: Call, answer: Backjob) -> None:
        if self.open_backjob(answer.job) is not None or self.has_enough_rejected(answer.job):
            raise Wrong(f"{answer}: {self.backjobs_of[answer.job]}")
        in_window = {hold.hold_id for hold in self.unsettled(answer.job) if hold.release_date > call.now}
        # Who adds to a job writes its row: no request misses what was added since its snapshot.
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
        # The clocks of two threads: what ends does so when it began, or later.
        now = max(call.now, *(hold.opened_at[name] for hold in holds))
        if answer.state is BackjobState.APPROVED:
            self._approve(call, backjob, holds, now=now)
            return
        cooldown = COOLDOWN if answer.state is BackjobState.REJECTED else None
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
        said = (answer.hold_id, answer.amount_minor, answer.left_minor, answer.state)
        if said != (arguments["hold_id"], amount_minor, left_minor, hold.state) or left_minor < 0:
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

    def _put_on(self, hold: OracleHold, name: FreezeName, now: datetime) -> None:
        self._go(hold, Verb.FREEZE)
        hold.opened_at[name] = now
        hold.freezes.add(name)

    def _take_off(self, hold: OracleHold, name: FreezeName) -> None:
        if name not in hold.freezes:
            raise Wrong(f"{name} is not open on {hold}")
        hold.freezes.discard(name)
        if not hold.freezes:
            self._go(hold, Verb.RESUME)

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
            raise Wrong(f"{answer}: the reference stands for {known}")
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

    # ---- both

    def _go(self, hold: OracleHold, verb: Verb) -> None:
        if (hold.state, verb) not in NEXT_STATE:
            raise Wrong(f"{verb} from {hold.state}: {hold}")
        hold.state = NEXT_STATE[hold.state, verb]

    def _write(
        self,
        type_: str,
        from_owner: str | None,
        to_owner: str,
        hold: OracleHold,
        amount_minor: int,
        recorded_at: datetime,
        release_date: datetime | None = None,
        backjob_id: int | None = None,
        reference: str | None = None,
    ) -> None:
        self.lines.add(
            Line(
                type=type_,
                from_owner=from_owner,
                to_owner=to_owner,
                currency=hold.earning.currency,
                amount_minor=amount_minor,
                recorded_at=recorded_at,
                hold_id=hold.hold_id,
                backjob_id=backjob_id,
                reference=reference,
                release_date=release_date,
            )
        )
