"""Whether a call repeats what a reference of a claw-back, a recovery or a forgiven debt has done."""

from typing import Final

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row
from buffer_pipeline.errors import ReferenceConflict
from buffer_pipeline.money import format_amount

_WORDS: Final = {
    "EARLY": "an early release",
    "CLAWBACK": "a claw-back",
    "RECOVERY": "a recovery of debts",
    "FORGIVEN": "a forgiven debt",
}


def require_same(connection: AnyConnection, found: Row, *, kind: str, same: bool) -> None:
    """Refuse a reference that was used for another batch than one of `kind` with the same content.

    The row has kind, reference, source, batch_id, named_hold_id, currency and amount_minor.

    Raises:
        ReferenceConflict: it was.
    """
    if found["kind"] == kind and same:
        return
    shown = ""
    if found["currency"] is not None and found["amount_minor"]:
        places = places_of(connection)[found["currency"]]
        shown = f" of {format_amount(found['amount_minor'], places)} {found['currency']}"
    raise ReferenceConflict(
        f"reference {found['reference']!r}: already used for {_WORDS[found['kind']]}{shown}"
        + ("" if found["named_hold_id"] is None else f" of hold {found['named_hold_id']}")
        + f" by {found['source']!r}, batch {found['batch_id']}",
        reference=found["reference"],
        hold_id=found["named_hold_id"],
    )
