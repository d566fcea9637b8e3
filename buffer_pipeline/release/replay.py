"""Replays: the early release that a reference identifies, and whether a call repeats its content."""

from collections.abc import Sequence
from typing import Final

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row, array_text, fetch
from buffer_pipeline.errors import ReferenceConflict
from buffer_pipeline.money import format_amount
from buffer_pipeline.release.batch import ReleaseBatch

_WORDS: Final = {
    "EARLY": "early release",
    "CLAWBACK": "claw-back",
    "RECOVERY": "recovery of debts",
    "FORGIVEN": "forgiven debt",
}


def find_replay(
    connection: AnyConnection,
    *,
    reference: str,
    by: str,
    reason: str,
    hold_id: int | None,
    holds: Sequence[Row],
    amount_minor: int | None,
) -> ReleaseBatch | None:
    """Return what the early release with this reference released; None if there is none.

    `holds` are those of the named hold's earning, or of the named job.

    Raises:
        ReferenceConflict: it released something else, or for another reason.
    """
    lines = fetch(
        connection,
        "release/find_early_release",
        reference=reference,
        hold_ids=[hold["hold_id"] for hold in holds],
    )
    if not lines:
        return None
    found = lines[0]
    amounts_minor: dict[str, int] = {}
    for line in lines:
        if line["currency"] is not None:
            amounts_minor[line["currency"]] = amounts_minor.get(line["currency"], 0) + line["amount_minor"]
    parts = sum(line["type"] == "EARNING_PART" for line in lines)
    # Without an amount, the caller meant all that the holds held.
    whole = found["left_minor"] is None
    same_amount = whole if amount_minor is None else [*amounts_minor.values()] == [amount_minor]
    asked = (hold_id, by, reason)
    # The lines of another job are not among those of these holds.
    if (found["named_hold_id"], found["source"], found["reason"]) != asked or not (
        same_amount and amounts_minor
    ):
        raise ReferenceConflict(
            f"reference {reference!r}: already used for the {_WORDS[found['kind']]}"
            + _shown(connection, amounts_minor)
            + ("" if found["named_hold_id"] is None else f" of hold {found['named_hold_id']}")
            + f" by {found['source']!r}, batch {found['batch_id']}",
            reference=reference,
            hold_id=found["named_hold_id"],
        )
    recovered = fetch(
        connection,
        "release/recovered_by_release",
        wallet_ids=array_text(sorted({hold["payee_wallet_id"] for hold in holds})),
        batch_id=found["batch_id"],
    )
    return ReleaseBatch(
        holds_released=len(lines) - parts,
        parts_released=parts,
        amounts_minor=amounts_minor,
        recovered_minor={row["currency"]: row["amount_minor"] for row in recovered},
        batch_id=found["batch_id"],
        replayed=True,
    )


def _shown(connection: AnyConnection, amounts_minor: dict[str, int]) -> str:
    places = places_of(connection)
    return "".join(
        f" of {format_amount(amount_minor, places[currency])} {currency}"
        for currency, amount_minor in sorted(amounts_minor.items())
    )
