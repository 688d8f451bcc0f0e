"""Total, direct and indirect effects of a linear network, whose paths are known, and laws of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import causalunet as cu
from causalunet.analysis.mediation import mediation, ratio_interval
from causalunet.design import Edit, Null, Patch, Scale, Window
from causalunet.errors import SpecError
from causalunet.noise import initial_noise
from causalunet.schedule import Schedule, linear_alpha_bar
from tests.analysis.cells import cells

IN, MID, DIRECT, THROUGH, BIAS = 0.8, 0.5, 0.7, 1.1, 0.3
"""Weights of the network; without an edit it says the noise in images of independent pixels, which stay grey."""
STEPS, FACTOR, SIZE, VARIANCE = 5, 0.95, 12, 0.01
EDIT = Edit("first", Window(3, 2), Scale(FACTOR))


def gain(alpha_bar: np.ndarray | float) -> np.ndarray | float:
    """What of a state is noise, of images of that variance."""
    return np.sqrt(1 - alpha_bar) / (alpha_bar * VARIANCE + 1 - alpha_bar)


class Paths(nn.Module):
    """``first`` reaches ``last`` by itself and through ``second``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.Conv2d(2, 1, 1)
        weights = {"first": [IN], "second": [MID], "last": [DIRECT, THROUGH]}
        for name, numbers in weights.items():
            module = getattr(self, name)
            module.weight.data = torch.tensor(numbers).reshape(module.weight.shape)
            module.bias.data.zero_()
        self.register_buffer("gains", torch.tensor(gain(linear_alpha_bar()), dtype=torch.float32))
        self.first.bias.data.fill_(BIAS)
        self.last.bias.data.fill_(-BIAS * (DIRECT + THROUGH * MID))

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        first = self.first(x * self.gains[timesteps.long()][:, None, None, None])
        return self.last(torch.cat([first, self.second(first)], dim=1))


def by_hand(x: np.ndarray, edited: range, held: range) -> np.ndarray:
    """Images of a run of DDIM with the first part scaled, and the second held at what it is without that."""
    schedule = Schedule.spaced(linear_alpha_bar(), STEPS)
    clean = x.copy()
    for step in range(STEPS, 0, -1):
        level = schedule.level(step)
        lower = schedule.level(step - 1).signal if step > 1 else 1.0
        first, clean_first = (IN * gain(level.signal**2) * state + BIAS for state in (x, clean))
        first = first * FACTOR if step in edited else first
        second = MID * (clean_first if step in held else first)
        for_all = [DIRECT * first + THROUGH * second, DIRECT * clean_first + THROUGH * MID * clean_first]
        for number, predicted in enumerate(for_all):
            eps = predicted - BIAS * (DIRECT + THROUGH * MID)
            state = clean if number else x
            image = (state - level.noise * eps) / level.signal
            moved = lower * image + np.sqrt(1 - lower**2) * eps
            x, clean = (x, moved) if number else (moved, clean)
    return x


def run(path: Path, samples: int) -> tuple[xr.Dataset, xr.DataTree]:
    model = cu.from_network(
        Paths(),
        name="paths",
        parts={name: name for name in ("first", "second", "last")},
        image_shape=(1, SIZE, SIZE),
        alpha_bar=linear_alpha_bar(),
        skips={"first": "last"},
        clip=False,
    )
    study = cu.Study(
        name="paths",
        prompts=[cu.NO_PROMPT],
        seeds=range(samples),
        sampler=cu.DDIM(steps=STEPS, guidance_scale=1),
        interventions=(*cu.mediation(EDIT, ["second"]), *cu.mediation(EDIT, ["second"], Window(3, 3))[1:]),
    )
    results = study.run(path, model=model, progress=False)
    images = results["outcomes"]["image"]
    assert 0 < images.values.min() < images.values.max() < 1, "images are clipped, and nothing is linear any more"
    # On the scale of states, [-1, 1].
    brightness = 2 * images.mean(("channel", "y", "x")).astype(np.float64) - 1
    return results["outcomes"].to_dataset().assign(brightness=brightness), results


def truth(x: np.ndarray, held: range) -> dict[str, np.ndarray]:
    """Effects on brightness, (sample,)."""
    nothing, edited = range(0), range(2, 4)
    zero, whole, direct = (
        by_hand(x, *one).mean(axis=(1, 2, 3)) for one in ((nothing, nothing), (edited, nothing), (edited, held))
    )
    return {"total": whole - zero, "direct": direct - zero, "indirect": whole - direct}


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return run(tmp_path_factory.mktemp("paths") / "paths.zarr", 12)[0]


@pytest.mark.parametrize(("through", "held"), [("second 3-2", range(2, 4)), ("second 3-1", range(1, 4))])
def test_paths_of_a_linear_network_are_recovered(linear: xr.Dataset, through: str, held: range) -> None:
    found = mediation(linear, EDIT, "brightness", resamples=99).sel(through=through)
    expected = truth(initial_noise(range(12), (1, SIZE, SIZE)).astype(np.float64), held)
    for effect, values in expected.items():
        one = found.sel(effect=effect)
        assert float(one["mean"]) == pytest.approx(values.mean(), abs=2e-6), effect
        assert float(one["sd"]) == pytest.approx(values.std(ddof=1), abs=2e-6), effect
    assert abs(expected["indirect"].mean()) > 1e-3
    share = expected["indirect"].mean() / expected["total"].mean()
    assert float(found["share"]) == pytest.approx(share, abs=5e-3)


def test_one_step_divides_the_effect_by_the_weights_of_its_paths() -> None:
    x = initial_noise(range(4), (1, SIZE, SIZE)).astype(np.float64)
    zero, whole, direct = (
        by_hand(x, *one) for one in ((range(0), range(0)), (range(1, 2), range(0)), (range(1, 2), range(1, 2)))
    )
    np.testing.assert_allclose(whole - direct, (whole - zero) * THROUGH * MID / (DIRECT + THROUGH * MID), atol=1e-12)


@pytest.mark.thorough
def test_intervals_cover_the_paths_of_a_linear_network(tmp_path: Path) -> None:
    size, groups = 20, 60
    data, _ = run(tmp_path / "paths.zarr", size * groups)
    # Effects are linear in the noise, whose mean is 0.
    expected = truth(np.zeros((1, 1, 1, 1)), range(2, 4))
    hits = dict.fromkeys([*expected, "share"], 0)
    for group in range(groups):
        part = data.isel(sample=slice(group * size, (group + 1) * size))
        found = mediation(part, EDIT, "brightness", resamples=499).sel(through="second 3-2")
        told = {name: (found["interval"].sel(effect=name), float(expected[name][0])) for name in expected}
        told["share"] = (found["share_interval"], float(expected["indirect"][0] / expected["total"][0]))
        for name, (bounds, value) in told.items():
            hits[name] += int(float(bounds[0]) <= value <= float(bounds[1]))
    # BCa intervals of 20 normal samples cover 92.5 %; one run in a thousand would fall outside these by chance.
    low, high = scipy.stats.binom.ppf(0.0005, groups, 0.925), groups
    assert all(low <= count <= high for count in hits.values()), hits


@pytest.mark.thorough
@pytest.mark.parametrize("mean", [0.4, 3.0])
def test_the_interval_of_a_ratio_covers_it(mean: float) -> None:
    rng, sets, size = np.random.default_rng(0), 2000, 15
    common = rng.normal(size=(sets, size))
    under = mean + common + 0.5 * rng.normal(size=common.shape)
    over = 0.3 * mean + common + 0.5 * rng.normal(size=common.shape)
    bounds = np.array([ratio_interval(*pair) for pair in zip(over, under, strict=True)])
    covered = np.mean((bounds[:, 0] <= 0.3) & (bounds[:, 1] >= 0.3))
    low, high = scipy.stats.binom.ppf([0.0005, 0.9995], sets, 0.95) / sets
    assert low <= covered <= (high if mean == 3.0 else 1)  # what is endless is given as all numbers
    assert np.isinf(bounds).any() == (mean == 0.4)


@settings(max_examples=8)
@given(st.integers(0, 1000))
def test_direct_and_indirect_add_up_to_total(seed: int) -> None:
    items = (*cu.mediation(EDIT, ["second", ("second", "last")]), Null(Window(3, 2)))
    values = np.random.default_rng(seed).normal(size=(4, 7))
    found = mediation(cells(items, values), variable="y", resamples=99)
    assert found["through"].values.tolist() == ["second 3-2", "last 3-2 + second 3-2"]
    whole, one, both, neither = values
    for through, held in zip(found["through"].values, (one, both), strict=True):
        means = found["mean"].sel(through=through)
        assert float(means.sel(effect="direct")) == pytest.approx((held - neither).mean())
        assert float(means.sel(effect="indirect")) == pytest.approx((whole - held).mean())
        assert float(means.sel(effect="total")) == pytest.approx((whole - neither).mean())
        # Fieller's set holds a ratio if and only if a t test does not refuse that over - ratio * under is 0.
        bounds = found["share_interval"].sel(through=through).values
        for bound in bounds[np.isfinite(bounds)]:
            p = scipy.stats.ttest_1samp(whole - held - bound * (whole - neither), 0).pvalue
            assert p == pytest.approx(0.05, abs=1e-6)
        if np.isinf(bounds).any():
            assert scipy.stats.ttest_1samp(whole - neither, 0).pvalue >= 0.05


def test_no_effect_has_no_share() -> None:
    items = (*cu.mediation(EDIT, ["second"]), Null(Window(3, 2)))
    found = mediation(cells(items, np.full((3, 5), 0.25)), variable="y", resamples=99)
    assert np.isnan(found["share"].item())
    assert found["share_interval"].values.tolist() == [[-np.inf, np.inf]]


def test_what_a_study_lacks_is_told() -> None:
    other = Edit("last", Window(3, 2))
    items = (*cu.mediation(EDIT, ["second"]), *cu.mediation(other, ["second"]), Null(Window(3, 2)))
    data = cells(items, np.random.default_rng(0).normal(size=(5, 4)))
    with pytest.raises(SpecError, match="say of which: edit="):
        mediation(data, variable="y")
    assert mediation(data, other.label, "y", resamples=99).attrs["edit"] == other.label
    with pytest.raises(SpecError, match=r"Write \*causalunet.mediation\(edit, through="):
        mediation(cells((EDIT, Null(Window(3, 2))), np.zeros((2, 4))), EDIT, "y")
    with pytest.raises(SpecError, match="effect of any intervention is not divided"):
        mediation(cells((EDIT, Null(Window(3, 2))), np.zeros((2, 4))), variable="y")
    with pytest.raises(SpecError, match="The edit whose effect is divided, 'edit last 1-1 zero'"):
        mediation(data, Edit("last", Window(1, 1)), "y")


def test_the_design() -> None:
    made = cu.mediation(EDIT + Edit("last", Window(1, 1)), ["second"])
    assert made[1] == EDIT + Edit("last", Window(1, 1)) + Edit("second", Window(3, 3), Patch())
    with pytest.raises(SpecError, match="give one place or more, each once"):
        cu.mediation(EDIT, ["second", "second"])
    with pytest.raises(SpecError, match="give one place or more"):
        cu.mediation(EDIT, [])
    with pytest.raises(SpecError, match="first at step 3 is edited twice"):
        cu.mediation(EDIT, ["first"])
    with pytest.raises(SpecError, match="give the intervention whose effect"):
        cu.mediation("first", ["second"])  # type: ignore[arg-type]
