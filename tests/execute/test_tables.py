"""Values that are given by step, and channels that remain by step, against NumPy."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import causalunet as cu
from causalunet.design import FillContext, Intervention
from causalunet.errors import ComponentError, SpecError
from causalunet.execute.walk.generate import generate
from causalunet.models.text_to_image import TextToImage
from causalunet.testing import check_fill
from tests.execute.test_donors import PROMPTS, STEPS, TOLERANCE, Values, by_hand, study_of

WINDOW = cu.Window(5, 2)


def by_step(width: int) -> xr.DataArray:
    values = np.random.default_rng(0).standard_normal((2, width)).astype(np.float32)
    return xr.DataArray(values, dims=("step", "channel"), coords={"step": [5, 4]})


def images(model: TextToImage, fill: Any) -> np.ndarray:
    item = cu.Edit("mid", WINDOW, fill)
    return generate(PROMPTS, model=model, sampler=cu.DDPM(steps=STEPS), intervention=item)


def test_a_table_is_put_in_place_step_by_step(tiny_model: TextToImage) -> None:
    shape = tiny_model.anatomy.by_name["mid"].shape
    table = by_step(shape[0])
    found = images(tiny_model, cu.FromTable(table))

    def put(step: int, _: Values) -> dict[str, tuple[str, torch.Tensor]]:
        if step not in (5, 4):
            return {}
        row = torch.from_numpy(table.sel(step=step).values)
        return {"mid": ("both", row[None, :, None, None].expand(2, *shape))}

    np.testing.assert_allclose(found[0], by_hand(tiny_model, PROMPTS[0], 0, put)[0], rtol=0, atol=TOLERANCE)
    same = cu.FromTable(table.values, dims=("step", "channel"), steps=[5, 4])
    assert same == cu.FromTable(table)
    assert cu.FromTable(table + 1) != same


def test_what_a_run_had_itself_changes_nothing(tiny_model: TextToImage) -> None:
    """The identity law: a table of a run's own values is no intervention."""
    _, own = by_hand(tiny_model, PROMPTS[0], 0)
    values = np.stack([own[step]["mid"][0].numpy() for step in (5, 4)])
    fill = cu.FromTable(values, dims=("step", "channel", "y", "x"), steps=(5, 4))
    item = cu.Edit("mid", WINDOW, fill, "cond")
    found, plain = (
        generate(PROMPTS, model=tiny_model, sampler=cu.DDPM(steps=STEPS), intervention=one) for one in (item, None)
    )
    np.testing.assert_allclose(found[0], plain[0], rtol=0, atol=TOLERANCE)
    assert np.abs(found[1] - plain[1]).max() > 1e-4, "of another run it is another value"


def test_dimensions_may_stand_in_any_order_and_lack() -> None:
    value, now = torch.zeros(3, 2, 4, 5), torch.zeros(3)
    context = FillContext(7, now, now)
    numbers = np.arange(10, dtype=np.float32).reshape(5, 2)
    found = cu.FromTable(numbers, dims=("x", "channel")).put(value, context)
    np.testing.assert_array_equal(found, np.broadcast_to(numbers.T[None, :, None, :], (3, 2, 4, 5)))


def test_a_study_that_is_read_finds_its_table_while_it_is_here(tiny_model: TextToImage, tmp_path: Path) -> None:
    table = by_step(tiny_model.anatomy.by_name["mid"].shape[0])
    fill = cu.FromTable(table)
    asked = study_of(cu.Edit("mid", WINDOW, fill))
    asked.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    written = asked.to_json()
    read = cu.Study.from_json(written)
    assert read == asked
    results = asked.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert bool(results.outcomes.status.values.all())
    del fill, asked, read
    gc.collect()
    again = cu.Study.from_json(written)
    with pytest.raises(SpecError, match="are not here: a study has their digest alone"):
        again.plan(tiny_model, calibrate=False)
    assert cu.open_results(tmp_path / "s.zarr").outcomes.sizes["intervention"] == 2, "what was measured is read"
    kept = cu.FromTable(table)
    assert again.plan(tiny_model, calibrate=False).unet_calls
    assert kept == again.interventions[0].fill


def test_channels_that_remain_by_step(tiny_model: TextToImage) -> None:
    fill = cu.MaskChannels({5: (0, 3), 4: (2, 5)})
    found = images(tiny_model, fill)
    masks = {5: slice(0, 3), 4: slice(2, 7)}
    value = torch.randn(2, 8, 3, 3)
    now = torch.zeros(2)
    for step, kept in masks.items():
        expected = torch.zeros_like(value)
        expected[:, kept] = value[:, kept]
        assert torch.equal(fill.put(value, FillContext(step, now, now)), expected)
    assert torch.equal(fill.put(value, FillContext(6, now, now)), fill.put(value, FillContext(5, now, now)))
    assert torch.equal(fill.put(value, FillContext(1, now, now)), fill.put(value, FillContext(4, now, now)))
    width = tiny_model.anatomy.by_name["mid"].shape[0]
    whole = images(tiny_model, cu.MaskChannels({1: (0, width)}))
    plain = generate(PROMPTS, model=tiny_model, sampler=cu.DDPM(steps=STEPS))
    np.testing.assert_allclose(whole, plain, rtol=0, atol=TOLERANCE)
    assert np.abs(found - plain).max() > 1e-4


def test_windows_of_task_routing() -> None:
    """Equation of the paper, by hand."""
    steps, channels, share, alpha = 9, 20, 0.8, 4.0
    fill = cu.MaskChannels.routed(steps, channels, share=share, alpha=alpha)
    kept = int(np.floor(share * channels))
    expected = [
        (t, int(np.round(((t - 1) / (steps - 1)) ** alpha * (channels - kept))), kept) for t in range(steps, 0, -1)
    ]
    assert list(fill.windows) == expected
    assert fill.windows[0][1] + kept == channels
    assert fill.windows[-1][1] == 0


@pytest.mark.parametrize("fill", [cu.FromTable(np.float32(2.5), dims=()), cu.MaskChannels({5: (1, 2)})])
def test_they_are_written_and_read_and_pass_the_kit(fill: Any) -> None:
    edit = cu.Edit("mid", WINDOW, fill)
    assert Intervention.from_json(edit.to_json()) == edit
    assert check_fill(fill)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (cu.FromTable, SpecError, "give the table"),
        (lambda: cu.FromTable(digest="x"), SpecError, "16 hexadecimal"),
        (lambda: cu.FromTable([np.nan], dims=("channel",)), SpecError, "give finite numbers"),
        (lambda: cu.FromTable([1.0]), SpecError, "name each one, once"),
        (lambda: cu.FromTable([1.0], dims=("step",)), SpecError, "give the number of each step"),
        (
            lambda: cu.Edit("mid", WINDOW, cu.FromTable([1.0], dims=("step",), steps=[5])),
            SpecError,
            "no values for step 4",
        ),
        (
            lambda: study_of(cu.Edit("mid", WINDOW, cu.FromTable([1.0], dims=("head",)))),
            ComponentError,
            "a dimension 'head', and mid has none",
        ),
        (
            lambda: study_of(cu.Edit("mid", WINDOW, cu.FromTable(np.ones(999), dims=("channel",)))),
            ComponentError,
            "999 along 'channel'",
        ),
        (lambda: cu.MaskChannels({}), SpecError, "give for each step"),
        (lambda: cu.MaskChannels({0: (1, 2)}), SpecError, "got step=0"),
        (lambda: cu.MaskChannels([[5, 0, 1], [5, 1, 1]]), SpecError, "two windows for one step"),
        (lambda: cu.MaskChannels.routed(5, 8, share=2.0), SpecError, "share of at most 1"),
        (
            lambda: study_of(cu.Edit("mid", WINDOW, cu.MaskChannels({5: (0, 999)}))),
            ComponentError,
            "keeps channels up to 998",
        ),
    ],
)
def test_what_cannot_be_is_told(
    make: Callable[[], Any], error: type[Exception], said: str, tiny_model: TextToImage
) -> None:
    with pytest.raises(error, match=said):
        make().plan(tiny_model, calibrate=False)
