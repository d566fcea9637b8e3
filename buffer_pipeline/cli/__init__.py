"""The command line: each command reads the clock, opens the books and calls one verb."""

from buffer_pipeline.extras import need

need("cli", "typer")
