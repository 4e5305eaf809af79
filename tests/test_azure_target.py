"""The `azure` target keeps the contract against an emulator that runs the jobs, by the real SDKs over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.ml")

from emulators.azure import Azure

from boneagectl.records import Handle
from boneagectl.targets.azure import AzureTarget, rendering
from contract_suite import Kill, TargetContract


@pytest.fixture
def azure(tmp_path: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    if reason := Azure.missing():
        pytest.skip(reason)
    with Azure(tmp_path / "other-side", python=str(trainer)) as other:
        for name, value in other.environment().items():
            monkeypatch.setenv(name, value)
        yield other


class TestAzure(TargetContract):
    @pytest.fixture
    def target(self, home: Path, azure: Azure) -> AzureTarget:
        return AzureTarget(home / "azure", wishes(azure))

    @pytest.fixture
    def kill(self, azure: Azure) -> Kill:
        def end(handle: Handle) -> None:
            azure.lose_node(handle.remote_id)

        return end


def wishes(azure: Azure) -> rendering.Wishes:
    return rendering.Wishes(
        azure.subscription, azure.resource_group, azure.workspace, "westeurope", "gpu", "Standard_NC4as_T4_v3",
        "dedicated", 1, 120, "azureml://registries/azureml/environments/tensorflow-2.16-cuda12/labels/latest", "",
    )  # fmt: skip
