"""Log lines as JSON (BUFFER_LOG=json): one object per line on stderr, with the id of the run.

A line has `event`, `level`, `logger`, `timestamp`, and the ids and figures of the event. Of people it has
only their ids.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from structlog.typing import EventDict

FACTS: Final = "facts"
"""Attribute of a log record: the fields to log instead of its text, if the text is written for people."""

_root: Final = logging.getLogger("buffer_pipeline")


@contextmanager
def logging_to_stderr(
    form: Literal["text", "json"], *, run_id: str | None = None, text_format: str = "%(message)s"
) -> Iterator[None]:
    """Write this package's log lines to stderr while the block runs; JSON lines have the run's id."""
    # Made here and not at import, because Dagster replaces stderr in each step.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json_formatter(run_id) if form == "json" else logging.Formatter(text_format))
    level = _root.level
    _root.addHandler(handler)
    _root.setLevel(logging.INFO)
    try:
        yield
    finally:
        _root.removeHandler(handler)
        _root.setLevel(level)


@contextmanager
def release_logged(form: Literal["text", "json"], *, run_id: str) -> Iterator[None]:
    """Write a release's log lines as JSON while the block runs.

    As text there are no log lines, because the command prints what it did.
    """
    if form == "text":
        yield
        return
    with logging_to_stderr(form, run_id=run_id):
        yield


def _json_formatter(run_id: str | None) -> logging.Formatter:
    """Return a formatter for records of the standard library; lines have the run's id if there is one."""
    import structlog  # noqa: PLC0415 - takes 0.4 s, needed only for JSON

    of_the_run = {} if run_id is None else {"run_id": run_id}

    def with_facts(_logger: object, _name: str, line: "EventDict") -> "EventDict":
        facts = line.pop(FACTS, {})
        return {**of_the_run, **line, **facts}

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            with_facts,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )
