"""What a notebook shows during training."""

from __future__ import annotations

import xml.etree.ElementTree
from typing import Any

import pytest

from boneage_trainer.contract import sentinel_line
from boneage_trainer.platforms.colab_view import TrainingView, format_duration, plot_losses


def line(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "loss": 1 / epoch, "val_loss": 1.1 / epoch, "val_mae_months": 30 / epoch, "epoch_s": 60.0}


def test_both_losses_are_plotted_as_svg() -> None:
    svg = xml.etree.ElementTree.fromstring(plot_losses([line(1), line(2), line(3)], 10))  # noqa: S314
    curves = [one.get("points", "") for one in svg if one.tag.endswith("polyline")]
    assert [len(points.split()) for points in curves] == [3, 3]
    inside = [float(number) for points in curves for number in points.replace(",", " ").split()]
    assert all(0 <= number <= 640 for number in inside)
    words = [one.text for one in svg if one.tag.endswith("text")]
    assert words == ["training loss", "validation loss", "1.1", "0.333", "epoch 10"]


@pytest.mark.parametrize("history", [[], [line(1)], [{"epoch": 1}, {"epoch": 2}]])
def test_without_two_epochs_there_is_no_plot(history: list[dict[str, Any]]) -> None:
    assert plot_losses(history, 10) == ""


def test_equal_values_and_one_epoch_can_be_plotted() -> None:
    assert "polyline" in plot_losses([{"epoch": 1, "loss": 1.0}, {"epoch": 1, "loss": 1.0}], 1)


def test_without_html_lines_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    view = TrainingView(10, [line(1)], lambda: 3 * 3600)
    view.show_line("going on after epoch 1 of 10")
    view.show_line(sentinel_line(line(2)))
    view.show_epoch(line(2))
    assert capsys.readouterr().out.splitlines() == [
        "going on after epoch 1 of 10",
        "epoch 2 of 10, about 8 min left; this session stops in 3 h 00 min",
    ]


@pytest.mark.parametrize(("seconds", "said"), [(0, "0 s"), (59, "59 s"), (90, "1 min"), (36_300, "10 h 05 min")])
def test_durations(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said
