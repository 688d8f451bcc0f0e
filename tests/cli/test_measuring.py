"""Measuring one more outcome: by name with parameters, gone on with, and refused in one line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import causalunet as cu
from causalunet.cli.measuring import outcome_asked
from causalunet.design.outcomes import OUTCOMES, MultiScaleSSIM, Outcome
from causalunet.errors import CheckpointError, SpecError
from causalunet.metrics import ms_ssim
from causalunet.results.engine import scoring
from causalunet.results.engine.export import regions
from tests.cli.conftest import Command


@pytest.mark.sampled(1)
@pytest.mark.parametrize("parameters", [["scales=1"], ['{"scales": 1}']])
def test_an_outcome_is_measured_of_a_store(parameters: list[str], copied: Path, command: Command) -> None:
    told = command("measure", copied, "ms_ssim", *parameters)
    assert told.code == 0
    assert told.out.splitlines()[-1] == f"Measured: ms_ssim_1 of 12 of 12 cells, in {copied}"
    results = cu.open_results(copied)
    baseline = results["baseline/image"].values
    expected = [ms_ssim(of_run, baseline, 1) for of_run in results["outcomes/image"].values]
    np.testing.assert_allclose(results.outcomes["ms_ssim_1"], expected, rtol=1e-6)
    assert command("verify", copied, "--deep").code == 0
    assert command("measure", copied, "ms_ssim", *parameters).code == 0, "nothing is left to do"
    assert len(cu.open_results(copied).history()) == len(results.history())


@pytest.mark.usefixtures("guests")
def test_one_that_a_package_announces(copied: Path, command: Command) -> None:
    told = command("measure", copied, "guests.colour_distance", 'labels=["r", "g", "b"]')
    assert told.code == 0, told
    assert cu.open_results(copied).outcomes["colour"].values.tolist() == ["r", "g", "b"]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["lpipz"], r"'lpipz'.* is not an outcome; known outcomes: .*ms_ssim"),
        (["ms_ssim"], r"at least 176 x 176"),
        (["ms_ssim", "scale=2"], r"scale"),
        (["ms_ssim", "scales=two"], r"scales='two'; there are 1 to 5"),
        (["ms_ssim", "2"], r"'2' is no parameter\. Parameters are given as NAME=VALUE, such as scales=2"),
        (["ms_ssim", "{scales: 2}"], r"is not JSON"),
        (["ms_ssim", "scales=2", '{"scales": 1}'], r"'scales' is given twice"),
        (["ssim"], r"Every store holds 'ssim'"),
        (["factors"], r"the model has none"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(
    arguments: list[str], reason: str, copied: Path, command: Command
) -> None:
    before = len(cu.open_results(copied).history())
    told = command("measure", copied, *arguments)
    assert told.code == 2
    assert len(told.err.splitlines()) == 1
    with pytest.raises(SpecError, match=reason):
        raise SpecError(told.err)
    assert len(cu.open_results(copied).history()) == before


def test_an_export_is_refused(store: Path, tmp_path: Path, command: Command) -> None:
    cu.open_results(store).export(tmp_path / "plain")
    told = command("measure", tmp_path / "plain", "histogram_distance")
    assert (told.code, "is an export" in told.err) == (2, True)
    assert command("measure", tmp_path / "none", "histogram_distance").code == 2


SEEN: list[int] = []


@dataclass(frozen=True, slots=True)
class Tired(Outcome):
    """Mean; stops at its third call, or fails on one sample."""

    name: ClassVar[str] = "tired"
    definition: ClassVar[str] = "Mean."
    fails: bool = False

    def measure(self, images: Any, baseline: Any, context: Any) -> Any:
        SEEN.append(images.shape[1])
        if len(SEEN) == 4 and not self.fails:
            raise KeyboardInterrupt
        if self.fails and "a blue cross" in context.prompts:
            raise RuntimeError("not of crosses")
        return images.mean(axis=(-3, -2, -1))


def test_after_an_interrupt_the_same_command_goes_on(
    copied: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_SECONDS", 0.0)
    monkeypatch.setattr(scoring, "regions", lambda shape, _: regions(shape, (4, 1)))
    SEEN.clear()
    with OUTCOMES.scoped(tired=Tired):
        told = command("measure", copied, "tired")
        assert told.code == 130
        assert told.err.strip().endswith(f"to go on: causalunet measure {copied} tired")
        assert cu.open_results(copied).outcomes["tired_status"].values[0].tolist() == [1, 1, 0]
        assert command("status", copied).code == 0, "cells are complete as before"
        assert command("measure", copied, "tired").code == 0
    assert SEEN[-1:] == [1], "only what was not committed"


def test_cells_on_which_it_fails_are_told(copied: Path, command: Command) -> None:
    with OUTCOMES.scoped(tired=Tired):
        SEEN.clear()
        told = command("measure", copied, "tired", "fails=true")
        assert told.code == 3
        assert "failed on 4 of 12 cells: RuntimeError: not of crosses" in told.err
        assert "tired of 8 of 12 cells" in told.out
        SEEN.clear()
        assert command("measure", copied, "tired", "fails=true").code == 3
        again = len(SEEN)
        assert command("measure", copied, "tired", "fails=true", "--retry-failed").code == 3
        assert len(SEEN) > 2 * again, "failed cells are measured again only where that is asked for"


def test_values_are_json_or_else_text() -> None:
    assert outcome_asked("ms_ssim", ["scales=3"]) == MultiScaleSSIM(3)
    with pytest.raises(CheckpointError, match=r"no weights file at nowhere/at all\.pth"):
        outcome_asked("lpips", ["weights=nowhere/at all.pth"])


@dataclass(frozen=True, slots=True)
class Read(Outcome):
    """What the first factor of an image is read as."""

    name: ClassVar[str] = "read"
    definition: ClassVar[str] = "Code of the first factor."

    def measure(self, images: Any, baseline: Any, context: Any) -> Any:
        flat = images.reshape(-1, *images.shape[2:])
        return context.read_factors(flat)[0][:, 0].reshape(images.shape[:2]).astype(np.float64)


class Reader:
    """A model with a factor, which is 2 of all images."""

    factors: ClassVar[dict[str, tuple[str, ...]]] = {"shape": ("a", "b", "c")}

    def read_factors(self, images: Any) -> Any:
        return np.full((len(images), 1), 2), np.ones((len(images), 1), np.float32)


def test_an_outcome_that_asks_the_factor_reader(
    copied: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("causalunet.cli.measuring.load_registered", lambda name: asked.append(name) or Reader())
    with OUTCOMES.scoped(read=Read):
        assert command("measure", copied, "read").code == 2, "without a reader it is none"
        assert not asked
        assert command("measure", copied, "read", "--read-factors").code == 0
        assert asked == [cu.open_results(copied).attrs["study"]["model"]]
        assert (cu.open_results(copied).outcomes["read"] == 2).all()
