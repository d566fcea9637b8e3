"""Secrets planted in every setting, every failure that can be provoked, and a search in all output."""

import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import quote

import dagster as dg
import pytest
import trustme
from aiosmtpd.controller import Controller
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine, text
from werkzeug import Request, Response

from buffer_pipeline.database import make_engine
from buffer_pipeline.monitoring.alerts import Alert, send_alert
from buffer_pipeline.notifications.channels.channel import ChannelOptions, Endpoint
from buffer_pipeline.notifications.contact import set_contact
from buffer_pipeline.notifications.drain import drain
from buffer_pipeline.notifications.messages import Message, Messages
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.resources import RESOURCES
from buffer_pipeline_tests.support.builders import NOON, PAYEE, place_hold
from buffer_pipeline_tests.support.certificates import Authority
from buffer_pipeline_tests.support.hostile import environment_of, require_silence, run_command
from buffer_pipeline_tests.support.planted_secrets import (
    APPRISE,
    COMMANDS,
    DATABASE,
    QUERY,
    SECRETS,
    SMTP,
    Talkative,
    closed_port,
    endpoints,
    reasons,
    repeat,
    with_password,
)
from buffer_pipeline_tests.support.runs import release


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority for the tests."""
    ca = trustme.CA()
    file = tmp_path_factory.mktemp("authority") / "authority.pem"
    ca.cert_pem.write_to_path(str(file))
    return Authority(ca, file)


@pytest.fixture
def talkative(authority: Authority) -> Iterator[int]:
    """The port of a mail server that repeats passwords."""
    port, server = closed_port(), Talkative()
    controller = Controller(
        server,
        hostname="127.0.0.1",
        port=port,
        tls_context=authority.server_tls(),
        authenticator=server.authenticate,
        auth_required=True,
    )
    controller.start()
    yield port
    controller.stop(no_assert=True)


@pytest.fixture(autouse=True)
def _receivers_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Silence the logs of the receivers, which run in this process too."""
    for name in ("werkzeug", "mail.log"):
        caplog.set_level("CRITICAL", name)


@pytest.fixture
def waiting(engine: Engine) -> Engine:
    """Books with a due hold whose owner has an address."""
    with engine.begin() as connection:
        set_contact(connection, owner=PAYEE, email="worker-17@example.com", now=NOON)
        place_hold(connection)
    return engine


@pytest.fixture
def planted(
    database_url: str, httpserver: HTTPServer, talkative: int, authority: Authority
) -> dict[str, str]:
    """Settings with a secret wherever one belongs, and receivers that refuse and repeat them."""
    httpserver.expect_request("/hook").respond_with_handler(repeat)
    return {
        "BUFFER_DATABASE_URL": with_password(database_url),
        "BUFFER_DAGSTER_DATABASE_URL": f"postgresql://dagster:{quote(DATABASE, safe='')}@127.0.0.1:1/dagster",
        "BUFFER_ENDPOINTS": endpoints(
            webhook=httpserver.url_for("/hook"), smtp_port=talkative, ca_file=str(authority.file)
        ),
        "BUFFER_ALERT_URLS": f"json://user:{APPRISE}@127.0.0.1:1/{APPRISE}?+X-Token={APPRISE}",
    }


def breakages(planted: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return the settings unchanged and with one thing broken, by name."""
    password = quote(DATABASE, safe="")
    closed = closed_port()
    database = {
        "no host": f"postgresql://app:{password}@nowhere.invalid/books",
        "refused": f"postgresql://app:{password}@127.0.0.1:{closed}/books",
        "not encoded": f"postgresql://app:{DATABASE}@127.0.0.1:{closed}/books",
        "an @ in it": f"postgresql://app:x@{DATABASE}@127.0.0.1/books",
        "as the port": f"postgresql://app:{DATABASE}",
        "no TLS there": planted["BUFFER_DATABASE_URL"] + "&sslmode=verify-full&sslrootcert=/nowhere",
        "no such role": planted["BUFFER_DATABASE_URL"].replace("//buffer:", "//nobody:"),
        "no such database": planted["BUFFER_DATABASE_URL"].replace("@/", "@/nothing"),
    }
    return {
        "as it is": planted,
        **{name: {**planted, "BUFFER_DATABASE_URL": url} for name, url in database.items()},
        "endpoints cut off": {**planted, "BUFFER_ENDPOINTS": planted["BUFFER_ENDPOINTS"][:-3]},
        "wrong options": {
            **planted,
            "BUFFER_ENDPOINTS": planted["BUFFER_ENDPOINTS"]
            .replace('"tls"', '"x"')
            .replace("whsec_", "whsec"),
        },
        "receivers away": {
            **planted,
            "BUFFER_ENDPOINTS": endpoints(webhook=f"https://127.0.0.1:{closed}/hook", smtp_port=closed),
        },
        "bad TLS": {
            **planted,
            "BUFFER_ENDPOINTS": endpoints(
                webhook=f"https://localhost:{json.loads(planted['BUFFER_ENDPOINTS'])[1]['port']}/hook",
                smtp_port=json.loads(planted["BUFFER_ENDPOINTS"])[1]["port"],
            ),
        },
        "alerts cut off": {**planted, "BUFFER_ALERT_URLS": f"nonsense://{APPRISE}"},
        "no templates": {**planted, "BUFFER_TEMPLATES": "/nowhere"},
    }


NAMES: Final = (
    "as it is",
    "no host",
    "refused",
    "not encoded",
    "an @ in it",
    "as the port",
    "no TLS there",
    "no such role",
    "no such database",
    "endpoints cut off",
    "wrong options",
    "receivers away",
    "bad TLS",
    "alerts cut off",
    "no templates",
)


@pytest.mark.parametrize("name", NAMES)
def test_no_command_shows_a_secret(
    planted: dict[str, str],
    waiting: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """Not on stdout, on stderr, in the log or in stored reasons, whatever is broken."""
    caplog.set_level("INFO")
    caplog.set_level("DEBUG", "buffer_pipeline")
    for variable, value in breakages(planted)[name].items():
        monkeypatch.setenv(variable, value)

    shown = []
    for command in COMMANDS:
        for as_json in (False, True):
            outcome = run_command(*command, *["--json"] * as_json)
            assert outcome.code in {0, 1, 2}, (command, outcome)
            assert "Traceback" not in outcome.err
            shown.append(f"{outcome.out} {outcome.err}")

    output = "".join(capfd.readouterr())
    require_silence(f"{shown} {caplog.text} {output} {reasons(waiting)}", *SECRETS)


def test_planted_failures_are_the_intended_ones(
    planted: dict[str, str], waiting: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receivers did repeat what they got."""
    for variable, value in planted.items():
        monkeypatch.setenv(variable, value)

    outcome = run_command("notifications", "drain", "--seconds", "5", "--json")

    assert outcome.code == 0
    kept = reasons(waiting)
    assert "no such login […] […] […]" in kept
    assert "HTTP 503: " in kept
    assert "[…]" in kept.partition("HTTP 503: ")[2]


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("name", ["as it is", "bad TLS"])
def test_no_process_shows_a_secret(planted: dict[str, str], name: str) -> None:
    """As above, in a separate process with all its loggers."""
    for command in COMMANDS[5:8]:
        ended = subprocess.run(
            [Path(sys.executable).with_name("buffer-pipeline"), *command],
            env=environment_of(**breakages(planted)[name]),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert b"Traceback" not in ended.stderr
        require_silence((ended.stdout + ended.stderr).decode(), *SECRETS)


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize(
    "name", ["as it is", "refused", "no such role", "as the port", "wrong options", "bad TLS", "no templates"]
)
def test_no_run_of_dagster_shows_a_secret(
    planted: dict[str, str],
    lasting_instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    """Not in events, metadata, tags, run config, logs or streams of runs whose books or receivers fail."""
    caplog.set_level("INFO")
    for variable, value in breakages(planted)[name].items():
        monkeypatch.setenv(variable, value)

    release(lasting_instance, raise_on_error=False)
    defs.resolve_job_def("deliver_notifications").execute_in_process(
        instance=lasting_instance, raise_on_error=False
    )
    for sensor in ("failed_runs", "stuck_frozen_payments", "waiting_notifications"):
        tick(sensor, lasting_instance)

    shown = []
    for record in lasting_instance.get_run_records():
        run = record.dagster_run
        events = [dg.serialize_value(entry) for entry in lasting_instance.all_logs(run.run_id)]
        assert events
        shown.append(f"{run.run_config} {run.tags} {events}")
    assert len(shown) == 2
    output = "".join(capfd.readouterr())
    require_silence(f"{shown} {output} {caplog.text}", *SECRETS)
    for file in Path(lasting_instance.root_directory).rglob("*"):
        if file.is_file():
            require_silence(file.read_bytes().decode("utf-8", "replace"), *SECRETS)


def tick(name: str, instance: dg.DagsterInstance) -> None:
    """Evaluate a sensor; log a failure as the daemon does."""
    with dg.build_sensor_context(
        instance=instance,
        repository_def=defs.get_repository_def(),
        sensor_name=name,
        cursor="[-1, []]" if name == "failed_runs" else None,
        resources=RESOURCES,
    ) as context:
        try:
            defs.resolve_sensor_def(name).evaluate_tick(context)
        except Exception as error:
            logging.getLogger("buffer_pipeline").exception("tick of %s", name, exc_info=error)


@pytest.mark.parametrize(
    "url",
    [
        f"json://user:{APPRISE}@127.0.0.1:1/{APPRISE}?+X-Token={APPRISE}",
        f"jsons://127.0.0.1:1/{APPRISE}",
        f"mailto://user:{APPRISE}@nowhere.invalid?smtp=127.0.0.1:1",
        f"slack://{'A' * 9}/{'B' * 9}/{APPRISE}",
        f"xml://nowhere.invalid/{APPRISE}",
    ],
)
def test_an_alert_that_fails_shows_no_token(
    url: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """If the service refuses or is absent."""
    caplog.set_level("INFO")

    send_alert(Alert(title="3 payments overdue", body="hold 1"), urls=[url])

    require_silence(caplog.text + "".join(capfd.readouterr()), *SECRETS)


class Careless:
    """A third-party channel whose errors repeat its options."""

    Options: ClassVar[type[ChannelOptions]] = ChannelOptions
    needs_address: ClassVar[bool] = False

    @asynccontextmanager
    async def open(self, *, engine: Engine) -> AsyncIterator["Careless"]:  # noqa: ARG002 - a channel's signature
        """Return itself."""
        yield self

    async def send(self, message: Message) -> None:
        """Raise an error whose cause repeats the options too."""
        try:
            raise KeyError(SMTP)  # noqa: TRY301 - what a library would raise
        except KeyError as error:
            raise ConnectionError(f"https://127.0.0.1/{QUERY}: {message.owner}") from error


def test_an_error_of_a_channel_is_reported_by_its_kind_and_place(
    waiting: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the stored reason nor the log has its message. The log has its location."""
    caplog.set_level("DEBUG")

    drain(waiting, [Endpoint(name="careless", channel=Careless(), options=ChannelOptions())], Messages())

    kept = reasons(waiting)
    assert "ConnectionError, a fault of the channel's own" in kept
    assert "test_hostile_secrets.py" in caplog.text
    assert "in send" in caplog.text
    require_silence(kept + caplog.text, *SECRETS)


def test_lost_database_during_a_drain_is_one_line(
    waiting: Engine,
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    httpserver: HTTPServer,
) -> None:
    """If the database closes every connection during a send, there is no traceback and the delivery waits."""

    def cut(_request: Request) -> Response:
        admin = make_engine(waiting.url.set(database="postgres", username="postgres"))
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ALTER DATABASE " + database + " ALLOW_CONNECTIONS false"))
            connection.execute(
                text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
            )
        admin.dispose()
        return Response(status=204)

    database = waiting.url.database or ""
    httpserver.expect_request("/hook").respond_with_handler(cut)
    monkeypatch.setenv("BUFFER_DATABASE_URL", with_password(database_url))
    monkeypatch.setenv("BUFFER_ENDPOINTS", endpoints(webhook=httpserver.url_for("/hook"), smtp_port=1))

    outcome = run_command("notifications", "drain", "--json")

    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert json.loads(outcome.out)["error"]["type"] == "OperationalError"
    require_silence(outcome.out + outcome.err, *SECRETS)
