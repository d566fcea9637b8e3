"""The words for the lines of a status file that mark nothing, which a person has to look at."""

from typing import Any, Final

from buffer_pipeline.payouts import MarkedPayouts, PayoutStatusFile

_NAMED_MAX: Final = 20

_WHY: Final = {
    "unknown": "no payout of the batch",
    "differing": "its amount or currency is not that of the payout; this payout was not marked",
    "conflicting": "came back and is paid, or was paid and is rejected; it was not marked: ask the bank",
}
"""What a person has to look at, and what it is."""

_OfFile = MarkedPayouts | PayoutStatusFile


def to_look_at(file: _OfFile) -> dict[str, Any]:
    """Return the ids of the lines that mark nothing, for JSON."""
    return {what: list(getattr(file, what)) for what in _WHY}


def lines_to_look_at(file: _OfFile) -> list[str]:
    """Return a text for each of these lines, of each kind at most twenty."""
    texts: list[str] = []
    for what, ids in to_look_at(file).items():
        texts += [f"{what}: {each!r}: {_WHY[what]}" for each in ids[:_NAMED_MAX]]
        if len(ids) > _NAMED_MAX:
            texts.append(f"and {len(ids) - _NAMED_MAX} more are {what}")
    return texts


def summary_of(file: _OfFile) -> str:
    """Return how many payouts were marked, and how many lines were not."""
    found = [f"{len(ids)} {what}" for what, ids in to_look_at(file).items() if ids or what == "unknown"]
    return ", ".join([f"{file.paid} paid, {file.returned} returned", *found])
