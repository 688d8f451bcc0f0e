"""Phases against `ruptures` called directly, against a search of all partitions, and on simulated studies."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ruptures
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from causalunet.analysis.phases import Model, _resampled_breaks, breaks_of, partitions, phases, segment_costs
from causalunet.design import SkipSteps, sweep
from causalunet.errors import SpecError
from tests.analysis.synthetic import write_results

STARTS = tuple(range(2, 40))
SHORTEST: dict[Model, int] = {"linear": 3, "constant": 2}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    path = tmp_path_factory.mktemp("phases") / "results.zarr"
    return write_results(path, sweep(SkipSteps, start=STARTS, length=1), steps=40)


def planted(stored: xr.DataTree, curves: np.ndarray, starts: np.ndarray | None = None) -> xr.DataTree:
    """The stored results with these SSIM values, (start, sample), for the given starts or for all."""
    starts = np.array(STARTS[::-1]) if starts is None else starts
    data = stored["outcomes"].to_dataset()
    position = {int(start): place for place, start in enumerate(data["start"].values) if data["kind"][place] != "null"}
    samples = np.arange(curves.shape[1]) % data.sizes["sample"]
    data = data.isel(intervention=[position[int(start)] for start in starts], sample=samples)
    return xr.DataTree.from_dict({"outcomes": data.assign(ssim=(data["ssim"].dims, curves))})


def ramp(starts: np.ndarray, begin: float, end: float) -> np.ndarray:
    """A low plateau before step ``begin``, a rise to step ``end``, a high plateau after it."""
    return 0.3 + 0.65 * np.clip((begin - starts) / (begin - end), 0, 1)


def noisy(starts: np.ndarray, samples: int, seed: int, noise: float = 0.05) -> np.ndarray:
    """Samples that differ in level and, at every start by itself, by noise."""
    rng = np.random.default_rng(seed)
    level = 0.05 * rng.standard_normal(samples)
    return ramp(starts, 28, 16)[:, None] + level + noise * rng.standard_normal((len(starts), samples))


# The partition


def signal(start: np.ndarray, curve: np.ndarray, model: Model) -> tuple[str, np.ndarray]:
    """What `ruptures` takes for the same model."""
    if model == "constant":
        return "l2", curve
    return "linear", np.column_stack([curve, start, np.ones(len(start))])


def uneven(seed: int, points: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    start = np.sort(rng.choice(np.arange(1, 101), points, replace=False))[::-1]
    return start, ramp(start, 70, 45) + 0.03 * rng.standard_normal(points)


@pytest.mark.parametrize("model", ["linear", "constant"])
@pytest.mark.parametrize("seed", [0, 1])
def test_partitions_are_those_of_ruptures(model: Model, seed: int) -> None:
    start, curve = uneven(seed)
    total, previous = partitions(segment_costs(start, curve, model), 5, shortest=SHORTEST[model])
    name, given_signal = signal(start, curve, model)
    search = ruptures.Dynp(model=name, min_size=SHORTEST[model], jump=1).fit(given_signal)
    for segments in range(2, 6):
        expected = search.predict(segments - 1)
        assert [*breaks_of(previous, segments), len(start)] == expected
        assert total[segments - 1] == pytest.approx(search.cost.sum_of_costs(expected), rel=1e-8)
        if model == "constant":
            kernel = ruptures.KernelCPD(kernel="linear", min_size=2, jump=1).fit(curve)
            assert kernel.predict(segments - 1) == expected


@pytest.mark.parametrize("model", ["linear", "constant"])
def test_penalised_number_is_that_of_pelt(stored: xr.DataTree, model: Model) -> None:
    curves = noisy(np.array(STARTS[::-1]), 12, seed=4)
    found = phases(planted(stored, curves), model=model, penalty=0.7, resamples=9, kind="skip_steps")
    start, coefficients = found["start"].values, {"linear": 2, "constant": 1}[model]
    error = np.sqrt(np.mean(curves.var(axis=1, ddof=1) / 12))
    assert found.attrs["noise"] == pytest.approx(error, rel=1e-12)
    name, given_signal = signal(start, curves.mean(axis=1), model)
    pelt = ruptures.Pelt(model=name, min_size=SHORTEST[model], jump=1).fit(given_signal)
    price = 0.7 * (coefficients + 1) * np.log(len(start)) * error**2
    expected = pelt.predict(price)
    assert found["boundary"].values.tolist() == start[expected[:-1]].tolist()
    assert len(expected) > 2


@settings(max_examples=40)
@given(
    st.lists(st.integers(-20, 20), min_size=6, max_size=10), st.integers(1, 3), st.sampled_from(["linear", "constant"])
)
def test_no_partition_is_cheaper(curve: list[int], segments: int, model: Model) -> None:
    """All partitions, with segments fitted by `numpy.polyfit`."""
    shortest, points = 2, len(curve)
    start, values = np.arange(points, 0.0, -1) ** 1.5, np.array(curve, dtype=float)

    def cost(begin: int, end: int) -> float:
        x = start[begin:end] - start[begin:end].mean()
        fit = np.polyval(np.polyfit(x, values[begin:end], 1 if model == "linear" else 0), x)
        return float(((values[begin:end] - fit) ** 2).sum())

    possible = [
        (0, *breaks, points)
        for breaks in itertools.combinations(range(1, points), segments - 1)
        if all(end - begin >= shortest for begin, end in itertools.pairwise((0, *breaks, points)))
    ]
    costs = {ends: sum(cost(*pair) for pair in itertools.pairwise(ends)) for ends in possible}
    total, previous = partitions(segment_costs(start, values, model), segments, shortest=shortest)
    assert total[-1] == pytest.approx(min(costs.values()), abs=1e-8)
    assert costs[0, *breaks_of(previous, segments).tolist(), points] == pytest.approx(min(costs.values()), abs=1e-8)


def test_many_curves_at_once_are_each_by_itself() -> None:
    start, _ = uneven(0)
    curves = np.stack([uneven(seed)[1] for seed in range(6)]).reshape(2, 3, -1)
    costs = segment_costs(start, curves, "linear")
    total, previous = partitions(costs, 4, shortest=3)
    for place in np.ndindex(2, 3):
        alone, path = partitions(segment_costs(start, curves[place], "linear"), 4, shortest=3)
        np.testing.assert_allclose(total[place], alone, rtol=1e-12)
        np.testing.assert_array_equal(breaks_of(previous, 4)[place], breaks_of(path, 4))


def test_a_partition_that_does_not_exist_costs_infinitely() -> None:
    start, curve = uneven(0, points=8)
    total, _ = partitions(segment_costs(start, curve, "linear"), 4, shortest=3)
    assert np.isfinite(total).tolist() == [True, True, False, False]


# What phases say


def test_plateau_ramp_plateau(stored: xr.DataTree) -> None:
    """A jump begins and ends the ramp, so each boundary is one step exactly."""
    starts = np.array(STARTS[::-1])
    curve = np.select([starts > 28, starts > 16], [0.3, 0.4 + 0.02 * (28 - starts)], 0.95)
    curves = curve[:, None] + 0.01 * np.random.default_rng(0).standard_normal((len(starts), 12))
    found = phases(planted(stored, curves), resamples=99, kind="skip_steps")
    assert found["phase"].values.tolist() == ["composition", "transition", "denoising"]
    assert found["boundary"].values.tolist() == [28, 16]
    assert found["interval"].values.tolist() == [[28, 28], [16, 16]]
    assert found["first"].values.tolist() == [39, 28, 16]
    assert found["last"].values.tolist() == [29, 17, 2]
    for phase, part in zip(found["phase"].values, (slice(0, 11), slice(11, 23), slice(23, 38)), strict=True):
        mean, part_starts = curves.mean(axis=1)[part], starts[part]
        assert found["level"].sel(phase=phase).item() == pytest.approx(mean.mean())
        assert found["slope"].sel(phase=phase).item() == pytest.approx(-np.polyfit(part_starts, mean, 1)[0])
        line = np.polyval(np.polyfit(part_starts, mean, 1), part_starts)
        np.testing.assert_allclose(found["fit"].values[part], line, rtol=1e-9)
    assert found["slope"].sel(phase="transition").item() == pytest.approx(0.02, abs=0.002)
    assert found["cost"].sel(segments=3).item() == pytest.approx(((found["mean"] - found["fit"]) ** 2).sum().item())
    assert found["score"].values.argmin() == 2


def test_number_of_phases_may_be_given(stored: xr.DataTree) -> None:
    results = planted(stored, noisy(np.array(STARTS[::-1]), 12, seed=0))
    found = phases(results, segments=2, resamples=19, kind="skip_steps")
    assert found["phase"].values.tolist() == ["phase 1", "phase 2"]
    one = phases(results, segments=1, resamples=19, kind="skip_steps")
    assert one.sizes["boundary"] == 0
    assert one["interval"].shape == (0, 2)
    levels = phases(results, segments=4, model="constant", resamples=19, kind="skip_steps")
    assert "slope" not in levels
    assert levels["fit"].values[0] == levels["level"].values[0]


@pytest.mark.parametrize("model", ["linear", "constant"])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_a_constant_curve_is_one_phase(stored: xr.DataTree, model: Model, value: float) -> None:
    found = phases(planted(stored, np.full((len(STARTS), 12), value)), model=model, resamples=9, kind="skip_steps")
    assert found["phase"].values.tolist() == ["phase 1"]
    assert found["level"].values == pytest.approx(value)
    assert (found["first"].item(), found["last"].item()) == (39, 2)


def test_a_line_is_one_linear_phase(stored: xr.DataTree) -> None:
    line = 0.2 + 0.01 * np.array(STARTS[::-1])[:, None] + np.linspace(0, 0.1, 12)
    found = phases(planted(stored, line), resamples=9, kind="skip_steps")
    assert found.sizes["phase"] == 1
    assert found["slope"].item() == pytest.approx(-0.01)


def test_uneven_starts(stored: xr.DataTree) -> None:
    """A ramp on an uneven grid is straight against the start step, though not against its place."""
    starts = np.array([39, 38, 37, 36, 35, 33, 31, 30, 26, 22, 21, 20, 19, 17, 12, 11, 10, 8, 5, 3, 2])
    curve = np.select([starts > 31, starts > 12], [0.3, 0.4 + 0.02 * (31 - starts)], 0.95)
    curves = curve[:, None] + 0.005 * np.random.default_rng(0).standard_normal((len(starts), 12))
    found = phases(planted(stored, curves, starts), resamples=49, kind="skip_steps")
    assert found["boundary"].values.tolist() == [31, 12]


def test_order_of_samples_and_interventions_does_not_matter(stored: xr.DataTree) -> None:
    results = planted(stored, noisy(np.array(STARTS[::-1]), 12, seed=0))
    rng = np.random.default_rng(1)
    order = {"intervention": rng.permutation(len(STARTS)), "sample": rng.permutation(12)}
    shuffled = xr.DataTree.from_dict({"outcomes": results["outcomes"].to_dataset().isel(order)})
    options = {"segments": 3, "resamples": 49, "kind": "skip_steps"}
    xr.testing.assert_identical(phases(shuffled, **options), phases(results, **options))


def test_a_larger_penalty_never_finds_more_phases(stored: xr.DataTree) -> None:
    results = planted(stored, noisy(np.array(STARTS[::-1]), 12, seed=2))
    counts = [
        phases(results, penalty=penalty, resamples=1, kind="skip_steps").sizes["phase"]
        for penalty in (0.01, 0.1, 1, 10, 1e4)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1] == 1


# Simulated studies


def study(rng: np.random.Generator, starts: np.ndarray, samples: int) -> np.ndarray:
    """Plateau, ramp of 12 steps, plateau, each sample with its own turning point and levels; (start, sample)."""
    middle = 32 + 6 * rng.standard_normal(samples)
    low, high = rng.normal(0.3, 0.08, samples), rng.normal(0.93, 0.03, samples)
    risen = np.clip(0.5 + (middle - starts[:, None]) / 12, 0, 1)
    return low + (high - low) * risen + 0.01 * rng.standard_normal((len(starts), samples))


def breaks(starts: np.ndarray, curves: np.ndarray) -> np.ndarray:
    return breaks_of(partitions(segment_costs(starts, curves, "linear"), 3, shortest=3)[1], 3)


def test_simulated_ramps_are_found_within_a_step(stored: xr.DataTree) -> None:
    """The lines of a ramp without jumps meet at steps 28 and 16, so a boundary may be either neighbour of those."""
    starts = np.array(STARTS[::-1])
    for seed in range(20):
        found = phases(planted(stored, noisy(starts, 12, seed, noise=0.02)), resamples=1, kind="skip_steps")
        assert found["phase"].values.tolist() == ["composition", "transition", "denoising"]
        assert abs(found["boundary"].values - [28, 16]).max() <= 1


@pytest.mark.thorough
def test_coverage() -> None:
    """500 studies of 20 samples: how often the 95 % intervals hold the boundaries of the whole population.

    Steps are whole and an interval has both its ends, so that it may hold them a little more often than 95 %.
    """
    starts = np.arange(54, 10, -1)
    truth = starts[breaks(starts, study(np.random.default_rng(5), starts, 100_000).mean(axis=1))]
    covered, widths = np.zeros(2), np.zeros(2)
    for seed in range(500):
        values = study(np.random.default_rng([3, seed]), starts, 20)
        drawn = _resampled_breaks(starts, values, "linear", 3, 3, resamples=99, seed=seed)
        lower, upper = np.quantile(starts[drawn], [0.025, 0.975], axis=0, method="inverted_cdf")
        covered += (lower <= truth) & (truth <= upper)
        widths += upper - lower
    assert (covered / 500 >= 0.92).all()
    assert (covered / 500 <= 0.985).all()
    assert (widths / 500 < 9).all()


# Errors


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": "cubic"}, "'linear', 'constant'"),
        ({"shortest": 1}, "at least 2 start steps"),
        ({"segments": 0}, "at least 1"),
        ({"segments": 13}, "38 start steps.*at least 39"),
        ({"penalty": 0.0}, "positive"),
        ({"probability": 95}, "probability=95"),
        ({"resamples": 0}, "at least 1"),
        ({"variable": "image"}, "more than one number"),
        ({"start": slice(3, 7)}, "5 start steps.*at least 6"),
        ({"start": slice(3, 7), "model": "constant", "shortest": 3}, "at least 6"),
    ],
)
def test_errors_say_what_to_do(stored: xr.DataTree, options: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        phases(stored, **{"kind": "skip_steps", **options})


def test_errors_of_values(stored: xr.DataTree, tmp_path: Path) -> None:
    curves = noisy(np.array(STARTS[::-1]), 12, seed=0)
    curves[[4, 6], 3] = np.inf
    with pytest.raises(SpecError, match="2 of 38 start steps, the first at start=35"):
        phases(planted(stored, curves), kind="skip_steps")
    single = write_results(tmp_path / "one.zarr", sweep(SkipSteps, start=range(2, 10), length=1), samples=1)
    with pytest.raises(SpecError, match="1 sample"):
        phases(single, kind="skip_steps")
