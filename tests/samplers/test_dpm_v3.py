"""DPM-Solver-v3 against numbers of its authors' code, integrals by another solver, and where the answer is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

import causalunet as cu
from causalunet.design import Sampler
from causalunet.design.samplers import Estimate, State
from causalunet.design.samplers.dpm_v3 import _step
from causalunet.errors import SpecError
from causalunet.schedule import Level, TrainingSchedule, linear_alpha_bar
from tests.samplers.walks import walk

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "dpm_solver_v3.json").read_text())
GRID, MEAN, VARIANCE = (np.array(GOLDEN[name]) for name in ("half_log_snr", "mean", "variance"))
TRAINING = TrainingSchedule(linear_alpha_bar())


def level(half_log_snr: float) -> Level:
    return Level(0.0, 1 / (1 + math.exp(-2 * half_log_snr)))


def denoise(x: Any, at: Level) -> tuple[Any, Any]:
    """What the exact denoiser of the Gaussian says."""
    share = at.alpha_bar
    x0 = MEAN + math.sqrt(share) * VARIANCE / (share * VARIANCE + 1 - share) * (x - math.sqrt(share) * MEAN)
    return x0, (x - math.sqrt(share) * x0) / math.sqrt(1 - share)


def flow(x: Any, at: Level, to: Level) -> Any:
    """The probability-flow ODE in closed form."""
    sizes = [np.sqrt(one.alpha_bar * VARIANCE + 1 - one.alpha_bar) for one in (at, to)]
    return math.sqrt(to.alpha_bar) * MEAN + sizes[1] / sizes[0] * (x - math.sqrt(at.alpha_bar) * MEAN)


def statistics(places: NDArray[np.float64], linear: Any, scaling: Any = 0.0, bias: Any = 0.0) -> cu.ModelStatistics:
    shape = (len(places), *MEAN.shape)
    arrays: Any = [np.broadcast_to(one, shape) for one in (linear, scaling, bias)]
    return cu.ModelStatistics("some model", places, *arrays)


def exact(places: NDArray[np.float64]) -> Any:
    """sigma d eps / dx of the Gaussian."""
    return 1 / (1 + VARIANCE * np.exp(2 * places)[:, None, None, None])


@pytest.mark.parametrize("run", GOLDEN["runs"], ids=lambda run: " ".join(map(str, list(run.values())[:4])))
def test_runs_are_those_of_its_authors(run: dict[str, Any]) -> None:
    arrays: Any = [np.array(GOLDEN[name]) for name in "lsb"]
    known = cu.ModelStatistics("golden", GRID, *arrays)
    given = {name: value for name, value in run.items() if name != "states"}
    sampler = cu.DPMSolverV3(statistics=known, official=True, **given)
    levels = [level(GRID[place]) for place in GOLDEN["levels"]]
    found = walk(sampler, denoise, levels, TRAINING, np.array(GOLDEN["x"])).states
    np.testing.assert_allclose(found, run["states"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("ends", [(-1.234, 2.345), (1.5, 0.3)], ids=["ahead", "back"])
def test_integrals_are_those_of_another_solver(ends: tuple[float, float], official: bool) -> None:
    """Of smooth statistics on a fine grid, between its levels; L, S, B and all that is made of them at once."""
    grid = np.linspace(-3, 3, 2001)
    curves: tuple[Callable[[Any], Any], ...] = (
        lambda p: 1 / (1 + np.exp(2 * p)),
        lambda p: 0.3 * np.cos(p),
        lambda p: 0.4 * np.sin(2 * p),
    )
    arrays: Any = [curve(grid)[:, None, None, None] for curve in curves]
    known = cu.ModelStatistics("smooth", grid, *arrays)

    def change(place: float, so_far: NDArray[np.float64]) -> list[float]:
        linear, scaling, bias = (float(curve(place)) for curve in curves)
        growth, past = math.exp(so_far[0] + so_far[1]), place - ends[0]
        powers = [growth * past**power / math.factorial(power) for power in range(4)]
        return [linear, scaling, math.exp(-so_far[1]) * bias, *powers, growth * so_far[2]]

    solved = solve_ivp(change, ends, np.zeros(8), rtol=1e-10, atol=1e-12).y[:, -1]
    faded = math.exp(-solved[0])
    expected = [0.9 / 0.5 * faded, *(0.9 * faded * solved[3:8])]
    step = _step(known, (0.5, ends[0]), (0.9, ends[1]), official)
    found = [float(one.squeeze()) for one in (step.kept, *step.gone, step.shift)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_without_statistics_it_is_dpm_solver_of_third_order_too() -> None:
    """Orders 1 and 2 are compared with those of diffusers."""
    *before, at, to = (level(place) for place in (-2.5, -1.8, -1.1, 0.3))
    x = np.random.default_rng(0).standard_normal((2, *MEAN.shape))
    oldest, older, now = (Estimate(denoise(x, one)[0], None, None, x, one) for one in (*before, at))
    found, expected = (
        sampler.mean(State(x, (older, oldest)), (now,), at, to)
        for sampler in (cu.DPMSolverV3(order=3, corrector=False), cu.DPMMultistep(order=3))
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("known", ["every number has the same variance", "numbers and means differ"])
def test_one_step_is_exact_by_exact_statistics(known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Gaussian all is straight; what comes of its mean is the bias, f' of f = -l mu."""
    grid = np.linspace(-4, 4, 1601)
    if known.startswith("every"):
        monkeypatch.setattr("tests.samplers.test_dpm_v3.MEAN", np.zeros((1, 2, 2)))
        monkeypatch.setattr("tests.samplers.test_dpm_v3.VARIANCE", np.full((1, 2, 2), 0.7))
    linear = exact(grid)
    bias = 2 * linear * (1 - linear) * MEAN
    sampler = cu.DPMSolverV3(statistics=statistics(grid, linear, bias=bias), order=1)
    at, to = level(-3.0), level(3.2)
    x = np.random.default_rng(0).standard_normal((2, *MEAN.shape))
    found = walk(sampler, denoise, [at, to], TRAINING, x).states[-1]
    np.testing.assert_allclose(found, flow(x, at, to), rtol=0, atol=1e-5)
    ddim = walk(cu.DDIM(), denoise, [at, to], TRAINING, x).states[-1]
    assert np.abs(ddim - flow(x, at, to)).max() > 0.1, "the case tests nothing"


ORDERS: dict[str, tuple[dict[str, Any], float]] = {
    **{f"predictor of order {order}": ({"order": order, "corrector": False}, order) for order in (1, 2, 3)},
    **{f"corrector of order {order}": ({"order": order}, order) for order in (2, 3)},
    "pseudo corrector of order 1": ({"order": 1, "pseudo_corrector": True}, 2),
    "pseudo corrector of order 2": ({"order": 2, "pseudo_corrector": True}, 2),
    "pseudo predictor of order 3": ({"order": 3, "corrector": False, "pseudo_predictor": True}, 2),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("fields", "order"), ORDERS.values(), ids=ORDERS)
def test_errors_fall_as_theory_says(fields: dict[str, Any], order: float) -> None:
    """With statistics that are not those of the model: they make errors small, and orders what they are."""
    grid = np.linspace(-2.5, 2, 6001)
    curves = 0.8 * exact(grid), 0.2 * np.cos(grid)[:, None, None, None], 0.3 * np.sin(grid)[:, None, None, None]
    sampler = cu.DPMSolverV3(statistics=statistics(grid, *curves), **fields)
    counts, errors = np.array([20, 40, 80]), []
    for steps in counts:
        places = np.linspace(-1.4, 1.6, steps + 1)
        levels, x = [*map(level, places)], np.array(GOLDEN["x"])
        earlier = [level(2 * -1.4 - place) for place in places[1:4]]
        solved = [(flow(x, levels[0], one), one) for one in earlier]
        past = tuple(Estimate(*denoise(y, one), None, y, one) for y, one in solved)
        found = walk(sampler, denoise, levels, TRAINING, x, past=past).states[-1]
        errors.append(float(np.abs(found - flow(x, levels[0], levels[-1])).max()))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(-order, abs=0.2), errors


def test_statistics_are_named_by_digest_in_json(tmp_path: Path) -> None:
    grid = np.linspace(-3, 3, 11)
    made = statistics(grid, exact(grid))
    sampler = cu.DPMSolverV3(statistics=made, order=3)
    assert sampler.to_json()["configuration"]["statistics"] == made.digest
    assert Sampler.from_json(json.loads(json.dumps(sampler.to_json()))) == sampler
    file = made.save(tmp_path)
    assert file.name == f"statistics-some model-{made.digest}.npz"
    loaded = cu.load_statistics(file)
    assert loaded.digest == made.digest
    np.testing.assert_array_equal(loaded.linear, made.linear)
    other = statistics(grid, exact(grid) + 1e-9)
    assert other.digest != made.digest


def test_files_that_are_no_statistics_are_refused(tmp_path: Path) -> None:
    grid = np.linspace(-3, 3, 11)
    made = statistics(grid, exact(grid))
    with pytest.raises(SpecError, match=r"No statistics can be read at .*missing"):
        cu.load_statistics(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("no numbers")
    with pytest.raises(SpecError, match="No statistics can be read"):
        cu.load_statistics(tmp_path / "text.npz")
    file = made.save(tmp_path / "changed.npz")
    with np.load(file) as stored:
        arrays = {**stored, "bias": stored["bias"] + 1}
    np.savez(file, **arrays)
    with pytest.raises(SpecError, match="are not those that were written"):
        cu.load_statistics(file)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: cu.DPMSolverV3(order=0), "DPMSolverV3 got order=0"),
        (lambda: cu.DPMSolverV3(corrector=1), "corrector=1; it is True or False"),  # type: ignore[arg-type]
        (lambda: cu.DPMSolverV3(statistics=3), "got statistics=3; give what causalunet.model_statistics made"),  # type: ignore[arg-type]
        (lambda: statistics(np.array([0.0, 1.0]), np.nan), "not finite"),
        (lambda: statistics(np.array([1.0, 0.0]), 1.0), "does not rise"),
        (lambda: statistics(np.array([1.0]), 1.0), "two levels at least"),
    ],
)
def test_what_they_cannot_be(make: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()
