"""Which method of the Azure emulator answers which request, and what takes its time."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from emulators.azure_wire import Answer, Problem, Reply, Request

ARM = "https://management.azure.com"
GROUP = "/subscriptions/{s}/resourceGroups/{group}"
WORKSPACE = f"{GROUP}/providers/Microsoft.MachineLearningServices/workspaces/{{workspace}}"
Work = TypeVar("Work", bound=Callable[..., Any])


def route(verb: str, pattern: str) -> Callable[[Work], Work]:
    """Marks what answers: ``{name}`` is one part of the path and an argument, ``{name...}`` all that follows."""

    def mark(work: Work) -> Work:
        work.__dict__.setdefault("routes", []).append((verb, pattern))
        return work

    return mark


class Routes:
    """All that several objects answer; the first that fits does."""

    def __init__(self, *answering: object) -> None:
        self._all = [
            (verb, _compiled(pattern), getattr(one, name))
            for one in answering
            for name in vars(type(one))
            for verb, pattern in getattr(vars(type(one))[name], "__dict__", {}).get("routes", [])
        ]

    def answer(self, request: Request) -> Answer:
        verbs = []
        for verb, pattern, work in self._all:
            found = pattern.fullmatch(request.path)
            if found and verb == request.verb:
                answer: Answer = work(request, **found.groupdict())
                return answer
            if found:
                verbs.append(verb)
        if verbs:
            raise Problem(405, "MethodNotAllowed", f"{request.path} knows {', '.join(verbs)}, not {request.verb}.")
        raise Problem(404, "NotFound", f"The emulator has no {request.verb} {request.path}")


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+(?:\.\.\.)?\})", pattern)
    return re.compile("".join(_part(part) for part in parts), re.I)


def _part(text: str) -> str:
    if not text.startswith("{"):
        return re.escape(text)
    name = text.strip("{.}")
    return f"(?P<{name}>.+)" if text.endswith("...}") else f"(?P<{name}>[^/]+)"


@dataclass
class Operation:
    """`work` is done when it is due and ready; its answer, or its Problem, is the result."""

    due_s: float
    work: Callable[[], Any]
    is_ready: Callable[[], bool] = lambda: True
    number: str = field(default_factory=lambda: secrets.token_hex(16))
    result: Any = None
    problem: Problem | None = None
    is_done: bool = False

    def look(self) -> bool:
        if not self.is_done and time.monotonic() >= self.due_s and self.is_ready():
            self.is_done = True
            try:
                self.result = self.work()
            except Problem as problem:
                self.problem = problem
        return self.is_done


class Operations:
    """Long-running operations, with a status at an Azure-AsyncOperation address or at a Location."""

    def __init__(self, subscription: str) -> None:
        self.base, self.retry_after, self.arm_url = f"/subscriptions/{subscription}/providers/", "1", ARM
        self._all: dict[str, Operation] = {}

    def start(self, work: Callable[[], Any], after_s: float, is_ready: Callable[[], bool] = lambda: True) -> Operation:
        made = Operation(time.monotonic() + after_s, work, is_ready)
        self._all[made.number] = made
        return made

    @property
    def pace(self) -> dict[str, str]:
        """Whole seconds, as Azure sends; azure-core honours milliseconds only where there are no seconds."""
        text = self.retry_after
        return {"retry-after-ms": text[:-2]} if text.endswith("ms") else {"Retry-After": text}

    def tick(self) -> None:
        for one in list(self._all.values()):
            one.look()

    def async_headers(self, made: Operation, place: str) -> dict[str, str]:
        """`place` is like Microsoft.MachineLearningServices/locations/westeurope/computeOperationsStatus."""
        url = f"{self.arm_url}{self.base}{place}/{made.number}?api-version=2023-04-01"
        return {"Azure-AsyncOperation": url, **self.pace}

    def location_headers(self, made: Operation, place: str = "Microsoft.Resources/operationresults") -> dict[str, str]:
        url = f"{self.arm_url}{self.base}{place}/{made.number}?api-version=2023-04-01"
        return {"Location": url, **self.pace}

    @route("GET", "/subscriptions/{s}/providers/{space}/locations/{region}/{kind}/{number}")
    def get_located(self, request: Request, s: str, space: str, region: str, kind: str, number: str) -> Answer:
        return self._status(request, number, kind.lower().endswith("results"))

    @route("GET", "/subscriptions/{s}/providers/Microsoft.Resources/operationresults/{number}")
    def get_result(self, request: Request, s: str, number: str) -> Answer:
        return self._status(request, number, True)

    def _status(self, request: Request, number: str, is_location: bool) -> Answer:
        one = self._all.get(number)
        if one is None:
            raise Problem(404, "OperationNotFound", "There is no such operation.")
        headers = {"Location": f"{ARM}{request.target}", **self.pace} if is_location else {}
        if not one.look():
            pace = self.pace
            return Reply(202, None, headers) if is_location else Reply(200, {"status": "InProgress"}, pace)
        said = {"id": request.path, "name": number, "status": "Failed" if one.problem else "Succeeded"}
        if one.problem:
            if is_location:
                raise one.problem
            return Reply(200, {**said, "error": one.problem.error})
        if is_location:
            return Reply(200, one.result) if one.result is not None else Reply(204)
        return Reply(200, {**said, **({"properties": one.result} if one.result is not None else {})})
