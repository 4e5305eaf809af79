"""The Colab emulator's session backend: runtimes assigned and released, what they cost, and what ends them."""

from __future__ import annotations

import json
import math
import secrets
import threading
from typing import TYPE_CHECKING, Any

from emulators.colab_login import SCOPE
from emulators.colab_vms import GPUS, Kind, Vm
from emulators.colab_wire import XSSI, Answer, Problem, Reply, Request

if TYPE_CHECKING:
    from emulators.colab import Colab

_LOOK_S = 0.05
_TPUS = ("V5E1", "V6E1")
_KNOWN = ("NONE", *GPUS, *_TPUS)
_XSRF = "X-Goog-Colab-Token"


class Vms(dict[str, Vm]):
    """All runtimes, also ended ones, by endpoint."""

    @property
    def alive(self) -> list[Vm]:
        return [vm for vm in list(self.values()) if vm.is_alive]

    def opened_by(self, request: Request) -> Vm:
        """The runtime that the request's host names, if the token is valid for it; an ended one is not found."""
        vm = next((vm for vm in list(self.values()) if vm.host == request.host), None)
        if vm is None or not vm.is_alive:
            raise Problem(404)
        vm.check(request.proxy_token)
        return vm


class Backend:
    """Answers under /tun/m and /v1."""

    def __init__(self, colab: Colab) -> None:
        self.colab = colab
        self._xsrf: dict[str, str] = {}

    def answer(self, request: Request) -> Answer:
        if SCOPE + "userinfo.email" not in self.colab.login.scopes(request):
            raise Problem(403, "insufficientScope", "Request had insufficient authentication scopes.")
        parts = request.path.split("/")
        if parts == ["v1", "user-info"] and request.verb == "GET":
            return _said(self._user_info())
        work = getattr(self, f"_{request.verb.lower()}_{parts[2].replace('-', '_')}", None) if len(parts) > 2 else None
        if parts[:2] != ["tun", "m"] or work is None:
            raise Problem(404)
        found: Answer = work(request)
        return found

    # ------------------------------------------------------------------------------ machines
    def _get_assign(self, request: Request) -> Answer:
        notebook = request.query.get("nbh", "")
        if len(notebook) != 44:
            raise Problem(400, "", "nbh is not a notebook's hash.")
        if vm := self._of(notebook):
            return _said(self._told(vm))
        kind = _kind(request)
        self._xsrf[notebook] = token = f"SECRET-xsrf-{secrets.token_hex(8)}"
        return _said({"acc": kind.accelerator, "nbh": notebook, "p": False, "token": token, "variant": kind.variant})

    def _post_assign(self, request: Request) -> Answer:
        notebook, colab = request.query.get("nbh", ""), self.colab
        self._check_xsrf(request, notebook)
        if vm := self._of(notebook):
            return _said(self._told(vm))
        kind = _kind(request)
        self._check_entitled(kind)
        if colab.outcome:
            return _said({"outcome": colab.outcome})
        used_up = colab.tier == "free" and self.free_units_left() <= 0
        if colab.no_capacity or used_up or len(colab.vms.alive) >= colab.most_sessions:
            raise Problem(412)
        vm = Vm(colab, notebook, kind)
        colab.vms[vm.endpoint] = vm
        return _said(self._told(vm))

    def _check_entitled(self, kind: Kind) -> None:
        allowed = self.colab.gpus[self.colab.tier]
        if kind.variant != "DEFAULT" and kind.accelerator not in allowed:
            raise Problem(400, "", f"The accelerator {kind.accelerator} is not available to this account.")
        if kind.is_high_memory and self.colab.tier == "free":
            raise Problem(400, "", "High-RAM machines are not available to this account.")

    def _get_assignments(self, request: Request) -> Answer:
        return _said({"assignments": [self._told(vm) for vm in self.colab.vms.alive]})

    def _get_unassign(self, request: Request) -> Answer:
        endpoint = self._endpoint(request)
        self._xsrf[endpoint] = token = f"SECRET-xsrf-{secrets.token_hex(8)}"
        return _said({"token": token})

    def _post_unassign(self, request: Request) -> Answer:
        endpoint = self._endpoint(request)
        self._check_xsrf(request, endpoint)
        self.colab.vms[endpoint].end("unassigned")
        return Reply(204)

    def _endpoint(self, request: Request) -> str:
        endpoint = request.path.rpartition("/")[2]
        if endpoint not in [vm.endpoint for vm in self.colab.vms.alive]:
            raise Problem(404)
        return endpoint

    def _check_xsrf(self, request: Request, place: str) -> None:
        """Each token is valid once, for the path it was issued for."""
        given = request.headers.get(_XSRF, "")
        if not given or self._xsrf.pop(place, None) != given:
            raise Problem(403, "xsrf", "The XSRF token is missing or not valid.")

    def _of(self, notebook: str) -> Vm | None:
        return next((vm for vm in self.colab.vms.alive if vm.notebook == notebook), None)

    def _told(self, vm: Vm) -> dict[str, Any]:
        idle_s = {} if math.isinf(self.colab.idle_s) else {"fit": int(self.colab.idle_s)}
        return {**vm.kind.said, "endpoint": vm.endpoint, **idle_s, "runtimeProxyInfo": vm.new_token()}

    # --------------------------------------------------------------------------------- money
    def spent_units(self) -> float:
        """The units used by all runtimes, running or ended."""
        now_s, vms = self.colab.now_s(), list(self.colab.vms.values())
        ends_s = [now_s if vm.ended_s is None else vm.ended_s for vm in vms]
        return sum(self._rate(vm) * (end_s - vm.started_s) / 3600 for vm, end_s in zip(vms, ends_s, strict=True))

    def free_units_left(self) -> float:
        return max(0.0, self.colab.free_units - self.spent_units())

    def _rate(self, vm: Vm) -> float:
        return self.colab.rates[vm.kind.accelerator]

    def _get_ccu_info(self, request: Request) -> Answer:
        allowed = self.colab.gpus[self.colab.tier]
        lists = {}
        for word, known in (("Gpus", tuple(GPUS)), ("Tpus", _TPUS)):
            lists[f"eligible{word}"] = [one for one in known if one in allowed]
            lists[f"ineligible{word}"] = [one for one in known if one not in allowed]
        return _said({"currentBalance": self._balance(), **self._use(), **lists})

    def _user_info(self) -> dict[str, Any]:
        allowed = self.colab.gpus[self.colab.tier]
        tier = {"free": "NONE", "pro": "PRO", "pro+": "PRO_PLUS"}[self.colab.tier]
        lists = {}
        for word, is_allowed in (("eligibleAccelerators", True), ("ineligibleAccelerators", False)):
            models = [one for one in GPUS if (one in allowed) is is_allowed]
            lists[word] = [{"variant": "VARIANT_GPU", "models": models}]
        return {"subscriptionTier": f"SUBSCRIPTION_TIER_{tier}", "paidComputeUnitsBalance": self._balance(),
                **self._use(), **lists}  # fmt: skip

    def _balance(self) -> float:
        return 0.0 if self.colab.tier == "free" else max(0.0, self.colab.balance_units - self.spent_units())

    def _use(self) -> dict[str, Any]:
        alive = self.colab.vms.alive
        said: dict[str, Any] = {"consumptionRateHourly": sum(map(self._rate, alive)), "assignmentsCount": len(alive)}
        if self.colab.tier == "free":
            milli, refill_s = int(self.free_units_left() * 1000), int(self.colab.now_s()) + 86400
            said["freeCcuQuotaInfo"] = {"remainingTokens": str(milli), "nextRefillTimestampSec": refill_s}
        return said


class Warden(threading.Thread):
    """Ends runtimes that are too old, or idle for too long, by the emulator's clock."""

    def __init__(self, colab: Colab) -> None:
        super().__init__(daemon=True)
        self.colab, self._over = colab, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(_LOOK_S):
            for vm in self.colab.vms.alive:
                self._look(vm)

    def close(self) -> None:
        self._over.set()
        self.join()

    def _look(self, vm: Vm) -> None:
        now_s, colab = self.colab.now_s(), self.colab
        if now_s - vm.started_s > colab.session_s:
            vm.end("age")
        elif now_s - vm.active_s > colab.idle_s / 4 and vm.is_busy():
            vm.active_s = now_s
        elif now_s - vm.active_s > colab.idle_s:
            vm.end("idle")


def _kind(request: Request) -> Kind:
    variant, accelerator = request.query.get("variant", "DEFAULT"), request.query.get("accelerator", "NONE")
    if variant not in ("DEFAULT", "GPU", "TPU") or accelerator not in _KNOWN:
        raise Problem(400, "", f"There is no {variant} {accelerator}.")
    return Kind(variant, accelerator, request.query.get("shape") == "hm")


def _said(body: dict[str, Any]) -> Reply:
    return Reply(200, XSSI + json.dumps(body).encode(), {"Content-Type": "application/json; charset=utf-8"})
