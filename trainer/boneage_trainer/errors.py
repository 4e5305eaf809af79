"""The trainer's one error for what a person can mend, and the words for an unknown name."""

from __future__ import annotations

from collections.abc import Iterable


class ContractError(ValueError):
    """A job, config or file breaks the contract; the message says what must hold and what came."""


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """The message for a name that is not one of `known`, with the nearest one named."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(names)}"
