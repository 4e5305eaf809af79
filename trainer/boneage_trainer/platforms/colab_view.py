"""What a notebook shows: the progress of training, a plot of both losses, and messages between the cells.

The progress is one display that is updated in place; without HTML output, plain lines.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from boneage_trainer.contract import SENTINEL

_WIDTH_PX, _HEIGHT_PX, _EDGE_PX = 640, 220, 44
_CURVES = (("loss", "training loss", "#1f6fb4"), ("val_loss", "validation loss", "#c4541a"))


class TrainingView:
    """The progress of `epochs` epochs; `left_s` returns the seconds that this session has left."""

    def __init__(self, epochs: int, history: Sequence[Mapping[str, Any]], left_s: Callable[[], float]) -> None:
        self._epochs, self._left_s = epochs, left_s
        self._history = list(history)
        self._shown = _display(self._page())

    def show_line(self, text: str) -> None:
        """Shows a line of the trainer, unless the display shows the same."""
        is_epoch = text.startswith(("epoch ", SENTINEL))
        if not text.startswith(SENTINEL) and not (self._shown and is_epoch):
            print(text, flush=True)

    def show_epoch(self, metrics: Mapping[str, Any]) -> None:
        """Shows a finished epoch."""
        self._history.append(metrics)
        if self._shown:
            try:
                self._shown.update(_html(self._page()))
            except Exception:
                self._shown = None  # the page was closed; print lines instead
        if not self._shown:
            print(self._summary(), flush=True)

    def _summary(self) -> str:
        done = int(self._history[-1]["epoch"]) if self._history else 0
        took_s = float(self._history[-1].get("epoch_s", 0.0)) if self._history else 0.0
        to_go_s = took_s * max(0, self._epochs - done)
        needed = f"about {format_duration(to_go_s)} left" if took_s else "the first epoch takes longest"
        return (f"epoch {done} of {self._epochs}, {needed}; "
                f"this session stops in {format_duration(max(0.0, self._left_s()))}")  # fmt: skip

    def _page(self) -> str:
        done = int(self._history[-1]["epoch"]) if self._history else 0
        best = min((float(line["val_mae_months"]) for line in self._history), default=None)
        error = "" if best is None else f"<br>best validation error so far: {best:.2f} months (MAE)"
        bar = f'<progress value="{done}" max="{self._epochs}" style="width:{_WIDTH_PX}px"></progress>'
        return f"{bar}<br>{html.escape(self._summary())}{error}<br>{plot_losses(self._history, self._epochs)}"


def plot_losses(history: Sequence[Mapping[str, Any]], epochs: int) -> str:
    """Both losses over the epochs as an SVG document; empty before the second epoch."""
    curves = [(name, colour, [(float(line["epoch"]), float(line[key])) for line in history if key in line])
              for key, name, colour in _CURVES]  # fmt: skip
    values = [value for _, _, points in curves for _, value in points]
    if len(history) < 2 or not values:
        return ""
    low, high = min(values), max(values)
    high = high if high > low else low + 1

    def at(epoch: float, value: float) -> str:
        x = _EDGE_PX + (epoch - 1) / max(1, epochs - 1) * (_WIDTH_PX - 2 * _EDGE_PX)
        y = _EDGE_PX / 2 + (high - value) / (high - low) * (_HEIGHT_PX - _EDGE_PX * 1.5)
        return f"{x:.1f},{y:.1f}"

    drawings = []
    for number, (name, colour, points) in enumerate(curves):
        line = " ".join(at(*point) for point in points)
        drawings.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{line}"/>')
        drawings.append(_text(_EDGE_PX + 150 * number, _HEIGHT_PX - 4, name, colour))
    scale = [_text(2, _EDGE_PX / 2 + 4, f"{high:.3g}"), _text(2, _HEIGHT_PX - _EDGE_PX, f"{low:.3g}"),
             _text(_WIDTH_PX - 2 * _EDGE_PX, _HEIGHT_PX - 4, f"epoch {epochs}")]  # fmt: skip
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH_PX}" height="{_HEIGHT_PX}" '
            f'font-family="sans-serif" font-size="12">{"".join([*drawings, *scale])}</svg>')  # fmt: skip


def _text(x_px: float, y_px: float, text: str, colour: str = "currentColor") -> str:
    return f'<text x="{x_px:g}" y="{y_px:g}" fill="{colour}">{text}</text>'


def format_duration(seconds: float) -> str:
    """``10 h 05 min``, ``12 min``, ``40 s``."""
    minutes = int(seconds // 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _display(page: str) -> Any:
    """A display that can be updated, or None outside of a notebook."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return None
    if not hasattr(get_ipython(), "kernel"):
        return None
    return display(_html(page), display_id=True)


def _html(page: str) -> Any:
    from IPython.display import HTML

    return HTML(page)


# ------------------------------------------------------------------------- the messages between the cells
NO_GPU = (
    "1. Choose Runtime > Change runtime type > T4 GPU, then Runtime > Run all. "
    "2. If Colab says that no GPU is available, your account has used up its GPU quota for now: try again in some "
    "hours, sometimes days. "
    "3. Or use another target: boneagectl submit --target kaggle. "
    "4. Or set ALLOW_CPU in the settings, which is slow"
)
NO_DRIVE = (
    "{why}. Run this cell again and allow the access when Google asks: without Drive, the checkpoints are lost when "
    "the session ends"
)
NO_CHECKPOINT = (
    "there is no checkpoint to resume from: upload the folder `checkpoint` (last.npz, best.npz) of the previous leg to "
    "the folder {place} of your Drive, and run this cell again"
)
NO_TIME = (
    "no time is left in this session: choose Runtime > Disconnect and delete runtime, then Runtime > Run all. "
    "The run resumes"
)
_INTERRUPTED = (
    "the previous session was interrupted after epoch {epoch}: idle too long, page closed, or runtime ended by Colab. "
    "Resuming after that epoch"
)
_OPEN_AGAIN = "open this notebook again and choose Runtime > Run all. It resumes after epoch {epoch}"


def start_message(state: Mapping[str, Any], epoch: int) -> str:
    """What an earlier session left: its last `state`, and the last complete `epoch`."""
    if not epoch:
        return "Drive is connected; training starts with epoch 1"
    if state.get("state") == "running":
        return _INTERRUPTED.format(epoch=epoch)
    if state.get("state") == "complete":
        return f"this run is complete after {epoch} epochs; the cells below only create its results again"
    reason = f" ({state['reason']})" if state.get("reason") else ""
    return f"resuming after epoch {epoch}, where the previous session stopped{reason}"


def end_message(state: Mapping[str, Any], missing: Sequence[str], leg: str) -> str:
    """How the training ended; `missing` is what could not be copied to Drive."""
    epoch, epochs = state.get("epoch", 0), state.get("epochs", 0)
    drive = "Drive has everything"
    if missing:
        drive = f"MISSING ON DRIVE: {'; '.join(missing)}. Run the last cell now and keep the zip"
    if state["state"] == "complete":
        return f"COMPLETE after epoch {epoch}. {drive}. The last cell offers the results"
    open_again = _OPEN_AGAIN.format(epoch=epoch)
    if state["state"] == "paused":
        return f"PAUSED after epoch {epoch} of {epochs}: {state['reason']}. {drive}. For a new session, {open_again}"
    return (f"{leg} failed after epoch {epoch}: {state['reason']}. {drive}. Read the lines above; "
            f"if the runtime caused it, {open_again}")  # fmt: skip


def result_message(evaluation: Mapping[str, Any]) -> str:
    """The error on the test images."""
    test = evaluation["sets"]["test"]
    return f"test error: {test['mae_months']:.2f} months (MAE) on {test['n']} images"


def final_message(name: str, run: str, missing: Sequence[str]) -> str:
    """What is on Drive, and the command to run on the user's computer."""
    drive = "Drive has everything, and was unmounted"
    if missing:
        drive = f"MISSING ON DRIVE: {'; '.join(missing)}. Keep this page open for a while, and keep the download"
    return f"{drive}. On your own computer, run: boneagectl collect {run} --from {name}"
