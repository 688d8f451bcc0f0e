"""Searching: the same answer as running everything, from far fewer calls, and nothing is run twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.analysis.bisection import bisection
from causalunet.analysis.criteria import Criterion
from causalunet.design.families import families
from causalunet.errors import SpecError, StoreError
from causalunet.execute.fill import part_runner as runner
from causalunet.models.text_to_image import TextToImage

STEPS = 8
INTERVENTIONS = (
    *cu.sweep(cu.AblateBlock, bottom=(1, 3), start=range(STEPS, 1, -1), length=2),
    *cu.sweep(cu.SkipSteps, start=range(STEPS - 1, 1, -1), length=2),
    *cu.sweep(cu.AblateBlock, bottom=2, start=6, length=(1, 3, 4, 6)),
    *(cu.AblateBlock(bottom=3, window=cu.cut_relax_cut(8, cut=2, relax=relax)) for relax in (0, 1, 2, 4)),
)


def study(*interventions: cu.design.Intervention, **fields: Any) -> cu.Study:
    values = {
        "name": "search",
        "prompts": ("a red circle", "a striped blue cross, dark background"),
        "sampler": cu.DDPM(steps=STEPS),
        **fields,
    }
    return cu.Study(interventions=interventions or INTERVENTIONS, **values)


def asked_for(passes: list[bool]) -> tuple[int, list[int]]:
    asking, asked = bisection(len(passes)), []
    index = next(asking)
    while True:
        asked.append(index)
        try:
            index = asking.send(passes[index])
        except StopIteration as done:
            return done.value, asked


@given(st.integers(1, 200), st.data())
def test_bisection_finds_a_monotone_frontier_with_few_questions(n: int, data: st.DataObject) -> None:
    passing = data.draw(st.integers(0, n))
    found, asked = asked_for([True] * passing + [False] * (n - passing))
    assert found == passing - 1
    assert len(asked) == len(set(asked)) <= 1 + np.ceil(np.log2(n))


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_bisection_ends_at_a_crossing_whatever_passes(passes: list[bool]) -> None:
    found, asked = asked_for(passes)
    assert found == -1 or passes[found]
    assert found == len(passes) - 1 or not passes[found + 1]
    assert len(asked) == len(set(asked))
    assert (found == -1) == (not passes[0])


def test_nothing_to_ask() -> None:
    with pytest.raises(SpecError, match="at least one"):
        next(bisection(0))


def test_families_hold_what_differs_in_one_property() -> None:
    starts = families(INTERVENTIONS, "start")
    assert [family.name for family in starts] == [
        "ablate_block bottom=1 length=2",
        "ablate_block bottom=3 length=2",
        "skip_steps length=2",
    ]
    assert starts[0].values == tuple(range(2, STEPS + 1))
    assert [INTERVENTIONS[i].coordinates()["start"] for i in starts[0].members] == list(starts[0].values)
    named = {family.name: family.values for family in families(INTERVENTIONS, "length")}
    # A relaxation of 0 is a window of twice the length.
    assert named == {"ablate_block bottom=3 start=8": (2, 4), "ablate_block bottom=2 start=6": (1, 3, 4, 6)}
    (relaxed,) = families(INTERVENTIONS, "relax")
    assert relaxed.values == (4, 2, 1, 0)
    assert relaxed.common["start"] == 8


def test_families_do_not_mix_numbers_of_cuts_or_parts_of_compositions() -> None:
    cuts = [
        cu.AblateBlock(bottom=2, window=cu.cut_relax_cut(40, cut=cut, relax=relax, cuts=n))
        for cut, n in ((10, 2), (5, 4))
        for relax in (4, 2, 0)
        if relax or n == 2
    ]
    assert [(one.values, one.common.get("cuts")) for one in families(cuts, "relax")] == [((4, 2, 0), None)] * 2
    mixed = [
        cu.AblateBlock(bottom=2, window=cu.Window(40, a)) + cu.SkipSteps(cu.Window(17, b))
        for a in (5, 9)
        for b in (5, 9)
    ]
    with pytest.raises(SpecError, match="no family along 'length'"):
        families(mixed, "length")


def test_families_with_one_name_are_told_apart() -> None:
    edits = [cu.Edit(name, cu.Window(start, 1)) for name in ("up.1", "skip.0") for start in (5, 3)]
    assert [family.name for family in families(edits, "start")] == [
        "edit length=1 (edit up.1 3-3 zero ...)",
        "edit length=1 (edit skip.0 3-3 zero ...)",
    ]


def brute_force(values: np.ndarray, criterion: Criterion) -> int:
    """Index of the last of the leading candidates that pass, values (candidate, sample)."""
    found = -1
    for row in values:
        if not criterion.passes(row):
            break
        found += 1
    return found


@pytest.fixture(scope="module")
def swept(tiny_model: TextToImage, tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    path = tmp_path_factory.mktemp("swept") / "results.zarr"
    return study().run(path, model=tiny_model, progress=False)


@pytest.mark.thorough
@pytest.mark.parametrize(("by", "answer"), [("start", "step"), ("length", "length"), ("relax", "relax")])
@pytest.mark.parametrize("criterion", [Criterion(threshold=0.9), Criterion(threshold=0.7, kind="share", share=0.6)])
def test_search_answers_as_the_whole_sweep_does(
    by: Any, answer: str, criterion: Criterion, swept: xr.DataTree, tiny_model: TextToImage, tmp_path: Path
) -> None:
    found = study().search(tmp_path / "s.zarr", by=by, criterion=criterion, model=tiny_model, progress=False)
    for name, family in zip(found["family"].values, families(study().interventions, by), strict=True):
        index = brute_force(swept.outcomes.ssim.values[list(family.members)], criterion)
        expected = family.values[index] if index >= 0 else np.nan
        np.testing.assert_equal(float(found[answer].sel(family=name)), expected)


@pytest.mark.thorough
def test_what_was_run_is_what_the_sweep_has(swept: xr.DataTree, tiny_model: TextToImage, tmp_path: Path) -> None:
    found = study().search(tmp_path / "s.zarr", threshold=0.9, model=tiny_model, progress=False)
    stored = cu.open_results(tmp_path / "s.zarr")
    ran = (stored.outcomes.status == 1).all("sample").values
    assert ran.sum() == int(found["asked"].sum()) < len(INTERVENTIONS)
    for name in ("image", "ssim", "mse"):
        np.testing.assert_allclose(
            stored.outcomes[name].values[ran], swept.outcomes[name].values[ran], atol=2e-5, rtol=1e-4
        )
    np.testing.assert_allclose(stored.baseline.x_t.values, swept.baseline.x_t.values, atol=2e-5)
    assert found.attrs["unet_calls"] == found.attrs["unet_calls_run"] < found.attrs["unet_calls_sweep"]


@pytest.mark.thorough
def test_an_interrupted_search_goes_on_and_runs_nothing_twice(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = tmp_path / "s.zarr", []
    real: Callable[..., Any] = runner.run_block

    def counted(*arguments: Any, **named: Any) -> Any:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(arguments[1])
        return real(*arguments, **named)

    monkeypatch.setattr(runner, "run_block", counted)
    with pytest.raises(KeyboardInterrupt):
        study().search(path, threshold=0.9, model=tiny_model, progress=False)
    monkeypatch.undo()
    resumed = study().search(path, threshold=0.9, model=tiny_model, progress=False)
    whole = study().search(tmp_path / "w.zarr", threshold=0.9, model=tiny_model, progress=False)
    again = study().search(path, threshold=0.9, model=tiny_model, progress=False)
    assert resumed.attrs["unet_calls_run"] == whole.attrs["unet_calls_run"] - sum(part.unet_calls for part in calls)
    assert again.attrs["unet_calls_run"] == 0
    for name in ("step", "asked", "statistic"):
        np.testing.assert_allclose(resumed[name], whole[name], atol=1e-5)
        np.testing.assert_array_equal(again[name], resumed[name])


@pytest.mark.thorough
def test_a_run_after_a_search_completes_the_store(swept: xr.DataTree, tiny_model: TextToImage, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    study().search(path, threshold=0.9, model=tiny_model, progress=False)
    results = study().run(path, model=tiny_model, progress=False)
    assert (results.baseline.status == 1).all()
    assert (results.outcomes.status == 1).all()
    np.testing.assert_allclose(results.outcomes.ssim, swept.outcomes.ssim, atol=1e-5)


def test_a_search_leaves_complete_samples_complete(tiny_model: TextToImage, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    study().run(path, model=tiny_model, progress=False)
    study().search(path, threshold=0.9, model=tiny_model, progress=False)
    assert (cu.open_results(path).baseline.status == 1).all()


@pytest.mark.thorough
def test_search_says_what_it_saved(tiny_model: TextToImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = study().search(tmp_path / "s.zarr", threshold=0.9, model=tiny_model)
    printed = capsys.readouterr().out
    assert f"{found.attrs['unet_calls']:,} U-Net calls instead of the sweep's" in printed
    assert f"{int(found['asked'].sum())} of 20 interventions asked" in printed


@pytest.mark.thorough
def test_a_search_that_cannot_be(tiny_model: TextToImage, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    alone = study(cu.AblateBlock(bottom=1, window=cu.Window(4, 2)), cu.SkipSteps(cu.Window(4, 2)))
    with pytest.raises(SpecError, match="no family along 'start'"):
        alone.search(path, model=tiny_model)
    with pytest.raises(SpecError, match="not searched by 'depth'; by any of start, length, relax"):
        study().search(path, by="depth", model=tiny_model)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="give one of them"):
        study().search(path, threshold=0.9, criterion=Criterion(), model=tiny_model)
    with pytest.raises(SpecError, match=r"criterion=0\.9 is not a Criterion; .* give threshold=0\.9"):
        study().search(path, criterion=0.9, model=tiny_model)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"measures ssim, psnr, mse while it runs, and mean MINE <= 0.1 asks"):
        study().search(path, criterion=Criterion(variable="mine", better="lower", threshold=0.1), model=tiny_model)
    single = study(prompts=("a red circle",))
    with pytest.raises(SpecError, match="needs at least 2"):
        single.search(path, criterion=Criterion(kind="lower"), model=tiny_model)
    with pytest.raises(SpecError, match="records no activations"):
        study(record=cu.Record(activations=("mid",))).search(path, model=tiny_model)
    assert not path.exists()
    study().search(path, model=tiny_model, progress=False)
    with pytest.raises(StoreError, match="holds another study: samples: the study lacks 'a striped blue cross"):
        study(prompts=("a red circle",)).search(path, model=tiny_model)
