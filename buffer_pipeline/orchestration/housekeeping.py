"""Housekeeping: Dagster keeps every run and its log for ever, so a daily job prunes what is old."""

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import dagster as dg
from pydantic import Field

from buffer_pipeline.orchestration.metadata import table_metadata
from buffer_pipeline.settings import load_settings

FINISHED: Final = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)

RUNS_MAX: Final = 10_000
"""A few minutes; a day has some fifty."""

SECONDS_MAX: Final = 1200
"""Well below the instance's `max_runtime_seconds`, which would end the run from outside."""

REPOSITORY_TAG: Final = ".dagster/repository"
"""Which code location's a run is, as name@location; a run in one's own process has none."""

_PAGE: Final = 500


class PruneConfig(dg.Config):
    """What the job takes; the defaults are what the schedule uses."""

    dry_run: bool = Field(
        default=False, description="Select and count what a real run would prune, and delete nothing."
    )
    keep_days: int | None = Field(
        default=None,
        ge=1,
        description="Prune what is older than so many days. Left out, it is BUFFER_KEEP_RUNS_DAYS.",
    )
    runs_max: int = Field(
        default=RUNS_MAX,
        ge=1,
        description="The most runs that are pruned at once, the oldest first. The next day's run goes"
        " on with the rest.",
    )


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What was pruned, what was old but kept (run id -> why), and how many old runs are left."""

    runs: int
    ticks: int
    kept: Mapping[str, str]
    runs_left: int


def prune(
    instance: dg.DagsterInstance,
    *,
    before: datetime,
    check_keys: Iterable[dg.AssetCheckKey],
    repository: str | None = None,
    dry_run: bool = False,
    runs_max: int = RUNS_MAX,
    seconds_max: float = SECONDS_MAX,
) -> Pruned:
    """Delete the runs that finished before `before`, their logs and files, and the ticks of that time.

    Runs in progress stay, and so do the run that holds the latest materialization of an asset or
    the latest evaluation of one of `check_keys`, and the latest tick of each schedule and sensor.
    `repository` (name@location) keeps the hands off what other code locations have on the instance.
    No more than `runs_max` runs, and no further run after `seconds_max`. Safe to run again, and
    after being cut short. A dry run takes the same way and deletes nothing.
    """
    deadline = time.monotonic() + seconds_max
    ticks = _prune_ticks(instance, before=before, repository=repository, dry_run=dry_run)
    tags = {} if repository is None else {REPOSITORY_TAG: repository}
    old = dg.RunsFilter(statuses=FINISHED, updated_before=before, tags=tags)
    reasons = _latest_of(instance, check_keys=check_keys)
    # All ids before the first deletion: a page begins behind a run that must still be there.
    ids = list(_run_ids(instance, old))
    kept = {run_id: reasons[run_id] for run_id in ids if run_id in reasons}
    chosen = [run_id for run_id in ids if run_id not in kept][:runs_max]
    runs = 0
    for run_id in chosen:
        if time.monotonic() >= deadline:
            break
        if not dry_run:
            _delete_run(instance, run_id)
        runs += 1
    return Pruned(runs=runs, ticks=ticks, kept=kept, runs_left=len(ids) - len(kept) - runs)


def _run_ids(instance: dg.DagsterInstance, filters: dg.RunsFilter) -> Iterator[str]:
    """Yield the runs' ids, the oldest first."""
    cursor = None
    while page := instance.get_run_records(filters, limit=_PAGE, cursor=cursor, ascending=True):
        for record in page:
            cursor = record.dagster_run.run_id
            yield cursor


def _latest_of(instance: dg.DagsterInstance, *, check_keys: Iterable[dg.AssetCheckKey]) -> dict[str, str]:
    """Return run id -> what of an asset's page would go with the run."""
    reasons: dict[str, str] = {}
    for key in instance.all_asset_keys():
        materialized = instance.get_latest_materialization_event(key)
        if materialized is not None:
            reasons.setdefault(materialized.run_id, f"latest materialization of {key.to_user_string()}")
    for check_key in check_keys:
        evaluated = instance.get_latest_asset_check_evaluation_record(check_key)
        if evaluated is not None:
            reasons.setdefault(evaluated.run_id, f"latest evaluation of {check_key.to_user_string()}")
    return reasons


def _delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    # The run itself last: cut short before that, the next day finds it again.
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    # Where the default IO manager puts what ops hand on; with local compute logs it is gone by now.
    files = Path(instance.storage_directory()) / run_id
    if files.is_dir():
        shutil.rmtree(files)
    instance.delete_run(run_id)


def _prune_ticks(
    instance: dg.DagsterInstance, *, before: datetime, repository: str | None, dry_run: bool
) -> int:
    ticks = 0
    for state in instance.all_instigator_state():
        if repository not in (None, state.origin.repository_origin.get_label()):
            continue
        origin_id, selector_id = state.instigator_origin_id, state.selector_id
        latest = instance.get_ticks(origin_id, selector_id, limit=1)
        if not latest:
            continue
        # The scheduler goes on from the latest tick, and the UI shows it.
        until = min(before.timestamp(), latest[0].timestamp)
        page_until = until
        while page := instance.get_ticks(origin_id, selector_id, before=page_until, limit=_PAGE):
            ticks += len(page)
            page_until = page[-1].timestamp
            for tick in page:
                if tick.log_key and not dry_run:
                    instance.compute_log_manager.delete_logs(log_key=tick.log_key)
        if not dry_run:
            instance.purge_ticks(origin_id, selector_id, before=until)
    return ticks


@dg.op(
    name="prune",
    out=dg.Out(dg.Nothing),
    description="Deletes finished runs and ticks that are older than BUFFER_KEEP_RUNS_DAYS, their logs"
    " and their files, the oldest first. Keeps what an asset's page shows as its latest.",
)
def prune_op(context: dg.OpExecutionContext, config: PruneConfig) -> None:
    """Prune by the clock and the settings, and report what went, what stayed and why."""
    started = time.monotonic()
    keep_days = config.keep_days or load_settings().keep_runs_days
    before = datetime.now(UTC) - timedelta(days=keep_days)
    pruned = prune(
        context.instance,
        before=before,
        check_keys=context.repository_def.asset_graph.asset_check_keys,
        repository=context.run.tags.get(REPOSITORY_TAG),
        dry_run=config.dry_run,
        runs_max=config.runs_max,
    )
    kept = [{"run": run_id, "because": reason} for run_id, reason in pruned.kept.items()]
    context.add_output_metadata(
        {
            "runs": pruned.runs,
            "ticks": pruned.ticks,
            "runs_kept": len(kept),
            **table_metadata("kept", kept),
            "runs_left": pruned.runs_left,
            "older_than": dg.MetadataValue.timestamp(before),
            "dry_run": config.dry_run,
            "seconds": round(time.monotonic() - started, 3),
        }
    )


@dg.job(
    executor_def=dg.in_process_executor,
    tags={"dagster/retry_strategy": "ALL_STEPS"},
    description="Prunes Dagster's runs, ticks and logs that are older than BUFFER_KEEP_RUNS_DAYS. The"
    " books are not touched, no money moves. With `dry_run` it reports what it would prune.",
)
def prune_runs() -> None:
    """Prune in one op."""
    prune_op()


daily_prune: Final = dg.ScheduleDefinition(
    name="daily_prune",
    job=prune_runs,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day at 03:30, between two releases. A day that was missed is made up by the next.",
)
