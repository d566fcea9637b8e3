"""`buffer-pipeline rule …`: hold rules, whose they are, and what they make of an amount."""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer

from buffer_pipeline.cli.options import By, Reason
from buffer_pipeline.cli.output import Output, present
from buffer_pipeline.cli.session import one_snapshot, one_transaction
from buffer_pipeline.currencies import coming_in, places_of
from buffer_pipeline.errors import Refused
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.money import Places, format_amount, parse_amount
from buffer_pipeline.rules import (
    HoldRule,
    OnRefund,
    TaxOf,
    WantedRule,
    add_rule,
    assign_rule,
    count_owners,
    find_rules_for,
    list_rules,
    percent_text,
    retire_rule,
    rule_of_settings,
    shares_by_rule,
    show_rule,
    unassign_rule,
)
from buffer_pipeline.shares import PlannedShare, misdated, share_date

app = typer.Typer(rich_markup_mode="markdown")

Name = Annotated[str, typer.Argument(help="The name of the rule.")]
Owner = Annotated[str, typer.Argument(help="The platform's id of the owner.")]
WhoAsks = Annotated[str | None, typer.Option(help="Who asks or decides; stored in the books.")]
WhyItIsAsked = Annotated[str | None, typer.Option(help="The reason; stored in the books.")]
_RULE_COLUMNS: Final = (
    "rule",
    "version",
    "currency",
    "days",
    "min_days",
    "cooldown_hours",
    "max_backjobs",
    "fee",
    "tax",
    "reserve",
    "owners",
    "retired_at",
)
_PERCENTS: Final = ("fee_percent", "tax_percent", "reserve_percent", "recovery_percent")


@app.command("add")
def add(
    context: typer.Context,
    name: Name,
    by: By,
    reason: Reason,
    currency: Annotated[
        str | None, typer.Option(help="ISO 4217; the rule then applies only to earnings in it.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(help="How long an earning is held; default: BUFFER_DAYS.")
    ] = None,
    min_days: Annotated[
        int | None, typer.Option(help="How long an earning is held at least before an early release.")
    ] = None,
    cooldown_hours: Annotated[
        int | None,
        typer.Option(
            help="What a rejected backjob adds to the release date; default: BUFFER_COOLDOWN_HOURS."
        ),
    ] = None,
    max_backjobs: Annotated[
        int | None,
        typer.Option(
            help="How many backjobs of a job may be rejected; default: BUFFER_MAX_BACKJOBS_PER_JOB."
        ),
    ] = None,
    fee_percent: Annotated[
        str | None, typer.Option(help="The fee in percent of the earning, with at most four places.")
    ] = None,
    fee_fixed: Annotated[
        str | None, typer.Option(help="A fixed fee in --currency, alone or beside the percent.")
    ] = None,
    fee_owner: Annotated[str | None, typer.Option(help="Who gets the fee.")] = None,
    fee_on_refund: Annotated[
        OnRefund | None,
        typer.Option(
            case_sensitive=False,
            help="What happens to the fee of a refunded earning; default: return.",
        ),
    ] = None,
    tax_percent: Annotated[str | None, typer.Option(help="The tax in percent of --tax-of.")] = None,
    tax_of: Annotated[
        TaxOf | None,
        typer.Option(case_sensitive=False, help="gross: the earning; net: the earning without the fee."),
    ] = None,
    tax_owner: Annotated[str | None, typer.Option(help="Who gets the tax.")] = None,
    reserve_percent: Annotated[
        str | None, typer.Option(help="How much of what is left for the payee is held longer.")
    ] = None,
    reserve_days: Annotated[int | None, typer.Option(help="How long the reserve is held.")] = None,
    recovery_percent: Annotated[
        str | None,
        typer.Option(help="How much of what is released may pay the payee's debts; default: 100."),
    ] = None,
) -> None:
    """Add a rule, or the next version of a rule. A term that is left out is not set.

    Example: `buffer-pipeline rule add marketplace --fee-percent 12 --fee-owner shop --fee-on-refund keep
    --by admin-1 --reason "terms of 2026"`
    """
    output: Output = context.obj
    with one_transaction() as (connection, settings, now):
        done = add_rule(
            connection,
            name=name,
            by=by,
            reason=reason,
            now=now,
            currency=currency,
            days=days,
            min_days=min_days,
            cooldown_hours=cooldown_hours,
            max_backjobs=max_backjobs,
            fee_percent=fee_percent,
            fee_fixed=fee_fixed,
            fee_owner=fee_owner,
            fee_on_refund=fee_on_refund,
            tax_percent=tax_percent,
            tax_of=tax_of,
            tax_owner=tax_owner,
            reserve_percent=reserve_percent,
            reserve_days=reserve_days,
            recovery_percent=recovery_percent,
            policy=settings.policy,
        )
    output.answer(
        {"rule": done.name, "version": done.version},
        text=f"Rule {done.name}: version {done.version} is added.",
    )


@app.command("list")
def list_(
    context: typer.Context,
    owner: Annotated[
        str | None, typer.Option(help="Only the rule that applies to this owner's earnings.")
    ] = None,
) -> None:
    """List the newest version of each rule, with the number of owners that it is assigned to.

    Example: `buffer-pipeline rule list` or `buffer-pipeline rule list --owner worker-17`
    """
    output: Output = context.obj
    with one_snapshot() as (connection, settings, _now):
        rules = list_rules(connection, policy=settings.policy)
        if owner is not None:
            (found,) = find_rules_for(connection, [WantedRule(None, owner, None)])
            if isinstance(found, Refused):
                raise found
            rules = [found or rule_of_settings(settings.policy)]
        owners = count_owners(connection, [rule.name for rule in rules])
        places = places_of(connection)
    rows = [{**_document(rule, places), "owners": owners.get(rule.name, 0)} for rule in rules]
    if not output.as_json:
        rows = [{**row, **_summary(row)} for row in rows]
    output.table(rows, columns=_RULE_COLUMNS, empty="No rules.")


@app.command("show")
def show(
    context: typer.Context,
    name: Name,
    version: Annotated[int | None, typer.Option(help="A version; default: the newest one.")] = None,
) -> None:
    """Show a rule. `standard` has the settings' defaults, unless a rule with this name was added.

    Example: `buffer-pipeline rule show marketplace --version 1`
    """
    output: Output = context.obj
    with one_snapshot() as (connection, settings, _now):
        found = show_rule(connection, name=name, version=version, policy=settings.policy)
        owners = count_owners(connection, [name]).get(name, 0)
        document = {**_document(found, places_of(connection)), "owners": owners}
    output.answer(document)


@app.command("retire")
def retire(context: typer.Context, name: Name, by: WhoAsks = None, reason: WhyItIsAsked = None) -> None:
    """Retire a rule: no new hold gets it. It must not be assigned to an owner.

    Example: `buffer-pipeline rule retire marketplace --by admin-1 --reason "replaced"`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = retire_rule(connection, name=name, by=by, reason=reason, now=now)
    output.answer(
        {"rule": done.name, "version": done.version, "retired_at": present(done.retired_at)},
        text=f"Rule {done.name} is retired.",
    )


@app.command("assign")
def assign(
    context: typer.Context, owner: Owner, name: Name, by: WhoAsks = None, reason: WhyItIsAsked = None
) -> None:
    """Record which rule an owner's next earnings have.

    Example: `buffer-pipeline rule assign worker-17 marketplace --by admin-1 --reason "contract of May"`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = assign_rule(connection, owner=owner, name=name, by=by, reason=reason, now=now)
    output.answer(present(asdict(done)), text=f"Owner {done.owner} has rule {done.rule} from now on.")


@app.command("unassign")
def unassign(context: typer.Context, owner: Owner, by: WhoAsks = None, reason: WhyItIsAsked = None) -> None:
    """Record that an owner's next earnings have rule `standard`.

    Example: `buffer-pipeline rule unassign worker-17 --by admin-1 --reason "contract ended"`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = unassign_rule(connection, owner=owner, by=by, reason=reason, now=now)
    output.answer(present(asdict(done)), text=f"Owner {done.owner} has no rule of their own from now on.")


@app.command("try")
def try_(
    context: typer.Context,
    name: Name,
    amount: Annotated[str, typer.Option(help="In the currency's major unit, such as 1250.50.")],
    currency: Annotated[str, typer.Option(help="ISO 4217, such as PHP.")],
    held_at: Annotated[
        str | None, typer.Option(help="When the hold would begin (ISO 8601); default: now.")
    ] = None,
    payee: Annotated[str, typer.Option(help="The owner who would earn.")] = "payee",
) -> None:
    """Show the shares that a rule makes of an amount, and their release dates. Nothing is written.

    Example: `buffer-pipeline rule try marketplace --amount 1250.50 --currency PHP`
    """
    output: Output = context.obj
    with one_snapshot() as (connection, settings, now):
        known = places_of(connection)
        places = coming_in(known, currency)
        amount_minor = parse_amount(amount, currency, places)
        (found,) = find_rules_for(connection, [WantedRule(name, payee, currency)])
    if isinstance(found, Refused):
        raise found
    rule = found or rule_of_settings(settings.policy)
    began = now if held_at is None else parse_time("held_at", held_at)
    release_date = began + timedelta(days=rule.policy(settings.policy).buffer_days)
    shares = [
        _share(share, places, held_at=began, release_date=release_date)
        for share in shares_by_rule(rule, amount_minor=amount_minor, payee=payee)
    ]
    if output.as_json:
        output.answer({"rule": rule.name, "version": rule.version, "shares": shares})
        return
    output.table(shares, columns=("kind", "owner", "amount", "release_date"), empty="")


def _share(share: PlannedShare, places: int, *, held_at: datetime, release_date: datetime) -> dict[str, Any]:
    date = share_date(share, held_at=held_at, release_date=release_date)
    if refusal := misdated(share, held_at=held_at, release_date=date):
        raise refusal
    return {
        "kind": share.kind,
        "owner": share.owner,
        "amount": format_amount(share.amount_minor, places),
        "release_date": present(date),
    }


def _document(rule: HoldRule, places: Places) -> dict[str, Any]:
    """Return a rule for JSON; its percents are text, as its amounts are."""
    fields = asdict(rule)
    del fields["rule_id"]
    for name in _PERCENTS:
        if fields[name] is not None:
            fields[name] = percent_text(fields[name])
    # Without a currency there is no fixed fee, and `present` keeps its name.
    renamed = {"name": "rule", "fee_fixed_minor": "fee_fixed"}
    return {renamed.get(name, name): value for name, value in present(fields, places).items()}


def _summary(row: dict[str, Any]) -> dict[str, str | None]:
    """Return the fee, the tax and the reserve of a rule in words, for a table."""
    percent = row["fee_percent"] and f"{row['fee_percent']} %"
    fixed = row["fee_fixed"] and f"{row['fee_fixed']} {row['currency']}"
    amount = " + ".join(part for part in (percent, fixed) if part)
    return {
        "fee": f"{amount} to {row['fee_owner']}, {row['fee_on_refund']}" if amount else None,
        "tax": row["tax_percent"] and f"{row['tax_percent']} % of {row['tax_of']} to {row['tax_owner']}",
        "reserve": row["reserve_percent"] and f"{row['reserve_percent']} % for {row['reserve_days']} days",
    }
