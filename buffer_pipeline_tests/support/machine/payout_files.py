"""Rules that mark payouts as a bank's files say."""

from decimal import Decimal
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import rule

from buffer_pipeline.payouts import MarkedPayouts, PayoutResult, RestOfBatch, mark_payouts
from buffer_pipeline_tests.support.machine.drawn import PICK, UNKNOWN_IDS, choose
from buffer_pipeline_tests.support.machine.payouts import PayoutRules
from buffer_pipeline_tests.support.model.amounts import PLACES
from buffer_pipeline_tests.support.model.payouts import end_to_end_id
from buffer_pipeline_tests.support.model.records import ModelPayout

LINES: Final = st.lists(
    st.sampled_from(
        [
            *["paid"] * 3,
            *["returned"] * 3,
            "paid, then returned",
            "returned, then paid",
            "strange",
            "of another",
        ]
    ),
    max_size=4,
)


class PayoutFileRules(PayoutRules):
    """The bank reports payouts."""

    @rule(
        which=st.sampled_from([*["SENT"] * 8, "any", "unknown"]),
        lines=LINES,
        amounts=st.sampled_from([*["none", "right"] * 4, "another"]),
        rest=st.sampled_from([*[None] * 6, "PAID", "RETURNED", "another number"]),
        same_file=st.sampled_from([*[False] * 6, True]),
        pick=PICK,
    )
    def import_status(
        self, which: str, lines: list[str], amounts: str, rest: str | None, same_file: bool, pick: int
    ) -> None:
        """Mostly lines of a sent batch. If there is none, one is sent first."""
        sent = self._batches("SENT")
        if not sent or pick % 8 == 0:
            self._send_something(pick)
            sent = self._batches("SENT")
        batches = list(self.model.payout_batches.values())
        if not batches:
            return
        batch = choose(sent or batches, pick) if which != "any" else choose(batches, pick)
        inside = self.model.in_batch(batch)
        others = [one for one in self.model.payouts.values() if one.batch is not batch]
        results: list[PayoutResult | RestOfBatch] = []
        for number, line in enumerate(lines):
            if line == "strange":
                results.append(PayoutResult(end_to_end_id="invoice-7", outcome="PAID"))
                continue
            from_ = others if line == "of another" else inside
            if from_:
                payout = choose(from_, pick + number)
                amount = Decimal(payout.amount_minor).scaleb(-PLACES[payout.currency])
                said = {"none": None, "right": amount, "another": amount + 1}[amounts]
                outcomes = {"returned": ["RETURNED"], "paid, then returned": ["PAID", "RETURNED"]}
                outcomes["returned, then paid"] = ["RETURNED", "PAID"]
                results += [_said(payout, outcome, said) for outcome in outcomes.get(line, ["PAID"])]
        if rest is not None:
            outcome = "PAID" if rest == "another number" else rest
            results.append(
                RestOfBatch(outcome=outcome, payouts=batch.payouts + 1 if rest == "another number" else None)
            )
        # An id that no batch can have is refused also for an empty file.
        batch_id = UNKNOWN_IDS[1] if which == "unknown" else batch.payout_batch_id
        digest = next(self.numbers).to_bytes(32, "big")
        if same_file and batch.files:
            digest = max(batch.files)
        self._mark(batch_id, results, digest)

    def _send_something(self, pick: int) -> None:
        """Send a batch, if nothing prevents it. If none waits, make one."""
        waiting = [*self._batches("APPROVED"), *self._batches("MADE")] or self._make_something(pick)
        for batch in waiting[:1]:
            self._send(batch)

    def _mark(self, batch_id: int, results: list[PayoutResult | RestOfBatch], digest: bytes) -> None:
        arguments: dict[str, Any] = {"payout_batch_id": batch_id, "results": results, "file_digest": digest}

        def model(got: MarkedPayouts | None) -> str:
            was_paid = [one for one in self.model.payouts.values() if one.state == "PAID"]
            files = sum(len(batch.files) for batch in self.model.payout_batches.values())
            marked = self.model.mark_payouts(**arguments, now=self.now)
            assert got is not None
            assert (got.paid, got.returned) == (marked.paid, marked.returned)
            assert set(got.unknown) == marked.unknown
            assert set(got.conflicting) == marked.conflicting
            assert set(got.differing) == marked.differing
            self._reach("payouts are paid", marked.paid > 0)
            self._reach("payouts are returned", marked.returned > 0)
            self._reach("a paid payout is returned", any(one.state == "RETURNED" for one in was_paid))
            self._reach("a returned payout is reported as paid", bool(marked.conflicting))
            self._reach("a file has lines of no payout of the batch", bool(marked.unknown))
            self._reach("a file has another amount", bool(marked.differing))
            rest = any(isinstance(result, RestOfBatch) for result in results)
            self._reach("a file speaks of the rest of a batch", rest)
            if sum(len(batch.files) for batch in self.model.payout_batches.values()) == files:
                return "nothing"
            return "done"

        self._call_both(
            "mark_payouts",
            self._committed(
                lambda connection: mark_payouts(connection, **arguments, by="finance-1", now=self.now)
            ),
            model,
        )


def _said(payout: ModelPayout, outcome: str, amount: Decimal | None) -> PayoutResult:
    return PayoutResult(
        end_to_end_id=end_to_end_id(payout),
        outcome=outcome,
        reason="AC04 account closed" if outcome == "RETURNED" else None,
        amount=amount,
        currency=None if amount is None else payout.currency,
    )
