"""Images for a session: from a pack on Drive, or from Kaggle with the user's token, over a real connection."""

from __future__ import annotations

import base64
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from boneage_trainer.contract import ContractError, PackFolder
from boneage_trainer.platforms import colab_api, colab_drive, colab_images, kaggle_dataset
from boneage_trainer.platforms.colab_drive import MountedDrive
from boneage_trainer.platforms.colab_images import PackRequest
from boneage_trainer.platforms.session import mismatch_reason
from colab_stub import colab_at

DATASET, TOKEN = "kmader/rsna-bone-age", "a-secret-token"
PATH = f"/api/v1/datasets/download/{DATASET}"


@pytest.fixture
def my_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(colab_drive, "PAUSES_S", (0.01,))
    monkeypatch.setattr(kaggle_dataset, "PAUSES_S", (0.01, 0.02))
    with colab_at(tmp_path, monkeypatch) as folder:
        yield folder


@pytest.fixture
def drive(my_drive: Path, tmp_path: Path) -> MountedDrive:
    drive = MountedDrive(tmp_path / "content" / "drive")
    drive.mount()
    return drive


def wanted_for(made: Path, pack: str = "", fingerprint: str = "") -> PackRequest:
    card = PackFolder(made).read_card()
    size_px, known = card["image_size_px"], fingerprint or card["fingerprint"]
    return PackRequest(DATASET, pack, size_px, lambda found: mismatch_reason(found, known, size_px))


# ------------------------------------------------------------------------------------- from Drive
def test_a_pack_on_drive_is_copied_once(drive: MountedDrive, pack: Path, tmp_path: Path) -> None:
    shutil.copytree(pack, drive.my / "boneage" / "pack")
    wanted = wanted_for(pack, pack="boneage/pack")
    found, is_there = colab_images.find_pack(wanted, drive, drive.my / "kept", tmp_path / "local")
    assert is_there
    assert colab_images.verify_pack(found) == ""
    shutil.rmtree(drive.my / "boneage")
    assert colab_images.find_pack(wanted, drive, drive.my / "kept", tmp_path / "local")[1], "it was copied already"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda pack: shutil.rmtree(pack.root), "no pack in 'boneage/pack' on Drive"),
        (lambda pack: pack.images.write_bytes(pack.images.read_bytes()[:-5]), "damaged: images.npy"),
        (
            lambda pack: pack.index.write_text(pack.index.read_text().replace("True", "False")),
            "damaged: index.csv was changed",
        ),
        (lambda pack: pack.index.write_text("id\n1\n"), "damaged: 'male'"),
    ],
)
def test_an_unusable_named_pack_is_reported(
    harm: Callable[[PackFolder], object], said: str, drive: MountedDrive, pack: Path, tmp_path: Path
) -> None:
    shutil.copytree(pack, drive.my / "boneage" / "pack")
    harm(PackFolder(drive.my / "boneage" / "pack"))
    with pytest.raises(ContractError, match=said):
        colab_images.find_pack(wanted_for(pack, pack="boneage/pack"), drive, drive.my / "kept", tmp_path / "local")
    assert not (tmp_path / "local" / "boneage-pack").exists()


def test_a_pack_of_other_images_is_reported_with_both_fingerprints(
    drive: MountedDrive, pack: Path, tmp_path: Path
) -> None:
    shutil.copytree(pack, drive.my / "mine")
    wanted = wanted_for(pack, pack="mine", fingerprint="beef" * 16)
    with pytest.raises(ContractError, match="the job needs beefbeefbeef"):
        colab_images.find_pack(wanted, drive, drive.my / "kept", tmp_path / "local")


def test_a_built_pack_is_stored_and_found_again(drive: MountedDrive, pack: Path, tmp_path: Path) -> None:
    wanted, kept, local = wanted_for(pack), drive.my / "kept", tmp_path / "local"
    made, is_there = colab_images.find_pack(wanted, drive, kept, local)
    assert not is_there
    shutil.copytree(pack, made.root)
    colab_images.store_pack(made, drive, kept)
    colab_images.store_pack(made, drive, kept)
    shutil.rmtree(local)
    assert colab_images.find_pack(wanted, drive, kept, local)[1]


def test_a_damaged_stored_pack_is_built_again(drive: MountedDrive, pack: Path, tmp_path: Path) -> None:
    wanted, kept = wanted_for(pack), drive.my / "kept"
    shutil.copytree(pack, kept / wanted.name)
    (kept / wanted.name / "images.npy").write_bytes(b"torn")
    assert not colab_images.find_pack(wanted, drive, kept, tmp_path / "local")[1]


def test_a_partially_stored_pack_is_not_used(
    drive: MountedDrive, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = PackFolder(tmp_path / "local" / wanted_for(pack).name)
    shutil.copytree(pack, made.root)
    monkeypatch.setenv("STUB_DRIVE_FAULT", "gone:4")
    with pytest.raises(OSError, match="Transport endpoint"):
        colab_images.store_pack(made, drive, drive.my / "kept")
    assert not PackFolder(tmp_path / "drive" / "kept" / made.root.name).card.exists()


# ------------------------------------------------------------------------------------ from Kaggle
@dataclass
class Kaggle:
    """Kaggle's address for downloads, which sends on to another host, as the real one does."""

    content: bytes
    cuts: list[int] = field(default_factory=list)
    """After how many bytes each of the next answers breaks off."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Path, Authorization and Range of each request."""
    refuse: int = 0
    storage: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        headers = request.headers
        self.asked.append((request.path, headers.get("Authorization", ""), headers.get("Range", "")))
        if request.path == PATH and (self.refuse or not headers.get("Authorization")):
            return self.say(request, self.refuse or 401, b"")
        if request.path == PATH:
            request.send_response(302)
            request.send_header("Location", f"{self.storage}/signed")
            request.send_header("Content-Length", "0")
            return request.end_headers()
        start = int(headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        return self.say(request, 206 if start else 200, self.content[start:])

    def say(self, request: BaseHTTPRequestHandler, code: int, body: bytes) -> None:
        request.send_response(code)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)


@pytest.fixture
def kaggle(my_drive: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kaggle]:
    zipped = Path(shutil.make_archive(str(tmp_path / "set"), "zip", pack))
    other = Kaggle(zipped.read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            other.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as front,
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as back,
    ):
        for server in (front, back):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        other.storage = f"http://localhost:{back.server_port}"
        monkeypatch.setenv("KAGGLE_API_ENDPOINT", f"http://127.0.0.1:{front.server_port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        monkeypatch.setenv("STUB_SECRET_KAGGLE_API_TOKEN", TOKEN)
        yield other
        front.shutdown()
        back.shutdown()


def fetch(dest: Path) -> None:
    kaggle_dataset.download_dataset(DATASET, kaggle_dataset.authorization_header(colab_api.read_secret), dest)


def test_the_dataset_is_unpacked_and_the_token_is_sent_to_kaggle_only(
    kaggle: Kaggle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(tmp_path / "images")
    assert PackFolder(tmp_path / "images").card.exists()
    assert kaggle.asked == [(PATH, f"Bearer {TOKEN}", ""), ("/signed", "", "")]
    assert not (tmp_path / "images.zip").exists()
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err
    for path in (one for one in tmp_path.rglob("*") if one.is_file()):
        assert TOKEN.encode() not in path.read_bytes(), path


def test_username_and_key_are_accepted(kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUB_SECRET_KAGGLE_API_TOKEN")
    monkeypatch.setenv("STUB_SECRET_KAGGLE_USERNAME", "alice")
    monkeypatch.setenv("STUB_SECRET_KAGGLE_KEY", "k3y")
    fetch(tmp_path / "images")
    assert base64.b64decode(kaggle.asked[0][1].removeprefix("Basic ")) == b"alice:k3y"


def test_an_interrupted_download_is_resumed(kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.cuts += [1000, 500]
    fetch(tmp_path / "images")
    assert [one[2] for one in kaggle.asked if one[0] == "/signed"] == ["", "bytes=1000-", "bytes=1500-"]
    assert PackFolder(tmp_path / "images").card.exists()


def test_a_repeatedly_interrupted_download_fails(kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.cuts += [10] * 9
    with pytest.raises(OSError, match="broke off"):
        fetch(tmp_path / "images")


@pytest.mark.parametrize(
    ("code", "said"), [(401, "create a new one"), (403, "accept its terms"), (404, "correct DATASET")]
)
def test_a_refusal_names_the_next_step(code: int, said: str, kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.refuse = code
    with pytest.raises(ContractError, match=said):
        fetch(tmp_path / "images")
    assert len(kaggle.asked) == 1


def test_an_invalid_zip_is_reported(kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.content = b"<html>"
    with pytest.raises(ContractError, match="cannot be unpacked"):
        fetch(tmp_path / "images")


def test_a_full_disk_is_reported_before_the_download(
    kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match="GB are needed"):
        fetch(tmp_path / "images")


def test_a_hostile_name_stays_inside(kaggle: Kaggle, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as opened:
        opened.writestr("../../evil", "x")
    kaggle.content = (tmp_path / "evil.zip").read_bytes()
    fetch(tmp_path / "deep" / "images")
    assert not list(tmp_path.glob("evil"))


def test_a_dataset_that_is_a_pack_needs_no_preparation(kaggle: Kaggle, pack: Path, tmp_path: Path) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    colab_images.build_pack(wanted_for(pack), never, PackFolder(tmp_path / "local" / "pack"), tmp_path / "images")
    assert colab_images.verify_pack(PackFolder(tmp_path / "local" / "pack")) == ""
    assert not (tmp_path / "images").exists()


# -------------------------------------------------------------------------------------------- secrets
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "there is no secret KAGGLE_API_TOKEN"),
        ("denied", "switch on its notebook access"),
        ("timeout", "keep this page open"),
    ],
)
def test_a_missing_token_is_reported_with_instructions(
    answer: str, said: str, my_drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_SECRETS", answer)
    if answer == "denied":
        monkeypatch.setenv("STUB_SECRET_KAGGLE_API_TOKEN", TOKEN)
    with pytest.raises(ContractError, match=said) as caught:
        kaggle_dataset.authorization_header(colab_api.read_secret)
    assert "Settings > API" in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_secret_is_not_in_its_repr(my_drive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_SECRET_KAGGLE_KEY", TOKEN)
    assert TOKEN not in repr(colab_api.read_secret("KAGGLE_KEY"))
    monkeypatch.setenv("STUB_SECRET_KAGGLE_KEY", "")
    assert colab_api.read_secret("KAGGLE_KEY").missing == "the secret KAGGLE_KEY is empty"
