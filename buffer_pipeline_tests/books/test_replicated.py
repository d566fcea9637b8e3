"""What a caller got as an answer survives a failover, whatever happened to the server before.

Of two real servers, the second is the first one's synchronous standby. The standby is stopped, and each verb
is
called for the first time: its transaction is committed on the primary and waits. The primary is killed and
recovers.
The waiting transactions are now in its books, and on no other server. Then every caller repeats its call.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Engine, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.errors import (
    Refused,
)
from buffer_pipeline_tests.support.builders import ADMIN
from buffer_pipeline_tests.support.cluster import Cluster, new_cluster, new_standby
from buffer_pipeline_tests.support.processes import start, wait_until
from buffer_pipeline_tests.support.replicated_cases import CASES, Arguments, earning_of

COMMANDS: Final[dict[str, Callable[[Any], bool]]] = {
    "hold_show": lambda answer: answer["reference"] == "earning of add",
    "backjob_reject": lambda answer: answer["error"]["state"] == "REJECTED",
    "hold_import": lambda answer: "with amount 100.00" in answer["refused"][0]["reason"],
}
"""Commands to run on the cases, each with the expected output."""

LOGINS: Final = {
    **{name: case.role for name, case in CASES.items()},
    "hold_show": "buffer_reader",
    "backjob_reject": "buffer_platform",
    "hold_import": "buffer_platform",
}


@dataclass
class Story:
    """The results of the repeated calls, and what the new primary returns."""

    at_once: set[str]
    """The cases that returned before the standby had their rows."""
    answers: dict[str, Any]
    on_standby: dict[str, Any]
    """The output of read-only commands on the standby before its promotion."""
    on_new_primary: dict[str, Any]
    offences: list[Any]
    by_one_url: list[str]
    """The server that one URL with both servers led to, before and after the failover."""
    primaries: list[str]


def call_verb(server: Cluster, name: str, arguments: Arguments, now: datetime) -> Any:
    """Call the verb in its own transaction, and return its result after the commit."""
    url = server.server.url("buffer", user=name).set(drivername="postgresql").render_as_string()
    with psycopg.connect(url) as connection:
        case = CASES[name]
        try:
            if "earnings" in arguments:
                return case.verb(connection, arguments["earnings"], now=now)
            return case.verb(connection, **arguments, now=now)
        except Refused as refusal:
            # Caught inside the transaction, which is committed.
            return refusal


def waiting_for_the_standby(primary: Cluster) -> set[str]:
    """Return the cases whose commit waits."""
    url = primary.server.url("postgres", user="postgres").set(drivername="postgresql").render_as_string()
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT usename FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        ).fetchall()
    return {name for (name,) in rows}


def command(server: Cluster, name: str, backjob_id: int) -> subprocess.Popen[str]:
    """Start a command with its own login."""
    earnings = server.folder / "earnings.csv"
    request = {**earning_of("add"), "amount": "7.00"}
    earnings.write_text(f"{','.join(request)}\n{','.join(request.values())}\n")
    arguments = {
        "hold_show": ("hold", "show", "--reference", "earning of add"),
        "report": ("report",),
        "reconcile": ("reconcile",),
        "verify": ("verify",),
        "backjob_reject": ("backjob", "reject", str(backjob_id), "--by", ADMIN, "--reason", "so be it"),
        "hold_import": ("hold", "import", str(earnings), "--all-or-nothing"),
    }[name]
    login = name if name in LOGINS else "hold_show"
    url = server.server.url("buffer", user=login).render_as_string()
    return start(*arguments, "--json", BUFFER_DATABASE_URL=url)


def answer_of(process: subprocess.Popen[str]) -> Any:
    """Wait for a command and return its output."""
    out, _ = process.communicate(timeout=60)
    return json.loads(out)


def led_to(engine: Engine) -> str:
    """Return the data folder of the server that an engine's next connection reaches."""
    with engine.connect() as connection:
        return str(connection.scalar(text("SELECT current_setting('unix_socket_directories')")))


@contextmanager
def prepared(
    programs: Path, user: str | None
) -> Iterator[tuple[Cluster, Cluster, dict[str, Arguments], datetime]]:
    """Yield a primary, its synchronous standby, and the cases, on books that both servers have."""
    with new_cluster(programs, user=user, settings={"wal_keep_size": "256MB"}) as primary:
        admin = make_engine(primary.server.url("buffer", user="postgres"))
        with admin.begin() as connection:
            for login, role in LOGINS.items():
                connection.execute(text(f"CREATE ROLE {login} LOGIN IN ROLE {role}"))
            # As a reader's login often is.
            connection.execute(text("ALTER ROLE hold_show SET default_transaction_read_only = on"))
            now = database_clock(connection)
            arguments = {name: case.prepare(connection, name, now) for name, case in CASES.items()}
        admin.dispose()
        with new_standby(primary) as standby:
            primary.stop("fast")
            primary.configure(synchronous_standby_names="'*'")
            primary.start()
            yield primary, standby, arguments, now


def again(name: str, arguments: Arguments) -> Arguments:
    return {**arguments, **CASES[name].changes}


@pytest.fixture(scope="module")
def story(programs_and_user: tuple[Path, str | None]) -> Iterator[Story]:
    """The sequence of the module's docstring, run once for all verbs."""
    with (
        ThreadPoolExecutor(max_workers=len(CASES)) as callers,
        prepared(*programs_and_user) as (primary, standby, arguments, now),
    ):
        backjob_id = arguments["rejected_already"]["backjob_id"]
        standby.stop("fast")
        first = {
            name: callers.submit(call_verb, primary, name, request, now)
            for name, request in arguments.items()
        }
        wait_until(lambda: waiting_for_the_standby(primary) == set(CASES))
        primary.kill()
        for lost in first.values():
            assert isinstance(lost.exception(), psycopg.OperationalError)

        primary.start()
        second: dict[str, Future[Any]] = {
            name: callers.submit(call_verb, primary, name, again(name, request), now)
            for name, request in arguments.items()
        }
        processes = {name: command(primary, name, backjob_id) for name in COMMANDS}

        def answered() -> set[str]:
            ended = {name for name, process in processes.items() if process.poll() is not None}
            return ended | {name for name, asking in second.items() if asking.done()}

        wait_until(lambda: waiting_for_the_standby(primary) | answered() == set(LOGINS))
        at_once = answered()
        standby.start()
        answers = {name: asking.result(timeout=60) for name, asking in second.items()}
        answers |= {name: answer_of(process) for name, process in processes.items()}

        # As docs/runbook.md writes it. The standby, which is named first, answers too.
        hosts = [f"{server.folder}:{server.server.port}" for server in (standby, primary)]
        both = {"host": hosts, "target_session_attrs": "read-write"}
        engine = make_engine(primary.server.url("buffer", user="postgres").set(query=both))
        by_one_url = [led_to(engine)]

        looks = ("hold_show", "report", "reconcile", "verify")
        on_standby = {name: answer_of(command(standby, name, backjob_id)) for name in looks}
        for name, request in arguments.items():
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                call_verb(standby, name, again(name, request), now)

        primary.kill()
        standby.control("promote", "--wait")
        on_new_primary = {
            name: call_verb(standby, name, again(name, request), now) for name, request in arguments.items()
        }
        on_new_primary |= {name: answer_of(command(standby, name, backjob_id)) for name in COMMANDS}
        by_one_url.append(led_to(engine))
        with engine.connect() as connection:
            offences = reconcile(connection)
        engine.dispose()
        primaries = [str(server.folder) for server in (primary, standby)]
        yield Story(at_once, answers, on_standby, on_new_primary, offences, by_one_url, primaries)


def test_read_only_commands_work_on_a_hot_standby(story: Story) -> None:
    """The standby refuses verbs, as the fixture has checked."""
    seen = story.on_standby

    assert seen["hold_show"] == story.answers["hold_show"]
    assert "error" not in seen["report"]
    assert seen["reconcile"]["ok"]
    assert seen["verify"]["ok"]


def test_url_with_both_servers_leads_to_the_primary(story: Story) -> None:
    """The engine tests its pooled connections and replaces broken ones."""
    assert story.by_one_url == story.primaries


@pytest.mark.parametrize("name", COMMANDS)
def test_command_repeated_after_a_failover_returns_the_first_result(story: Story, name: str) -> None:
    """A lookup by reference, and refusals for what was decided or added before."""
    answer = story.answers[name]

    assert COMMANDS[name](answer), answer
    assert name not in story.at_once
    assert story.on_new_primary[name] == answer


@pytest.mark.parametrize("name", CASES)
def test_replay_waits_for_the_standby(story: Story, name: str) -> None:
    """No caller gets a result until the standby has the rows, so a failover cannot undo it."""
    answer = story.answers[name]

    assert CASES[name].again(answer), answer
    assert name not in story.at_once
    assert repr(story.on_new_primary[name]) == repr(answer)
    assert story.offences == []
