"""What every target promises, as tests. A target's test class inherits this and gives the fixtures below.

`target`   the target, on an other side that really runs the jobs,
`behave`   how the jobs that follow behave: see the switches in emulators/fake_trainer.py,
`kill`     ends a leg's job behind the target's back, without a word.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from boneage_trainer.contract import RunFolder, parse_sentinel, sha256_of
from boneagectl import bundle
from boneagectl.errors import NotYet
from boneagectl.models import Checkpoint, Handle, JobSpec, LegState
from boneagectl.targets.base import BaseTarget
from support import make_pack, make_spec, wait_for

LEG, AT_ONCE_S, NO_WAIT_S = "contract-run-01", 2.0, 1.0
SECOND = "contract-run-02"
Behave = Callable[..., None]
Kill = Callable[[Handle], None]
Start = Callable[..., Handle]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def epochs_in(lines: Iterable[str]) -> list[int]:
    """The epochs whose lines are in a log."""
    return [line["epoch"] for text in lines if (line := parse_sentinel(text))]


class TargetContract:
    """Inherit, and give the fixtures."""

    never_was = "never-was-01"
    shows_files = True
    """Whether a leg has files to bring from its submit on, and all of them while it runs."""
    own_lines = 0
    """How many lines the target's side adds to the trainer's own log."""
    died_alone = LegState.LOST
    """What a leg is whose trainer was killed on the other side, while that side lives on."""

    @pytest.fixture
    def target(self) -> BaseTarget:
        raise NotImplementedError

    @pytest.fixture
    def behave(self) -> Behave:
        raise NotImplementedError

    @pytest.fixture
    def kill(self) -> Kill:
        raise NotImplementedError

    # ------------------------------------------------------------------------------ helpers
    @pytest.fixture
    def spec(self, target: BaseTarget, tmp_path: Path) -> JobSpec:
        return make_spec(make_pack(tmp_path / "pack"), time_limit_s=600, target=target.name, epochs=3)

    @pytest.fixture
    def start(self, target: BaseTarget, spec: JobSpec, tmp_path: Path) -> Start:
        """Renders and submits a leg."""

        def submit(leg_id: str = LEG, resume: Checkpoint | None = None) -> Handle:
            folder = tmp_path / f"sent-{leg_id}"
            target.render(spec, bundle.build(spec), leg_id, folder, resume)
            return target.submit(leg_id, folder)

        return submit

    @staticmethod
    def wait_until(target: BaseTarget, handle: Handle, state: LegState, epoch: int = 0) -> None:
        def is_there() -> bool:
            seen = target.poll(handle)
            assert not seen.state.is_over or seen.state is state, seen
            return seen.state is state and seen.epoch >= epoch

        wait_for(is_there)

    # ------------------------------------------------------------------------ before the start
    def test_a_quote_is_the_worst_case(self, target: BaseTarget, spec: JobSpec) -> None:
        quote = target.quote(spec)
        assert quote.target == target.name
        assert quote.worst_s >= spec.time_limit_s * quote.sessions
        assert quote.worst_usd_micro * 3600 >= quote.usd_micro_per_hour * spec.time_limit_s
        assert target.capabilities.billed == (quote.usd_micro_per_hour > 0)
        assert quote.source
        assert quote.date

    def test_render_is_repeatable_and_touches_nothing_else(
        self, target: BaseTarget, spec: JobSpec, tmp_path: Path, home: Path
    ) -> None:
        made = bundle.build(spec)
        before = contents(tmp_path)
        target.render(spec, made, LEG, tmp_path / "one", None)
        target.render(spec, made, LEG, tmp_path / "two", None)
        one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
        assert one
        assert one == two
        after = contents(tmp_path)
        assert {name: data for name, data in after.items() if not name.startswith(("one/", "two/"))} == before
        assert not home.exists(), "rendering is not sending"

    # ------------------------------------------------------------------------------- the start
    def test_find_knows_a_leg_from_its_submit_on(self, target: BaseTarget, start: Start) -> None:
        assert target.find(LEG) is None
        began_s = time.monotonic()
        handle = start()
        assert time.monotonic() - began_s < AT_ONCE_S, "submit returns at once"
        assert target.find(LEG) == handle
        assert target.find("contract-run-02") is None
        assert target.find("contract-run-0") is None
        assert Handle.parse(str(handle)) == handle
        self.wait_until(target, handle, LegState.COMPLETE)
        assert target.find(LEG) == handle

    def test_a_leg_runs_to_its_end(self, target: BaseTarget, start: Start) -> None:
        handle = start()
        assert not target.poll(handle).state.is_over
        self.wait_until(target, handle, LegState.COMPLETE, epoch=3)
        seen = target.poll(handle)
        assert (seen.epoch, seen.epochs, seen.reason) == (3, 3, "")
        assert seen.metrics
        assert seen.metrics["epoch"] == 3
        assert target.poll(handle) == seen, "what is over does not change"

    def test_poll_never_waits(self, target: BaseTarget, behave: Behave, start: Start) -> None:
        behave(epochs=1, epoch_s=30)
        handle = start()
        for _ in range(3):
            began_s = time.monotonic()
            assert not target.poll(handle).state.is_over
            assert time.monotonic() - began_s < NO_WAIT_S
        target.stop(handle)

    # ------------------------------------------------------------------------------------ logs
    def test_logs_so_far_and_until_the_end(self, target: BaseTarget, behave: Behave, start: Start) -> None:
        behave(epochs=4, epoch_s=0.3)
        handle = start()
        self.wait_until(target, handle, LegState.RUNNING, epoch=1)
        so_far = list(target.logs(handle, follow=False))
        assert epochs_in(so_far)
        followed = list(target.logs(handle, follow=True))
        assert len(so_far) < len(followed) == 5 + self.own_lines
        assert so_far == followed[: len(so_far)]
        assert epochs_in(followed) == [1, 2, 3, 4]
        assert target.poll(handle).state is LegState.COMPLETE
        assert list(target.logs(handle, follow=False)) == followed

    def test_a_followed_line_comes_whole(self, target: BaseTarget, behave: Behave, start: Start) -> None:
        behave(mode="torn", epochs=2)
        followed = list(target.logs(start(), follow=True))
        assert epochs_in(followed) == [1, 2]
        assert len(followed) == 3 + self.own_lines

    # ------------------------------------------------------------------------------------ stop
    def test_stop_saves_and_a_next_leg_goes_on(
        self, target: BaseTarget, behave: Behave, start: Start, tmp_path: Path
    ) -> None:
        if not (target.capabilities.can_stop and target.capabilities.stop_keeps):
            pytest.skip("a stop here keeps nothing")
        behave(epochs=40, epoch_s=0.1)
        handle = start()
        self.wait_until(target, handle, LegState.RUNNING, epoch=2)
        target.stop(handle)
        seen = target.poll(handle)
        assert (seen.state, seen.reason) == (LegState.PAUSED, "stop")
        brought = RunFolder(target.collect(handle, tmp_path / "first").folder)
        assert brought.last.read_text() == f"weights after epoch {seen.epoch}"
        behave(epochs=seen.epoch + 2, epoch_s=0.05)
        second = start(SECOND, Checkpoint(brought.root, handle))
        self.wait_until(target, second, LegState.COMPLETE)
        done = RunFolder(target.collect(second, tmp_path / "second").folder)
        lines = [json.loads(line) for line in done.metrics.read_text().splitlines()]
        assert [line["epoch"] for line in lines] == list(range(1, seen.epoch + 3))
        assert {line["leg"] for line in lines} == {LEG, SECOND}

    def test_stop_is_silent_where_nothing_runs(self, target: BaseTarget, start: Start) -> None:
        handle = start()
        self.wait_until(target, handle, LegState.COMPLETE)
        before = target.poll(handle)
        target.stop(handle)
        target.stop(handle)
        assert target.poll(handle) == before
        target.stop(Handle(target.name, self.never_was))

    @pytest.mark.parametrize("mode", ["deaf", "mute"])
    def test_stop_ends_a_job_that_does_not_listen(
        self, target: BaseTarget, behave: Behave, start: Start, mode: str
    ) -> None:
        if not target.capabilities.can_stop:
            pytest.skip("this target cannot stop")
        behave(mode=mode, epochs=1000)
        handle = start()
        if mode == "deaf":
            self.wait_until(target, handle, LegState.RUNNING, epoch=1)
        time.sleep(0.3)
        target.stop(handle)
        wait_for(lambda: target.poll(handle).state.is_over)
        assert target.poll(handle).state in (LegState.LOST, LegState.FAILED)

    # --------------------------------------------------------------------------------- collect
    def test_collect_brings_the_same_again_and_more_as_it_comes(
        self, target: BaseTarget, behave: Behave, start: Start, tmp_path: Path
    ) -> None:
        behave(epochs=12, epoch_s=0.1)
        handle, dest = start(), RunFolder(tmp_path / "brought")
        self.wait_until(target, handle, LegState.RUNNING, epoch=1)
        running = target.collect(handle, dest.root)
        assert "metrics.jsonl" in running.sha256
        self.wait_until(target, handle, LegState.COMPLETE)
        wait_for(lambda: target.collect(handle, dest.root).unlisted == ())  # the state comes before its listing
        whole = target.collect(handle, dest.root)
        assert {name: sha256_of(dest.root / name) for name in whole.sha256} == whole.sha256
        assert {"state.json", "metrics.jsonl", "checkpoint/last.npz", "model.keras", "MANIFEST.json"} <= set(
            whole.sha256
        )
        dest.model.write_bytes(b"damaged")
        dest.metrics.unlink()
        assert target.collect(handle, dest.root) == whole
        assert sha256_of(dest.model) == whole.sha256["model.keras"]
        assert not [name for name in contents(dest.root) if name.endswith(".tmp")]

    def test_collect_while_it_writes_never_brings_half_a_file(
        self, target: BaseTarget, behave: Behave, start: Start, tmp_path: Path
    ) -> None:
        behave(epochs=60, epoch_s=0.01)
        handle, dest = start(), RunFolder(tmp_path / "brought")
        self.wait_until(target, handle, LegState.RUNNING, epoch=1)
        while not target.poll(handle).state.is_over:
            target.collect(handle, dest.root)
            for line in dest.metrics.read_text().splitlines():
                json.loads(line)
            if self.shows_files or dest.manifest.exists():
                json.loads(dest.manifest.read_text())
        wait_for(lambda: target.collect(handle, dest.root).unlisted == ())

    def test_collect_of_nothing(self, target: BaseTarget, tmp_path: Path) -> None:
        with pytest.raises(NotYet):
            target.collect(Handle(target.name, self.never_was), tmp_path / "brought")

    # ----------------------------------------------------------------------------------- faults
    def test_a_job_that_says_it_failed(self, target: BaseTarget, behave: Behave, start: Start) -> None:
        behave(mode="fail")
        handle = start()
        self.wait_until(target, handle, LegState.FAILED)
        assert target.poll(handle).reason == "the loss is not a number"

    def test_a_job_that_cannot_start_says_why(self, target: BaseTarget, behave: Behave, start: Start) -> None:
        behave(mode="silent")
        handle = start()
        self.wait_until(target, handle, LegState.FAILED)
        assert "no module named keras" in target.poll(handle).reason

    @pytest.mark.parametrize("how", ["from outside", "by itself"])
    def test_a_killed_job_is_lost_with_its_epochs_safe(
        self, target: BaseTarget, behave: Behave, kill: Kill, start: Start, tmp_path: Path, how: str
    ) -> None:
        behave(mode="crash" if how == "by itself" else "", epochs=1000, epoch_s=0.5)  # killed between two, not in one
        handle = start()
        if how == "from outside":
            self.wait_until(target, handle, LegState.RUNNING, epoch=2)
            kill(handle)
        self.wait_until(target, handle, self.died_alone if how == "by itself" else LegState.LOST)
        brought = RunFolder(target.collect(handle, tmp_path / "brought").folder)
        assert brought.last.read_text() == f"weights after epoch {len(brought.metrics.read_text().splitlines())}"

    def test_two_legs_do_not_meet(self, target: BaseTarget, start: Start) -> None:
        handles = [start("contract-run-01"), start("another-run-01")]
        for handle in handles:
            self.wait_until(target, handle, LegState.COMPLETE)
        for handle, leg in zip(handles, (LEG, "another-run-01"), strict=True):
            lines = [line for text in target.logs(handle, follow=False) if (line := parse_sentinel(text))]
            assert {line["leg"] for line in lines} == {leg}

    def test_verbs_may_be_called_at_once(
        self, target: BaseTarget, behave: Behave, start: Start, tmp_path: Path
    ) -> None:
        behave(epochs=20, epoch_s=0.02)
        handle, wrong = start(), []

        def ask(at: int) -> None:
            try:
                while not target.poll(handle).state.is_over:
                    with nullcontext() if self.shows_files else suppress(NotYet):
                        target.collect(handle, tmp_path / f"brought-{at}")
                    assert target.find(LEG) == handle
            except Exception as error:
                wrong.append(error)

        askers = [threading.Thread(target=ask, args=(at,)) for at in range(4)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert wrong == []
        assert target.poll(handle).state is LegState.COMPLETE
