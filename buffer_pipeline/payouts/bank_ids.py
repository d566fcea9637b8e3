"""The ids that payouts and batches have in files for a bank.

Each has the number of the books, which the migration has chosen at random. So two sets of books at one bank
never send the same id, and neither reads the other's status file as its own.
"""

from dataclasses import dataclass
from typing import Final

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.inputs import ID_MAX

_PAYOUT: Final = "PAYOUT"
_BATCH: Final = "BATCH"


@dataclass(frozen=True, kw_only=True)
class BankIds:
    """Writes and reads ids such as `PAYOUT-48210397-41`.

    The longest has 35 characters, which is what ISO 20022 allows.
    """

    books_number: int

    def of_payout(self, payout_id: int) -> str:
        """Return the end-to-end id, which goes with a payout through all banks."""
        return f"{_PAYOUT}-{self.books_number}-{payout_id}"

    def of_batch(self, payout_batch_id: int) -> str:
        """Return the message id of a batch's file, which a bank repeats in its status file."""
        return f"{_BATCH}-{self.books_number}-{payout_batch_id}"

    def payout_of(self, text: str) -> int | None:
        """Return the payout of an end-to-end id, or None if it is none of these books."""
        prefix = f"{_PAYOUT}-{self.books_number}-"
        number = text.removeprefix(prefix)
        if (
            not text.startswith(prefix)
            or not (number.isascii() and number.isdigit())
            or len(number) > len(str(ID_MAX))
        ):
            return None
        payout_id = int(number)
        return payout_id if self.of_payout(payout_id) == text and 0 < payout_id <= ID_MAX else None


def bank_ids(connection: AnyConnection) -> BankIds:
    """Return the ids of these books. They never change."""
    return BankIds(books_number=fetch(connection, "payouts/books_number")[0]["books_number"])
