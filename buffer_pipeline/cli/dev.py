"""`buffer-pipeline dev`: the books, Dagster and its UI on this machine, until Ctrl-C."""

import itertools
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

import yaml
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.cli.first_look import Sample, first_look
from buffer_pipeline.database import (
    bring_up_to_date,
    fetch,
    first_line,
    make_engine,
    open_database,
    psycopg_url,
)
from buffer_pipeline.delivery.alerts import TERMINAL_VARIABLE
from buffer_pipeline.embedded import embedded_server
from buffer_pipeline.errors import PaymentBufferError, SettingError
from buffer_pipeline.hours import clock_of_a_writer, hour_of
from buffer_pipeline.reconcile import tables_in_use
from buffer_pipeline.sample import load_sample
from buffer_pipeline.settings import Settings

HOST: Final = "127.0.0.1"

ANSWER_SECONDS_MAX: Final = 120
"""A cold machine compiles Dagster's modules first."""

GRACE_SECONDS: Final = 20
"""What Dagster gets to stop by itself before its process group is killed."""

_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True)
class _Databases:
    """Where the books are, for who migrates them and for Dagster, and where Dagster's storage is."""

    books_url: URL
    releaser_url: URL
    dagster_url: URL


def serve(settings: Settings, *, port: int, sample: bool) -> None:
    """Run the books, Dagster's webserver and its daemon until SIGINT or SIGTERM, then return.

    Dagster stops first, the embedded server last. A BUFFER_DATABASE_URL is migrated, and loaded
    with the sample when it is empty and `sample` is true.

    Raises:
        PaymentBufferError: the port is taken, an alert URL or a database cannot be used, or Dagster
            ended by itself.
    """
    settings.known_alert_urls()
    _require_free_port(port)
    root = _settings_folder()
    home = settings.home.resolve()
    with _signals() as stop, _databases(settings) as databases:
        loaded = None
        said: list[str] = []
        if not stop.is_set():
            loaded = _prepare_books(settings, databases, sample=sample, say=said.append)
        if not stop.is_set():
            _require_dagster_storage(databases.dagster_url)
            dagster_home = _prepare_dagster_home(home, root=root)
            environment = {
                **os.environ,
                "BUFFER_HOME": str(home),
                "BUFFER_DATABASE_URL": databases.releaser_url.render_as_string(hide_password=False),
                "BUFFER_DAGSTER_DATABASE_URL": databases.dagster_url.render_as_string(hide_password=False),
                # Where links in alerts lead, unless somebody has put a proxy before it.
                "BUFFER_DAGSTER_URL": os.environ.get("BUFFER_DAGSTER_URL") or f"http://{HOST}:{port}",
                "DAGSTER_HOME": str(dagster_home),
                "DAGSTER_DISABLE_TELEMETRY": "yes",
            }
            with _dagster(environment) as dagster:
                # The code server and the webserver load side by side; the daemon, which nobody
                # waits for, leaves them the cores until the UI answers.
                dagster.start_code_server(_module(root), root=root)
                dagster.start_webserver(port=port)
                _wait_for_answer(dagster, stop, port=port)
                if not stop.is_set():
                    dagster.start_daemon()
                    print(
                        f"Dagster UI: http://{HOST}:{port}  (Ctrl-C stops everything)",
                        *said,
                        sep="\n",
                        flush=True,
                    )
                    if loaded is not None:
                        look = first_look(
                            f"http://{HOST}:{port}",
                            _module(root)["location_name"],
                            loaded,
                            terminal=_terminal(settings),
                            command=_command(settings),
                            stop=stop,
                        )
                        threading.Thread(target=_print_all, args=(look,), daemon=True).start()
                while not stop.wait(_POLL_SECONDS):
                    dagster.require_running()
                    _print_all(dagster.new_alerts())


def _print_all(texts: Iterable[str]) -> None:
    for said in texts:
        # A reader that has left is no reason to stop what runs.
        with suppress(BrokenPipeError):
            print(said, flush=True)


def _require_free_port(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the webserver binds it: what lingers of a closed connection is not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise PaymentBufferError(f"port {port}: {reason}; choose another with --port") from None


def _settings_folder() -> Path:
    """Return where workspace.yaml and dagster.yaml are: in the checkout, or where the wheel puts them."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "workspace.yaml").is_file() else checkout / "buffer_pipeline" / "instance"


def _module(root: Path) -> dict[str, str]:
    """Return the one Python module that workspace.yaml loads."""
    workspace = yaml.safe_load((root / "workspace.yaml").read_text(encoding="utf-8"))
    module: dict[str, str] = workspace["load_from"][0]["python_module"]
    return module


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set; further ones change nothing.

    A flag and no exception, so that no signal can fall between starting a process and
    knowing of it. Handled signals, unlike ignored ones, are not passed on to child processes.
    """
    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    previous = {
        number: signal.signal(number, ask_to_stop)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _databases(settings: Settings) -> Iterator[_Databases]:
    """Yield where the books and Dagster's storage are; the embedded server runs meanwhile."""
    given = settings.dagster_database_url
    if settings.database_url is not None:
        books_url = psycopg_url(settings.database_url)
        # Whoever it names is who Dagster is: an owner only where somebody has chosen that.
        yield _Databases(
            books_url,
            books_url,
            dagster_url(given) if given else _storage_beside(settings, books_url),
        )
        return
    with embedded_server(settings.home) as server:
        yield _Databases(server.books_url, server.releaser_url, dagster_url(given or server.dagster_url))


def dagster_url(url: str | URL) -> URL:
    """Return the URL with Dagster's driver spelled out: with any other its webserver fails."""
    if isinstance(url, str):
        url = make_url(url.replace("postgres://", "postgresql://", 1))
    return url.set(drivername="postgresql+psycopg2")


def beside_the_books(books_url: URL) -> URL:
    """Return the URL of `<books>_dagster` on the books' server."""
    return dagster_url(books_url.set(database=f"{books_url.database or books_url.username}_dagster"))


def _storage_beside(settings: Settings, books_url: URL) -> URL:
    """Return the URL of `<books>_dagster`, which is created when missing."""
    storage_url = beside_the_books(books_url)
    name = storage_url.database
    assert name is not None
    with open_database(settings, migrated=False) as engine:
        find = text("SELECT EXISTS (SELECT FROM pg_database WHERE datname = :name)")
        create = text(f"CREATE DATABASE {engine.dialect.identifier_preparer.quote(name)}")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if not connection.scalar(find, {"name": name}):
                try:
                    connection.execute(create)
                except DBAPIError as error:
                    # Somebody else may have been first.
                    if not connection.scalar(find, {"name": name}):
                        raise PaymentBufferError(
                            f"database {name!r}: cannot be created ({first_line(error)});"
                            " set BUFFER_DAGSTER_DATABASE_URL to one that Dagster may use"
                        ) from None
    return storage_url


def _terminal(settings: Settings) -> str:
    return "another terminal" if settings.database_url is None else "a terminal with this BUFFER_DATABASE_URL"


def _command(settings: Settings) -> str:
    """Return how a command finds these books from another terminal, whatever its folder and PATH.

    By its path, because `uv run` has it on the PATH of what it runs only. A BUFFER_DATABASE_URL is not
    repeated, since it may have a password.
    """
    command = shlex.quote(str(Path(sys.argv[0]).absolute()))
    if settings.database_url is not None:
        return command
    return f"BUFFER_HOME={shlex.quote(str(settings.home.resolve()))} {command}"


def _prepare_books(
    settings: Settings, databases: _Databases, *, sample: bool, say: Callable[[str], None]
) -> Sample | None:
    """Migrate the books, and load the sample into empty ones; return it when it was loaded."""
    url = databases.books_url.render_as_string(hide_password=False)
    with open_database(settings.model_copy(update={"database_url": url}), migrated=False) as engine:
        own = f"the database {databases.books_url.database}"
        where = str(settings.home.resolve()) if settings.database_url is None else own
        bring_up_to_date(engine, where=where, say=say)
        if sample:
            with engine.begin() as connection:
                if not tables_in_use(connection):
                    now = clock_of_a_writer(connection)
                    load_sample(connection, now=now)
                    begin = hour_of(fetch(connection, "counts/first_moment")[0]["moment"])
                    if settings.reports_start is not None:
                        begin = max(
                            begin, datetime.combine(settings.reports_start, datetime.min.time(), tzinfo=UTC)
                        )
                    return Sample(first_hour=begin, loaded_at=now)
    return None


def _require_dagster_storage(url: URL) -> None:
    engine = make_engine(url.set(drivername="postgresql+psycopg"))
    try:
        engine.connect().close()
    except DBAPIError as error:
        raise SettingError(f"BUFFER_DAGSTER_DATABASE_URL: {first_line(error)}") from None
    finally:
        engine.dispose()


def _prepare_dagster_home(home: Path, *, root: Path) -> Path:
    dagster_home = home / "dagster"
    try:
        dagster_home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / "dagster.yaml", dagster_home / "dagster.yaml")
    except OSError as error:
        raise SettingError(f"BUFFER_HOME: cannot use {dagster_home}: {error.strerror}") from None
    return dagster_home


class _Dagster:
    """Dagster's processes: a code server that the other two share, the webserver, the daemon.

    `dagster dev` runs the same three behind a proxy each, one after the other, and takes three
    times as long to answer. What they print goes to one log file.
    """

    def __init__(self, environment: dict[str, str], *, scratch: Path) -> None:
        self.home = Path(environment["DAGSTER_HOME"])
        self.log_path = self.home / "dagster.log"
        self._alerts_path = scratch / "alerts"
        self._alerts_shown = 0
        self._environment = {**environment, TERMINAL_VARIABLE: str(self._alerts_path)}
        self._scratch = scratch
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.log_path.write_bytes(b"")

    def start_code_server(self, module: dict[str, str], *, root: Path) -> None:
        """Load the definitions that workspace.yaml names, behind a Unix socket."""
        # In a folder of its own in /tmp: the path of a socket may be no longer than 107 bytes.
        code_socket = self._scratch / "code.sock"
        self._start(
            "code server",
            ["dagster", "api", "grpc"],
            ["--module-name", module["module_name"], "--attribute", module["attribute"]],
            ["--working-directory", str(root / module["working_directory"]), "--socket", str(code_socket)],
        )
        server = {"socket": str(code_socket), "location_name": module["location_name"]}
        self._workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))

    def start_webserver(self, *, port: int) -> None:
        """Start the UI."""
        self._start(
            "webserver",
            ["dagster_webserver", "--workspace", str(self._workspace)],
            ["--host", HOST, "--port", str(port), "--dagster-log-level", "warning"],
        )

    def start_daemon(self) -> None:
        """Start what evaluates schedules and sensors and launches runs."""
        self._start("daemon", ["dagster._daemon", "run", "--workspace", str(self._workspace)])

    @property
    def _workspace(self) -> Path:
        return self._scratch / "workspace.yaml"

    def _start(self, name: str, *arguments: list[str]) -> None:
        with self.log_path.open("ab") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603 - our own arguments
                [sys.executable, "-m", *itertools.chain.from_iterable(arguments)],
                cwd=self.home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A session of its own: a terminal's Ctrl-C reaches this process only, which then
                # stops everything in order.
                start_new_session=True,
            )

    def require_running(self) -> None:
        """Raise when one of them has ended by itself."""
        for name, process in self._processes.items():
            code = process.poll()
            if code is not None:
                raise PaymentBufferError(
                    f"Dagster: its {name} ended by itself with exit code {code}; {self.log_path} says why"
                )

    def new_alerts(self) -> list[str]:
        """Return the alerts that sensors have raised since the last time, as one text.

        They are here for want of BUFFER_ALERT_URLS, and in the log of the sensor's tick too.
        """
        if not self._alerts_path.exists():
            return []
        with self._alerts_path.open("rb") as alerts:
            alerts.seek(self._alerts_shown)
            new = alerts.read()
        self._alerts_shown += len(new)
        return [new.decode("utf-8", errors="replace").rstrip("\n")] if new else []

    def stop(self) -> None:
        """Interrupt them all, and end what is left after a grace period."""
        for process in self._processes.values():
            # The whole group: a run under way is a child of the code server, and gets to report
            # that it was interrupted, so that it does not stand in the next one's way.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def _dagster(environment: dict[str, str]) -> Iterator[_Dagster]:
    with tempfile.TemporaryDirectory(prefix="buffer-pipeline-") as scratch:
        dagster = _Dagster(environment, scratch=Path(scratch))
        try:
            yield dagster
        finally:
            dagster.stop()


def _wait_for_answer(dagster: _Dagster, stop: threading.Event, *, port: int) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    while not stop.wait(_POLL_SECONDS):
        dagster.require_running()
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/server_info", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > deadline:
                raise PaymentBufferError(
                    f"Dagster: no answer on port {port} within {ANSWER_SECONDS_MAX} seconds;"
                    f" {dagster.log_path} says why"
                ) from None
