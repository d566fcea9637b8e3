"""`buffer-pipeline contact …`: the locale, time zone and mail address of an owner."""

from dataclasses import asdict
from typing import Annotated

import typer

from buffer_pipeline.cli.output import Output
from buffer_pipeline.cli.session import one_snapshot, one_transaction
from buffer_pipeline.errors import NotFound
from buffer_pipeline.notifications.contact import change_contact, find_contacts

app = typer.Typer(rich_markup_mode="markdown")

Owner = Annotated[str, typer.Argument(help="The platform's id of the owner.")]


@app.command("set")
def set_contact(
    context: typer.Context,
    owner: Owner,
    locale: Annotated[str | None, typer.Option(help='Such as fil_PH; "" removes it.')] = None,
    time_zone: Annotated[str | None, typer.Option(help='Such as Asia/Manila; "" removes it.')] = None,
    email: Annotated[str | None, typer.Option(help='The mail address; "" removes it.')] = None,
    notify_of_shares: Annotated[
        bool | None,
        typer.Option(help="Whether to notify the owner of each fee and tax; by default they are not."),
    ] = None,
) -> None:
    """Set the given values of an owner, and leave the others unchanged.

    Example: `buffer-pipeline contact set worker-17 --locale fil_PH --email worker-17@example.com`
    """
    if locale is time_zone is email is None and notify_of_shares is None:
        raise typer.BadParameter("give --locale, --time-zone, --email or --notify-of-shares")
    given = {"locale": locale, "time_zone": time_zone, "email": email}
    changes: dict[str, object] = {name: value or None for name, value in given.items() if value is not None}
    if notify_of_shares is not None:
        changes["notify_of_shares"] = notify_of_shares
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = change_contact(connection, owner=owner, changes=changes, now=now)
    output.answer(asdict(done))


@app.command("show")
def show(context: typer.Context, owner: Owner) -> None:
    """Show an owner's locale, time zone and address; empty ones follow BUFFER_LOCALE and BUFFER_TIME_ZONE.

    Example: `buffer-pipeline contact show worker-17`
    """
    output: Output = context.obj
    with one_snapshot() as (connection, _, _now):
        found = find_contacts(connection, [owner]).get(owner)
    if found is None:
        raise NotFound(f"contact {owner!r}: does not exist; `contact set` creates one")
    output.answer(asdict(found))
