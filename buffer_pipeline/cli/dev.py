"""`buffer-pipeline dev`: the books, Dagster and its UI on this machine, until Ctrl-C."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType

from buffer_pipeline.cli.dev_databases import (
    Databases,
    open_databases,
    place_of_books,
    prepare_books,
    require_dagster_storage,
)
from buffer_pipeline.cli.dev_home import module_of, prepare_dagster_home, settings_folder
from buffer_pipeline.cli.dev_processes import (
    PROCESS_POLL_SECONDS,
    DagsterProcesses,
    dagster_processes,
    wait_for_ui,
)
from buffer_pipeline.cli.dev_ui import HOST, require_free_port
from buffer_pipeline.cli.first_look import FIRST_ASSET, Sample, first_look, things_to_try
from buffer_pipeline.settings import Settings


def serve(settings: Settings, *, port: int, sample: bool, clock: datetime | None = None) -> None:
    """Run the books, Dagster's webserver and its daemon until SIGINT or SIGTERM, then return.

    Prints what it does while it starts, and the address of the UI once the definitions are loaded. Dagster
    stops first, the embedded server last. The books at BUFFER_DATABASE_URL are migrated, and loaded with the
    sample if they are empty and `sample` is true. With a `clock`, new books are made a sandbox at that time.

    Raises:
        ClockRefused: with a `clock`, the books are real.
        PaymentBufferError: the port is in use, an alert URL or a database cannot be used, or a process of
            Dagster ended by itself or was not ready in time.
    """
    settings.known_alert_urls()
    require_free_port(port)
    root = settings_folder()
    home = settings.home.resolve()
    ui = f"http://{HOST}:{port}"
    with _signals() as stop:
        begin = "Starting PostgreSQL with" if settings.database_url is None else "Opening"
        _say(f"{begin} the books in {place_of_books(settings)}.")
        with open_databases(settings) as databases:
            loaded = None
            if not stop.is_set():
                loaded = prepare_books(settings, databases, sample=sample, clock=clock, say=_say)
            if stop.is_set():
                return
            require_dagster_storage(databases.dagster_url)
            dagster_home = prepare_dagster_home(home, root=root)
            environment = _environment(databases, home=home, dagster_home=dagster_home, ui=ui)
            with dagster_processes(environment) as dagster:
                _say(
                    f"Starting Dagster, which takes a minute or more the first time. Log: {dagster.log_path}"
                )
                # The code server and the webserver load at the same time. The daemon starts after them,
                # because nobody waits for it and it would take processor time from them.
                module = module_of(root)
                dagster.start_code_server(module, root=root)
                dagster.start_webserver(port=port)
                wait_for_ui(dagster, stop, ui=ui, say=_say)
                if not stop.is_set():
                    dagster.start_daemon()
                    _say(f"Dagster UI: {ui}  (Ctrl-C stops everything)")
                    _introduce(settings, ui, module["location_name"], loaded, stop=stop)
                _run_until(stop, dagster)


def _environment(databases: Databases, *, home: Path, dagster_home: Path, ui: str) -> dict[str, str]:
    return {
        **os.environ,
        "BUFFER_HOME": str(home),
        "BUFFER_DATABASE_URL": databases.releaser_url.render_as_string(hide_password=False),
        "BUFFER_DAGSTER_DATABASE_URL": databases.dagster_url.render_as_string(hide_password=False),
        # The links in alerts lead here, unless the UI is behind a proxy.
        "BUFFER_DAGSTER_URL": os.environ.get("BUFFER_DAGSTER_URL") or ui,
        "DAGSTER_HOME": str(dagster_home),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }


def _introduce(
    settings: Settings, ui: str, location: str, loaded: Sample | None, *, stop: threading.Event
) -> None:
    """Print three things to try; after a fresh sample, launch its first runs before that."""
    terminal = "another terminal"
    if settings.database_url is not None:
        terminal = "a terminal with this BUFFER_DATABASE_URL"
    command = _command(settings)
    if loaded is None:
        _say(things_to_try(ui, FIRST_ASSET, terminal=terminal, command=command))
        return
    texts = first_look(ui, location, loaded, terminal=terminal, command=command, stop=stop)
    threading.Thread(target=_say_all, args=(texts,), daemon=True).start()


def _run_until(stop: threading.Event, dagster: DagsterProcesses) -> None:
    while not stop.wait(PROCESS_POLL_SECONDS):
        dagster.require_running()
        _say_all(dagster.new_alerts())


def _say(text: str) -> None:
    # If the reader of the output has gone, the processes keep running.
    with suppress(BrokenPipeError):
        print(text, flush=True)


def _say_all(texts: Iterable[str]) -> None:
    for text in texts:
        _say(text)


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT, SIGTERM and SIGHUP set. Further signals change nothing.

    It is a flag and not an exception, so that no signal can interrupt between the start of a process and its
    registration. Child processes do not inherit handlers, but they would inherit ignored signals.
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


def _command(settings: Settings) -> str:
    """Return a command line that finds these books from any folder and with any PATH.

    It has the path of the program, because `uv run` sets the PATH only for the program that it starts. A
    BUFFER_DATABASE_URL is left out, since it may contain a password.
    """
    command = shlex.quote(str(Path(sys.argv[0]).absolute()))
    if settings.database_url is not None:
        return command
    return f"BUFFER_HOME={shlex.quote(str(settings.home.resolve()))} {command}"
