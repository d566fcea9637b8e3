"""`buffer-pipeline explain`: why a hold is held, until when, and what would shorten it."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from buffer_pipeline.cli.output import Output, iso, present
from buffer_pipeline.cli.session import one_snapshot
from buffer_pipeline.explain import Explanation, explain_hold
from buffer_pipeline.explain.words import payee_reasons, payee_ways, reason_words, released_words, way_words
from buffer_pipeline.money import format_amount

app: Final = typer.Typer(rich_markup_mode="markdown")


class Reader(StrEnum):
    """Who reads the explanation."""

    OPERATOR = "operator"
    PAYEE = "payee"


@app.command("explain")
def explain(
    context: typer.Context,
    hold_id: Annotated[int | None, typer.Argument(help="The hold's id.")] = None,
    reference: Annotated[str | None, typer.Option(help="The reference, instead of the id.")] = None,
    reader: Annotated[
        Reader,
        typer.Option("--for", case_sensitive=False, help="`payee` shows only what the payee may read."),
    ] = Reader.OPERATOR,
) -> None:
    """Explain why a hold is held or what became of it: since when, until when, and what would release it
    earlier.

    Release times are on the full hour, when the release run starts.

    Example: `buffer-pipeline explain 41` or `buffer-pipeline explain --reference job-8-done --for payee`
    """
    if (hold_id is None) == (reference is None):
        raise typer.BadParameter("give either a HOLD_ID or --reference")
    output: Output = context.obj
    with one_snapshot() as (connection, settings, now):
        found = explain_hold(
            connection, hold_id=hold_id, reference=reference, now=now, policy=settings.policy
        )
    document = _for_payee(found) if reader is Reader.PAYEE else _for_operator(found)
    lines = [_heading(found)]
    for reason in document["reasons"]:
        lines.append(f"- {reason['text']}")
        lines += [f"    {way['text']}" for way in reason.get("ways", ())]
    lines += [f"- {way}" for way in document.get("ways", ())]
    output.answer(document, text="\n".join(lines))


def _heading(found: Explanation) -> str:
    hold = found.hold
    amount = f"{format_amount(hold.left_minor or hold.amount_minor, hold.places)} {hold.currency}"
    heading = f"Hold {hold.hold_id} of {amount} for {hold.payee}, job {hold.job}: {hold.state}."
    return f"{heading} {released_words(found, moment=iso)}".rstrip()


def _common(found: Explanation) -> dict[str, Any]:
    hold = found.hold
    return {
        "hold_id": hold.hold_id,
        "reference": hold.reference,
        "job": hold.job,
        "payee": hold.payee,
        "state": hold.state,
        "amount_minor": hold.amount_minor,
        "left_minor": hold.left_minor,
        "currency": hold.currency,
        "at": found.at,
        "released_at": found.released_at,
    }


def _shown(found: Explanation, document: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = present(document, {found.hold.currency: found.hold.places})
    return shown


def _for_operator(found: Explanation) -> dict[str, Any]:
    reasons = []
    for reason in found.reasons:
        row = {name: value for name, value in asdict(reason).items() if value is not None}
        row["text"] = reason_words(found, reason, moment=iso)
        row["ways"] = [{**asdict(way), "text": way_words(way, moment=iso)} for way in reason.ways]
        reasons.append(row)
    return _shown(found, {**_common(found), "reasons": reasons})


def _for_payee(found: Explanation) -> dict[str, Any]:
    return _shown(
        found,
        {
            **_common(found),
            "reasons": payee_reasons(found, moment=iso),
            "ways": payee_ways(found, moment=iso),
        },
    )
