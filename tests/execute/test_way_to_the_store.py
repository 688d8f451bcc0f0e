"""How far it is from `Study.run` to the first U-Net call: what is known is not asked for again and again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

import causalunet as cu
from causalunet.design.interventions import KINDS, Intervention
from causalunet.execute.walk import lockstep
from causalunet.models.text_to_image import TextToImage
from causalunet.results.meaning.layout import Layout

PACKAGE = str(Path(cu.__file__).parent)


class FirstCallError(Exception):
    """The U-Net would be called now."""


ASKED: list[int] = []


def study(interventions: int) -> cu.Study:
    return cu.Study(
        name="way",
        prompts=["a red circle"],
        seeds=(0, 1),
        sampler=cu.DDPM(steps=20),
        interventions=cu.sweep(cu.SkipSteps, start=range(2, 2 + interventions), length=1),
    )


@pytest.fixture
def way(tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """File of every function of the package that is entered until then, in their order."""

    def walked(interventions: int) -> list[str]:
        asked, files = study(interventions), list[str]()
        asked.plan(tiny_model, calibrate=False)  # a model is looked at once in a process

        def note(frame: Any, event: str, argument: Any) -> None:
            place = frame.f_code.co_filename
            if event == "call" and place.startswith(PACKAGE) and not frame.f_code.co_name.startswith("<"):
                files.append(place)

        def first_call(*_: Any, **__: Any) -> None:
            sys.setprofile(None)
            raise FirstCallError

        monkeypatch.setattr(lockstep.Walk, "_call", first_call)
        sys.setprofile(note)
        try:
            with pytest.raises(FirstCallError):
                asked.run(tmp_path / f"{interventions}.zarr", model=tiny_model, progress=False)
        finally:
            sys.setprofile(None)
        return files

    return walked


def test_the_way_is_short(way: Callable[[int], list[str]]) -> None:
    """When this was first counted, it was 13,800 calls, with 7,800 returns to a file that was left before."""
    files = way(2)
    moves = sum(one != other for one, other in pairwise(files))
    assert len(files) < 6500
    assert moves - len(set(files)) < 3200


def test_the_way_grows_by_a_few_calls_for_every_intervention(way: Callable[[int], list[str]]) -> None:
    assert len(way(12)) - len(way(2)) < 10 * 400  # 283 each; 515 while every stage asked for the edits anew


def test_an_intervention_is_asked_once_for_its_edits(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kind of somebody's own may take long to say them."""
    with KINDS.scoped():

        @dataclass(frozen=True, slots=True, kw_only=True)
        class Slow(Intervention):
            kind: ClassVar[str] = "slow"
            window: cu.Window

            def edits(self) -> tuple[cu.Edit, ...]:
                ASKED.append(self.window.start)
                return (cu.Edit("mid", self.window, cu.Zero()),)

        def asked() -> cu.Study:
            items = [Slow(window=cu.Window(start, 2)) for start in (6, 4)]
            return cu.Study(name="s", prompts=["a red circle"], sampler=cu.DDPM(steps=8), interventions=items)

        first, second = asked(), asked()
        ASKED.clear()
        plan = first.plan(tiny_model, calibrate=False)
        assert sorted(ASKED) == [4, 6]
        ASKED.clear()
        Layout(plan, {}, 1).known()
        assert plan.part((0,)).stored_bytes
        assert not ASKED, "what was planned knows them"

        def first_call(*_: Any, **__: Any) -> None:
            raise FirstCallError

        monkeypatch.setattr(lockstep.Walk, "_call", first_call)
        with pytest.raises(FirstCallError):
            second.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
        assert sorted(ASKED) == [4, 6]
