"""budget: what each account may spend, has spent and has reserved."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from boneagectl import units
from boneagectl.cli import azure, format_budget, options
from boneagectl.errors import MachineError, UsageError
from boneagectl.output import Printer
from boneagectl.targets import NAMES, check_name

app = options.command_group("budget")


class _AtCap(StrEnum):
    STOP = "stop"
    REFUSE = "refuse"


class _Format(StrEnum):
    CSV = "csv"
    JSON = "json"


_NONE = "none"
_USD = typer.Option("--cap-usd", help="Dollars this account may ever spend; 'none' removes the cap.")
_BALANCE = typer.Option(metavar="USD", help="What is left of the Azure credit now.")
_ENDS = typer.Option(metavar="DATE", help="The last day of the Azure credit, e.g. 2027-08-31.")
_ALERT = typer.Option(
    metavar="50,80,95", help="Notify at these percentages of a limit; 'none': only when it is reached."
)
_AT_CAP = typer.Option(help="At a limit, refuse new legs, or also stop running ones.")
_HOURS = typer.Option("--cap-hours", help="Hours its legs may ever take; 'none' removes the cap.")


@app.callback(invoke_without_command=True)
def budget(context: typer.Context, json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Show each account: cap, spent, reserved, free.

    Also asks Kaggle and Azure for their own counts.

    Example: boneagectl budget --json
    """
    from boneagectl import bills

    if context.invoked_subcommand:
        return
    with options.workflow() as flow:
        flow.refresh()
        counts = bills.ask_providers(flow)
        accounts = [flow.ledger.account(name) for name in NAMES]
        quotas = [format_budget.quota_text(name, quota, flow.ledger.account(name))
                  for name, quota in counts.quotas.items()]  # fmt: skip
        theirs = [azure.bill_text(name, bill, flow.ledger.spent_usd_micro(name, bill.since_s))
                  for name, bill in counts.bills.items()]  # fmt: skip
        printer = Printer(json, quiet)
        value = {"accounts": accounts, "quotas": counts.quotas, "bills": counts.bills}
        printer.data(value, "\n\n".join([format_budget.accounts_text(accounts), *quotas, *theirs]))
        _print_errors(printer, counts.errors)


def _print_errors(printer: Printer, errors: dict[str, str]) -> None:
    for name, error in errors.items():
        printer.talk(f"{name}'s own count is not available: {error}")


@app.command("set")
def set_(
    account: Annotated[str | None, typer.Argument(help=f"One of: {', '.join(NAMES)}.")] = None,
    cap_usd: Annotated[str | None, _USD] = None,
    cap_hours: Annotated[str | None, _HOURS] = None,
    azure_balance: Annotated[str | None, _BALANCE] = None,
    azure_credit_ends: Annotated[str | None, _ENDS] = None,
    alert_at: Annotated[str | None, _ALERT] = None,
    at_cap: Annotated[_AtCap | None, _AT_CAP] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Set an account's caps, alerts, or its credit.

    Everything else stays as it is. `watch` notifies and stops, at the terminal and by alert.webhook and alert.command.
    A quota is set by its provider and cannot be changed here. No Azure API returns a student's balance: read it at
    microsoftazuresponsorships.com and enter it here; what is spent from then on is subtracted.

    Example: boneagectl budget set --azure-balance 87.40
    """
    is_credit = azure_balance is not None or azure_credit_ends is not None
    if account is None and not is_credit:
        raise UsageError("no account is named", f"boneagectl budget set NAME, one of {', '.join(NAMES)}")
    if is_credit and account not in (None, "azure"):
        raise UsageError(f"a credit belongs to azure, not to {account}", "boneagectl budget set --azure-balance 87.40")
    account = account or "azure"
    check_name(account)
    with options.workflow() as flow:
        if is_credit:
            left = None if azure_balance is None else units.usd_micro(azure_balance)
            flow.ledger.set_credit(account, left, None if azure_credit_ends is None else _end_s(azure_credit_ends))
        before = flow.ledger.account(account)
        usd_micro, seconds = before.cap_usd_micro, before.cap_s
        if cap_usd is not None:
            usd_micro = None if cap_usd == _NONE else units.usd_micro(cap_usd)
        if cap_hours is not None:
            seconds = None if cap_hours == _NONE else units.parse_hours_s(cap_hours)
        flow.ledger.set_cap(account, usd_micro, seconds)
        shares = before.alert_at if alert_at is None else _parse_shares(alert_at)
        changed = flow.ledger.set_alerts(account, shares, before.at_cap if at_cap is None else str(at_cap))
        Printer(json, quiet).data(changed, format_budget.accounts_text([changed]))


def _end_s(text: str) -> int:
    """The end of that day, in UTC."""
    from datetime import UTC, datetime, timedelta

    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise UsageError(f"{text!r} is not a date", "write it as 2027-08-31") from None
    return int((day + timedelta(days=1)).timestamp()) - 1


def _parse_shares(text: str) -> tuple[int, ...]:
    try:
        shares = {int(part) for part in text.split(",")} if text != _NONE else set()
    except ValueError:
        shares = {0}
    if any(not 0 < share < 100 for share in shares):
        raise UsageError(f"{text!r} are no percentages of a limit", "use whole numbers between 0 and 100: 50,80,95")
    return tuple(sorted(shares))


@app.command("test-alert")
def test_alert() -> None:
    """Send a test alert.

    To alert.webhook and alert.command, as set in boneage.toml, the user's own settings, or BONEAGECTL_ALERT__WEBHOOK,
    which keeps the address out of files. Exits with 3 where it was not delivered.

    Example: boneagectl budget test-alert
    """
    from boneagectl import alerts

    config = options.settings()
    webhook, command = config["alert.webhook"], config["alert.command"]
    if not (webhook or command):
        raise UsageError("neither alert.webhook nor alert.command is set", "boneagectl config")
    text = "boneagectl: test alert"
    if errors := list(alerts.send_alert(webhook, command, {"event": "test", "does": "tell", "text": text})):
        raise MachineError("; ".join(errors))
    Printer().talk("sent")


@app.command()
def reconcile(json: options.Json = False) -> None:
    """Adjust the ledger to the providers' own counts.

    What a provider counts more is added at once. What it counts less is returned once its count must be complete:
    Azure's bill after three days, Kaggle's hours when nothing runs. `budget explain` and `export` show each adjustment.

    Example: boneagectl budget reconcile
    """
    from boneagectl import bills

    with options.workflow() as flow:
        flow.refresh()
        reconciliations, errors = bills.reconcile(flow)
        printer = Printer(json)
        printer.data({"accounts": reconciliations}, format_budget.reconciliations_text(reconciliations))
        _print_errors(printer, errors)


@app.command()
def explain(run: options.RunName, json: options.Json = False) -> None:
    """Show each ledger line of a run.

    The lines add up to what the run costs its accounts now.

    Example: boneagectl budget explain last
    """
    with options.workflow() as flow:
        flow.reconcile()
        run_id = flow.ledger.find_run(run).run_id
        lines = [entry for entry in flow.ledger.entries() if entry.run_id == run_id]
        Printer(json).data({"run_id": run_id, "entries": lines}, format_budget.entries_text(lines))


@app.command()
def export(
    format_: Annotated[_Format, typer.Option("--format", help="What to write.")] = _Format.CSV,
    account: Annotated[str | None, typer.Option("--account", help="Only this account.")] = None,
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
        printer.data({"entries": lines}, format_budget.entries_csv(lines))
