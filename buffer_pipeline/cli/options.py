"""Options that several commands have."""

from typing import Annotated

import typer

By = Annotated[str, typer.Option(help="Who asks or decides; it stays in the books.")]
Reason = Annotated[str, typer.Option(help="Why; it stays in the books.")]
Reference = Annotated[
    str | None, typer.Option(help="Idempotency key: the same again with the same reference changes nothing.")
]
