"""The `azure` target keeps the contract against an emulator that runs the jobs, by the real SDKs over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.ml")

from boneagectl.records import Handle
from boneagectl.targets.azure import AzureTarget, infra, rendering, rest, signin, template
from contract_suite import Behave, Kill, TargetContract
from emulators.azure import Azure
from support import make_pack, make_spec

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
    shows_files = False

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


def test_infra_comes_and_goes_whole(azure: Azure) -> None:
    """What-if, deployment, listing and deletion of the shipped template; nothing that bills is left."""
    found = infra.Infra(rest.Arm(signin.credential()), rest.Place(azure.subscription, "fresh", "unused"), "westeurope")
    shipped, month = template.load(), datetime.now(UTC).date().replace(day=1)
    given = template.parameters("westeurope", "student@example.org", 80, month)
    found.make_group()
    wanted = found.what_if(shipped, given)
    assert {kind for kind, _ in wanted} == {"Create"}
    assert len(wanted) == len(shipped["resources"])
    found.up(shipped, given)
    made = {str(one["type"]).lower() for one in found.resources()}
    assert "microsoft.machinelearningservices/workspaces" in made
    found.down("gpu")
    assert not found.exists()
    assert found.resources() == []


def test_what_azure_would_refuse_is_told_before(azure: Azure, home: Path, tmp_path: Path) -> None:
    target = AzureTarget(home / "azure", wishes(azure))
    spec = make_spec(make_pack(tmp_path / "pack"))
    assert [verdict.allows for verdict in target.preflight(spec)] == [True, True, True]
    assert {finding.level for finding in target.check()} == {"ok"}
    azure.quota["standardNCASv3_T4Family"] = 3
    assert "train on Kaggle" in " ".join(finding.detail for finding in target.check() if finding.level == "bad")
