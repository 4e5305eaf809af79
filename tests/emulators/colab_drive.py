"""The Colab emulator's Google Drive: API v3 over a plain folder."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulators.colab_drive_files import FOLDER, ROOT_ID, Entry, Files, new_id
from emulators.colab_drive_query import Query, masked
from emulators.colab_login import SCOPE
from emulators.colab_wire import DRIVE, Answer, Problem, Reply, Request

if TYPE_CHECKING:
    from emulators.colab import Colab

_FILES = "drive/v3/files"
_USUAL_FIELDS = "kind,id,name,mimeType"
_PART = 256 * 1024
_SETTABLE = ("name", "mimeType", "appProperties", "properties", "description", "starred")


@dataclass
class Upload:
    """A resumable upload in progress; `entry` is the file that it replaces, if any."""

    said: dict[str, Any]
    entry: Entry | None
    fields: str
    body: bytearray


class Drive:
    """`folder` is My Drive as a plain folder, `mount` what a notebook sees at /content/drive.

    Switches: `quota_bytes`, how much fits, trash included; `most_per_page`, how long a page of a listing is at most.
    A token with drive.file sees what the app made, or what `open` names; drive.readonly sees all and changes nothing.
    """

    def __init__(self, colab: Colab) -> None:
        self.colab, self.files = colab, Files(colab.root / "drive")
        self.quota_bytes, self.most_per_page = 15 << 30, 1000
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.RLock()

    @property
    def folder(self) -> Path:
        return self.files.folder

    @property
    def mount(self) -> Path:
        return self.files.mount

    def open(self, path: str) -> str:
        """The user opens a file, by its path below My Drive, with the app; returns its id."""
        with self._lock:
            entry = self.files.at(path)
            entry.is_ours = True
            return entry.id

    def close(self) -> None:
        self.files.close()

    def answer(self, request: Request) -> Answer:
        scopes = {one.removeprefix(SCOPE) for one in self.colab.login.scopes(request)}
        if not scopes & {"drive", "drive.file", "drive.readonly"}:
            raise _insufficient()
        with self._lock:
            return Call(self, request, scopes).answer()

    def start(self, upload: Upload) -> str:
        key = f"SECRET-{secrets.token_hex(16)}"
        self._uploads[key] = upload
        return key

    def upload(self, key: str) -> Upload:
        if key not in self._uploads:
            raise Problem(404, "notFound", "The upload is not known, or over.")
        return self._uploads[key]

    def finish(self, key: str) -> None:
        del self._uploads[key]


class Call:
    """One request, and what its token may access."""

    def __init__(self, drive: Drive, request: Request, scopes: set[str]) -> None:
        self.drive, self.files, self.request, self.scopes = drive, drive.files, request, scopes
        self.fields = request.query.get("fields", "")

    def answer(self) -> Answer:
        path, verb = self.request.path, self.request.verb
        is_upload = path.startswith("upload/")
        if verb != "GET" and not self.scopes & {"drive", "drive.file"}:
            raise _insufficient()
        if path == "drive/v3/about" and verb == "GET":
            return self._about()
        if path == f"{_FILES}/generateIds" and verb == "GET":
            count = int(self.request.query.get("count", 10))
            return {"kind": "drive#generatedIds", "space": "drive", "ids": [new_id() for _ in range(count)]}
        place = path.removeprefix("upload/")
        if place != _FILES and not re.fullmatch(rf"{_FILES}/[\w-]+", place):
            raise Problem(404, "notFound", f"The emulator has no {verb} {path}.")
        entry = self._seen(path.rpartition("/")[2]) if place != _FILES else None
        if is_upload and (key := self.request.query.get("upload_id")):
            return self._part(key)
        if is_upload:
            return self._upload(entry)
        return self._plain(verb, entry)

    def _plain(self, verb: str, entry: Entry | None) -> Answer:
        if entry is None:
            works: dict[str, Callable[[], Answer]] = {"GET": self._list, "POST": lambda: self._put(None, None)}
        else:
            works = {"GET": lambda: self._get(entry), "PATCH": lambda: self._put(entry, None),
                     "DELETE": lambda: self._delete(entry)}  # fmt: skip
        if verb not in works:
            raise Problem(404)
        return works[verb]()

    # --------------------------------------------------------------------------------- reads
    def _sees(self, entry: Entry) -> bool:
        return bool(self.scopes & {"drive", "drive.readonly"}) or entry.is_ours

    def _seen(self, entry_id: str) -> Entry:
        entry = self.files.find(entry_id)
        if entry is None or not self._sees(entry):
            raise Problem(404, "notFound", f"File not found: {entry_id}.")
        return entry

    def _about(self) -> Answer:
        if not self.fields:
            raise Problem(400, "required", "The 'fields' parameter is required for this method.")
        quota = {"limit": str(self.drive.quota_bytes), "usage": str(self.files.used_bytes())}
        user = {"emailAddress": "alice@example.edu", "displayName": "Alice", "me": True}
        return dict(masked({"kind": "drive#about", "storageQuota": quota, "user": user}, self.fields))

    def _list(self) -> Answer:
        asked = self.request.query
        text = asked.get("q", "").replace("'root' in parents", f"'{ROOT_ID}' in parents")
        matches = Query(text).matches
        found = [said for entry in self.files.all() if self._sees(entry) and matches(said := entry.as_json())]
        self._sort(found, asked.get("orderBy", ""))
        try:
            size, first = int(asked.get("pageSize") or 100), int(asked.get("pageToken", "~0").removeprefix("~"))
        except ValueError:
            raise Problem(400, "invalid", "Invalid Value: pageToken") from None
        if not 1 <= size <= 1000:
            raise Problem(400, "invalidParameter", "Invalid value for pageSize: it must be within [1, 1000].")
        last = first + min(size, self.drive.most_per_page)
        more = {"nextPageToken": f"~{last}"} if last < len(found) else {}
        said = {"kind": "drive#fileList", "incompleteSearch": False, "files": found[first:last], **more}
        usual = f"kind,nextPageToken,incompleteSearch,files({_USUAL_FIELDS})"
        return dict(masked(said, self.fields or usual))

    def _sort(self, found: list[dict[str, Any]], order: str) -> None:
        for word in reversed([word.strip() for word in order.split(",") if word.strip()]):
            field, _, way = word.partition(" ")
            if field not in ("name", "modifiedTime", "createdTime"):
                raise Problem(400, "invalid", f"Invalid Value: orderBy {field}")
            found.sort(key=lambda said: str(said[field]), reverse=way == "desc")

    def _get(self, entry: Entry) -> Answer:
        if self.request.query.get("alt") != "media":
            return self._told(entry)
        if entry.is_folder:
            raise Problem(403, "fileNotDownloadable", "Only files with binary content can be downloaded.")
        return _ranged(entry.content, self.request.headers.get("Range", ""), entry.mime)

    def _told(self, entry: Entry) -> dict[str, Any]:
        return dict(masked(entry.as_json(), self.fields or _USUAL_FIELDS))

    # ------------------------------------------------------------------------------- changes
    def _put(self, entry: Entry | None, body: bytes | None, said: dict[str, Any] | None = None) -> Answer:
        """Creates or changes a file: its metadata, its content, or both."""
        said = self.request.json if said is None else said
        self._check_room(len(body or b""), entry)
        if entry is None:
            entry = self._make(said, body or b"")
        else:
            self._change(entry, said)
            if body is not None:
                self.files.write(entry, body)
        entry.own |= {name: said[name] for name in _SETTABLE[2:] if name in said}
        return self._told(entry)

    def _make(self, said: dict[str, Any], body: bytes) -> Entry:
        given = str(said.get("id", ""))
        if given and self.files.find(given):
            raise Problem(409, "fileIdInUse", "A file already exists with the provided ID.")
        parent = self._parent((said.get("parents") or [ROOT_ID])[0])
        mime = str(said.get("mimeType") or self.request.headers.get("X-Upload-Content-Type", ""))
        return self.files.make(str(said.get("name") or "Untitled"), parent, mime, body, given)

    def _change(self, entry: Entry, said: dict[str, Any]) -> None:
        if "parents" in said:
            text = "The parents field is not directly writable in update requests."
            raise Problem(403, "fieldNotWritable", f"{text} Use the addParents and removeParents parameters instead.")
        if "trashed" in said:
            self.files.trash(entry, bool(said["trashed"]))
        parent = self._parent(self.request.query.get("addParents") or entry.parent)
        if not entry.is_trashed:
            self.files.move(entry, str(said.get("name", entry.name)), parent)
        entry.mime = str(said.get("mimeType", entry.mime))

    def _parent(self, parent: str) -> str:
        if parent in ("root", ROOT_ID):
            return ROOT_ID
        if self._seen(parent).mime != FOLDER:
            raise Problem(403, "parentNotAFolder", "The specified parent is not a folder.")
        return parent

    def _delete(self, entry: Entry) -> Answer:
        self.files.delete(entry)
        return Reply(204)

    def _check_room(self, size: int, entry: Entry | None) -> None:
        before = entry.size if entry else 0
        if size > before and self.files.used_bytes() - before + size > self.drive.quota_bytes:
            raise Problem(403, "storageQuotaExceeded", "The user's Drive storage quota has been exceeded.")

    # ------------------------------------------------------------------------------- uploads
    def _upload(self, entry: Entry | None) -> Answer:
        kind, verb = self.request.query.get("uploadType"), self.request.verb
        if verb != ("PATCH" if entry else "POST"):
            raise Problem(404)
        if kind == "media":
            return self._put(entry, self.request.body, {"mimeType": self.request.headers.get("Content-Type", "")})
        if kind == "multipart":
            said, body, mime = _parts(self.request)
            return self._put(entry, body, {**said, **({} if entry or "mimeType" in said else {"mimeType": mime})})
        if kind != "resumable":
            raise Problem(400, "badRequest", "Unknown uploadType.")
        said = self.request.json
        self._check_room(int(self.request.headers.get("X-Upload-Content-Length") or 0), entry)
        said.setdefault("mimeType", self.request.headers.get("X-Upload-Content-Type") or "application/octet-stream")
        key = self.drive.start(Upload(said, entry, self.fields, bytearray()))
        return Reply(
            200, b"", {"Location": f"https://{DRIVE}/{self.request.path}?uploadType=resumable&upload_id={key}"}
        )

    def _part(self, key: str) -> Answer:
        """A piece of a resumable upload, or the query for its current size."""
        upload, body = self.drive.upload(key), self.request.body
        place = self.request.headers.get("Content-Range") or f"bytes 0-{len(body) - 1}/{len(body)}"
        found = re.fullmatch(r"bytes (?:\*|(\d+)-(\d+))/(\*|\d+)", place)
        if found is None or (found[1] and int(found[2]) - int(found[1]) + 1 != len(body)):
            raise Problem(400, "badContent", f"Failed to parse Content-Range header: {place}")
        total = None if found[3] == "*" else int(found[3])
        if found[1]:
            self._append(upload.body, int(found[1]), body, total)
        if total is None or len(upload.body) < total:
            known = {"Range": f"bytes=0-{len(upload.body) - 1}"} if upload.body else {}
            return Reply(308, b"", known)
        self.fields = upload.fields
        answer = self._put(upload.entry, bytes(upload.body), upload.said)
        self.drive.finish(key)
        return answer

    def _append(self, have: bytearray, first: int, body: bytes, total: int | None) -> None:
        if first > len(have):
            raise Problem(400, "badContent", f"The first byte must be {len(have)}, not {first}.")
        is_last = total is not None and first + len(body) == total
        if not is_last and len(body) % _PART:
            raise Problem(400, "badContent", f"All parts but the last must be multiples of {_PART} bytes.")
        have[first:] = body


def _ranged(body: bytes, wanted: str, mime: str) -> Reply:
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
    if found is None:
        return Reply(200, body, {"Content-Type": mime})
    first, last = int(found[1]), min(int(found[2] or len(body) - 1), len(body) - 1)
    if first > last:
        raise Problem(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
    headers = {"Content-Type": mime, "Content-Range": f"bytes {first}-{last}/{len(body)}"}
    return Reply(206, body[first : last + 1], headers)


def _parts(request: Request) -> tuple[dict[str, Any], bytes, str]:
    """The file's metadata, its bytes and their type, from a multipart body."""
    found = re.search(r"boundary=\"?([^\";]+)", request.headers.get("Content-Type", ""))
    pieces = request.body.split(b"--" + found[1].encode()) if found else []
    if len(pieces) != 4:
        raise Problem(400, "badContent", "The multipart body must have two parts.")
    (_, said), (head, body) = (re.split(rb"\r?\n\r?\n", piece, maxsplit=1) for piece in pieces[1:3])
    mime = re.search(rb"content-type:\s*([^\s;]+)", head, re.I)
    ending = 2 if body.endswith(b"\r\n") else 1
    return json.loads(said), body[:-ending], mime[1].decode() if mime else ""


def _insufficient() -> Problem:
    return Problem(403, "insufficientPermissions", "Request had insufficient authentication scopes.")
