"""A search goes on past failed cells, judges a family by the samples that all its members have, and can try again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.analysis.criteria import Criterion
from causalunet.design.families import Family, families
from causalunet.errors import CausalUNetWarning
from causalunet.execute.fill import part_runner as runner
from causalunet.execute.fill.recorder import Recorder
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import BASELINE
from causalunet.search import _Search
from tests.test_search import asked_for, brute_force

STEPS = 8
STUDY = cu.Study(
    name="failing search",
    prompts=["a red circle", "a striped blue cross, dark background", "a green triangle"],
    sampler=cu.DDPM(steps=STEPS),
    interventions=[
        *cu.sweep(cu.AblateBlock, bottom=(1, 3), start=range(STEPS, 1, -1), length=2),
        *cu.sweep(cu.SkipSteps, start=range(STEPS - 1, 1, -1), length=2),
    ],
)
FAMILIES = families(STUDY.interventions, "start")
Search = Callable[..., xr.Dataset]
Failing = set[tuple[int, int]]


@pytest.fixture
def search(tiny_model: TextToImage, tmp_path: Path) -> Search:
    def search_it(**options: Any) -> xr.Dataset:
        values = {"threshold": 0.9, "model": tiny_model, "progress": False, **options}
        return STUDY.search(tmp_path / "s.zarr", **values)

    return search_it


@pytest.fixture(scope="module")
def swept(tiny_model: TextToImage, tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    return STUDY.run(tmp_path_factory.mktemp("swept") / "s.zarr", model=tiny_model, progress=False)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Failing]:
    """Cells, (intervention or `BASELINE`, sample), that fail as long as they are in here."""
    cells: Failing = set()
    write = Recorder.write

    def spoiled(recorder: Recorder) -> None:
        samples = recorder._part.samples
        for run, sample in cells:
            if run in recorder._part.runs and samples.start <= sample < samples.stop:
                recorder.failed[run, sample - samples.start] = "made to fail"
        write(recorder)

    monkeypatch.setattr(Recorder, "write", spoiled)
    return cells


def easiest(family: int) -> int:
    """The member that is asked for in any case."""
    return FAMILIES[family].members[0]


def expected(swept: xr.DataTree, family: int, samples: list[int]) -> float:
    values = swept.outcomes.ssim.values[list(FAMILIES[family].members)][:, samples]
    index = brute_force(values, Criterion(threshold=0.9))
    return FAMILIES[family].values[index] if index >= 0 else np.nan


@pytest.mark.thorough
def test_a_search_goes_on_past_a_failed_cell(search: Search, failing: Failing, swept: xr.DataTree) -> None:
    failing.add((easiest(1), 0))
    with pytest.warns(
        CausalUNetWarning, match=r"1 of \d+ cells asked for failed: made to fail \(1\)\. .* retry_failed"
    ):
        found = search()
    assert found["samples"].values.tolist() == [3, 2, 3]
    assert found["failed"].sum("candidate").values.tolist() == [0, 1, 0]
    assert found["failed"].values[1, 0] == 1
    wanted = [expected(swept, family, [1, 2] if family == 1 else [0, 1, 2]) for family in range(3)]
    np.testing.assert_array_equal(found["step"], wanted)
    means = swept.outcomes.ssim.values[list(FAMILIES[1].members)][:, 1:].mean(axis=1)
    asked = ~np.isnan(found["statistic"].values[1])
    assert asked.sum() == found["asked"].values[1]
    np.testing.assert_allclose(found["statistic"].values[1][asked], means[asked[: len(means)]], atol=1e-5)


@pytest.mark.thorough
def test_without_a_baseline_a_sample_is_left_out_everywhere(
    search: Search, failing: Failing, swept: xr.DataTree
) -> None:
    failing.add((BASELINE, 1))
    with pytest.warns(CausalUNetWarning, match=r"cells asked for failed: baseline: made to fail"):
        found = search()
    assert found["samples"].values.tolist() == [2, 2, 2]
    np.testing.assert_array_equal(found["step"], [expected(swept, family, [0, 2]) for family in range(3)])


@pytest.mark.thorough
def test_failed_cells_are_tried_again_where_that_is_asked(
    search: Search, failing: Failing, swept: xr.DataTree, tmp_path: Path
) -> None:
    failing |= {(easiest(0), 0), (easiest(1), 2), (BASELINE, 1)}
    with pytest.warns(CausalUNetWarning, match="asked for failed"):
        first = search()
    failing.clear()
    with pytest.warns(CausalUNetWarning, match="asked for failed"):
        left = search()
    assert left.attrs["unet_calls_run"] == 0, "without being asked nothing is tried again"
    xr.testing.assert_equal(left, first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = search(retry_failed=True)
    assert again.attrs["unet_calls_run"] > 0
    assert again["samples"].values.tolist() == [3, 3, 3]
    assert int(again["failed"].sum()) == 0
    np.testing.assert_array_equal(again["step"], [expected(swept, family, [0, 1, 2]) for family in range(3)])
    checked = cu.open_results(tmp_path / "s.zarr").verify(quiet=True)
    assert checked.exit_code == 3, str(checked)


@pytest.mark.thorough
def test_after_a_new_baseline_a_run_completes_the_store(
    search: Search, failing: Failing, tiny_model: TextToImage, tmp_path: Path
) -> None:
    failing.add((BASELINE, 1))
    with pytest.warns(CausalUNetWarning, match="asked for failed"):
        search()
    failing.clear()
    search(retry_failed=True)
    status = cu.open_results(tmp_path / "s.zarr").outcomes.status.values
    assert set(np.unique(status)) == {0, 1}, "what was not asked for is missing, not failed"
    whole = STUDY.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert whole.verify(quiet=True), whole.verify()


@pytest.mark.thorough
def test_what_fails_again_is_tried_once(search: Search, failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    failing |= {(BASELINE, 1), (easiest(0), 0)}
    with pytest.warns(CausalUNetWarning, match="asked for failed"):
        first = search()
    tried: list[tuple[int, ...]] = []
    real = runner.Recorder

    def counted(*arguments: Any) -> Recorder:
        made = real(*arguments)
        tried.append(made._part.runs)
        return made

    monkeypatch.setattr(runner, "Recorder", counted)
    with pytest.warns(CausalUNetWarning, match="asked for failed"):
        again = search(retry_failed=True)
    assert sorted(tried) == [(BASELINE,), (easiest(0),)]
    xr.testing.assert_equal(again, first)


@pytest.mark.thorough
def test_an_intervention_that_fails_everywhere_does_not_pass(
    search: Search, failing: Failing, swept: xr.DataTree
) -> None:
    failing |= {(easiest(2), sample) for sample in range(3)}
    with pytest.warns(CausalUNetWarning, match="3 of .* cells asked for failed"):
        found = search()
    assert np.isnan(found["step"].values[2])
    assert np.isnan(found["statistic"].values[2, 0])
    assert found["failed"].values[2, 0] == 3
    assert found["samples"].values.tolist() == [3, 3, 0]
    for family in range(2):
        np.testing.assert_equal(float(found["step"][family]), expected(swept, family, [0, 1, 2]))


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.lists(
            st.lists(st.sampled_from([0.0, 0.5, 1.0, np.nan]), min_size=3, max_size=3), min_size=n, max_size=n
        )
    ),
    st.sampled_from([Criterion(threshold=0.6), Criterion(threshold=0.6, kind="lower", resamples=50)]),
)
def test_every_member_is_judged_by_the_same_samples(values: list[list[float]], criterion: Criterion) -> None:
    family = Family("any", tuple(range(len(values))), tuple(range(len(values))), {})
    search = _Search(family, criterion)
    while search.asked is not None:
        assert search.asked not in search.values
        search.answer(np.array(values[search.asked]))
    there = {member: ~np.isnan(values[member]) for member in search.values}
    counting = [mask for mask in there.values() if mask.sum() >= criterion.fewest]
    kept = np.all(counting, axis=0) if counting else np.zeros(3, bool)
    assert search.samples.tolist() == kept.tolist()

    def passes(member: int) -> bool:
        chosen = np.array(values[member])[kept]
        return len(chosen) >= criterion.fewest and not np.isnan(chosen).any() and bool(criterion.passes(chosen))

    found, asked = asked_for([member in there and passes(member) for member in range(len(values))])
    assert search.found == found
    assert set(asked) <= set(there)
