"""`buffer-pipeline api-key …`: keys of the HTTP API."""

from dataclasses import asdict
from typing import Annotated

import typer

from buffer_pipeline.api.keys import KeyRole, list_keys, make_key, revoke_key
from buffer_pipeline.cli.output import Output, iso, present
from buffer_pipeline.cli.session import books
from buffer_pipeline.database import database_clock
from buffer_pipeline.inputs import parse_time

app = typer.Typer(rich_markup_mode="markdown")

Name = Annotated[str, typer.Argument(help="The name of the key.")]


@app.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="What the key is for; each name is used once.")],
    role: Annotated[KeyRole, typer.Option(case_sensitive=False, help="What its holder may do.")],
    expires: Annotated[
        str | None, typer.Option(help="Until when it may be used (ISO 8601); default: until it is revoked.")
    ] = None,
) -> None:
    """Make a key and show it, once: the books keep only its digest. Needs the login of the books' owner.

    Example: `buffer-pipeline api-key create --name shop --role platform`
    """
    output: Output = context.obj
    expires_at = None if expires is None else parse_time("expires", expires)
    with books() as (engine, _), engine.begin() as connection:
        key = make_key(
            connection, name=name, role=role, now=database_clock(connection), expires_at=expires_at
        )
    until = "" if expires_at is None else f", until {iso(expires_at)}"
    output.answer(
        {"name": name, "role": role, "key": key, "expires_at": present(expires_at)},
        text=f"{key}\nThe key {name} of the role {role}{until}. It is not shown again.",
    )


@app.command("list")
def list_(context: typer.Context) -> None:
    """List the keys, the oldest first, without the keys themselves.

    Example: `buffer-pipeline api-key list`
    """
    output: Output = context.obj
    with books() as (engine, _), engine.connect() as connection:
        rows = [asdict(key) for key in list_keys(connection)]
    output.table(
        present(rows),
        columns=("name", "role", "made_at", "expires_at", "revoked_at"),
        empty="There are no keys.",
    )


@app.command("revoke")
def revoke(context: typer.Context, name: Name) -> None:
    """Revoke a key: from now on, requests with it are refused.

    Example: `buffer-pipeline api-key revoke shop`
    """
    output: Output = context.obj
    with books() as (engine, _), engine.begin() as connection:
        revoked_at = revoke_key(connection, name=name, now=database_clock(connection))
    output.answer(
        {"name": name, "revoked_at": iso(revoked_at)},
        text=f"The key {name} is revoked since {iso(revoked_at)}.",
    )
