"""budget: what each account may spend, has spent and has promised."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from boneagectl import units
from boneagectl.cli import options, present, present_azure
from boneagectl.errors import UsageError
from boneagectl.output import Printer
from boneagectl.targets import NAMES, check_name

app = typer.Typer(
    name="budget",
    help="Show what is spent and reserved; set the caps.",
    rich_markup_mode=None,
    add_completion=False,
)


class _Format(StrEnum):
    CSV = "csv"
    JSON = "json"


_NO_CAP = "none"
_USD = typer.Option("--cap-usd", help="Dollars this account may ever cost; 'none' lifts the cap.")
_BALANCE = typer.Option(metavar="USD", help="What the portal says is left of the Azure credit now.")
_ENDS = typer.Option(metavar="DATE", help="The last day of the Azure credit, e.g. 2027-08-31.")
_HOURS = typer.Option("--cap-hours", help="Hours its legs may ever take; 'none' lifts the cap.")


@app.callback(invoke_without_command=True)
def budget(context: typer.Context, json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Show each account: cap, spent, reserved, free.

    What Kaggle and Azure count themselves stands beside our own count.

    Example: boneagectl budget --json
    """
    if context.invoked_subcommand:
        return
    with options.workflow() as flow:
        flow.refresh()
        counts = flow.own_counts()
        accounts = [flow.ledger.account(name) for name in NAMES]
        texts = ["\n".join([present.accounts_table(accounts), *present.account_notes(accounts)])]
        texts += [present.quota_text(name, quota, flow.ledger.account(name)) for name, quota in counts.quotas.items()]
        texts += [
            present_azure.bill_text(name, bill, flow.ledger.spent_usd_micro(name, bill.since_s))
            for name, bill in counts.bills.items()
        ]
        printer = Printer(json, quiet)
        value = {"accounts": accounts, "quotas": counts.quotas, "bills": counts.bills}
        printer.data(value, "\n\n".join(texts))
        for name, trouble in counts.troubles.items():
            printer.talk(f"{name}'s own count cannot be asked for: {trouble}")


@app.command("set")
def set_(
    account: Annotated[str | None, typer.Argument(help=f"One of: {', '.join(NAMES)}.")] = None,
    cap_usd: Annotated[str | None, _USD] = None,
    cap_hours: Annotated[str | None, _HOURS] = None,
    azure_balance: Annotated[str | None, _BALANCE] = None,
    azure_credit_ends: Annotated[str | None, _ENDS] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Set an account's caps, or what is left of a credit.

    What is not named stays as it is. No Azure API tells a student's balance: read it at
    microsoftazuresponsorships.com and type it in; what is spent from then on is subtracted.

    Example: boneagectl budget set --azure-balance 87.40
    """
    is_credit = azure_balance is not None or azure_credit_ends is not None
    account = _which(account, is_credit)
    with options.workflow() as flow:
        if is_credit:
            left = None if azure_balance is None else units.usd_micro(azure_balance)
            flow.ledger.set_credit(account, left, None if azure_credit_ends is None else _end_s(azure_credit_ends))
        now = flow.ledger.account(account)
        usd = now.cap_usd_micro if cap_usd is None else _usd_micro(cap_usd)
        hours_s = now.cap_s if cap_hours is None else _seconds(cap_hours)
        changed = flow.ledger.set_cap(account, usd, hours_s)
        Printer(json, quiet).data(
            changed, "\n".join([present.accounts_table([changed]), *present.account_notes([changed])])
        )


def _which(account: str | None, is_credit: bool) -> str:
    if account is None and not is_credit:
        raise UsageError("which account?", f"boneagectl budget set NAME, one of {', '.join(NAMES)}")
    if is_credit and account not in (None, "azure"):
        raise UsageError(f"a credit belongs to azure, not to {account}", "boneagectl budget set --azure-balance 87.40")
    check_name(account or "azure")
    return account or "azure"


def _end_s(text: str) -> int:
    """The end of that day, in UTC."""
    from datetime import UTC, datetime, timedelta

    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise UsageError(f"{text!r} is not a date", "write it as 2027-08-31") from None
    return int((day + timedelta(days=1)).timestamp()) - 1


def _usd_micro(text: str) -> int | None:
    return None if text == _NO_CAP else units.usd_micro(text)


def _seconds(text: str) -> int | None:
    return None if text == _NO_CAP else units.parse_hours_s(text)


@app.command()
def explain(run: options.RunName, json: options.Json = False) -> None:
    """Tell line by line what a run has booked and paid.

    The lines add up to what it costs its accounts now.

    Example: boneagectl budget explain last
    """
    with options.workflow() as flow:
        flow.reconcile()
        run_id = flow.ledger.find_run(run).run_id
        lines = [entry for entry in flow.ledger.entries() if entry.run_id == run_id]
        Printer(json).data({"run_id": run_id, "entries": lines}, present.entries_text(lines))


@app.command()
def export(
    format_: Annotated[_Format, typer.Option("--format", help="What to write.")] = _Format.CSV,
    account: Annotated[str | None, typer.Option("--account", help="Only this one.")] = None,
) -> None:
    """Print the whole ledger, line by line.

    Example: boneagectl budget export --format csv > ledger.csv
    """
    if account:
        check_name(account)
    with options.workflow() as flow:
        flow.reconcile()
        lines = [entry for entry in flow.ledger.entries() if account in (None, entry.account)]
        printer = Printer(json=format_ is _Format.JSON)
        printer.data({"entries": lines}, present.entries_csv(lines))
