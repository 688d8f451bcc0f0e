"""Processes against numbers that the official code of their authors gave; see ``tests/golden/README.md``."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import causalunet as cu
from causalunet.design.samplers import SAMPLERS, Estimate, Sampler, State
from causalunet.models.base import MODELS
from causalunet.prediction import Prediction
from causalunet.process import PROCESSES, AddedResidual, AroundResidual, Process, ShortestPath
from causalunet.schedule import Level, TrainingSchedule
from causalunet.stepping import Stepping, grown, shrunk

Array = NDArray[np.float64]
SPD, UDPM, RDDM, RESFUSION = (
    json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text())
    for name in ("spd", "udpm", "rddm", "resfusion")
)
IMAGE = Level(-1.0, 1.0)


def run(
    process: Process,
    shares: Any,
    sampler: Sampler,
    of: str,
    say: Callable[[Array, Level], Array],
    x: Any,
    noises: Any,
    given: Array | None = None,
) -> list[Array]:
    """States of scale 1 after every step, from the last timestep on, by a network of what it is given."""
    training = TrainingSchedule(np.asarray(shares), process, from_noise=True)
    stepping = Stepping(sampler, training, Prediction(of))
    levels = [*(training.level(time) for time in reversed(range(len(shares)))), IMAGE]
    states, state = [], State(np.asarray(x))
    for (at, to), noise in zip(itertools.pairwise(levels), noises, strict=True):
        value = say(stepping.put_in(state.x, at) * at.scale, at)
        said = Estimate(*stepping.estimated(value, state.x, at, given), None, state.x, at)
        state = stepping.step(state, (said,), at, to, np.asarray(noise) if sampler.draws else None, given)
        states.append(state.x)
    return states


def test_frequencies_have_the_shares_of_the_authors() -> None:
    """tau is theirs, which ends at 1 / T; by the equation it ends at 0, where there is noise alone."""
    process, size = ShortestPath(), SPD["size"]
    for tau, shares in zip(SPD["tau"], SPD["alpha_bar"], strict=True):
        found = process.shares(tau, size, size)[process.bands(size, size)]
        np.testing.assert_allclose(found, shares, rtol=1e-12)
    assert not process.shares(0.0, size, size).any()


@pytest.mark.parametrize("told", SPD["runs"], ids=lambda one: f"{one['method']} {one['variance']}")
def test_runs_of_shortest_paths_are_those_of_the_authors(told: dict[str, Any]) -> None:
    sampler = cu.DDIM() if told["method"] == "ddim" else cu.DDPM(variance=told["variance"])
    found = run(ShortestPath(), SPD["tau"], sampler, "eps", lambda x, _: np.tanh(x) / 2, SPD["x"], SPD["noise"])
    np.testing.assert_allclose(found, told["trajectory"], rtol=0, atol=1e-11)


def test_states_of_shortest_paths_are_those_of_the_authors() -> None:
    """Image and noise by frequency, of pixels again."""
    process, size = ShortestPath(), SPD["size"]
    image, noise = np.fft.fft2(SPD["x0"]), np.fft.fft2(SPD["noise"][0])
    basis, bands = process.basis(size), process.bands(size, size)
    for tau, expected in zip(SPD["tau"], SPD["q_sample"], strict=True):
        share = process.shares(tau, size, size)[bands]
        turned = [
            np.sqrt(part) * (basis @ np.array(of) @ basis.T)
            for part, of in ((share, SPD["x0"]), (1 - share, SPD["noise"][0]))
        ]
        np.testing.assert_allclose(basis.T @ sum(turned) @ basis, expected, rtol=0, atol=1e-12)
        assert np.fft.ifft2(np.sqrt(share) * image + np.sqrt(1 - share) * noise).real == pytest.approx(
            np.array(expected)
        )


@pytest.fixture(scope="module")
def study() -> Iterator[Any]:
    """The study of these levels, with the step of the code."""
    path = Path(__file__).parents[1] / "studies" / "systems" / "udpm" / "study.py"
    spec = importlib.util.spec_from_file_location("udpm", path)
    assert spec is not None
    assert spec.loader is not None
    with SAMPLERS.scoped(), MODELS.scoped(), pytest.MonkeyPatch.context() as patch:
        found = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, found)  # where dataclasses look
        spec.loader.exec_module(found)
        yield found


def made(told: dict[str, Any]) -> Array:
    """An array that the numbers were made of: sines, row by row."""
    size = told["size"]
    return np.asarray(np.sin(told["rate"] * np.arange(1, size * size + 1)).reshape(1, 1, size, size))


def detail(x: Array) -> Array:
    """What an array shows more than one of half the size."""
    return np.asarray(x - grown(shrunk(x, 1), 1))


def test_levels_of_pixels_are_those_of_the_authors(study: Any) -> None:
    down, process = UDPM["down"], study.pyramid()
    np.testing.assert_allclose(shrunk(made(down["x"]), 1), down["Hx"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(grown(made(down["y"]), 1), down["HTy"], rtol=0, atol=1e-12)
    for told in UDPM["marginal"]:
        level = told["level"]
        weights = process.weights(float(process.alpha_bars[level - 1]))
        found = weights.image * shrunk(made(UDPM["x0"]), level) + weights.noise * made(told["noise"])
        np.testing.assert_allclose(found, told["x_l"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("told", UDPM["posterior"], ids=lambda one: str(one["level"]))
def test_posteriors_of_levels_are_those_of_the_authors(told: dict[str, Any], study: Any) -> None:
    """Theirs have one variance; by the equation it is that of the level below in what level l does not show."""
    process, level = study.pyramid(), told["level"]
    training = TrainingSchedule(process.alpha_bars, process)
    at, to = training.level(level - 1), training.level(level - 2)
    x, noise = grown(made(told["x_l"]), level) / at.scale, grown(made(told["below"]), level - 1)
    theirs = np.array(told["mean"])
    for official in (False, True):
        sampler = study.OneVariance.of(process) if official else cu.DDPM(variance="small")
        stepping = Stepping(sampler, training, Prediction("x0"))
        said = Estimate(*stepping.estimated(made(told["below"]), x, at, None), None, x, at)
        mean = to.scale * shrunk(stepping.mean(State(x), (said,), at, to, None), level - 1)
        drawn = to.scale * shrunk(stepping.step(State(x), (said,), at, to, noise, None).x, level - 1) - mean
        share = 1.0 if official else to.noise**2 / told["scalar"]
        np.testing.assert_allclose(mean, theirs + (share - 1) * detail(theirs), rtol=0, atol=1e-12)
        of_level, more = told["scalar"] ** 0.5 * made(told["below"]), (share**0.5 - 1) * told["scalar"] ** 0.5
        np.testing.assert_allclose(drawn, of_level + more * detail(made(told["below"])), rtol=0, atol=1e-12)


def test_a_run_of_levels_is_that_of_the_authors(study: Any) -> None:
    """From their first state, with the one variance of their code."""
    process, told = study.pyramid(), UDPM["run"]
    first = np.array(told["calls"][0]["x"])
    asked: list[Array] = []

    def say(x: Array, at: Level) -> Array:
        asked.append(x)
        return np.asarray(0.8 * np.tanh(grown(x, 1)) + 0.1)

    start = grown(first, 3) / process.scale(float(process.alpha_bars[-1]))
    noises = [grown(made(noise), level) for noise, level in zip(told["noise"][1:], (2, 1), strict=True)]
    found = run(process, process.alpha_bars, study.OneVariance.of(process), "x0", say, start, [*noises, noises[-1]])
    for one, call in zip(asked, told["calls"], strict=True):
        np.testing.assert_allclose(one, call["x"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[-1], told["image"], rtol=0, atol=1e-12)
    weights = process.weights(float(process.alpha_bars[-1]))
    began = weights.image * shrunk(made(told["first"]), 3) + weights.noise * made(told["noise"][0])
    np.testing.assert_allclose(first, began, rtol=0, atol=1e-12)


(TWELVE,) = (one for one in RESFUSION["schedules"] if one["T"] == 12)


@pytest.mark.parametrize("told", RESFUSION["runs"], ids=lambda one: one["mode"])
def test_runs_of_resfusion_are_those_of_the_authors(told: dict[str, Any]) -> None:
    """Of the schedule as their code has it, which ends at 1 / 4."""
    given, noises = np.array(RESFUSION["u"]), RESFUSION["noise"][: TWELVE["T_acc"]]
    of, say = {
        "epsilon": ("resnoise", lambda x, _: 0.3 * x - 0.2 * given),
        "sample": ("x0", lambda x, _: 0.8 * np.tanh(x + 0.3 * given)),
    }[told["mode"]]
    first, *expected = told["trajectory"]
    process, sampler = AroundResidual(), cu.DDPM(variance="small")
    found = run(process, TWELVE["alphas_hat"], sampler, of, say, first, noises, given)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_states_and_targets_of_resfusion_are_those_of_the_authors() -> None:
    x0, given, noise = (np.array(RESFUSION[name]) for name in ("x0", "u", "first_noise"))
    training = TrainingSchedule(np.array(TWELVE["alphas_hat"]), AroundResidual())
    for time, (state, target) in enumerate(zip(RESFUSION["q_sample"], RESFUSION["resnoise"], strict=True)):
        level = training.level(time)
        weights = training.process.weights(level.alpha_bar)
        found = weights.image * x0 + weights.given * given + weights.noise * noise
        np.testing.assert_allclose(found, state, rtol=0, atol=1e-12)
        stepping = Stepping(cu.DDPM(), training, Prediction("resnoise"))
        said = stepping.estimated(np.array(target), found, level, given)
        np.testing.assert_allclose(said, [x0, noise], rtol=0, atol=1e-9)


with PROCESSES.scoped():  # other tests go over all that there are

    class _Table(AddedResidual):
        """A_t by B_t / B_T as their code adds it up."""

        name: ClassVar[str] = "tests.rddm"
        __slots__ = ()

        def added(self, noise: float) -> float:
            """Of the timestep with that noise; of none, nothing."""
            known = np.array([0.0, *FIVE["betas_cumsum"]]) / self.noise
            return float(np.interp(noise, known, [0.0, *FIVE["alphas_cumsum"]]))


(FIVE,) = (one for one in RDDM["schedules"] if (one["steps"], one["sum_scale"]) == (5, 0.01))


def rddm() -> TrainingSchedule:
    shares = 1 / (1 + np.square(FIVE["betas_cumsum"]))
    return TrainingSchedule(shares, _Table(noise=FIVE["betas_cumsum"][-1]))


def test_states_of_rddm_are_those_of_the_authors() -> None:
    x0, given, noise = (np.array(RDDM[name]) for name in ("x0", "u", "first_noise"))
    training = rddm()
    for time, expected in enumerate(RDDM["q_sample"]):
        weights = training.process.weights(training.level(time).alpha_bar)
        found = weights.image * x0 + weights.given * given + weights.noise * noise
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("told", RDDM["posterior"], ids=lambda one: str(one["t"]))
def test_posteriors_of_rddm_are_those_of_the_authors(told: dict[str, Any]) -> None:
    """At timestep 0 too, where their code sets coefficients by hand: they are those of the equation."""
    x0, given, noise = (np.array(RDDM[name]) for name in ("x0", "u", "first_noise"))
    training, time = rddm(), told["t"]
    stepping = Stepping(cu.DDPM(variance="small"), training, Prediction("residual"))
    at, to = training.level(time), training.level(time - 1) if time else IMAGE
    x = (given + 0.1 * noise) / at.scale
    said = Estimate(*stepping.estimated(given - x0, x, at, given), None, x, at)
    mean = stepping.mean(State(x), (said,), at, to, given)
    np.testing.assert_allclose(to.scale * mean, told["mean"], rtol=0, atol=1e-7)
    if time:
        drawn = stepping.step(State(x), (said,), at, to, np.ones_like(x), given).x - mean
        np.testing.assert_allclose(np.square(to.scale * drawn), told["variance"], rtol=1e-6)
