"""What a caller was told stands at a failover, whatever the server went through before it told.

Two real servers, of which the second is the first one's synchronous standby. The standby is stopped, and each
verb is called for the first time: its transaction is committed on the primary and waits. The primary is
killed and recovers. What waited is now in its books, and on no other server. Then everybody asks again.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.errors import BackjobRefused, FreezeRefused, ReferenceConflict, Refused, StateRefused
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.intake import Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import ReleaseBatch, release_early, release_matured
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.builders import ADMIN, place_hold
from buffer_pipeline_tests.cluster import Cluster, new_cluster, new_standby
from buffer_pipeline_tests.test_processes import start, wait_until

SAID: Final[dict[str, Any]] = {"by": ADMIN, "reason": "so be it"}

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A verb, what it is asked, and what it is to answer when it is asked again.

    Each has its own job, owners and login, so that nobody waits for anybody but the standby.
    """

    verb: Callable[..., Any]
    prepare: Callable[[Connection, str, datetime], Arguments]
    again: Callable[[Any], bool]
    changes: Arguments = field(default_factory=dict)
    """What is asked otherwise the second time."""
    role: str = "buffer_platform"


def _earning(name: str) -> Arguments:
    return {
        "reference": f"earning of {name}",
        "job": f"job of {name}",
        "payee": f"payee of {name}",
        "payer": f"payer of {name}",
        "amount": "100.00",
        "currency": "PHP",
    }


def _hold(connection: Connection, name: str, now: datetime, **changes: Any) -> int:
    return place_hold(connection, **{**_earning(name), "held_at": now, **changes})


def _freeze(connection: Connection, name: str, now: datetime) -> int:
    hold_id = _hold(connection, name, now)
    return freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, **SAID, now=now).freeze_id


def _backjob(connection: Connection, name: str, now: datetime) -> Arguments:
    _hold(connection, name, now)
    backjob = request_backjob(connection, job=f"job of {name}", **SAID, now=now)
    return {"backjob_id": backjob.backjob_id, **SAID}


def _movement(name: str) -> Arguments:
    return {
        "owner": f"payee of {name}",
        "amount": "60",
        "currency": "PHP",
        "reference": f"movement of {name}",
    }


def _has_a_balance(connection: Connection, name: str, now: datetime) -> Arguments:
    deposit(connection, **{**_movement(name), "amount": "100", "reference": f"first of {name}"}, now=now)
    return _movement(name)


def _frozen(connection: Connection, name: str, now: datetime) -> Arguments:
    hold_id = _hold(connection, name, now, state=HoldState.FROZEN)
    return {"hold_id": hold_id, **SAID, "reference": f"refund of {name}"}


def _due(connection: Connection, name: str, now: datetime) -> Arguments:
    _hold(connection, name, now - timedelta(days=2), release_date=now - timedelta(days=1))
    return {"batch_limit": 10}


def _replayed(answer: Any) -> bool:
    return bool(answer.replayed)


def _refused(refusal: type[Refused], state: str | None) -> Callable[[Any], bool]:
    return lambda answer: isinstance(answer, refusal) and answer.state == state


CASES: Final[dict[str, Case]] = {
    "add": Case(add_pending_earnings, lambda _c, name, _n: _earning(name), _replayed),
    "add_many": Case(
        add_many_pending_earnings,
        lambda _c, name, _n: {"earnings": [Earning(**_earning(name))]},
        lambda answer: _replayed(answer[0]),
    ),
    "deposit": Case(deposit, lambda _c, name, _n: _movement(name), _replayed),
    "withdraw": Case(withdraw, _has_a_balance, _replayed),
    "freeze": Case(
        freeze_hold,
        lambda c, name, now: {
            "hold_id": _hold(c, name, now),
            "kind": FreezeKind.RISK,
            **SAID,
            "reference": "freeze",
        },
        _replayed,
    ),
    "unfreeze": Case(
        unfreeze_hold,
        lambda c, name, now: {"freeze_id": _freeze(c, name, now), **SAID, "reference": "closing"},
        _replayed,
    ),
    "request": Case(
        request_backjob,
        lambda c, name, now: (_hold(c, name, now), {"job": f"job of {name}", **SAID, "reference": "request"})[
            1
        ],
        _replayed,
    ),
    "reject": Case(
        reject_backjob, lambda c, name, now: {**_backjob(c, name, now), "reference": "rejection"}, _replayed
    ),
    "approve": Case(
        approve_backjob, lambda c, name, now: {**_backjob(c, name, now), "reference": "approval"}, _replayed
    ),
    "withdraw_backjob": Case(
        withdraw_backjob,
        lambda c, name, now: {**_backjob(c, name, now), "reference": "withdrawal"},
        _replayed,
    ),
    "refund": Case(refund_hold, _frozen, _replayed),
    "requested_already": Case(
        request_backjob,
        lambda c, name, now: (_hold(c, name, now), {"job": f"job of {name}", **SAID})[1],
        _refused(BackjobRefused, "OPEN"),
    ),
    "rejected_already": Case(reject_backjob, _backjob, _refused(BackjobRefused, "REJECTED")),
    "approved_already": Case(approve_backjob, _backjob, _refused(BackjobRefused, "APPROVED")),
    "withdrawn_already": Case(withdraw_backjob, _backjob, _refused(BackjobRefused, "WITHDRAWN")),
    "closed_already": Case(
        unfreeze_hold,
        lambda c, name, now: {"freeze_id": _freeze(c, name, now), **SAID},
        _refused(FreezeRefused, "CLOSED"),
    ),
    "released_already": Case(
        release_early,
        lambda c, name, now: {"hold_id": _hold(c, name, now), **SAID, "as_admin": True},
        _refused(StateRefused, "RELEASED"),
    ),
    "refunded_already": Case(
        refund_hold, _frozen, _refused(StateRefused, "REFUNDED"), changes={"reference": "another"}
    ),
    "stands_for_another": Case(
        deposit,
        lambda _c, name, _n: _movement(name),
        _refused(ReferenceConflict, None),
        changes={"amount": "61"},
    ),
    "nothing_due": Case(
        release_matured, _due, lambda answer: answer == ReleaseBatch(), role="buffer_releaser"
    ),
}

COMMANDS: Final[dict[str, Callable[[Any], bool]]] = {
    "hold_show": lambda answer: answer["reference"] == "earning of add",
    "backjob_reject": lambda answer: answer["error"]["state"] == "REJECTED",
    "hold_import": lambda answer: "with amount 100.00" in answer["refused"][0]["reason"],
}
"""What is asked by a command, of what the cases have done, and what it is to answer."""

LOGINS: Final = {
    **{name: case.role for name, case in CASES.items()},
    "hold_show": "buffer_reader",
    "backjob_reject": "buffer_platform",
    "hold_import": "buffer_platform",
}


@dataclass
class Story:
    """What each was answered when it asked again, and what the new primary answers."""

    at_once: set[str]
    """Who had an answer before the standby had what it is about."""
    answers: dict[str, Any]
    on_standby: dict[str, Any]
    """What commands that only read said on the standby before it was promoted."""
    on_new_primary: dict[str, Any]
    offences: list[Any]
    by_one_url: list[str]
    """To whom one URL that names both servers led, before the failover and after it."""
    primaries: list[str]


def ask(server: Cluster, name: str, arguments: Arguments, now: datetime) -> Any:
    """Call the verb in a transaction of its own, and return its answer after the commit."""
    url = server.server.url("buffer", user=name).set(drivername="postgresql").render_as_string()
    with psycopg.connect(url) as connection:
        case = CASES[name]
        try:
            if "earnings" in arguments:
                return case.verb(connection, arguments["earnings"], now=now)
            return case.verb(connection, **arguments, now=now)
        except Refused as refusal:
            # Caught in the transaction, which is committed.
            return refusal


def waiting_for_the_standby(primary: Cluster) -> set[str]:
    """Return whose commit waits."""
    url = primary.server.url("postgres", user="postgres").set(drivername="postgresql").render_as_string()
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT usename FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        ).fetchall()
    return {name for (name,) in rows}


def command(server: Cluster, name: str, backjob_id: int) -> subprocess.Popen[str]:
    """Start a command with a login of its own."""
    earnings = server.folder / "earnings.csv"
    asked = {**_earning("add"), "amount": "7.00"}
    earnings.write_text(f"{','.join(asked)}\n{','.join(asked.values())}\n")
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
    """Return what a command said, at its end."""
    out, _ = process.communicate(timeout=60)
    return json.loads(out)


def led_to(engine: Engine) -> str:
    """Return the folder of the server that an engine's next connection is one to."""
    with engine.connect() as connection:
        return str(connection.scalar(text("SELECT current_setting('unix_socket_directories')")))


@contextmanager
def prepared(
    programs: Path, user: str | None
) -> Iterator[tuple[Cluster, Cluster, dict[str, Arguments], datetime]]:
    """Yield a primary, its synchronous standby, and what each case is asked, on books that both have."""
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
    """The sequence of this file's heading, played once for all verbs."""
    with (
        ThreadPoolExecutor(max_workers=len(CASES)) as callers,
        prepared(*programs_and_user) as (primary, standby, arguments, now),
    ):
        backjob_id = arguments["rejected_already"]["backjob_id"]
        standby.stop("fast")
        first = {name: callers.submit(ask, primary, name, asked, now) for name, asked in arguments.items()}
        wait_until(lambda: waiting_for_the_standby(primary) == set(CASES))
        primary.kill()
        for lost in first.values():
            assert isinstance(lost.exception(), psycopg.OperationalError)

        primary.start()
        second: dict[str, Future[Any]] = {
            name: callers.submit(ask, primary, name, again(name, asked), now)
            for name, asked in arguments.items()
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

        # As docs/operations.md writes it. The standby, which is named first, answers too.
        hosts = [f"{server.folder}:{server.server.port}" for server in (standby, primary)]
        both = {"host": hosts, "target_session_attrs": "read-write"}
        engine = make_engine(primary.server.url("buffer", user="postgres").set(query=both))
        by_one_url = [led_to(engine)]

        looks = ("hold_show", "report", "reconcile", "verify")
        on_standby = {name: answer_of(command(standby, name, backjob_id)) for name in looks}
        for name, asked in arguments.items():
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                ask(standby, name, again(name, asked), now)

        primary.kill()
        standby.control("promote", "--wait")
        on_new_primary = {
            name: ask(standby, name, again(name, asked), now) for name, asked in arguments.items()
        }
        on_new_primary |= {name: answer_of(command(standby, name, backjob_id)) for name in COMMANDS}
        by_one_url.append(led_to(engine))
        with engine.connect() as connection:
            offences = reconcile(connection)
        engine.dispose()
        primaries = [str(server.folder) for server in (primary, standby)]
        yield Story(at_once, answers, on_standby, on_new_primary, offences, by_one_url, primaries)


def test_a_hot_standby_is_read_by_commands(story: Story) -> None:
    """There nothing can be written, and nothing has to be. Verbs are refused, as the fixture has seen."""
    seen = story.on_standby

    assert seen["hold_show"] == story.answers["hold_show"]
    assert "error" not in seen["report"]
    assert seen["reconcile"]["ok"]
    assert seen["verify"]["ok"]


def test_one_url_leads_to_whoever_is_the_primary(story: Story) -> None:
    """It names both servers; the engine's connections of before are tested, and made anew."""
    assert story.by_one_url == story.primaries


@pytest.mark.parametrize("name", COMMANDS)
def test_so_is_what_a_command_answers(story: Story, name: str) -> None:
    """A hold that is looked up by its reference, and refusals for what was decided or added before."""
    answer = story.answers[name]

    assert COMMANDS[name](answer), answer
    assert name not in story.at_once
    assert story.on_new_primary[name] == answer


@pytest.mark.parametrize("name", CASES)
def test_what_is_answered_again_is_confirmed_by_the_standby(story: Story, name: str) -> None:
    """Until the standby has it nobody is told that it stands; afterwards a failover does not take it away."""
    answer = story.answers[name]

    assert CASES[name].again(answer), answer
    assert name not in story.at_once
    assert repr(story.on_new_primary[name]) == repr(answer)
    assert story.offences == []
