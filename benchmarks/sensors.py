"""How long a tick of each sensor takes.

    uv run python benchmarks/sensors.py                      # 1,000,000 holds, 10,000 wallets

The holds are added once, by `add_many_pending_earnings`, all of them overdue. Each case is a copy of these
books in which some holds are not due, or have been frozen for four days (by one statement, because calling
the verb for each would take long). A tick is timed as the daemon's code server evaluates it, from opening the
books to the answer. The first tick flags what it finds and sends an alert to a local HTTP server; the next
one finds that this is done. Figures are printed, never asserted.
"""

import argparse
import logging
import os
import tempfile
import threading
import time
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import dagster as dg
from dagster._core.test_utils import create_run_for_test
from sqlalchemy import Engine, text

from buffer_pipeline.database import database_clock, make_engine, migrate
from buffer_pipeline.embedded import EmbeddedServer, embedded_server
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.resources import RESOURCES
from buffer_pipeline.settings import load_settings

CHUNK = 5_000
FAILED_RUNS = 100

# The holds with the smallest ids stay overdue; those with the largest are frozen.
SHAPE = """
UPDATE buffer.unsettled_hold SET release_date = release_date + interval '30 days' WHERE hold_id > :overdue;
UPDATE buffer.unsettled_hold SET state = 'FROZEN'
WHERE hold_id IN (SELECT hold_id FROM buffer.unsettled_hold ORDER BY hold_id DESC LIMIT :stuck);
INSERT INTO buffer.hold_freeze (hold_id, kind, opened_by, reason, opened_at)
SELECT hold_id, 'RISK', 'risk-1', 'a look', now() - interval '4 days' - hold_id * interval '1 millisecond'
FROM buffer.unsettled_hold WHERE state = 'FROZEN' ORDER BY hold_id DESC
"""


class Receiver(BaseHTTPRequestHandler):
    """Takes every alert."""

    def do_POST(self) -> None:
        """Answer 200."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def load(engine: Engine, *, holds: int, wallets: int) -> None:
    """Add `holds` earnings that have been due for two days or longer."""
    with engine.connect() as connection:
        now = database_clock(connection)
        for start in range(0, holds, CHUNK):
            earnings = [
                Earning(
                    reference=f"earning-{number}",
                    job=f"job-{number}",
                    payee=f"worker-{number * 7919 % wallets}",
                    payer=f"client-{number * 104729 % wallets}",
                    amount=f"{100 + number % 900}.{number % 100:02d}",
                    currency="PHP",
                    title="Fix kitchen faucet",
                    held_at=now - timedelta(days=12) + timedelta(days=3) * (number / holds),
                )
                for number in range(start, min(start + CHUNK, holds))
            ]
            add_many_pending_earnings(connection, earnings, now=now)
            connection.commit()


def shaped(server: EmbeddedServer, name: str, *, overdue: int, stuck: int) -> str:
    """Copy the books, leave `overdue` holds overdue and `stuck` holds frozen, and return the copy's URL."""
    admin = make_engine(server.url("postgres", user="postgres"))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE buffer OWNER buffer"))
    admin.dispose()
    engine = make_engine(server.url(name))
    with engine.begin() as connection:
        for statement in SHAPE.split(";"):
            connection.execute(text(statement), {"overdue": overdue, "stuck": stuck})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # As compact as if the holds had been added in this state.
        connection.execute(text("VACUUM (FULL, ANALYZE) buffer.unsettled_hold"))
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()
    return server.url(name).render_as_string(hide_password=False)


def tick(name: str, instance: dg.DagsterInstance, cursor: str | None) -> tuple[float, str | None, str | None]:
    """Evaluate the sensor once. Return the seconds, its skip message and its cursor."""
    sensor = defs.resolve_sensor_def(name)
    began = time.perf_counter()
    with dg.build_sensor_context(
        instance=instance,
        repository_def=defs.get_repository_def(),
        sensor_name=name,
        cursor=cursor,
        # `books` and `alerts` are made from the settings.
        resources={key: RESOURCES[key] for key in {*sensor.required_resource_keys, "settings"}},
    ) as context:
        data = sensor.evaluate_tick(context)
    return time.perf_counter() - began, data.skip_message, data.cursor


def measure(name: str, instance: dg.DagsterInstance, *, cursor: str | None = None) -> None:
    """Print the seconds of the first tick and of the next one."""
    first, said, cursor = tick(name, instance, cursor)
    following = min(tick(name, instance, cursor)[0] for _ in range(3))
    print(f"    {name:<22} {first:.2f} s, then {following:.2f} s: {said}", flush=True)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--holds", type=int, default=1_000_000)
    parser.add_argument("--wallets", type=int, default=10_000)
    arguments = parser.parse_args()
    holds = arguments.holds
    logging.disable(logging.CRITICAL)
    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    os.environ["BUFFER_ALERT_URLS"] = f"json://127.0.0.1:{receiver.server_port}/"
    load_settings()  # Not measured: a process imports these modules only once.
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_server(Path(folder)) as server,
        dg.instance_for_test() as instance,
    ):
        engine = make_engine(server.books_url)
        migrate(engine)
        load(engine, holds=holds, wallets=arguments.wallets)
        engine.dispose()
        for name, overdue, stuck in (
            ("usual", holds // 100, holds // 100),
            ("frozen", 0, holds // 10),
            ("late", holds, 0),
        ):
            os.environ["BUFFER_DATABASE_URL"] = shaped(server, name, overdue=overdue, stuck=stuck)
            print(f"{holds:,} holds, {overdue:,} overdue, {stuck:,} stuck:", flush=True)
            measure("stuck_frozen_payments", instance)
            measure("overdue_releases", instance)
        watching = tick("failed_runs", instance, None)[2]
        for _ in range(FAILED_RUNS):
            run = create_run_for_test(instance, job_name="release_pending_payments")
            instance.report_run_failed(run, message="it broke")
        print(f"{FAILED_RUNS} runs failed since the last tick:", flush=True)
        measure("failed_runs", instance, cursor=watching)
    receiver.shutdown()


if __name__ == "__main__":
    main()
