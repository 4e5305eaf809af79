"""budget: what each account may spend, has spent and has promised."""

from __future__ import annotations

from typing import Annotated

import typer

from boneagectl import units
from boneagectl.cli import options, present
from boneagectl.output import Printer
from boneagectl.targets import NAMES, check_name

app = typer.Typer(
    name="budget",
    help="Show what is spent and reserved; set the caps.",
    rich_markup_mode=None,
    add_completion=False,
)

_NO_CAP = "none"
_USD = typer.Option("--cap-usd", help="Dollars this account may ever cost; 'none' lifts the cap.")
_HOURS = typer.Option("--cap-hours", help="Hours its legs may ever take; 'none' lifts the cap.")


@app.callback(invoke_without_command=True)
def budget(context: typer.Context, json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Show each account: cap, spent, reserved, free.

    Kaggle's weekly GPU hours stand beside our own count of them.

    Example: boneagectl budget --json
    """
    if context.invoked_subcommand:
        return
    with options.workflow() as flow:
        flow.refresh()
        quotas, troubles = flow.quotas()
        accounts = [flow.ledger.account(name) for name in NAMES]
        tables = [present.accounts_table(accounts)]
        tables += [present.quota_text(name, quota, flow.ledger.account(name)) for name, quota in quotas.items()]
        printer = Printer(json, quiet)
        printer.data({"accounts": accounts, "quotas": quotas}, "\n\n".join(tables))
        for name, trouble in troubles.items():
            printer.talk(f"{name}'s own count cannot be asked for: {trouble}")


@app.command("set")
def set_(
    account: Annotated[str, typer.Argument(help=f"One of: {', '.join(NAMES)}.")],
    cap_usd: Annotated[str | None, _USD] = None,
    cap_hours: Annotated[str | None, _HOURS] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Set an account's caps; one that is not named stays as it is.

    Example: boneagectl budget set local --cap-hours 20
    """
    check_name(account)
    with options.workflow() as flow:
        now = flow.ledger.account(account)
        usd = now.cap_usd_micro if cap_usd is None else _usd_micro(cap_usd)
        hours_s = now.cap_s if cap_hours is None else _seconds(cap_hours)
        changed = flow.ledger.set_cap(account, usd, hours_s)
        Printer(json, quiet).data(changed, present.accounts_table([changed]))


def _usd_micro(text: str) -> int | None:
    return None if text == _NO_CAP else units.usd_micro(text)


def _seconds(text: str) -> int | None:
    return None if text == _NO_CAP else units.parse_hours_s(text)
