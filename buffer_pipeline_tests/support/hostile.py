"""Parts of hostile input, the counting of its cases, and a digest of the books."""

import base64
import functools
import io
import os
import signal
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, quote_plus

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from buffer_pipeline.cli.app import main
from buffer_pipeline.tables import metadata
from buffer_pipeline_tests.support.scale import runs_everything

PART: Final = 20
"""Without `--everything`, one case of this many is run."""

DECLARED: Final[dict[str, int]] = {}
"""Name -> declared number of cases. `test_hostile_count` adds them up."""

Test = Callable[..., None]


def cases(number: int) -> Callable[[Test], Test]:
    """Run a Hypothesis test on this many cases, the same in each run, and fail if it ran on fewer.

    Without `--everything`, a part of them is run. Put it above `given`, whose strategies must be large
    enough.
    """

    run_now = number if runs_everything() else max(number // PART, 20)

    def declare(test: Test) -> Test:
        DECLARED[f"{test.__module__}.{test.__qualname__}"] = number
        hypothesis_test: Any = getattr(test, "hypothesis")  # noqa: B009 - mypy does not know of it
        inner, ran = hypothesis_test.inner_test, 0

        @functools.wraps(inner)
        def counted(*arguments: Any, **named: Any) -> None:
            nonlocal ran
            inner(*arguments, **named)
            ran += 1

        hypothesis_test.inner_test = counted
        configured = settings(
            max_examples=run_now,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )(test)

        @functools.wraps(configured)
        def run(*arguments: Any, **named: Any) -> None:
            nonlocal ran
            ran = 0
            configured(*arguments, **named)
            assert ran >= run_now, f"{ran} cases ran of {run_now}"

        return run

    return declare


# ---- the parts

ODD_TEXTS: Final = (
    "",
    " ",
    "\t",
    "a\nb",
    "a\r\nb",
    "\x00",
    "a\x00b",
    "\x1b[31mred",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufeff",
    "\u202egnp.exe",
    "\u200b",
    "\udce9",
    "caf\udce9",
    "\ud800",
    "👷🏽",
    "e\u0301" * 50,
    "ﷺ" * 60,
    "x" * 201,
    "x" * 501,
    "x" * 2001,
    "x" * 100_000,
    "--",
    "-",
    "--json",
    "--help",
    "-1",
    "'; DROP TABLE buffer.hold; --",
    "=cmd|'/C calc'!A0",
    "+1+1",
    "@SUM(A1)",
    '"',
    '""',
    "'",
    "\\",
    "\\N",
    "{}",
    "[]",
    "null",
    "%s%n%x",
    "{0}",
    "${HOME}",
    "$(id)",
    "[bold]",
    "[/]",
    "NaN",
    "None",
    "../../etc/passwd",
    "ＡＢＣ",
    "job\u00a08",
    "a" * 201 + "\n",
)

ODD_AMOUNTS: Final = (
    "1e30",
    "1E3",
    "NaN",
    "Infinity",
    "-Infinity",
    "１２",
    "१२",
    "-0",
    "-0.00",
    "+5",
    "0.001",
    "0.00",
    "00.10",
    "1,000.00",
    "1_000",
    "0x10",
    " 5 ",
    "5.",
    ".5",
    "--5",
    "1.0000000000000000000000000000001",
    "9" * 31,
    "9" * 5_000,
    "10000000000000.00",
    "10000000000000.01",
    "9223372036854775807",
    "92233720368547758.07",
    "1/3",
    "$5",
    "5 PHP",
)

ODD_TIMES: Final = (
    "2026-02-30T00:00Z",
    "2026-13-01",
    "0000-01-01T00:00Z",
    "0001-01-01T00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "10000-01-01T00:00Z",
    "-4713-01-01T00:00Z",
    "2026-03-02T25:00Z",
    "2026-03-02T12:00",
    "2026-03-02",
    "1764000000",
    "infinity",
    "-infinity",
    "epoch",
    "now",
    "today",
    "2026-W10-1T00:00Z",
    "20260302T120000Z",
    "2026-03-02T12:00:00.1234567Z",
    "２０２６-03-02T12:00Z",
    "2026-03-02T12:00+99:00",
    "2026-03-02T12:00-00:00:00.000001",
    "2026-03-02T12:60Z",
    "0001-01-01T00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "2026-03-02T23:59:60Z",
)

ODD_NUMBERS: Final = (
    "0",
    "-1",
    "1.5",
    "1e3",
    "９",
    "0x10",
    "1_000",
    "2147483647",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "9" * 40,
    "9" * 5_000,
    "nan",
    "inf",
    "-inf",
    "+1",
    " 1",
    "",
)

ODD_CURRENCIES: Final = ("PHP", "php", "JPY", "KWD", "XAU", "XTS", "XXX", "₱", "USDT", "P\u0397P", "DEM", "")

bytes_as_arguments: Final = st.binary(max_size=12).map(os.fsdecode)
"""Return bytes that are not UTF-8 as `sys.argv` and `os.environ` have them: with lone surrogates."""

texts: Final = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=30),
    st.text(st.characters(categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Mn")), max_size=8),
    bytes_as_arguments,
)

amounts: Final = st.one_of(
    st.sampled_from(("1250.50", "0.01", "5", *ODD_AMOUNTS)),
    st.decimals(allow_nan=True, allow_infinity=True).map(str),
    st.integers().map(str),
    st.text("0123456789.-+eE_ ", max_size=12),
    texts,
)

times: Final = st.one_of(
    st.sampled_from(("2026-01-05T00:00:00Z", "2026-11-18T23:35+08:00", *ODD_TIMES)),
    st.datetimes().map(lambda moment: f"{moment.isoformat()}Z"),
    st.text("0123456789-:T+Z.W ", max_size=25),
    texts,
)

numbers: Final = st.one_of(st.sampled_from(ODD_NUMBERS), st.integers().map(str), texts)


# ---- the command line in this process


@dataclass(frozen=True)
class Outcome:
    """The result of a command."""

    code: object
    out: str
    err: str


def run_command(*arguments: str) -> Outcome:
    """Run the command line in this process, with the streams of a UTF-8 terminal.

    Any exception other than an exit is raised, because it would end in a traceback.
    """
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", newline="")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main(list(arguments))
    except SystemExit as stopped:
        code = stopped.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Outcome(code, _written(out), _written(err))


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


# ---- the books


def digest(engine: Engine) -> str:
    """Return a digest of every row of every table. Equal digests mean that nothing was written between."""
    parts = [
        f"SELECT md5(coalesce(string_agg(md5(row::text), '' ORDER BY md5(row::text)), ''))"
        f" FROM buffer.{engine.dialect.identifier_preparer.quote(table.name)} AS row"
        for table in metadata.sorted_tables
    ]
    with engine.connect() as connection:
        return ",".join(connection.scalars(text(" UNION ALL ".join(parts))))


# ---- secrets


def spellings(secret: str) -> set[str]:
    """Return the forms of a secret in a log: unchanged, percent-encoded, in base64, as JSON and repr."""
    raw = secret.encode()
    return {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        repr(secret)[1:-1],
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        raw.hex(),
    }


def require_silence(shown: str, *secrets: str) -> None:
    """Fail if a secret is in the output, and show its surroundings."""
    for secret in secrets:
        for spelling in spellings(secret):
            place = shown.find(spelling)
            assert place < 0, f"shown: …{shown[max(0, place - 200) : place + 100]}…"


def environment_of(**variables: str) -> dict[str, str]:
    """Return this process's environment with only these BUFFER_ variables."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("BUFFER_")}
    return {**others, **variables}
