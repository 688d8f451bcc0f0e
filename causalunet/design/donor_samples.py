"""Which runs without intervention stand beside each sample of a study, for the values that fills take from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from causalunet.design.digests import digest_of
from causalunet.design.donors import OwnBefore, OwnInput, RunOf
from causalunet.design.fills import Fill
from causalunet.design.interventions import Edit
from causalunet.design.study import Sample, StudySpec
from causalunet.errors import SpecError
from causalunet.prompts import NoPrompt

__all__ = ["DonorRuns", "check_donor_runs", "donor_runs", "moved_runs", "runs_of"]


class DonorRuns:
    """Finds the run that stands beside a sample.

    Parameters
    ----------
    samples : sequence of Sample
        Every sample of the study: what is found depends on these, and on nothing that is run together.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = tuple(samples)
        self._after: dict[int, dict[Sample, Sample]] = {}
        self._prompts: dict[int, list[str]] = {}

    def of(self, run: RunOf, sample: Sample) -> Sample:
        """Prompt and start of a run.

        Raises
        ------
        SpecError
            There is no such sample, or no other one.
        """
        if run.after is not None:
            return self._next(run.after, sample)
        if run.sample is not None:
            if run.sample >= len(self._samples):
                raise SpecError(
                    f"A fill takes values of sample {run.sample}; the study has {len(self._samples)}, counted from 0."
                )
            return self._samples[run.sample]
        prompt = sample.prompt if run.prompt is None else run.prompt
        if run.prompt_of is not None:
            seed, number = run.prompt_of
            prompts = self._ordered(seed)
            prompt = prompts[number % len(prompts)]
        return Sample(prompt, sample.start if run.seed is None else run.seed)

    def _next(self, seed: int, sample: Sample) -> Sample:
        if len(self._samples) < 2:
            raise SpecError(
                "A fill takes the values of another sample, and the study has one. Give it more prompts or seeds, or "
                "take Patch(prompt=..., seed=...), which names the run."
            )
        if seed not in self._after:
            order = sorted(self._samples, key=lambda one: digest_of([seed, _words(one.prompt), one.start.to_json()]))
            self._after[seed] = dict(zip(order, [*order[1:], order[0]], strict=True))
        if sample not in self._after[seed]:
            raise SpecError(f"{sample} is no sample of the study, so that none comes after it.")
        return self._after[seed][sample]

    def _ordered(self, seed: int) -> list[str]:
        if seed not in self._prompts:
            prompts = dict.fromkeys(sample.prompt for sample in self._samples)
            self._prompts[seed] = sorted(prompts, key=lambda prompt: digest_of([seed, _words(prompt)]))
        return self._prompts[seed]


def donor_runs(fill: Fill, study: StudySpec) -> dict[Sample, tuple[Sample, ...]]:
    """Say which runs without intervention a fill takes values from, for every sample of a study.

    Parameters
    ----------
    fill : Fill
        Such as `causalunet.Mean` or `causalunet.Resample`.
    study : StudySpec

    Returns
    -------
    dict of Sample to tuple of Sample
        Prompt and start of each run, in the order in which they are taken; of a fill that takes nothing from other runs
        there are none.

    Raises
    ------
    SpecError
        The study has no such run.

    Examples
    --------
    >>> import causalunet as cu
    >>> cut = cu.AblateSkip(1, cu.Window(3, 1))
    >>> study = cu.Study(name="s", prompts=["a circle", "a cross"], interventions=[cut])
    >>> for sample, (of,) in donor_runs(cu.Resample(), study).items():
    ...     print(f"{sample.prompt}: {of.prompt}")
    a circle: a cross
    a cross: a circle
    """
    found, runs = DonorRuns(study.samples), tuple(runs_of(fill))
    return {sample: tuple(found.of(run, sample) for run in runs) for sample in study.samples}


def runs_of(fill: Fill) -> Iterable[RunOf]:
    """Every run without intervention that a fill takes values from."""
    return (run for donor in fill.donors if not isinstance(donor, OwnBefore | OwnInput) for run in donor.runs)


def check_donor_runs(edits: Iterable[Sequence[Edit]], samples: Sequence[Sample]) -> None:
    """Check that every run that fills take values from can be found.

    Raises
    ------
    SpecError
        A sample has no such run.
    """
    asked = {run for of_one in edits for edit in of_one for run in runs_of(edit.fill)}
    found = DonorRuns(samples)
    for run in asked:
        found.of(run, samples[0])


def moved_runs(edits: Iterable[Sequence[Edit]], before: Sequence[Sample], after: Sequence[Sample]) -> list[str]:
    """Fills, by name, that take values from other runs once a study has more samples.

    Parameters
    ----------
    edits : iterable of sequence of Edit
    before, after : sequence of Sample
        Of the study as it was, and as it is.
    """
    fills = {edit.fill for of_one in edits for edit in of_one}
    was, now = DonorRuns(before), DonorRuns(after)
    return sorted(
        {
            fill.name
            for fill in fills
            for run in runs_of(fill)
            if run != RunOf(run.prompt, run.seed) and any(was.of(run, one) != now.of(run, one) for one in before)
        }
    )


def _words(prompt: str) -> str | None:
    return None if isinstance(prompt, NoPrompt) else prompt
