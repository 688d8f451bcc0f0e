"""Any history of a store, step by step beside a model of it in memory: what should be there is there, and right."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import causalunet as cu
from causalunet.errors import StoreError
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.schema import COMPLETE
from tests.trust import small
from tests.trust.children import context

INTERVENTIONS: tuple[cu.design.Intervention, ...] = (
    cu.Null(cu.Window(2, 1)),
    cu.AblateBlock(2, cu.Window(3, 1)),
    cu.AblateBlock(2, cu.Window(2, 1)),
    cu.AblateBlock(2, cu.Window(1, 1)),
    cu.AblateSkip(1, cu.Window(2, 1)),
    cu.SkipSteps(cu.Window(2, 1)),
)
FAMILY = (1, 2, 3)
"""Those that differ only in their start; a search sorts them from the last start to the first."""
PROMPTS = ("a red circle", "a blue cross", "a striped cyan square, light background")
MEMORY = 40_000
"""Budget in bytes that makes a commit of every sample."""

Cells = frozenset[tuple[int, int]]
"""Intervention and sample, as positions in these tables; -1 for the baseline."""


def study(interventions: tuple[int, ...], samples: tuple[int, ...]) -> cu.Study:
    return cu.Study(
        name="history",
        interventions=[INTERVENTIONS[index] for index in interventions],
        prompts=[PROMPTS[index] for index in samples],
        seeds=[5],
        sampler=cu.DDPM(steps=3, guidance_scale=1.0),
    )


def cells(interventions: tuple[int, ...], samples: tuple[int, ...]) -> Cells:
    return frozenset((run, sample) for run in (-1, *interventions) for sample in samples)


@cache
def truth() -> xr.DataTree:
    """Everything, run at once into a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        whole = study(tuple(range(len(INTERVENTIONS))), tuple(range(len(PROMPTS))))
        results = whole.run(Path(folder) / "truth.zarr", model=small.model(), progress=False)
        return xr.DataTree.from_dict({name: node.to_dataset().load() for name, node in results.children.items()})


@cache
def passes(intervention: int, samples: tuple[int, ...], threshold: float) -> bool:
    return float(truth().outcomes.ssim[intervention, list(samples)].mean()) >= threshold


def stored(results: xr.DataTree) -> Cells:
    """What a store says is complete; its values are compared with the truth, and all others with nothing."""
    labels = [item.label for item in INTERVENTIONS]
    rows = [labels.index(str(label)) for label in results.outcomes.intervention.values]
    columns = [PROMPTS.index(str(prompt)) for prompt in results.outcomes.prompt.values]
    found = set()
    for group, name, places in (("outcomes", "image", rows), ("outcomes", "ssim", rows), ("baseline", "image", [])):
        complete = results[group].status.values == COMPLETE
        values, true = results[group][name].values, truth()[group][name].values
        true = true[np.ix_(places, columns)] if places else true[columns]
        np.testing.assert_allclose(values[complete], true[complete], atol=1e-4)
        assert np.isnan(values[~complete]).all()
        positions = np.argwhere(complete).tolist()
        found |= {(places[at[0]] if places else -1, columns[at[-1]]) for at in positions}
    return frozenset(found)


class Died(BaseException):
    """Ends a run as a kill would: nothing of the package handles it."""


@contextmanager
def dying(end: Callable[[], None], commit: int, *, after: bool) -> Iterator[None]:
    """Let a process come to its end just before or just after one of its commits."""
    original, count = StudyWriter.commit, 0

    def committed(writer: StudyWriter, message: str, added: Any) -> None:
        nonlocal count
        count += 1
        if count == commit and not after:
            end()
        original(writer, message, added)
        if count == commit:
            end()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudyWriter, "commit", committed)
        yield


def run(path: Path, asked: cu.Study) -> cu.results.Results:
    return asked.run(path, model=small.model(), memory=MEMORY, progress=False)


def run_and_be_killed(path: str, asked: dict[str, Any], commit: int, after: bool) -> None:
    """Run as a child, which the system ends at a commit."""
    with dying(lambda: os.kill(os.getpid(), signal.SIGKILL), commit, after=after):
        run(Path(path), cu.Study.from_json(asked))


@dataclass
class Model:
    """What a store should hold.

    Attributes
    ----------
    interventions, samples : tuple of int
        That have a place in it.
    complete : frozenset
    """

    interventions: tuple[int, ...]
    samples: tuple[int, ...]
    complete: Cells = field(default_factory=frozenset)

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.complete == cells(self.interventions, self.samples)


some_interventions = st.sets(st.integers(1, len(INTERVENTIONS) - 1), min_size=1, max_size=2)
some_samples = st.sets(st.integers(0, len(PROMPTS) - 1), min_size=1, max_size=2)


class Histories(RuleBasedStateMachine):
    """Rules are what people and accidents do to a store."""

    @initialize()
    def begin(self) -> None:
        """There is nothing yet."""
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "store.zarr"
        self.model: Model | None = None
        self.tags: dict[str, Cells] = {}
        self.exports: dict[Path, Cells] = {}

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @property
    def there(self) -> Model:
        """The model of a store that exists."""
        assert self.model is not None
        return self.model

    def grown(self, interventions: set[int], samples: set[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A study that has everything stored, and more; a null first, as every study gets one."""
        old = self.model or Model((0,), ())
        return (
            (*old.interventions, *sorted(interventions - set(old.interventions))),
            (*old.samples, *sorted(samples - set(old.samples))),
        )

    @rule(interventions=some_interventions, samples=some_samples)
    def run(self, interventions: set[int], samples: set[int]) -> None:
        """Run a study that is new, or extend the one that is stored."""
        asked = self.grown(interventions, samples)
        run(self.path, study(*asked))
        self.model = Model(*asked, cells(*asked))

    @precondition(lambda self: self.model is not None)
    @rule()
    def resume(self) -> None:
        """Go on with what the store itself says it is."""
        stored_study = cu.Study.from_json(cu.open_results(self.path).attrs["study"])
        run(self.path, stored_study)
        self.there.complete = cells(self.there.interventions, self.there.samples)

    @precondition(lambda self: self.model is not None and len(self.model.interventions) > 2)
    @rule()
    def run_less(self) -> None:
        """A study that lacks something of the store is refused, and changes nothing."""
        with pytest.raises(StoreError, match="the study lacks"):
            run(self.path, study(self.there.interventions[:-1], self.there.samples))

    @rule(interventions=some_interventions, samples=some_samples, commit=st.integers(1, 4), after=st.booleans())
    def kill(self, interventions: set[int], samples: set[int], commit: int, after: bool) -> None:
        """End a run at one of its commits; whatever was complete before still is."""
        asked, before = self.grown(interventions, samples), self.model
        self.run_until(study(*asked), commit, after)
        if before is None and not self.path.exists():
            return
        there = cu.open_results(self.path)
        complete = stored(there)
        laid_out = len(there.outcomes.intervention), len(there.outcomes["sample"])
        if before is not None and laid_out == (len(before.interventions), len(before.samples)):
            asked = before.interventions, before.samples
        assert laid_out == tuple(map(len, asked))
        assert (before.complete if before else frozenset()) <= complete <= cells(*asked)
        self.model = Model(*asked, complete)

    def run_until(self, asked: cu.Study, commit: int, after: bool) -> None:
        """Run in this process, which lives on."""

        def end() -> None:
            raise Died

        with dying(end, commit, after=after):
            try:
                run(self.path, asked)
            except Died:
                return

    @rule(samples=some_samples, threshold=st.sampled_from((0.0, 0.96, 0.995, 1.0)))
    def search(self, samples: set[int], threshold: float) -> None:
        """Bisect; the answer is that of the truth, and what was asked is stored."""
        interventions, samples_asked = self.grown(set(FAMILY), samples)
        found = study(interventions, samples_asked).search(
            self.path, threshold=threshold, model=small.model(), memory=MEMORY, progress=False
        )
        answer = float(found["step"][0])
        ordered = sorted(FAMILY, key=lambda index: INTERVENTIONS[index].coordinates()["start"])
        passing = [passes(index, samples_asked, threshold) for index in ordered]
        place = -1 if np.isnan(answer) else int(answer) - 1
        assert place == -1 or passing[place]
        assert place + 1 == len(ordered) or not passing[place + 1]
        asked = tuple(
            index for index, value in zip(ordered, found["statistic"][0].values, strict=True) if np.isfinite(value)
        )
        before = self.model.complete if self.model else frozenset()
        self.model = Model(interventions, samples_asked, before | cells(asked, samples_asked))

    @precondition(lambda self: self.model is not None)
    @rule(name=st.sampled_from(("paper", "v1", "v2")))
    def tag(self, name: str) -> None:
        """Name a state; a name that is taken is refused and stays where it is."""
        results = cu.open_results(self.path)
        if name in self.tags:
            with pytest.raises(StoreError, match="tags never move"):
                results.tag(name)
            return
        results.tag(name)
        self.tags[name] = self.there.complete

    @precondition(lambda self: self.model is not None and len(self.exports) < 3)
    @rule()
    def export(self) -> None:
        """Write plain zarr, which later changes of the store do not reach."""
        path = self.folder / f"export-{len(self.exports)}.zarr"
        cu.open_results(self.path).export(path)
        self.exports[path] = self.there.complete

    @precondition(lambda self: self.model is not None)
    @rule()
    def verify(self) -> None:
        """The store is sound, and complete only if it is."""
        found = cu.open_results(self.path).verify(quiet=True)
        assert found.exit_code == (0 if self.there.whole else 3), str(found)

    @precondition(lambda self: self.model is not None)
    @rule()
    def delete(self) -> None:
        """Remove the folder; the next run begins from nothing."""
        shutil.rmtree(self.path)
        self.model, self.tags = None, {}
        with pytest.raises(StoreError, match="There is nothing at"):
            cu.open_results(self.path)

    @invariant()
    def everything_opens_as_it_should(self) -> None:
        """Newest state, tags and exports hold what they should, and the values are those of the truth."""
        if self.model is not None:
            results = cu.open_results(self.path)
            assert stored(results) == self.model.complete
            assert {name for commit in results.history() for name in commit.tags} == set(self.tags)
            for name, complete in self.tags.items():
                assert stored(cu.open_results(self.path, at=name)) == complete
        for path, complete in self.exports.items():
            assert stored(cu.open_results(path)) == complete


class KilledHistories(Histories):
    """The same, with processes that the system kills."""

    def run_until(self, asked: cu.Study, commit: int, after: bool) -> None:
        """Run in a child, which is killed."""
        child = context().Process(target=run_and_be_killed, args=(str(self.path), asked.to_json(), commit, after))
        child.start()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)


TestShortHistories = pytest.mark.thorough(Histories.TestCase)
TestShortHistories.settings = settings(max_examples=3, stateful_step_count=8, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(7200)
class TestLongHistories(KilledHistories.TestCase):  # type: ignore[misc, name-defined]
    """Many, and longer ones."""

    settings = settings(
        max_examples=60, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
