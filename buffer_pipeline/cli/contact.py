"""`buffer-pipeline contact …`: how an owner is reached and spoken to."""

from dataclasses import asdict
from typing import Annotated

import typer

from buffer_pipeline.cli.output import Output
from buffer_pipeline.cli.session import one_look, one_transaction
from buffer_pipeline.contact import change_contact, find_contacts
from buffer_pipeline.errors import NotFound

app = typer.Typer(help="Owners' locales, time zones and mail addresses.")

Owner = Annotated[str, typer.Argument(help="The platform's id of the owner.")]


@app.command("set")
def set_contact(
    context: typer.Context,
    owner: Owner,
    locale: Annotated[str | None, typer.Option(help='Such as fil_PH; "" forgets it.')] = None,
    time_zone: Annotated[str | None, typer.Option(help='Such as Asia/Manila; "" forgets it.')] = None,
    email: Annotated[str | None, typer.Option(help='Where mail goes; "" forgets it.')] = None,
) -> None:
    """Set what is given, and leave the rest as it is.

    Example: `buffer-pipeline contact set worker-17 --locale fil_PH --email worker-17@example.com`
    """
    if locale is time_zone is email is None:
        raise typer.BadParameter("give --locale, --time-zone or --email")
    given = {"locale": locale, "time_zone": time_zone, "email": email}
    changes = {name: value or None for name, value in given.items() if value is not None}
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = change_contact(connection, owner=owner, changes=changes, now=now)
    output.answer(asdict(done))


@app.command("show")
def show(context: typer.Context, owner: Owner) -> None:
    """Show what is known of an owner; where it is empty, BUFFER_LOCALE and BUFFER_TIME_ZONE say.

    Example: `buffer-pipeline contact show worker-17`
    """
    output: Output = context.obj
    with one_look() as (connection, _, _now):
        found = find_contacts(connection, [owner]).get(owner)
    if found is None:
        raise NotFound(f"contact {owner!r}: does not exist; contact set makes one")
    output.answer(asdict(found))
