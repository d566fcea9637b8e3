"""The list of all commands: what `--help` shows, and the module of each.

The module of a command is imported only to run the command or to show its help. The lists of commands and the
completion of their names in a shell therefore load nothing else, not even SQLAlchemy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

from typer.core import TyperCommand, TyperGroup
from typer.main import get_group


@dataclass(frozen=True)
class Entry:
    """A command or a group of commands in `buffer_pipeline.cli.<module>`; `help` is its first sentence."""

    module: str
    help: str
    commands: Mapping[str, str] = field(default_factory=dict)
    """For a group: command name -> first sentence of its help."""


COMMANDS: Final[Mapping[str, Entry]] = {
    "dev": Entry(
        "books",
        "Start everything on this machine: PostgreSQL, the books, and Dagster's UI, schedules and sensors.",
    ),
    "hold": Entry(
        "hold",
        "Earnings in the buffer.",
        {
            "add": "Hold an earning until its release date.",
            "import": "Hold the earnings of a CSV file; bad lines are reported, the others are held.",
            "list": "List holds, the oldest first: the amount held, refunded, and left in the buffer.",
            "reschedule": "Move the release date of a hold; the window for a backjob ends at the new date.",
            "show": "Show a hold with its freezes, moves and transactions: what was held, refunded, and is"
            " left in the buffer.",
        },
    ),
    "explain": Entry(
        "explain",
        "Explain why a hold is held or what became of it: since when, until when, and what would release it"
        " earlier.",
    ),
    "release": Entry("release", "Release everything that is due."),
    "release-now": Entry("release", "Release a hold, a part of it, or a job before the release date."),
    "backjob": Entry(
        "backjob",
        "Clients' requests to redo a job, and the decisions on them.",
        {
            "request": "Request a backjob before the release date: it freezes the holds of the job, and later"
            " ones.",
            "approve": "Approve a backjob: the held money goes to the payer.",
            "reject": "Reject a backjob: its holds return to the buffer, BUFFER_COOLDOWN_HOURS longer.",
            "withdraw": "Withdraw a backjob: its holds return to the buffer with unchanged dates.",
            "list": "List backjobs, the oldest first.",
        },
    ),
    "freeze": Entry("freeze", "Freeze a hold: it is not released until the freeze is closed."),
    "unfreeze": Entry(
        "freeze", "Close a freeze; if it is the last one of its hold, the hold returns to the buffer."
    ),
    "freeze-owner": Entry(
        "owner_freeze",
        "Freeze an owner: all holds that wait for them, and each new one, until the owner is unfrozen.",
    ),
    "unfreeze-owner": Entry(
        "owner_freeze",
        "Unfreeze an owner: holds that no other freeze covers return to the buffer with unchanged dates.",
    ),
    "frozen-owners": Entry(
        "owner_freeze",
        "List the owners who are frozen now, the longest first, with the number of their holds.",
    ),
    "refund": Entry(
        "freeze",
        "Refund a frozen hold to its payer, without a backjob, at any time before it is settled.",
    ),
    "claw-back": Entry(
        "claw_back",
        "Take back what a hold has released, from the payee's balance; the rest becomes a debt of the payee.",
    ),
    "debt": Entry(
        "debt",
        "What owners owe after money was taken back.",
        {
            "list": "List debts, the newest first: who owes whom, how much at first, and how much is"
            " outstanding.",
            "forgive": "Write off what is outstanding of a debt, as an admin: its creditor gets it from the"
            " account LOSS.",
            "recover": "Pay an owner's debts from their balance now, the oldest debt first.",
        },
    ),
    "stuck": Entry(
        "freeze",
        "List holds that have been frozen for too long, the longest first, with the amount left in each.",
    ),
    "wallet": Entry(
        "wallet",
        "Owners' money.",
        {
            "show": "Show an owner's balance, pending earnings and debts, one line per currency.",
            "statement": "List an owner's transactions, the oldest first, with the balance after each.",
            "deposit": "Add money from outside to a balance.",
            "withdraw": "Take money out of a balance; pending earnings cannot be withdrawn.",
        },
    ),
    "payout": Entry(
        "payout",
        "Money on its way from balances to bank accounts.",
        {
            "request": "Take an amount, or all of a balance, out of it for a payout.",
            "cancel": "Cancel a payout before it is sent: its money is back in the balance.",
            "list": "List payouts, the newest first.",
            "schedule": "Set when an owner's balances are paid out automatically: every day, on Mondays, on"
            " the first, or not.",
            "request-scheduled": "Request the payouts that owners' schedules have on a day, once for each"
            " balance and day.",
            "destination set": "Set where an owner's payouts go from now on.",
            "destination show": "Show where an owner's payouts go, the account masked.",
            "batch make": "Put what is requested in a currency into a batch.",
            "batch approve": "Approve a batch that somebody else has made.",
            "batch send": "Mark an approved batch as sent; its owners are notified.",
            "batch cancel": "Cancel a batch before it is sent: its payouts wait for the next one.",
            "batch show": "Show a batch: its state, its payouts, their sum, and the files that were written"
            " and imported for it.",
            "export": "Write a sent batch as a file for a bank or a provider.",
            "import-status": "Mark the payouts of a batch as paid or returned, as a status file says.",
        },
    ),
    "audit": Entry(
        "audit", "Who did what, when and why.", {"list": "List who did what and why, the newest first."}
    ),
    "rule": Entry(
        "rule",
        "Terms of holds: how long they wait, and the fee, tax and reserve that are taken.",
        {
            "add": "Add a rule, or the next version of a rule.",
            "list": "List the newest version of each rule, with the number of owners that it is assigned to.",
            "show": "Show a rule.",
            "retire": "Retire a rule: no new hold gets it.",
            "assign": "Record which rule an owner's next earnings have.",
            "unassign": "Record that an owner's next earnings have rule `standard`.",
            "try": "Show the shares that a rule makes of an amount, and their release dates.",
        },
    ),
    "contact": Entry(
        "contact",
        "Owners' locales, time zones and mail addresses.",
        {
            "set": "Set the given values of an owner, and leave the others unchanged.",
            "show": "Show an owner's locale, time zone and address; empty ones follow BUFFER_LOCALE and"
            " BUFFER_TIME_ZONE.",
        },
    ),
    "notifications": Entry(
        "notifications",
        "The messages to owners, and their delivery.",
        {
            "list": "List deliveries, the newest first: one for each notification and endpoint.",
            "drain": "Send the waiting notifications to every endpoint of BUFFER_ENDPOINTS.",
            "replay": "Send dead letters again, as if they had never been tried.",
            "preview": "Show a sample notification as every channel would send it to each of its readers.",
            "test-webhook": "Send one signed sample notification to a URL, and report the answer.",
        },
    ),
    "report": Entry(
        "report", "Compare the last whole day with the fortnight before it, and report the days up to it."
    ),
    "reconcile": Entry("books", "Prove the books: compute every figure again from the transactions."),
    "verify": Entry(
        "verify",
        "Compare the sealed transactions with their seals: name the first that was altered, added or"
        " removed.",
    ),
    "doctor": Entry(
        "doctor", "Report what is wrong with this installation and what to do, one line per check."
    ),
    "metrics": Entry(
        "metrics", "Serve metrics of the books to Prometheus, at /metrics, until Ctrl-C or SIGTERM."
    ),
    "serve": Entry(
        "serve",
        "Serve the HTTP API until Ctrl-C or SIGTERM; what is being answered then is answered to its end.",
    ),
    "api-key": Entry(
        "api_key",
        "Keys of the HTTP API.",
        {
            "create": "Make a key and show it, once: the books keep only its digest.",
            "list": "List the keys, the oldest first, without the keys themselves.",
            "revoke": "Revoke a key: from now on, requests with it are refused.",
        },
    ),
    "clock": Entry(
        "clock",
        "The clock of a sandbox, for tests.",
        {
            "start": "Make empty books a sandbox, whose clock moves only when told; they stay one.",
            "show": "Show the clock of a sandbox.",
            "advance": "Move the clock of a sandbox, and do what would have happened meanwhile, hour by"
            " hour.",
        },
    ),
    "migrate": Entry("books", "Migrate the books to the schema of this version, or create them."),
    "import-legacy": Entry(
        "books", "Import the waiting payments, open backjobs and balances of the Django application."
    ),
    "shadow": Entry("shadow", "Compare what this would have released with what the legacy command released."),
    "simulate": Entry(
        "simulate", "Simulate a marketplace on empty books, hour by hour, and prove the books each day."
    ),
}


class CommandList(TyperGroup):
    """The program, or a group of its commands. It knows their names and help, and loads only what is run."""

    def __init__(self, **options: Any) -> None:
        self._group = COMMANDS.get(options.get("name") or "")
        listed = {name: entry.help for name, entry in COMMANDS.items()}
        if self._group is not None:
            listed = dict(self._group.commands)
        options["commands"] = {name: TyperCommand(name, short_help=words) for name, words in listed.items()}
        # Plain text, because Rich alone takes longer to load than everything else here.
        options["rich_markup_mode"] = None
        super().__init__(**options)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options before the command."""
        if ctx.resilient_parsing:
            # The shell asks for completions, which need no values: converting them would load pydantic.
            _, ctx.args, _ = self.make_parser(ctx).parse_args(args=list(args))
            return list(ctx.args)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first argument names, loaded, and the arguments after it.

        The name of a command can have two words, such as `batch make`.
        """
        if " ".join(args[:2]) in self.commands:
            args = [" ".join(args[:2]), *args[2:]]
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and self.load(args[0]), rest

    def load(self, name: str) -> "TyperCommand | CommandList":
        """Return a command with its options and its function, or another list of commands."""
        entry = self._group or COMMANDS[name]
        if entry is not self._group and entry.commands:
            return CommandList(name=name, help=entry.help)
        module = import_module(f"buffer_pipeline.cli.{entry.module}")
        command = get_group(module.app).commands[name]
        assert isinstance(command, TyperCommand), name
        return command
