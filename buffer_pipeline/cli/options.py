"""Options that several commands have."""

from typing import Annotated

import typer

By = Annotated[str, typer.Option(help="Who asks or decides; stored in the books.")]
Reason = Annotated[str, typer.Option(help="The reason; stored in the books.")]
Reference = Annotated[
    str | None,
    typer.Option(help="Idempotency key: the same request with the same reference changes nothing."),
]
PayeeText = Annotated[
    str | None,
    typer.Option("--payee-text", help="What the payee is told, one line; the reason is internal."),
]
