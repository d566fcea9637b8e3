"""Put the books under random load for minutes or hours. The exit code is 1 if anything was found."""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import text

from buffer_pipeline.database import make_engine, migrate
from buffer_pipeline.embedded import embedded_server
from buffer_pipeline_tests.stress.rounds import Run


def main() -> int:
    """Start a server, run, print counts and findings, and stop the server."""
    parser = argparse.ArgumentParser(prog="python -m buffer_pipeline_tests.stress", description=__doc__)
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--minutes", type=float, default=0.0, help="one minute, when neither is given")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all that is drawn at random")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument(
        "--round-seconds", type=float, default=60.0, help="after which the books are fresh ones"
    )
    options = parser.parse_args()
    # `timeout` and supervisors end it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        return 130


def _run(options: argparse.Namespace) -> int:
    seconds = (options.hours * 60 + options.minutes) * 60 or 60.0
    print(f"seed {options.seed}, {options.threads} threads, {seconds:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder, embedded_server(Path(folder) / "home") as server:
        admin = make_engine(server.url("postgres", user="postgres"))
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Processes are killed here, never the machine.
            connection.execute(text("ALTER SYSTEM SET fsync = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        admin.dispose()
        engine = make_engine(server.books_url)
        migrate(engine)
        engine.dispose()
        print("the server is up", flush=True)
        run = Run(
            server=server,
            seed=options.seed,
            seconds=seconds,
            threads=options.threads,
            round_seconds=options.round_seconds,
        )
        try:
            run.go()
        finally:
            print("\n".join(run.tally.lines()))
            print(f"findings: {dict(run.findings.counts) or 'none'}", flush=True)
    return 1 if run.findings.counts else 0


if __name__ == "__main__":
    sys.exit(main())
