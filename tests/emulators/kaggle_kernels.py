"""The Kaggle emulator's kernels: saves that start sessions, their state, outputs and logs, and the GPU quota."""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulators.kaggle_datasets import describe, find_below, zip_once
from emulators.kaggle_sessions import LONGEST_S, Fate, Kernel, Machine, Session, Version
from emulators.kaggle_wire import Answer, Live, Problem, Reply, page_of, redirect, refusal

if TYPE_CHECKING:
    from emulators.kaggle import Kaggle

TOO_LARGE = "The kernel source must be less than 1 megabytes in size."
LARGEST_BYTES = 1_000_000
AT_ONCE = {"GPU": 2, "CPU": 5}
RETIRED = {"NvidiaTeslaP100": "NvidiaTeslaT4", "TpuV38": "TpuV5E8"}


class Kernels(dict[str, Kernel]):
    """All kernels by slug, and the calls about them."""

    def __init__(self, kaggle: Kaggle) -> None:
        super().__init__()
        self.kaggle, self.deleted, self.ids = kaggle, set[str](), itertools.count(7)
        self.all_sessions: list[Session] = []  # the deleted kernels' too: they were billed

    # --------------------------------------------------------------------------------- saves
    def save_kernel(self, body: dict[str, Any]) -> dict[str, Any]:
        slug, title = self._slug_of(body)
        self._check(body)
        is_run = body.get("kernelExecutionType", "SAVE_AND_RUN_ALL") == "SAVE_AND_RUN_ALL"
        if is_run and (no := self._why_not(shape_of(body))):
            return refusal(no)
        if slug not in self:
            self[slug] = Kernel(slug, next(self.ids), title)
        kernel = self[slug]
        version = Version(len(kernel.versions) + 1, body)
        kernel.versions.append(version)
        self.deleted.discard(slug)
        mounts, unknown = self._mounts(body)
        if is_run:
            version.session = self._start(version, mounts)
        ref = f"{self.kaggle.owner}/{slug}"
        known = {"ref": f"/code/{ref}", "url": f"https://www.kaggle.com/code/{ref}", "error": ""}
        return {**known, "versionNumber": version.number, "kernelId": kernel.kernel_id, "invalidTags": [], **unknown}

    def _slug_of(self, body: dict[str, Any]) -> tuple[str, str]:
        """The slug a save goes to; Kaggle makes it from the title, so both must say the same."""
        known = [kernel for kernel in self.values() if kernel.kernel_id == body.get("id")]
        owner, _, slug = str(body.get("slug") or "").partition("/")
        if known:
            owner, slug = self.kaggle.owner, known[0].slug
        if owner != self.kaggle.owner:
            raise Problem(403, "Permission 'kernels.update' was denied")
        title = str(body.get("newTitle") or (self[slug].title if slug in self else ""))
        if len(title) < 5 or slugify(title) != slug:
            raise Problem(400, f"The title {title!r} does not resolve to {slug!r}.")
        return slug, title

    def _check(self, body: dict[str, Any]) -> None:
        if len(str(body.get("text", "")).encode()) >= LARGEST_BYTES:
            raise Problem(400, TOO_LARGE)
        if (body.get("language"), body.get("kernelType")) != ("python", "script"):
            raise Problem(400, "The emulator runs Python scripts only.")

    def _why_not(self, shape: str) -> str:
        """Why no session can start now, in Kaggle's words; empty if one can."""
        kind = "GPU" if is_gpu(shape) else "CPU"
        quota, total_s = self.quota(), self.kaggle.quota_total_s
        if kind == "GPU" and quota["used"] >= total_s:
            return f"Maximum weekly GPU quota of {total_s / 3600:.2f} hours reached."
        same = [one for one in self.all_sessions if not one.is_over and one.machine.is_gpu == (kind == "GPU")]
        if len(same) >= AT_ONCE[kind]:
            return f"Maximum batch {kind} session count of {AT_ONCE[kind]} reached."
        if kind == "GPU" and quota["used"] + quota["reserved"] >= total_s:
            return (
                "Session cannot start because currently running sessions are projected to exceed "
                f"maximum weekly GPU quota of {total_s / 3600:g}."
            )
        return ""

    def _mounts(self, body: dict[str, Any]) -> tuple[dict[str, Path], dict[str, list[str]]]:
        """Folders by their place below /kaggle/input, and the names that mean nothing, which stop no save."""
        kinds = {"dataset": self.kaggle.datasets.attachable, "kernel": self._attachable}
        mounts: dict[str, Path] = {}
        unknown = {
            "invalidCompetitionSources": body.get("competitionDataSources", []),
            "invalidModelSources": body.get("modelDataSources", []),
        }
        for kind, find in kinds.items():
            found = {source: find(source) for source in body.get(f"{kind}DataSources", [])}
            unknown[f"invalid{kind.title()}Sources"] = [source for source, folder in found.items() if not folder]
            mounts |= {self._place(kind, source): folder for source, folder in found.items() if folder}
        return mounts, unknown

    def _place(self, kind: str, source: str) -> str:
        owner, slug, *_ = source.split("/")
        return slug if self.kaggle.old_mounts else f"{'datasets' if kind == 'dataset' else 'notebooks'}/{owner}/{slug}"

    def _attachable(self, source: str) -> Path | None:
        """What the last complete session of owner/slug left."""
        owner, _, slug = source.partition("/")
        if owner != self.kaggle.owner or slug.partition("/")[0] not in self:
            return None
        done = [one for one in self[slug.partition("/")[0]].sessions if one.status == "COMPLETE"]
        return done[-1].working if done else None

    def _start(self, version: Version, mounts: dict[str, Path]) -> Session:
        shape, asked_s = shape_of(version.request), version.request.get("sessionTimeoutSeconds")
        gpus = self.kaggle.gpus if is_gpu(shape) else 0
        limit_s = min(LONGEST_S, float(asked_s or LONGEST_S))
        keeps, environment = self.kaggle.error_keeps_outputs, dict(os.environ)
        machine = Machine(self.kaggle.python, mounts, gpus, is_gpu(shape), limit_s, keeps, environment)
        number, queued_until_s = len(self.all_sessions) + 1, time.monotonic() + self.kaggle.queue_s

        def is_stuck() -> bool:
            return self.kaggle.stuck_in_queue or time.monotonic() < queued_until_s

        folder = self.kaggle.root / "sessions" / str(number)
        session = Session(number, folder, version.source, machine, is_stuck)
        self.all_sessions.append(session)
        session.thread.start()
        return session

    # --------------------------------------------------------------------------------- state
    def find(self, owner: object, slug: object, label: object = "") -> tuple[Kernel, Version]:
        """A version by its label ``v3``, the latest one without."""
        if owner != self.kaggle.owner or slug not in self:
            raise Problem(404 if slug in self.deleted else 403)
        kernel, number = self[str(slug)], re.fullmatch(r"v(\d+)", str(label or ""))
        if not label:
            return kernel, kernel.latest
        if not number or not 1 <= int(number[1]) <= len(kernel.versions):
            raise Problem(404, f"There is no version {label!r}.")
        return kernel, kernel.versions[int(number[1]) - 1]

    def _asked(self, body: dict[str, Any]) -> tuple[Kernel, Version]:
        return self.find(body.get("userName"), body.get("kernelSlug"), body.get("versionLabel"))

    def get_kernel_session_status(self, body: dict[str, Any]) -> dict[str, Any]:
        session = self._asked(body)[1].session
        if session is None:
            return {"status": "NEW_SCRIPT"}
        with session.changed:
            said = {"failureMessage": session.failure_message} if session.failure_message else {}
            return {"status": session.status, **said}

    def list_kernels(self, body: dict[str, Any]) -> dict[str, Any]:
        """One's own, the last run first; the public list is empty."""
        is_mine = body.get("group") == "PROFILE" or body.get("user") == self.kaggle.owner
        wanted = [kernel for slug, kernel in self.items() if is_mine and (body.get("search") or "") in slug]
        page, follows = page_of(sorted(wanted, key=lambda kernel: -kernel.latest.saved_s), body)
        return {"kernels": [self._card(kernel, kernel.latest) for kernel in page], **follows}

    def _card(self, kernel: Kernel, version: Version) -> dict[str, Any]:
        copied = ("language", "kernelType", "isPrivate", "enableInternet", "datasetDataSources", "kernelDataSources")
        return {
            "id": kernel.kernel_id,
            "ref": f"{self.kaggle.owner}/{kernel.slug}",
            "title": kernel.title,
            "author": self.kaggle.owner,
            "slug": kernel.slug,
            "lastRunTime": datetime.fromtimestamp(version.saved_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            **{name: version.request[name] for name in copied if name in version.request},
            "currentVersionNumber": len(kernel.versions),
            "machineShape": shape_of(version.request),
        }

    def get_kernel(self, body: dict[str, Any]) -> dict[str, Any]:
        kernel, version = self._asked(body)
        blob = {"source": version.source, "language": "python", "kernelType": "script", "slug": kernel.slug}
        return {"metadata": self._card(kernel, version), "blob": blob}

    def delete_kernel(self, body: dict[str, Any]) -> dict[str, Any]:
        kernel, _ = self._asked({**body, "versionLabel": ""})
        for session in kernel.sessions:
            session.end(Fate("CANCEL_ACKNOWLEDGED"))
        del self[kernel.slug]
        self.deleted.add(kernel.slug)
        return {}

    # ---------------------------------------------------------------------- outputs and logs
    def _outputs(self, version: Version) -> tuple[Path, list[Path]]:
        return (version.session.working, version.session.outputs) if version.session else (Path(), [])

    def list_kernel_session_output(self, body: dict[str, Any]) -> dict[str, Any]:
        """Files and log; none of either before the session is over."""
        version = self._asked(body)[1]
        folder, paths = self._outputs(version)
        page, follows = page_of(paths, body)
        names = [path.relative_to(folder).as_posix() for path in page]
        files = [{"fileName": name, "url": self.kaggle.sign(folder / name, name)} for name in names]
        is_over = version.session is not None and version.session.is_over
        return {"files": files, "log": json.dumps(version.session.log) if is_over else "", **follows}

    def list_kernel_files(self, body: dict[str, Any]) -> dict[str, Any]:
        folder, paths = self._outputs(self._asked(body)[1])
        page, follows = page_of(paths, body)
        return {"files": [describe(path, folder, "size") for path in page], **follows}

    def download_kernel_output(self, body: dict[str, Any]) -> Reply:
        """Sends the client to one file, or to all of them in one zip."""
        number = body.get("versionNumber")
        _, version = self.find(body.get("ownerSlug"), body.get("kernelSlug"), f"v{number}" if number else "")
        (folder, paths), name = self._outputs(version), body.get("filePath")
        if not paths:
            raise Problem(404, "There is no output.")
        if name:
            return redirect(self.kaggle.sign(find_below(folder, name), name))
        return redirect(self.kaggle.sign(zip_once(folder.parent / "output.zip", folder, paths), "output.zip"))

    def get_kernel_session_logs_stream(self, body: dict[str, Any]) -> Answer:
        session = self._asked(body)[1].session
        if session is None:
            raise Problem(404, "There is no session.")
        return session.log if session.is_over else Live(session.follow())

    # --------------------------------------------------------------------------------- quota
    def quota(self) -> dict[str, float]:
        """GPU seconds `used`, running sessions' so far among them, and `reserved` for what they may yet use."""
        used_s, reserved_s = self.kaggle.quota_used_s, 0.0
        for session in [session for session in self.all_sessions if session.machine.is_gpu]:
            spent_s = session.elapsed_s * self.kaggle.clock_rate
            used_s += spent_s
            reserved_s += 0 if session.is_over else max(0.0, session.machine.limit_s - spent_s)
        return {"used": used_s, "reserved": reserved_s}

    def get_accelerator_quota_statistics(self, _: dict[str, Any]) -> dict[str, Any]:
        quota = self.quota()
        gpu = {
            "timeUsed": duration(quota["used"]),
            "timeReserved": duration(quota["reserved"]),
            "totalTimeAllowed": duration(self.kaggle.quota_total_s),
            "minimumTimeAllowed": "0s",
            "hasEverRun": bool(self.all_sessions),
        }
        tpu = {"timeUsed": "0s", "timeReserved": "0s", "totalTimeAllowed": "72000s", "minimumTimeAllowed": "0s"}
        refresh = self.kaggle.quota_refresh.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"quotaRefreshTime": refresh, "gpuQuota": gpu, "tpuQuota": {**tpu, "hasEverRun": False}}


def slugify(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def shape_of(request: dict[str, Any]) -> str:
    """The machine a save gets, which need not be the one it names; empty is a CPU."""
    shape = request.get("machineShape") or ("NvidiaTeslaT4" if request.get("enableGpu") else "")
    return RETIRED.get(shape, shape)


def is_gpu(shape: str) -> bool:
    return shape.startswith("Nvidia")


def duration(seconds: float) -> str:
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds:.3f}s"
