"""The `azure` target keeps the contract against an emulator that runs the jobs, by the real SDKs over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.ml")

from boneagectl.records import Handle
from boneagectl.targets.azure import AzureTarget, rendering, rest
from contract_suite import Behave, Kill, TargetContract
from emulators.azure import Azure
from support import make_pack

ENVIRONMENT = "azureml://registries/azureml/environments/tensorflow-2.16-cuda12/labels/latest"


@pytest.fixture
def azure(tmp_path: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    if reason := Azure.missing():
        pytest.skip(reason)
    with Azure(tmp_path / "other-side", python=str(trainer)) as other:
        for name, value in other.environment().items():
            monkeypatch.setenv(name, value)
        place = other.add_workspace()
        other.add_cluster(place)
        other.add_data(place, "boneage-pack-9eab9eab9eab", make_pack(tmp_path / "asset"))
        other.sync_s = 0.1
        monkeypatch.setattr(rest, "PAUSES_S", (0.01, 0.02))
        for name, value_s in (("_LOOKS_S", (0.01, 0.05)), ("_FOLLOW_S", 0.1), ("_STOP_POLL_S", 0.05)):
            monkeypatch.setattr(f"boneagectl.targets.azure.{name}", value_s)
        yield other


class TestAzure(TargetContract):
    @pytest.fixture
    def target(self, home: Path, azure: Azure) -> AzureTarget:
        return AzureTarget(home / "azure", wishes(azure))

    @pytest.fixture
    def behave(self, monkeypatch: pytest.MonkeyPatch) -> Behave:
        def switch(mode: str = "", epochs: int = 3, epoch_s: float = 0.05) -> None:
            monkeypatch.setenv("FAKE_MODE", mode)
            monkeypatch.setenv("FAKE_EPOCHS", str(epochs))
            monkeypatch.setenv("FAKE_EPOCH_S", str(epoch_s))

        return switch

    @pytest.fixture
    def kill(self, azure: Azure) -> Kill:
        def end(handle: Handle) -> None:
            azure.lose_node(handle.remote_id)

        return end


def wishes(azure: Azure) -> rendering.Wishes:
    return rendering.Wishes(azure.subscription, "boneage", "boneage", "westeurope", "gpu", "Standard_NC4as_T4_v3",
                            "dedicated", 1, 120, ENVIRONMENT, "")  # fmt: skip
