"""How the oracle applies parts of holds that were released early."""

from collections.abc import Mapping

from buffer_pipeline.hold import Verb
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline_tests.stress.oracle_books import OracleBooks, Wrong
from buffer_pipeline_tests.stress.oracle_rows import Batch
from buffer_pipeline_tests.stress.record import Call
from buffer_pipeline_tests.stress.refusals import content_of, key_of
from buffer_pipeline_tests.support.model.amounts import minor


class OracleParts(OracleBooks):
    """The expected books with released parts."""

    def _release_part(self, call: Call, batch: ReleaseBatch, batches: Mapping[int, Batch]) -> None:
        arguments, hold = call.arguments, self.holds[call.arguments["hold_id"]]
        currency = hold.earning.currency
        amount_minor = minor(arguments["amount"], currency)
        known, used = self.keys.get(key_of(call)), (content_of(call), batch.batch_id)
        if known != (used if batch.replayed else None):
            raise Wrong(f"{batch}: the reference was already used for {known}")
        self.keys[key_of(call)] = used
        left_minor = hold.held_minor - (0 if batch.replayed else amount_minor)
        if batch.left_minor != ({currency: left_minor} if left_minor else {}):
            raise Wrong(f"{batch}: {hold}")
        if batch.replayed:
            return
        written = batches.get(batch.batch_id or 0)
        if written is None or written.hold_ids != [hold.hold_id] or written.recorded_at < call.now:
            raise Wrong(f"{batch}: in the books is {written}")
        if (batch.parts_released, batch.holds_released) != ((1, 0) if left_minor else (0, 1)):
            raise Wrong(f"{batch}: {hold}")
        if left_minor < 0 or batch.amounts_minor != {currency: amount_minor}:
            raise Wrong(f"{batch}: asked for {amount_minor} of {hold}")
        self._go(hold, Verb.RELEASE_PART if left_minor else Verb.RELEASE_EARLY)
        hold.held_minor = left_minor
        hold.parts += bool(left_minor)
        payee = hold.earning.payee
        wallet = self.wallet(payee, currency)
        wallet.pending_minor -= amount_minor
        wallet.balance_minor += amount_minor
        type_ = "EARNING_PART" if left_minor else "EARNING"
        self._write(type_, payee, payee, hold, amount_minor, written.recorded_at, hold.release_date)
