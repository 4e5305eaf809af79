"""The Kaggle emulator's datasets: uploads in parts, versions as folders, listings and downloads."""

from __future__ import annotations

import re
import secrets
import shutil
import tarfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulators.kaggle_sessions import files_below
from emulators.kaggle_wire import Problem, Reply, page_of, redirect

if TYPE_CHECKING:
    from emulators.kaggle import Kaggle

ON_THE_WAY = ("BLOBS_RECEIVED", "BLOBS_DECOMPRESSED", "BLOBS_COPIED_TO_SDS", "INDIVIDUAL_BLOBS_COMPRESSED")
_ARCHIVE = re.compile(r"(.+?)\.(zip|tar|tar\.gz|tgz)")
TAKEN = "The requested slug is already in use by a dataset. Please choose another slug."
DENIED = "Permission 'datasets.get' was denied"


@dataclass
class Blob:
    """An upload: `data` so far of `size` bytes."""

    token: str
    name: str
    size: int
    data: bytearray = field(default_factory=bytearray)

    @property
    def is_whole(self) -> bool:
        return len(self.data) == self.size

    def put(self, place: str, body: bytes) -> Reply:
        """Takes the whole, or a part at its place, or only says how far it is, as Google's storage does."""
        part = re.fullmatch(r"bytes (?:\*|(\d+)-\d+)/\d+", place)
        if part is None:
            self.data = bytearray(body)
        elif part[1]:
            if int(part[1]) > len(self.data):
                raise Problem(400, "The part leaves a gap.")
            self.data[int(part[1]) :] = body
        if self.is_whole:
            return Reply(200)
        return Reply(308, {"Range": f"bytes=0-{len(self.data) - 1}"} if self.data else {})


@dataclass
class Dataset:
    ref: str
    title: str
    dataset_id: int
    versions: list[Path] = field(default_factory=list)
    polls_left: int = 0
    is_failed: bool = False
    request: dict[str, Any] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        return self.polls_left <= 0 and not self.is_failed

    def folder(self, number: object = None) -> Path:
        """A version's folder, the latest one without a number."""
        at = int(str(number)) if number else len(self.versions)
        if not 1 <= at <= len(self.versions):
            raise Problem(404, f"{self.ref} has no version {at}")
        return self.versions[at - 1]


class Datasets(dict[str, Dataset]):
    """All datasets by owner/slug, and the calls about them."""

    def __init__(self, kaggle: Kaggle) -> None:
        super().__init__()
        self.kaggle, self.root = kaggle, kaggle.root / "datasets"
        self.blobs: dict[str, Blob] = {}

    def add(self, ref: str, folder: Path) -> Dataset:
        """Makes the folder a dataset's next version, as it is."""
        dataset = self.setdefault(ref, Dataset(ref, ref.split("/")[1], len(self) + 1))
        dataset.versions.append(folder)
        return dataset

    def attachable(self, source: str) -> Path | None:
        """The folder of owner/slug or owner/slug/version, if there is one to attach."""
        owner, slug, *number = source.split("/")
        dataset = self.get(f"{owner}/{slug}")
        if dataset is None or not dataset.is_ready:
            return None
        try:
            return dataset.folder(*number)
        except (Problem, ValueError):
            return None

    def _find(self, body: Mapping[str, Any]) -> Dataset:
        dataset = self.get(f"{body.get('ownerSlug')}/{body.get('datasetSlug')}")
        if dataset is None:
            raise Problem(403, DENIED)
        return dataset

    # ------------------------------------------------------------------------------- uploads
    def start_blob_upload(self, body: dict[str, Any]) -> dict[str, Any]:
        if "name" not in body:
            raise Problem(400, "An upload needs a name.")
        blob = Blob(secrets.token_hex(8), Path(body["name"]).name, int(body.get("contentLength", 0)))
        self.blobs[blob.token] = blob
        return {"token": blob.token, "createUrl": f"{self.kaggle.url}/blobs/{blob.token}"}

    def upload(self, token: str, place: str, body: bytes) -> Reply:
        if token not in self.blobs:
            raise Problem(404)
        return self.blobs[token].put(place, body)

    def create_dataset(self, body: dict[str, Any]) -> dict[str, Any]:
        owner, slug = body.get("ownerSlug"), str(body.get("slug", ""))
        if owner != self.kaggle.owner:
            raise Problem(403, "Permission 'datasets.create' was denied")
        if not 6 <= len(slug) <= 50:
            return {"status": "error", "error": "The dataset slug must be between 6 and 50 characters"}
        if f"{owner}/{slug}" in self:
            return {"status": "error", "error": TAKEN}
        return self._store(f"{owner}/{slug}", body, body)

    def create_dataset_version(self, body: dict[str, Any]) -> dict[str, Any]:
        dataset, content = self._find(body), body.get("body") or {}
        if not dataset.ref.startswith(f"{self.kaggle.owner}/"):
            raise Problem(403, "Permission 'datasets.update' was denied")
        return self._store(dataset.ref, content, {**dataset.request, **content})

    def _store(self, ref: str, content: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        number = len(self[ref].versions) + 1 if ref in self else 1
        folder = self.root / ref / f"v{number}"
        try:
            self._fill(folder, content)
        except KeyError as missing:
            shutil.rmtree(folder)
            return {"status": "error", "error": f"The upload {missing} is unknown or incomplete."}
        dataset = self.add(ref, folder)
        dataset.title, dataset.request = str(request.get("title") or dataset.title), request
        dataset.polls_left, dataset.is_failed = self.kaggle.dataset_ready_after, self.kaggle.dataset_fails
        return {"ref": f"/{ref}", "url": f"https://www.kaggle.com/datasets/{ref}", "status": "ok", "error": ""}

    def _fill(self, folder: Path, content: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True)
        for token in (file.get("token") for file in content.get("files") or []):
            blob = self.blobs[token]
            if not blob.is_whole:
                raise KeyError(token)
            unpack(blob.name, bytes(blob.data), folder)
        for directory in content.get("directories") or []:
            self._fill(folder / Path(directory["name"]).name, directory)

    def get_dataset_status(self, body: dict[str, Any]) -> dict[str, Any]:
        dataset = self._find(body)
        if dataset.polls_left > 0:
            done = self.kaggle.dataset_ready_after - dataset.polls_left
            dataset.polls_left -= 1
            return {"status": ON_THE_WAY[max(0, min(done, len(ON_THE_WAY) - 1))]}
        return {"status": "FAILED" if dataset.is_failed else "READY"}

    # ----------------------------------------------------------------------------- downloads
    def get_dataset(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._card(self._find(body))

    def _card(self, dataset: Dataset) -> dict[str, Any]:
        return {
            "id": dataset.dataset_id,
            "ref": dataset.ref,
            "title": dataset.title,
            "ownerRef": dataset.ref.split("/")[0],
            "totalBytes": sum(path.stat().st_size for path in files_below(dataset.folder())),
            "url": f"https://www.kaggle.com/datasets/{dataset.ref}",
            "currentVersionNumber": len(dataset.versions),
            "isPrivate": bool(dataset.request.get("isPrivate")),
        }

    def list_datasets(self, body: dict[str, Any]) -> dict[str, Any]:
        """Those of one's own or of a named user; the public list is empty."""
        owner = self.kaggle.owner if body.get("group", "").endswith("_MY") else body.get("user")
        mine = [self._card(dataset) for ref, dataset in self.items() if ref.split("/")[0] == owner]
        page, follows = page_of([card for card in mine if body.get("search", "") in card["ref"]], body)
        return {"datasets": page, **follows}

    def get_dataset_metadata(self, body: dict[str, Any]) -> dict[str, Any]:
        dataset = self._find(body)
        owner, slug = dataset.ref.split("/")
        licence = {"name": dataset.request.get("licenseName") or "unknown"}
        info = {"datasetId": dataset.dataset_id, "datasetSlug": slug, "ownerUser": owner, "title": dataset.title}
        return {"info": {**info, "licenses": [licence]}}

    def list_dataset_files(self, body: dict[str, Any]) -> dict[str, Any]:
        folder = self._find(body).folder(body.get("datasetVersionNumber"))
        page, follows = page_of(files_below(folder), body)
        return {"datasetFiles": [describe(path, folder, "totalBytes") for path in page], **follows}

    def download_dataset(self, body: dict[str, Any]) -> Reply:
        """Sends the client to one file, zipped if it is large, or to all of them in one zip."""
        dataset = self._find(body)
        folder, name = dataset.folder(body.get("datasetVersionNumber")), body.get("fileName")
        zips = self.root / ".zips" / dataset.ref / folder.name
        if not name:
            return redirect(self.kaggle.sign(zip_once(zips / "all.zip", folder, files_below(folder)), "archive.zip"))
        path = find_below(folder, name)
        if path.stat().st_size >= self.kaggle.zip_from_bytes and not body.get("raw"):
            return redirect(self.kaggle.sign(zip_once(zips / f"{name}.zip", path.parent, [path]), f"{name}.zip"))
        return redirect(self.kaggle.sign(path, name))

    def delete_dataset(self, body: dict[str, Any]) -> dict[str, Any]:
        del self[self._find(body).ref]
        return {}


def unpack(name: str, data: bytes, folder: Path) -> None:
    """Writes an uploaded file; an archive becomes a folder of its name."""
    path = folder / name
    path.write_bytes(data)
    archive = _ARCHIVE.fullmatch(name)
    if archive is None:
        return
    if archive[2] == "zip":
        with zipfile.ZipFile(path) as zipped:
            zipped.extractall(folder / archive[1])  # noqa: S202 - zipfile keeps names inside by itself
    else:
        with tarfile.open(path) as tar:
            tar.extractall(folder / archive[1], filter="data")
    path.unlink()


def describe(path: Path, folder: Path, size: str) -> dict[str, Any]:
    name, changed = path.relative_to(folder).as_posix(), time.gmtime(path.stat().st_mtime)
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", changed)
    return {"ref": name, "name": name, size: path.stat().st_size, "creationDate": made}


def find_below(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise Problem(404, f"There is no file {name}")
    return path


def zip_once(target: Path, folder: Path, paths: list[Path]) -> Path:
    """One and the same zip for every download, so that a download can be resumed."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in paths:
                archive.write(path, path.relative_to(folder).as_posix())
    return target
