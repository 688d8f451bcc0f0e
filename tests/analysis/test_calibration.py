"""Ranges for few bits against the official code of TFMQ-DM, by hand and by laws; fills calibrated by recordings."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import causalunet as cu
from causalunet.analysis import calibrated, quantized, quantizer_range
from causalunet.design.donors import FillContext
from causalunet.models.rounded import round_weights, rounded, rounded_for

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "tfmq.json").read_text())
NUMBERS = arrays(np.float64, st.integers(1, 20), elements=st.floats(-5, 5).map(lambda value: round(value, 3)))


def golden(name: str) -> Any:
    told = GOLDEN["values"][name]
    waves = np.sin(told["rate"] * np.arange(1, 301)) + told["shift"]
    return np.sign(waves) * np.abs(waves) ** told["power"]


@pytest.mark.parametrize("told", GOLDEN["ranges"], ids=lambda told: f"{told['values']} {told['bits']} {told['method']}")
def test_ranges_are_those_of_the_official_code(told: dict[str, Any]) -> None:
    values, bits = golden(told["values"]), told["bits"]
    low, high = quantizer_range(values, bits, told["method"])
    assert (high - low) / (2**bits - 1) == pytest.approx(told["delta"], rel=1e-9)
    assert -low / told["delta"] == pytest.approx(told["zero"], abs=1e-6)
    assert np.abs(quantized(values, bits, low, high) - values).sum() == pytest.approx(told["sum"], rel=1e-7)


@given(NUMBERS, st.integers(1, 8))
@settings(max_examples=60)
def test_rounding_errs_by_half_a_level_at_most_and_once(values: Any, bits: int) -> None:
    low, high = quantizer_range(values, bits, "minmax")
    step = (high - low) / (2**bits - 1)
    once = quantized(values, bits, low, high)
    # a range is moved by half a level at most, and what is beyond its end is off by that
    assert np.abs(once - values).max() <= step * (1 + 1e-9) + 1e-12
    inside = (values >= low) & (values <= high)
    assert (np.abs(once - values)[inside] <= step / 2 * (1 + 1e-9) + 1e-12).all()
    np.testing.assert_allclose(quantized(once, bits, low, high), once, atol=1e-9)
    assert np.abs(quantized(np.zeros(1), bits, low, high)).max() < 1e-9


@given(NUMBERS, st.integers(2, 6))
@settings(max_examples=40)
def test_the_shorter_range_errs_less(values: Any, bits: int) -> None:
    """Of the 2.4-th power, than the range of all values with the same moved ends."""

    def error(shrunk: float) -> float:
        low, high = values.min() * shrunk, values.max() * shrunk
        step = max((high - low) / (2**bits - 1), 1e-8)
        levels = np.clip(np.round(values / step) + np.round(-low / step), 0, 2**bits - 1)
        return float((np.abs((levels - np.round(-low / step)) * step - values) ** 2.4).mean())

    low, high = quantizer_range(values, bits)
    mine = float((np.abs(quantized(values, bits, low, high) - values) ** 2.4).mean())
    if values.min() < values.max():
        assert mine <= min(error(1 - 0.01 * cut) for cut in range(80)) + 1e-9


@given(arrays(np.float32, (3, 4), elements=st.floats(-4, 4, width=32)), st.integers(1, 8))
@settings(max_examples=30)
def test_a_channel_of_weights_is_rounded_over_its_own_range(weight: Any, bits: int) -> None:
    expected = [quantized(row, bits, *quantizer_range(row, bits, "minmax")) for row in weight]
    found = rounded(torch.from_numpy(weight)[..., None], bits)[..., 0].numpy()
    # a number between two levels may go to either
    step = [(high - low) / (2**bits - 1) for low, high in (quantizer_range(row, bits, "minmax") for row in weight)]
    off = np.abs(found - np.array(expected))
    halves = np.abs(np.abs(weight - np.array(expected)) - np.array(step)[:, None] / 2) < 1e-5
    assert ((off < 1e-5) | halves).all()


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=40)
def test_rounding_for_inputs_errs_no_more_than_nearest_and_no_less_than_the_best(
    seed: int, rows: int, bits: int
) -> None:
    rng = np.random.default_rng(seed)
    weight, inputs = (torch.from_numpy(rng.normal(size=size)) for size in ((2, 5), (rows, 5)))
    made, nearest = rounded_for(weight, inputs, bits), rounded(weight, bits)

    def errors(one: torch.Tensor) -> Any:
        return ((one - weight) @ inputs.T).square().sum(1).numpy()

    assert (errors(made) <= errors(nearest) + 1e-12).all()
    for channel, row in enumerate(weight.numpy()):
        levels = np.linspace(*quantizer_range(row, bits, "minmax"), 2**bits)
        assert np.abs(made[channel].numpy()[:, None] - levels).min(1).max() < 1e-9
        nearest_two = [levels[np.argsort(abs(levels - value))[:2]] for value in row]
        ways = torch.tensor(np.array(list(itertools.product(*nearest_two))))
        best = ((ways - weight[channel]) @ inputs.T).square().sum(1).min()
        assert errors(made)[channel] >= best - 1e-9


def test_rounded_weights_are_a_copy_with_another_fingerprint() -> None:
    model: Any = cu.load_model("shapes")
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    few = round_weights(model, 3, modules="*.emb_layers.1")
    changed = {name for name, value in few.unet.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.endswith(".emb_layers.1.weight")}
    assert all(torch.equal(value, before[name]) for name, value in model.unet.state_dict().items())
    assert few.fingerprint != model.fingerprint
    assert len(np.unique(few.unet.state_dict()[min(changed)][0])) <= 8
    with pytest.raises(cu.CausalUNetError, match="named_modules"):
        round_weights(model, 3, modules="nowhere")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    study = cu.Study(
        name="recorded",
        model="exact-wiener",
        prompts=[cu.NO_PROMPT],
        seeds=range(3),
        sampler=cu.DDIM(steps=4, guidance_scale=1),
        interventions=[],
        record=cu.Record(activations=["filter"], steps=(4, 2, 1), dtype="float32"),
    )
    return study.run(tmp_path_factory.mktemp("calibrated") / "r.zarr", progress=False)


@pytest.mark.parametrize("steps", [None, (4,), (2, 1)])
def test_a_fill_has_the_range_of_its_steps(recorded: xr.DataTree, steps: Any) -> None:
    fill = calibrated(recorded, "filter", 4, steps=steps, method="minmax")
    values = recorded["activations/filter"].baseline.sel(step=list(steps or (4, 2, 1))).values
    low, high = quantizer_range(values, 4, "minmax")
    assert (fill.bits, fill.low, fill.high) == (4, low, high)
    context = FillContext(1, None, None, dims=("row", "channel", "y", "x"))
    put = fill.put(torch.from_numpy(values[:, 0]), context).numpy()
    np.testing.assert_allclose(put, quantized(values[:, 0], 4, low, high), atol=1e-5)


def test_what_was_not_recorded_is_told(recorded: xr.DataTree) -> None:
    with pytest.raises(cu.CausalUNetError, match="recorded are filter"):
        calibrated(recorded, "prior", 4)
    with pytest.raises(cu.CausalUNetError, match="recorded at steps"):
        calibrated(recorded, "filter", 4, steps=[3])
    with pytest.raises(cu.CausalUNetError, match="finite"):
        quantizer_range([np.nan], 4)
    with pytest.raises(cu.CausalUNetError, match="'minmax' or 'mse'"):
        quantizer_range([1.0], 4, "kl")  # type: ignore[arg-type]
