"""The login in front of Dagster's UI: docker-compose.yml's proxy with webservers that record each request."""

import http.client
import os
import pwd
import shutil
import socket
import string
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dagster_webserver
import pytest

from buffer_pipeline_tests.support.compose import read_compose
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.stack import wait_for
from buffer_pipeline_tests.support.webserver import Headers, Webserver, webserver

OPERATORS: Final = 3000
VIEWERS: Final = 3001
OPERATOR: Final = "operator-1:let me in"
VIEWER: Final = "viewer-1:let me look"

PROGRAMS: Final = os.pathsep.join(("/usr/sbin", "/usr/bin", "/bin"))


@dataclass
class Seats:
    """The proxy, and the webservers behind its two ports."""

    address: str
    folder: Path
    operators: Webserver
    viewers: Webserver

    def ask(self, port: int, method: str, path: str, login: str | None, headers: Headers) -> int:
        """Return the status of one request."""
        connection = http.client.HTTPConnection(self.address, port, timeout=10)
        if login is not None:
            headers = {"Authorization": f"Basic {b64encode(login.encode()).decode()}", **headers}
        try:
            connection.request(method, path, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()


def require_nginx() -> None:
    """Skip if the proxy's programs are not installed, or fail if REQUIRE_NGINX is set."""
    missing = [program for program in ("nginx", "openssl") if shutil.which(program, path=PROGRAMS) is None]
    if missing:
        reason = f"not installed: {', '.join(missing)} (apt-get install nginx-light openssl)"
        if os.environ.get("REQUIRE_NGINX"):
            pytest.fail(reason)
        pytest.skip(reason)


def add_login(file: Path, login: str) -> None:
    """Add a name and its password to a file as in docs/compose.md, without the prompt."""
    name, password = login.split(":")
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=password, text=True, check=True, capture_output=True
    ).stdout.strip()
    with file.open("a") as logins:
        logins.write(f"{name}:{hashed}\n")


@contextmanager
def proxy(folder: Path, address: str, webservers: dict[str, str]) -> Iterator[None]:
    """Run the file's proxy at an address, with the password files in `folder`."""
    words = read_compose()["services"]["proxy"]
    variables = {
        **words["environment"],
        "ADDRESS": address,
        **{f"{seat.upper()}_FILE": str(folder / seat) for seat in webservers},
        **{f"{seat.upper()}_WEBSERVER": f"{where}:3000" for seat, where in webservers.items()},
    }
    template = string.Template((ROOT / "deploy/nginx/nginx.conf.template").read_text(encoding="utf-8"))
    (folder / "nginx.conf").write_text(template.safe_substitute(variables), encoding="utf-8")
    command = [word.replace("/tmp", str(folder)) for word in words["command"]]  # Its scratch space.
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    if nobody is not None:  # The user that nginx would switch to.
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, nobody.pw_uid, nobody.pw_gid)
    with subprocess.Popen(
        command,
        env={"PATH": PROGRAMS},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=nobody and nobody.pw_uid,
        group=nobody and nobody.pw_gid,
        extra_groups=nobody and [],
    ) as process:
        try:
            for port in (OPERATORS, VIEWERS):
                wait_for(lambda port=port: _listens(address, port), what="the proxy")  # type: ignore[misc]
            yield
        finally:
            process.terminate()


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


@pytest.fixture(scope="module")
def seats() -> Iterator[Seats]:
    """The proxy with the logins of an operator and a viewer."""
    require_nginx()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        add_login(folder / "operators", OPERATOR)
        add_login(folder / "viewers", VIEWER)
        network = f"127.1.{os.getpid() % 250 + 1}"
        with (
            webserver(f"{network}.1") as operators,
            webserver(f"{network}.2") as viewers,
            proxy(folder, f"{network}.3", {"operators": operators.address, "viewers": viewers.address}),
        ):
            yield Seats(f"{network}.3", folder, operators, viewers)


@pytest.fixture(autouse=True)
def _nobody_came_yet(seats: Seats) -> None:
    seats.operators.came.clear()
    seats.viewers.came.clear()


ASSET: Final = next(
    f"/{found.relative_to(root)}"
    for root in [Path(dagster_webserver.__file__).parent / "webapp" / "build"]
    for found in sorted(root.rglob("*.js"))
)
UPGRADE: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "graphql-ws",
}


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {}),
        ("GET", "/runs", {}),
        ("GET", ASSET, {}),
        ("GET", "/server_info", {}),
        ("GET", "/dagit_info", {}),
        ("HEAD", "/server_info", {}),
        ("OPTIONS", "/graphql", {}),
        ("PUT", "/", {}),
        ("DELETE", "/", {}),
        ("GET", "/graphql?query={version}", {}),
        ("POST", "/graphql", {"Content-Type": "application/json"}),
        ("POST", "/graphql?query={version}", {}),
        ("GET", "/graphql", UPGRADE),
        ("GET", "//graphql", {}),
        ("GET", "/%67raphql", {}),
        ("GET", "/static/../graphql", {}),
        ("GET", "/notebook?path=a.ipynb", {}),
        ("GET", "/logs/a/b/c.err", {}),
        ("GET", "/download_debug/1", {}),
        ("POST", "/report_asset_materialization/released_transactions", {}),
        ("POST", "/report_asset_check/released_transactions", {}),
        ("POST", "/report_asset_observation/released_transactions", {}),
        ("GET", "/server_info", {"X-Forwarded-User": "operator-1", "Remote-User": "operator-1"}),
        ("GET", "/server_info", {"Authorization": "Bearer operator-1"}),
        ("GET", "/server_info", {"Authorization": "Basic operator-1"}),
    ],
)
@pytest.mark.parametrize("port", [OPERATORS, VIEWERS])
def test_an_anonymous_request_gets_no_further_than_the_login(
    seats: Seats, port: int, method: str, path: str, headers: Headers
) -> None:
    """Any request without a login is refused and reaches no webserver."""
    status = seats.ask(port, method, path, None, headers)

    assert status == 401
    assert seats.operators.came == seats.viewers.came == []


@pytest.mark.parametrize(
    ("port", "login"),
    [
        (OPERATORS, VIEWER),
        (VIEWERS, OPERATOR),
        (OPERATORS, "operator-1:let me i"),
        (OPERATORS, "operator-1:"),
        (OPERATORS, ":"),
        (OPERATORS, "nobody:let me in"),
    ],
)
def test_login_needs_its_own_port_and_password(seats: Seats, port: int, login: str) -> None:
    """A viewer cannot log in to the operators' UI, nor can anybody with a wrong password."""
    status = seats.ask(port, "POST", "/graphql", login, {})

    assert status == 401
    assert seats.operators.came == seats.viewers.came == []


def test_each_port_leads_to_its_webserver(seats: Seats) -> None:
    """Operators get the full UI and viewers the read-only one. The password is not forwarded."""
    statuses = [
        seats.ask(OPERATORS, "POST", "/graphql?a=%20b", OPERATOR, {}),
        seats.ask(VIEWERS, "GET", "/runs", VIEWER, {}),
        seats.ask(OPERATORS, "GET", "/graphql", OPERATOR, UPGRADE),
    ]

    assert statuses == [200, 200, 101]
    assert [came[:2] for came in seats.operators.came] == [("POST", "/graphql?a=%20b"), ("GET", "/graphql")]
    assert [came[:2] for came in seats.viewers.came] == [("GET", "/runs")]
    headers = [came[2] for came in (*seats.operators.came, *seats.viewers.came)]
    assert not any("Authorization" in given for given in headers)
    assert headers[1]["Sec-WebSocket-Protocol"] == "graphql-ws"


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/graphql", {"Origin": "http://evil.example"}),
        ("POST", "/graphql", {"Origin": "null"}),
        ("GET", "/graphql?query=mutation", {"Sec-Fetch-Site": "cross-site"}),
        ("GET", "//graphql?query=mutation", {"Sec-Fetch-Site": "cross-site"}),
        ("GET", "/%67raphql?query=mutation", {"Sec-Fetch-Site": "same-site"}),
        ("GET", "/graphql", {**UPGRADE, "Origin": "http://evil.example"}),
        ("POST", "/report_asset_materialization/a", {"Origin": "http://evil.example"}),
    ],
)
def test_a_page_of_another_site_changes_nothing(
    seats: Seats, method: str, path: str, headers: Headers
) -> None:
    """A logged-in browser sends the password with any page's request; the proxy refuses it."""
    status = seats.ask(OPERATORS, method, path, OPERATOR, headers)

    assert status == 403
    assert seats.operators.came == []


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/graphql", {"Sec-Fetch-Site": "same-origin", "Origin": "http://{host}"}),
        ("GET", "/graphql", {**UPGRADE, "Sec-Fetch-Site": "same-origin", "Origin": "http://{host}"}),
        ("GET", "/graphql", {"Sec-Fetch-Site": "none"}),
        ("GET", "/runs/1", {"Sec-Fetch-Site": "cross-site"}),
    ],
)
def test_own_requests_and_links_are_answered(seats: Seats, method: str, path: str, headers: Headers) -> None:
    """The UI's requests pass, and so does a link in an alert."""
    host = f"{seats.address}:{OPERATORS}"
    headers = {name: value.format(host=host) for name, value in headers.items()}

    assert seats.ask(OPERATORS, method, path, OPERATOR, headers) in {200, 101}


def test_removed_login_is_refused_at_once(seats: Seats) -> None:
    """The password file is read for each request."""
    file = seats.folder / "operators"
    add_login(file, "operator-2:for a day")
    before = seats.ask(OPERATORS, "GET", "/", "operator-2:for a day", {})
    file.write_text("".join(line for line in file.open() if not line.startswith("operator-2")))

    assert before == 200
    assert seats.ask(OPERATORS, "GET", "/", "operator-2:for a day", {}) == 401


def test_without_a_proxy_the_ui_listens_on_loopback_only() -> None:
    """This is the default of `dagster-webserver`, and `buffer-pipeline dev` sets it."""
    from buffer_pipeline.cli.dev_ui import HOST

    output = subprocess.run(
        ["dagster-webserver", "--help"], capture_output=True, text=True, check=True
    ).stdout

    assert socket.gethostbyname(HOST).startswith("127.")
    assert "[default: 127.0.0.1]" in output
