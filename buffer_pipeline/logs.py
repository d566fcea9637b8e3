"""Log lines as JSON, by BUFFER_LOG=json: one object a line on stderr, with the ids of the run it is of.

A line has `event`, `level`, `logger`, `timestamp` and the ids and figures that it is about. Of people it has
their ids and nothing else.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import structlog

FACTS: Final = "facts"
"""In a record: what it is about in place of its text, where the text is written for people."""

_root: Final = logging.getLogger("buffer_pipeline")


@contextmanager
def logging_to_stderr(
    form: Literal["text", "json"], *, run_id: str | None = None, text_format: str = "%(message)s"
) -> Iterator[None]:
    """Write what this package logs meanwhile to stderr, as BUFFER_LOG says; JSON with the run's id."""
    # Made here and not at import, since Dagster puts another stderr in place for each step.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json_formatter() if form == "json" else logging.Formatter(text_format))
    level = _root.level
    _root.addHandler(handler)
    _root.setLevel(logging.INFO)
    try:
        with structlog.contextvars.bound_contextvars(**{} if run_id is None else {"run_id": run_id}):
            yield
    finally:
        _root.removeHandler(handler)
        _root.setLevel(level)


@contextmanager
def release_logged(form: Literal["text", "json"], *, run_id: str) -> Iterator[None]:
    """Write a release's lines as JSON meanwhile; as text there are none, since a release says what it did."""
    if form == "text":
        yield
        return
    with logging_to_stderr(form, run_id=run_id):
        yield


def _json_formatter() -> logging.Formatter:
    """Return a formatter for records of the standard library."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _facts,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )


def _facts(_logger: object, _name: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    facts = line.pop(FACTS, {})
    return {**line, **facts}
