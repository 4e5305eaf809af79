"""What a person sees while a notebook trains: how far it is, how long it lasts, and both losses as a picture.

One display that is updated in place; where nothing shows HTML, plain lines.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from boneage_trainer.contract import SENTINEL

_WIDTH_PX, _HEIGHT_PX, _EDGE_PX = 640, 220, 44
_CURVES = (("loss", "training loss", "#1f6fb4"), ("val_loss", "validation loss", "#c4541a"))


class View:
    """The training of `epochs` epochs; `left_s` says how many seconds this session still has."""

    def __init__(self, epochs: int, history: Sequence[Mapping[str, Any]], left_s: Callable[[], float]) -> None:
        self._epochs, self._left_s = epochs, left_s
        self._history = list(history)
        self._shown = _display(self._page())

    def line(self, text: str) -> None:
        """A line of the trainer's own."""
        is_epoch = text.startswith(("epoch ", SENTINEL))
        if not text.startswith(SENTINEL) and not (self._shown and is_epoch):
            print(text, flush=True)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """A finished epoch."""
        self._history.append(metrics)
        if self._shown:
            try:
                self._shown.update(_html(self._page()))
            except Exception:
                self._shown = None  # a page that was closed; the lines go on
        if not self._shown:
            print(self._words(), flush=True)

    def _words(self) -> str:
        done = int(self._history[-1]["epoch"]) if self._history else 0
        took_s = float(self._history[-1].get("epoch_s", 0.0)) if self._history else 0.0
        to_go_s = took_s * max(0, self._epochs - done)
        needed = f"about {duration(to_go_s)} to go" if took_s else "the first epoch takes longest"
        return (f"epoch {done} of {self._epochs}, {needed}; "
                f"this session ends itself in {duration(max(0.0, self._left_s()))}")  # fmt: skip

    def _page(self) -> str:
        done = int(self._history[-1]["epoch"]) if self._history else 0
        best = min((float(line["val_mae_months"]) for line in self._history), default=None)
        error = "" if best is None else f"<br>lowest validation error so far: {best:.2f} months (MAE)"
        bar = f'<progress value="{done}" max="{self._epochs}" style="width:{_WIDTH_PX}px"></progress>'
        return f"{bar}<br>{html.escape(self._words())}{error}<br>{plot(self._history, self._epochs)}"


def plot(history: Sequence[Mapping[str, Any]], epochs: int) -> str:
    """Both losses over the epochs as an SVG of its own; nothing before the second epoch."""
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

    drawn = [_curve(number, name, colour, [at(*point) for point in points])
             for number, (name, colour, points) in enumerate(curves)]  # fmt: skip
    scale = [_text(2, _EDGE_PX / 2 + 4, f"{high:.3g}"), _text(2, _HEIGHT_PX - _EDGE_PX, f"{low:.3g}"),
             _text(_WIDTH_PX - 2 * _EDGE_PX, _HEIGHT_PX - 4, f"epoch {epochs}")]  # fmt: skip
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH_PX}" height="{_HEIGHT_PX}" '
            f'font-family="sans-serif" font-size="12">{"".join([*drawn, *scale])}</svg>')  # fmt: skip


def _curve(number: int, name: str, colour: str, points: Sequence[str]) -> str:
    line = f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(points)}"/>'
    return line + _text(_EDGE_PX + 150 * number, _HEIGHT_PX - 4, name, colour)


def _text(x_px: float, y_px: float, words: str, colour: str = "currentColor") -> str:
    return f'<text x="{x_px:g}" y="{y_px:g}" fill="{colour}">{words}</text>'


def duration(seconds: float) -> str:
    """``10 h 05 min``, ``12 min``, ``40 s``."""
    minutes = int(seconds // 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _display(page: str) -> Any:
    """A display that can be updated, or None where there is no notebook around."""
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


# == colab_words: What a notebook says at its turning points: what happened, and what to do next.

NO_GPU = (
    "1. Runtime > Change runtime type > T4 GPU, then Runtime > Run all. "
    "2. If Colab says that no GPU is available, your account has used up its share for now: try again in some hours, "
    "at times days. "
    "3. Or train elsewhere: boneagectl submit --target kaggle. "
    "4. Or tick ALLOW_CPU in the settings, which is slow"
)
NO_DRIVE = (
    "{why}. Run this cell again and allow the access when Google asks: without Drive, all that is trained is lost with "
    "the session"
)
NO_CHECKPOINT = (
    "there is no training to go on from: put the folder `checkpoint` (last.npz, best.npz) of the leg before this one "
    "into the folder {place} of your Drive, and run this cell again"
)
NO_TIME = (
    "no time is left in this session: Runtime > Disconnect and delete runtime, then Runtime > Run all. "
    "It goes on where it was"
)
_CUT = (
    "the session before was cut off after epoch {epoch}: idle too long, its page closed, or the machine taken back. "
    "Going on from there"
)
_AGAIN = "open this notebook again and choose Runtime > Run all. It goes on after epoch {epoch}"


def beginning(state: Mapping[str, Any], epoch: int) -> str:
    """What an earlier session left, of which `state` is the last word and `epoch` the last whole one."""
    if not epoch:
        return "Drive is connected; the training begins with epoch 1"
    if state.get("state") == "running":
        return _CUT.format(epoch=epoch)
    if state.get("state") == "complete":
        return f"this training is complete after {epoch} epochs; the cells below only make its results again"
    reason = f" ({state['reason']})" if state.get("reason") else ""
    return f"going on after epoch {epoch}, where the session before stopped{reason}"


def ending(state: Mapping[str, Any], missing: Sequence[str], leg: str) -> str:
    """How the training ended; `missing` is what could not be brought to Drive."""
    epoch, epochs = state.get("epoch", 0), state.get("epochs", 0)
    where = _on_drive(missing)
    if state["state"] == "complete":
        return f"COMPLETE after epoch {epoch}. {where}. The last cell offers the results"
    if state["state"] == "paused":
        again = _AGAIN.format(epoch=epoch)
        return f"PAUSED after epoch {epoch} of {epochs}: {state['reason']}. {where}. In a new session, {again}"
    return (f"the training of {leg} failed after epoch {epoch}: {state['reason']}. {where}. Read the lines above; "
            f"if the machine was to blame, {_AGAIN.format(epoch=epoch)}")  # fmt: skip


def _on_drive(missing: Sequence[str]) -> str:
    if not missing:
        return "Drive has all of it"
    return f"DRIVE LACKS {'; '.join(missing)}. Run the last cell now and keep the zip"


def result(evaluation: Mapping[str, Any]) -> str:
    """The error on images that were never trained on."""
    found = evaluation["sets"]["test"]
    return f"test error: {found['mae_months']:.2f} months (MAE) on {found['n']} images"


def goodbye(name: str, run: str, missing: Sequence[str]) -> str:
    """The last words: what to type at home."""
    drive = f"DRIVE LACKS {'; '.join(missing)}: keep this page open a while, and keep the download" if missing else (
        "Drive has everything, and is disconnected")  # fmt: skip
    return f"{drive}. On your own machine: boneagectl collect {run} --from {name}"
