"""docker-compose.yml started by a real engine, with each block of docs/compose.md unchanged and in order."""

import asyncio
import json
import os
import time
from collections.abc import Iterator

import pytest
from packaging.version import Version
from sqlalchemy import func, select, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.hold import HoldState
from buffer_pipeline.tables import batch, hold
from buffer_pipeline_tests.support.builders import PAYEE, place_hold, state_of, wallet_of
from buffer_pipeline_tests.support.compose import size_bytes
from buffer_pipeline_tests.support.compose_browser import browse
from buffer_pipeline_tests.support.compose_services import (
    IMAGE,
    LASTING,
    LAUNCH,
    OPERATOR,
    PASSWORDS,
    PORTS,
    SECTIONS,
    SERVICES,
    VIEWER,
    Release,
    Stack,
    addresses_of,
    addresses_reached,
    distributions_to_leave_out,
    first_messages,
    installed_distributions,
    launched_by_hand,
    login_refusal,
    required_distributions,
    start_services,
    status,
)
from buffer_pipeline_tests.support.engine import engine
from buffer_pipeline_tests.support.release_runs import launch_one_that_waits, let_go, retry_of
from buffer_pipeline_tests.support.stack import (
    ask,
    end_of,
    hourly_release,
    hourly_release_stopped,
    launch_release,
    repository,
    wait_for,
)
from buffer_pipeline_tests.support.webserver import webserver
from buffer_pipeline_tests.support.work_of_roles import do_all

pytestmark = pytest.mark.timeout(1200)
"""Builds an image and starts a dozen containers, several times."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The services, started as the page says, in a separate machine and network."""
    with engine() as running, running.network():
        yield start_services(running)


@pytest.fixture(scope="module")
def release(stack: Stack) -> Release:
    """A hold of the platform, and the only run that an operator launches behind the login."""
    with stack.connected("platform") as connection:
        hold_id = place_hold(connection)
    with hourly_release_stopped(stack.operators):
        run_id = launch_release(stack.operators)
        return Release(hold_id, run_id, end_of(stack.operators, run_id))


# ---- the image


def test_all_services_use_one_image(stack: Stack) -> None:
    """It is small, has no build tools or tests, and has the version that git describes."""
    described = stack.engine.run("git", "describe", "--tags", "--always").stdout.strip()

    installed = installed_distributions(stack)
    version = stack.docker("compose", "exec", "code", "buffer-pipeline", "--version").split()[-1]

    assert required_distributions() | {"buffer_pipeline"} <= installed
    assert distributions_to_leave_out() & installed == set()
    assert described.rpartition("g")[2] in Version(version).public + (Version(version).local or "")
    assert stack.docker("images", "--quiet", "--filter", "dangling=true") == ""
    assert int(stack.docker("image", "inspect", "--format", "{{.Size}}", IMAGE)) < 450_000_000


def test_an_image_of_no_version_is_not_built(stack: Stack) -> None:
    """Without VERSION the build fails and says where to set it."""
    built = stack.engine.run("docker", "compose", "build", check=False)

    assert built.returncode != 0
    assert "VERSION" in built.stderr
    assert "docs/compose.md" in built.stderr


# ---- starting again


def test_a_second_start_changes_nothing(stack: Stack) -> None:
    """`up` and `up --build` recreate no container if nothing has changed."""
    before = stack.containers()

    stack.type_blocks("Change a setting", slice(0, 1))
    once = stack.containers()
    (again,) = (line for line in SECTIONS["Start"][0].body.splitlines() if "up --build" in line)
    stack.engine.run("bash", "-euc", again)

    lasting = {name: before[name] for name in LASTING}
    assert {name: once[name] for name in LASTING} == lasting
    assert {name: stack.containers()[name] for name in LASTING} == lasting


def test_changed_setting_recreates_the_services_that_use_it(stack: Stack) -> None:
    """`up` recreates the services that read the changed variable in .env, and those that depend on them."""
    before = stack.containers()
    (stack.engine.checkout / ".env").write_text("BUFFER_STUCK_AFTER_HOURS=24\n")

    stack.type_blocks("Change a setting", slice(0, 1))

    after = stack.containers()
    assert {name for name in LASTING if before[name] == after[name]} == {"database"}
    for service in ("code", "metrics"):
        assert "BUFFER_STUCK_AFTER_HOURS=24" in stack.inspect(service, "{{.Config.Env}}")
    stack.type_blocks("Change a setting", slice(1, None))
    assert stack.containers()["code"] != after["code"]
    stack.wait_until_healthy()


# ---- the two logins


def test_operator_can_launch_a_release(stack: Stack, release: Release) -> None:
    """The run releases what is due and notifies its payee."""
    with stack.connected("reader") as connection:
        assert release.ended == "SUCCESS"
        assert state_of(connection, release.hold_id) is HoldState.RELEASED
        assert wallet_of(connection, PAYEE).balance_minor == 100_000
        assert f"dagster run {release.run_id}" in connection.scalars(select(batch.c.source)).all()
        assert reconcile(connection) == []
    assert "PAYMENT_RELEASED" in stack.docker("compose", "logs", "code")


def test_viewer_can_look_but_not_launch(stack: Stack, release: Release) -> None:
    """The viewers' webserver shows runs and schedules, and refuses each mutation itself."""
    schedule = hourly_release(stack.viewers)
    stop = "mutation ($id: String!) {stopRunningSchedule(id: $id) {__typename}}"

    refused = [ask(stack.viewers, LAUNCH), ask(stack.viewers, stop, id=schedule["id"])]
    reported = status(stack.viewers, "/report_asset_materialization/released_transactions", "POST")

    answers = [answer["__typename"] for data in refused for answer in data.values()]
    assert answers == ["UnauthorizedError", "UnauthorizedError"]
    assert reported == 401
    assert launched_by_hand(stack.viewers) == launched_by_hand(stack.operators) == [release.run_id]
    assert hourly_release(stack.operators)["scheduleState"]["status"] == "RUNNING"


@pytest.mark.parametrize("seat", ["operators", "viewers"])
def test_the_websocket_passes_the_proxy(stack: Stack, release: Release, seat: str) -> None:
    """A logged-in user sees a run's events live."""
    kinds = asyncio.run(first_messages(getattr(stack, seat), release.run_id))

    assert kinds[0] == "connection_ack"
    assert "RunStartEvent" in kinds


def test_ui_works_in_a_browser_but_not_from_another_site(stack: Stack, release: Release) -> None:
    """A logged-in user sees the runs. A page of another site in the same browser launches none."""
    with webserver(f"127.1.{os.getpid() % 250 + 1}.9") as elsewhere:
        seen = browse(stack.operators, elsewhere=f"http://{elsewhere.address}:3000/", query=LAUNCH)

    assert ("POST", 200) in seen.own
    assert {code for _, code in seen.own} <= {200, 304}
    assert seen.foreign == [("GET", 403), ("POST", 403)]
    assert seen.foreign_sockets == ["refused", "refused"]
    assert launched_by_hand(stack.viewers) == [release.run_id]


@pytest.mark.parametrize("path", ["/", "/server_info", "/graphql?query={version}"])
def test_webservers_require_a_login(stack: Stack, path: str) -> None:
    """The real webservers answer only logged-in users. test_login.py has more cases."""
    for seat in (stack.operators, stack.viewers):
        assert status(seat, path) == 200
        assert status(seat, path, login=False) == 401


@pytest.mark.usefixtures("release")
def test_commands_of_the_page_succeed(stack: Stack) -> None:
    """After the first release, the books, the installation and the metrics are as expected."""
    output = stack.type_blocks("Run a command")

    assert "buffer_up 1.0" in output.splitlines()
    assert "buffer_dagster_up 1.0" in output.splitlines()


# ---- the platform, and the networks


def test_the_platforms_container_holds_an_earning(stack: Stack) -> None:
    """The page's command, from the network `buffer_platform` with the platform's login."""
    output = stack.type_blocks("Connect the platform and finance")

    with stack.connected("reader") as connection:
        held = connection.execute(select(hold.c.job).where(hold.c.reference == "job-8-done")).all()
    assert held == [("job-8",)]
    assert "is held: BUFFERED" in output


def test_other_containers_reach_at_most_the_database(stack: Stack) -> None:
    """By name and by address, from the platform's network and from another one."""
    at_the_platforms = f"{stack.address('database', 'platform')}:5432"
    addresses = {service: addresses_of(stack, service) for service in PORTS}
    everywhere = [*(address for each in addresses.values() for address in each), at_the_platforms]
    try:
        stack.docker("network", "create", "elsewhere")
        reached = {
            network: addresses_reached(stack, everywhere, network=network)
            for network in ("buffer_platform", "elsewhere", "buffer_default")
        }
    finally:
        stack.docker("network", "rm", "elsewhere")

    assert reached["buffer_platform"] == ["database:5432", at_the_platforms]
    assert reached["elsewhere"] == []
    # What the page warns against, and proof that these addresses can be reached from somewhere.
    assert set(addresses["webserver"]) <= set(reached["buffer_default"])


def test_each_login_has_its_password_and_its_rights(stack: Stack) -> None:
    """The passwords are those of the files, including quotes. Each login can do its work and no more."""
    everybody = {"buffer": "owner", **{name: name for name in PASSWORDS if name != "owner"}}
    for login, file in everybody.items():
        url = stack.url(login, PASSWORDS[file])
        assert login_refusal(url) == ""
        assert "password authentication failed" in login_refusal(url.set(password="before"))
    for login in ("platform", "reader"):
        url = stack.url(login, PASSWORDS[login], "buffer_dagster")
        assert "permission denied for database" in login_refusal(url)

    with stack.books_of_each_login() as books:
        do_all(books)

        with books.owner.connect() as connection:
            powerful = connection.scalars(
                text("SELECT rolname FROM pg_roles WHERE rolsuper OR rolcreaterole OR rolcreatedb")
            )
            assert powerful.all() == ["postgres"]


# ---- how they run


@pytest.mark.parametrize("name", sorted(LASTING - {"database"}))
def test_the_root_file_system_is_read_only(stack: Stack, name: str) -> None:
    """Each running service can write to its scratch space and has written nowhere else."""
    files = ["/new", "/run/secrets/new", "/tmp/new"]

    written = [
        stack.engine.run("docker", "compose", "exec", name, "touch", file, check=False).returncode == 0
        for file in files
    ]

    assert written == [False, False, True]


def test_no_secret_is_in_a_log_or_shown_by_inspect(stack: Stack) -> None:
    """No service logs a password, and `docker inspect` shows none."""
    passwords = {*PASSWORDS.values(), *(login.split(":")[1] for login in (OPERATOR, VIEWER))}
    shown = stack.docker("compose", "logs") + stack.docker("inspect", *stack.containers().values())

    # "owner-1" and so on occur nowhere else.
    written = {password: {password, json.dumps(password)[1:-1]} for password in passwords}
    assert [password for password, forms in written.items() if any(form in shown for form in forms)] == []
    assert len(passwords) == 7


def test_each_service_stays_below_its_limit(stack: Stack) -> None:
    """The limits are enforced, and each service uses less than half of its memory."""
    shown = stack.docker("stats", "--no-stream", "--format", "{{json .}}")
    taken = {line["Name"]: float(line["MemPerc"].rstrip("%")) for line in map(json.loads, shown.splitlines())}
    limits = {
        name: (
            size_bytes(SERVICES[name]["deploy"]["resources"]["limits"]["memory"]),
            int(stack.inspect(name, "{{.HostConfig.Memory}}")),
        )
        for name in LASTING
    }

    assert all(arguments == given for arguments, given in limits.values())
    assert len(taken) == len(LASTING)
    assert {name: share for name, share in taken.items() if share > 50} == {}


def test_a_webserver_that_is_down_comes_back(stack: Stack) -> None:
    """Its port answers 502 while the other one works. After a restart it works again."""
    stack.docker("compose", "stop", "viewer")
    down = (status(stack.viewers, "/"), status(stack.operators, "/"))

    stack.docker("compose", "start", "viewer")
    stack.wait_until_healthy()

    assert down == (502, 200)
    assert status(stack.viewers, "/server_info") == 200


def test_run_that_loses_its_container_is_retried(stack: Stack) -> None:
    """Killed with its container in the middle of a batch, a run fails when the container is back and is
    retried. The next release does not wait.
    """
    owner = stack.books("buffer", "owner")
    with (
        owner.connect() as blocker,
        owner.connect() as watcher,
        hourly_release_stopped(stack.operators),
    ):
        lost = launch_one_that_waits(stack.operators, owner, blocker, watcher)
        behind = launch_release(stack.operators)
        stack.docker("kill", "buffer-code-1")
        let_go(blocker, watcher)

        began = time.monotonic()
        stack.docker("compose", "up", "--detach")
        ended = end_of(stack.operators, lost)
        retry = wait_for(lambda: retry_of(stack.operators, lost), what="the retry")
        ended_behind = [end_of(stack.operators, run_id) for run_id in (retry, behind)]
        seconds = time.monotonic() - began
        print(f"made up for after {seconds:.0f} seconds")

    assert seconds < 120
    assert (ended, ended_behind) == ("FAILURE", ["SUCCESS", "SUCCESS"])
    with owner.connect() as connection:
        assert reconcile(connection) == []
    owner.dispose()


# ---- occasional work of an operator; the last test ends the stack


def test_a_password_is_changed(stack: Stack) -> None:
    """With the page's commands, the new password works, the old one does not, and all services run."""
    stack.type_blocks("Change a password")
    stack.wait_until_healthy()

    stack.books("dagster").connect().close()
    assert "password authentication failed" in login_refusal(stack.url("dagster", PASSWORDS["dagster"]))
    assert repository(stack.operators)["schedules"]


def test_upgrade_and_restore_of_the_dump(stack: Stack) -> None:
    """Writes after the dump are gone, and the books with their sealed history are as before."""
    with (stack.engine.checkout / "README.md").open("a") as page:
        page.write("\nOf another version.\n")
    before = stack.containers()

    output = stack.type_blocks("Upgrade")
    stack.wait_until_healthy()

    assert Version(output.split()[-1]).local
    assert {name for name in LASTING if before[name] == stack.containers()[name]} == {"database"}
    with stack.connected("reader") as connection:
        holds = connection.scalar(select(func.count()).select_from(hold))
    with stack.connected("platform") as connection:
        place_hold(connection, reference="behind-the-dump", job="job-9")

    stack.type_blocks("Go back to the dump")
    stack.wait_until_healthy()

    with stack.connected("reader") as connection:
        assert connection.scalar(select(func.count()).select_from(hold)) == holds
        assert reconcile(connection) == []


def test_down_keeps_only_the_named_volumes(stack: Stack) -> None:
    """Each service stops within its grace period. The two named volumes remain."""
    stack.type_blocks("Stop")

    assert stack.docker("ps", "--all", "--quiet") == ""
    assert sorted(stack.docker("volume", "ls", "--quiet").split()) == ["buffer_books", "buffer_dagster"]
    assert stack.docker("network", "ls", "--quiet", "--filter", "name=buffer_") == ""
