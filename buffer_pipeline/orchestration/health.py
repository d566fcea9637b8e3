"""The health of an installation, as Dagster knows it: its schedules, daemon, runs and checks."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import dagster as dg
from sqlalchemy.engine import make_url

from buffer_pipeline.audit.reconcile import INVARIANTS
from buffer_pipeline.audit.seals import HISTORY_AS_SEALED
from buffer_pipeline.database import make_engine
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.monitoring.doctor import Answer
from buffer_pipeline.notifications.sanitize import counted
from buffer_pipeline.orchestration.assets import OUTCOME_TAG, WOULD_RELEASE
from buffer_pipeline.orchestration.checks import (
    NO_OFFENCE,
    OFFENCE,
    OFFENDING_ROWS,
    THIS_RUN,
    outcomes,
    proved,
)
from buffer_pipeline.orchestration.dagster_internals import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
    InstigatorStatus,
    WorkerStatus,
)
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.jobs import release_pending_payments
from buffer_pipeline.orchestration.metadata import text_of

HEARTBEAT_MAX: Final = timedelta(minutes=2)
"""The limit for the heartbeat of a part of the daemon. It sends one every 30 seconds."""

RELEASE_MAX: Final = timedelta(minutes=75)
"""The limit for the age of the last release: the same as for the freshness of the asset."""

PROOF_MAX: Final = timedelta(hours=27)
"""The limit for the age of the last full proof. All of the books are proved every night."""

STORAGE_VARIABLE: Final = "BUFFER_DAGSTER_DATABASE_URL"

_RUNS_READ_MAX: Final = 50


@contextmanager
def open_instance(home: Path, *, storage_url: str | None) -> Iterator[dg.DagsterInstance]:
    """Yield the instance of a DAGSTER_HOME, whose dagster.yaml reads its storage from the environment.

    Dagster itself creates its tables if the storage has none.

    Raises:
        PaymentBufferError: the folder does not exist.
    """
    if not home.is_dir():
        raise PaymentBufferError(f"no Dagster in {home}")
    settings = home / "dagster.yaml"
    if storage_url is not None and settings.is_file() and STORAGE_VARIABLE in settings.read_text("utf-8"):
        _require_answer(storage_url)
    before = os.environ.get(STORAGE_VARIABLE)
    if storage_url is not None:
        os.environ[STORAGE_VARIABLE] = storage_url
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield instance
    finally:
        if before is None:
            os.environ.pop(STORAGE_VARIABLE, None)
        else:
            os.environ[STORAGE_VARIABLE] = before


def _require_answer(storage_url: str) -> None:
    """Connect once. Dagster itself would try for ten seconds, and its error says less."""
    engine = make_engine(make_url(storage_url).set(drivername="postgresql+psycopg"))
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _expected() -> Iterator[str]:
    for schedule in defs.schedules or ():
        if getattr(schedule, "default_status", None) is dg.DefaultScheduleStatus.RUNNING:
            yield schedule.name
    for sensor in defs.sensors or ():
        if sensor.default_status is dg.DefaultSensorStatus.RUNNING:
            yield sensor.name


def schedules(instance: dg.DagsterInstance) -> Answer:
    """Check that every schedule and sensor is on, by the state that Dagster's daemon and UI have stored."""
    states = {
        name: [state.status for state in instance.all_instigator_state() if state.name == name]
        for name in _expected()
    }
    off = [name for name, found in states.items() if InstigatorStatus.STOPPED in found]
    unseen = [name for name, found in states.items() if not found]
    if off:
        return False, f"stopped: {', '.join(off)}", "Dagster UI, Automation: turn them on"
    if unseen:
        return (
            False,
            f"never evaluated: {', '.join(unseen)}",
            "start Dagster's daemon; if it runs, the UI's Deployment page says why the code does not load",
        )
    return True, f"all {len(states)} schedules and sensors are on", ""


def daemon(instance: dg.DagsterInstance, *, now: datetime) -> Answer:
    """Check the heartbeat of each part of the daemon."""
    advice = "start `dagster-daemon run` (compose: `docker compose up -d daemon`), exactly one; then its log"
    beats = instance.get_daemon_heartbeats()
    required = instance.get_required_daemon_types()
    missing = [kind for kind in required if kind not in beats]
    if missing:
        return False, f"no heartbeat yet from {', '.join(sorted(missing))}", advice
    oldest = min((beats[kind] for kind in required), key=lambda beat: beat.timestamp)
    age = now - datetime.fromtimestamp(oldest.timestamp, UTC)
    if age > HEARTBEAT_MAX:
        return False, f"no heartbeat from {oldest.daemon_type} for {_span(age)}", advice
    broken = sorted(kind for kind in required if beats[kind].errors)
    if broken:
        return (
            False,
            f"errors in {', '.join(broken)}",
            "the Deployment page of the UI shows them, under Daemons",
        )
    return True, f"last heartbeat {_span(age)} ago", ""


def runs(instance: dg.DagsterInstance) -> Answer:
    """Check for runs that Dagster lists as started although no process executes them."""
    under_way = instance.get_runs(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
    )
    lost = []
    for run in under_way if instance.run_launcher.supports_check_run_worker_health else ():
        found = instance.run_launcher.check_run_worker_health(run)
        here = found.status in {WorkerStatus.RUNNING, WorkerStatus.SUCCESS} and found.msg is None
        # The run may have ended meanwhile.
        latest = None if here else instance.get_run_by_id(run.run_id)
        if latest is not None and not latest.is_finished:
            lost.append(f"run {run.run_id} ({latest.status.value}): {found.msg or found.status.value}")
    if lost:
        return (
            False,
            "; ".join(lost),
            "start the code server if it does not answer (compose: `docker compose up -d code`); the"
            " daemon then fails the run and retries it within a minute",
        )
    return True, f"{counted(len(under_way), 'run')} in progress", ""


def last_release(instance: dg.DagsterInstance, *, now: datetime) -> Answer:
    """Check the age of the latest successful release run that is no dry run, and that none failed since."""
    ended = [
        record
        for record in instance.get_run_records(
            dg.RunsFilter(
                job_name=release_pending_payments.name,
                statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
            ),
            limit=_RUNS_READ_MAX,
        )
        if not record.dagster_run.tags.get(OUTCOME_TAG, "").startswith(WOULD_RELEASE)
    ]
    good = next((record for record in ended if record.dagster_run.is_success), None)
    if ended and ended[0] is not good:
        return (
            False,
            f"the latest release run failed: {ended[0].dagster_run.run_id}",
            "open it in the Dagster UI; what it committed is released, and the next run takes the rest",
        )
    advice = "the lines `schedules` and `daemon` say why; until then use `buffer-pipeline release`"
    if good is None:
        return False, "no release run has succeeded yet", advice
    age = now - datetime.fromtimestamp(good.end_time or 0.0, UTC)
    fact = f"run {good.dagster_run.run_id} succeeded {_span(age)} ago"
    return age <= RELEASE_MAX, fact, advice


def proof(instance: dg.DagsterInstance, *, now: datetime) -> Answer:
    """Check what Dagster's runs proved: all of the books every night, and the part of each release since."""
    failed, whole_at = [], []
    names = [*INVARIANTS, HISTORY_AS_SEALED]
    for name in names:
        latest, whole = _outcomes(instance, name)
        if latest is not None and latest.status is AssetCheckExecutionRecordStatus.FAILED:
            failed.append(f"{name} ({_found(latest)})")
        if whole is not None:
            whole_at.append(datetime.fromtimestamp(whole.create_timestamp, UTC))
    if failed:
        return (
            False,
            f"failed when last checked: {', '.join(failed)}",
            "stop releases; `buffer-pipeline reconcile` and `verify` list the rows",
        )
    advice = "launch `reconcile_books`, or run `buffer-pipeline reconcile` and `verify`"
    if len(whole_at) < len(names):
        return False, "not yet proved as a whole", advice
    age = now - min(whole_at)
    fact = f"proved as a whole {_span(age)} ago, by Dagster's checks, and nothing has failed since"
    return age <= PROOF_MAX, fact, advice


def _outcomes(
    instance: dg.DagsterInstance, name: str
) -> tuple[AssetCheckExecutionRecord | None, AssetCheckExecutionRecord | None]:
    """Return the latest outcome of a check, and the latest one that proved all of the books."""
    latest = None
    for record in outcomes(instance, name):
        good = record.status is AssetCheckExecutionRecordStatus.SUCCEEDED
        if not good and record.status is not AssetCheckExecutionRecordStatus.FAILED:
            continue
        latest = latest or record
        if good and proved(record) != THIS_RUN:
            return latest, record
    return latest, None


def _found(record: AssetCheckExecutionRecord) -> str:
    """Return what a failed check found: the offence, or the number of rows."""
    metadata = record.evaluation.metadata if record.evaluation else {}
    if OFFENCE in metadata and text_of(metadata[OFFENCE]) != NO_OFFENCE:
        return text_of(metadata[OFFENCE])
    if OFFENDING_ROWS in metadata:
        return counted(int(text_of(metadata[OFFENDING_ROWS])), "row")
    return "see its page in the Dagster UI"


def _span(age: timedelta) -> str:
    seconds = max(0, round(age.total_seconds()))
    for unit, length in _SECONDS_OF_UNIT.items():
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} seconds"


_SECONDS_OF_UNIT: Final[Mapping[str, int]] = {"days": 86_400, "hours": 3_600, "minutes": 60}
