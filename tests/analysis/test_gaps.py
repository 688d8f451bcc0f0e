"""Every function of `causalunet.analysis` on a study of which cells failed and are missing: never as numbers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import xarray as xr

from causalunet import analysis
from causalunet.design import (
    AblateBlock,
    AblateSkip,
    Edit,
    Patch,
    SkipSteps,
    Window,
    cut_relax_cut,
    factorial,
    mediation,
    sweep,
)
from causalunet.errors import StoreError
from causalunet.scenes import draw_scenes
from tests.analysis.gaps import with_gaps, without_gaps
from tests.analysis.synthetic import write_results
from tests.report.stores import with_trajectory

EDIT = Edit("down.1", Window(15, 3))
OTHERS = [Edit(place, Window(15, 3)) for place in ("down.2", "down.3")]
CELLS = factorial(AblateBlock(1, Window(14, 3)), AblateSkip(1, Window(14, 3)))
PATCHED = Edit("mid", Window(15, 3), Patch(prompt=draw_scenes(9, seed=1)[4].prompt, seed=4))
INTERVENTIONS = (
    *sweep(AblateBlock, bottom=(2, 4), start=(20, 16, 12, 8, 5, 4), length=3),
    *sweep(AblateBlock, bottom=2, start=8, length=(1, 2, 5)),
    *sweep(SkipSteps, start=(19, 10), length=2),
    *sweep(AblateSkip, top=2, start=(19, 10), length=2),
    *OTHERS,
    *CELLS,
    PATCHED,
    *mediation(EDIT, through=["mid"]),
    *(AblateBlock(3, cut_relax_cut(18, cut=2, relax=relax)) for relax in (0, 2, 4)),
)
BLOCKS = {"kind": "ablate_block", "bottom": 2, "length": 3}
QUICK = {"resamples": 50}
CALLS: dict[str, Callable[..., Any]] = {
    "across": lambda tree, **o: analysis.across(
        {"one": tree, "other": tree}, "mse", reference="one", early=2, **BLOCKS, **QUICK, **o
    ),
    "compare": lambda tree, **o: analysis.compare(
        tree, {"kind": "skip_steps", "start": 19}, {"kind": "ablate_skip", "start": 19}, **QUICK, **o
    ),
    "curve": lambda tree, **o: analysis.curve(tree, **BLOCKS, **o).load(),
    "effects": lambda tree, **o: analysis.effects(tree, **QUICK, **o),
    "estimate_quality": analysis.estimate_quality,
    "excess": lambda tree, **o: analysis.excess(tree, EDIT, OTHERS, **QUICK, **o),
    "factor_changes": lambda tree, **o: analysis.factor_changes(tree, **BLOCKS, **o),
    "factor_effects": analysis.factor_effects,
    "first_redundant_step": lambda tree, **o: analysis.first_redundant_step(
        tree, kind="ablate_block", length=3, cuts=1, **QUICK, **o
    ),
    "interactions": lambda tree, **o: analysis.interactions(tree, [tuple(CELLS[:2])], **QUICK, **o),
    "interchange": lambda tree, **o: analysis.interchange(tree, **QUICK, **o),
    "longest_window": lambda tree, **o: analysis.longest_window(tree, kind="ablate_block", **QUICK, **o),
    "mean_curve": lambda tree, **o: analysis.mean_curve(tree, **BLOCKS, **QUICK, **o),
    "mediation": lambda tree, **o: analysis.mediation(tree, EDIT, **QUICK, **o),
    "noise_floor": analysis.noise_floor,
    "phases": lambda tree, **o: analysis.phases(tree, **BLOCKS, **QUICK, **o),
    "redundancy_trend": lambda tree, **o: analysis.redundancy_trend(
        tree, kind="ablate_block", bottom=[2, 4], length=3, cuts=1, **QUICK, **o
    ),
    "relaxation_needed": lambda tree, **o: analysis.relaxation_needed(tree, bottom=3, **QUICK, **o),
    "stopping_step": lambda tree, **o: analysis.stopping_step(tree, threshold=0.3, **o),
    "summary_table": analysis.summary_table,
}
WITHOUT_RESULTS = {
    "Criterion",
    "LinearRun",
    "agreement",
    "bisection",
    "bootstrap_mean",
    "depth_trend",
    "fewer_steps",
    "frontier",
    "gaussian_theory",
    "kick",
    "power_spectrum",
    "quantized",
    "quantizer_range",
    "rank_correlation",
    "wiener_gain",
    "windows_until_redundant",
    "linear_run",
    "propose_shortcuts",
    "psi",
    "to_frame",
    "xi",
}


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    path = tmp_path_factory.mktemp("gaps") / "results.zarr"
    write_results(path, INTERVENTIONS, samples=9)
    return with_gaps(with_trajectory(path))


def test_every_function_of_results_is_called_here() -> None:
    of_activations = {"calibrated"}  # takes those that are stored of whole runs
    assert set(CALLS) | WITHOUT_RESULTS | of_activations == set(analysis.__all__)
    for name in WITHOUT_RESULTS:
        assert "results" not in inspect.signature(getattr(analysis, name)).parameters


@pytest.mark.parametrize("name", CALLS)
def test_gaps_are_told_apart_with_what_helps(gappy: xr.DataTree, name: str) -> None:
    with pytest.raises(StoreError) as caught:
        CALLS[name](gappy)
    message = str(caught.value)
    assert "were not run yet" in message
    assert ' failed (most often: "the U-Net\'s prediction at step 4 is not finite")' in message
    assert "retry_failed=True" in message
    assert "allow_incomplete=True takes the" in message


@pytest.mark.sampled(13)
@pytest.mark.parametrize("name", CALLS)
def test_only_whole_samples_count(gappy: xr.DataTree, name: str) -> None:
    some = CALLS[name](gappy, allow_incomplete=True)
    expected = CALLS[name](without_gaps(gappy), allow_incomplete=True)
    if isinstance(some, xr.Dataset):
        xr.testing.assert_identical(some.drop_vars("failure", errors="ignore"), expected)
        assert bool(some.to_array().notnull().any()) if name != "curve" else True
    else:
        assert some == expected


def test_running_again_is_not_advised_for_what_failed(gappy: xr.DataTree) -> None:
    """Running into the same path leaves failed cells alone."""
    started = gappy.isel(sample=[0, 1, 4, 5])
    with pytest.raises(StoreError) as caught:
        analysis.curve(started, **BLOCKS)
    assert "goes on where it was" not in str(caught.value)
    assert "not run yet" not in str(caught.value)
    assert "retry_failed=True" in str(caught.value)
