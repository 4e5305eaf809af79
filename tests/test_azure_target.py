"""The `azure` target keeps the contract against an emulator that runs the jobs, by the real SDKs over TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("azure.ai.ml")

from boneagectl.models import Handle
from boneagectl.target_settings import AzureSettings
from boneagectl.targets.azure import AzureTarget
from contract_suite import Behave, Kill, TargetContract
from emulators.azure import Azure
from support import make_pack, make_spec

ENVIRONMENT = "azureml://registries/azureml/environments/tensorflow-2.16-cuda12/labels/latest"


class TestAzure(TargetContract):
    shows_files = False

    @pytest.fixture
    def target(self, home: Path, azure: Azure) -> AzureTarget:
        return AzureTarget(home / "azure", settings(azure))

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


def settings(azure: Azure) -> AzureSettings:
    return AzureSettings(azure.subscription, environment=ENVIRONMENT)


def test_refusals_are_known_before_the_submit(azure: Azure, home: Path, tmp_path: Path) -> None:
    target = AzureTarget(home / "azure", settings(azure))
    spec = make_spec(make_pack(tmp_path / "pack"), target="azure")
    assert [verdict.allows for verdict in target.preflight(spec)] == [True, True, True]
    assert {finding.level for finding in target.check()} == {"ok"}
    azure.quota["standardNCASv3_T4Family"] = 3
    bad = [finding.detail for finding in target.check() if finding.level == "bad"]
    assert bad[-1].startswith("you cannot run a GPU here: only 3 dedicated cores of the 4")
