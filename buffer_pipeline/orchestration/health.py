"""What Dagster knows of an installation's health: its schedules, its daemon, its runs and checks."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from sqlalchemy.engine import make_url

from buffer_pipeline.database import make_engine
from buffer_pipeline.doctor import Answer
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.orchestration.assets import OUTCOME_TAG, WOULD_RELEASE
from buffer_pipeline.orchestration.checks import (
    OUTCOME_PAGES_MAX,
    OUTCOMES_PER_PAGE,
    THIS_RUN,
    proved,
)
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.jobs import release_pending_payments
from buffer_pipeline.orchestration.lineage import RELEASED, SEALED
from buffer_pipeline.reconcile import INVARIANTS

HEARTBEAT_MAX: Final = timedelta(minutes=2)
"""A daemon gives a sign of life every 30 seconds."""

RELEASE_MAX: Final = timedelta(minutes=75)
"""Behind a release on the full hour: the same as makes the asset late."""

PROOF_MAX: Final = timedelta(hours=27)
"""All of the books are proved every night."""

STORAGE_VARIABLE: Final = "BUFFER_DAGSTER_DATABASE_URL"

_RUNS_LOOKED_AT: Final = 50


@contextmanager
def open_instance(home: Path, *, storage_url: str | None) -> Iterator[dg.DagsterInstance]:
    """Yield the instance of a DAGSTER_HOME, whose dagster.yaml finds its storage in the environment.

    Dagster itself makes its tables where its storage has none.

    Raises:
        PaymentBufferError: there is none.
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
    """Connect once: Dagster itself tries for ten seconds, and then says less."""
    url = make_url(storage_url).set(drivername="postgresql+psycopg")
    engine = make_engine(url.update_query_dict({"connect_timeout": "10"}))
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
    """Look whether every schedule and sensor is on, as far as Dagster's daemon and UI have noted."""
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
            "start Dagster's daemon; where it runs, the UI's Deployment page says why the code does not load",
        )
    return True, f"all {len(states)} schedules and sensors are on", ""


def daemon(instance: dg.DagsterInstance, *, now: datetime) -> Answer:
    """Look at the sign of life of each part of the daemon."""
    advice = "start `dagster-daemon run` (compose: `docker compose up -d daemon`), exactly one; then its log"
    beats = instance.get_daemon_heartbeats()
    required = instance.get_required_daemon_types()
    missing = [kind for kind in required if kind not in beats]
    if missing:
        return False, f"no sign of life, ever, of {', '.join(sorted(missing))}", advice
    oldest = min((beats[kind] for kind in required), key=lambda beat: beat.timestamp)
    age = now - datetime.fromtimestamp(oldest.timestamp, UTC)
    if age > HEARTBEAT_MAX:
        return False, f"no sign of life of {oldest.daemon_type} for {_span(age)}", advice
    broken = sorted(kind for kind in required if beats[kind].errors)
    if broken:
        return False, f"errors in {', '.join(broken)}", "the UI's Deployment page, Daemons, shows them"
    return True, f"alive {_span(age)} ago", ""


def last_release(instance: dg.DagsterInstance, *, now: datetime) -> Answer:
    """Look at the latest release run that ended well, dry runs apart, and whether one failed since."""
    ended = [
        record
        for record in instance.get_run_records(
            dg.RunsFilter(
                job_name=release_pending_payments.name,
                statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
            ),
            limit=_RUNS_LOOKED_AT,
        )
        if not record.dagster_run.tags.get(OUTCOME_TAG, "").startswith(WOULD_RELEASE)
    ]
    good = next((record for record in ended if record.dagster_run.is_success), None)
    if ended and ended[0] is not good:
        return (
            False,
            f"run {ended[0].dagster_run.run_id} failed, the latest of its kind",
            "open it in the Dagster UI; what it committed stands, and the next run takes the rest",
        )
    advice = "the lines on schedules and daemon say why; meanwhile `buffer-pipeline release` does the same"
    if good is None:
        return False, "no release run has ended well", advice
    age = now - datetime.fromtimestamp(good.end_time or 0.0, UTC)
    fact = f"run {good.dagster_run.run_id} ended well {_span(age)} ago"
    return age <= RELEASE_MAX, fact, advice


def proof(instance: dg.DagsterInstance, *, now: datetime) -> Answer:
    """Look at what Dagster's runs proved: all of the books by night, and each release's part since."""
    keys = [
        *(dg.AssetCheckKey(RELEASED, name) for name in INVARIANTS),
        dg.AssetCheckKey(SEALED, "history_as_sealed"),
    ]
    failed, proved_at = [], []
    for key in keys:
        passed, whole = _outcomes(instance, key)
        if passed is False:
            failed.append(key.name)
        proved_at.append(whole)
    if failed:
        return (
            False,
            f"failed when last checked: {', '.join(failed)}",
            "stop releases; `buffer-pipeline reconcile` and `verify` list the rows",
        )
    advice = "launch `reconcile_books`, or run `buffer-pipeline reconcile` and `verify`"
    whole_at = [moment for moment in proved_at if moment is not None]
    if len(whole_at) < len(keys):
        return False, "not yet proved as a whole", advice
    age = now - min(whole_at)
    fact = f"proved as a whole {_span(age)} ago, by Dagster's checks, and nothing has failed since"
    return age <= PROOF_MAX, fact, advice


def _outcomes(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> tuple[bool | None, datetime | None]:
    """Return whether the check's latest outcome is good, and when it last proved all of the books."""
    passed, cursor = None, None
    for _ in range(OUTCOME_PAGES_MAX):
        records = instance.event_log_storage.get_asset_check_execution_history(
            key, limit=OUTCOMES_PER_PAGE, cursor=cursor
        )
        for record in records:
            cursor = record.id
            good = record.status is AssetCheckExecutionRecordStatus.SUCCEEDED
            if not good and record.status is not AssetCheckExecutionRecordStatus.FAILED:
                continue
            passed = good if passed is None else passed
            if good and proved(record) != THIS_RUN:
                return passed, datetime.fromtimestamp(record.create_timestamp, UTC)
        if len(records) < OUTCOMES_PER_PAGE:
            break
    return passed, None


def _span(age: timedelta) -> str:
    seconds = max(0, round(age.total_seconds()))
    for unit, length in _UNITS.items():
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} seconds"


_UNITS: Final[Mapping[str, int]] = {"days": 86_400, "hours": 3_600, "minutes": 60}
