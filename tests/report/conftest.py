"""The complete run, its report and its page, each created once."""

from __future__ import annotations

import pytest

from boneage_trainer.contract import RunFolder
from boneagectl.report.data import ReportData, load_run
from boneagectl.report.run_page import render_run
from report.page import Page
from report.sample_run import FACTS, fill


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fill(RunFolder(tmp_path_factory.mktemp("complete")))


@pytest.fixture(scope="session")
def data(complete: RunFolder) -> ReportData:
    return load_run(complete, FACTS)


@pytest.fixture(scope="session")
def html(data: ReportData) -> str:
    return render_run(data)


@pytest.fixture(scope="session")
def page(html: str) -> Page:
    return Page.of(html)
