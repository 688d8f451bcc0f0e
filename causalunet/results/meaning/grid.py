"""What stands where along a store's axes; a store only ever grows at the end of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from causalunet.design.anatomy import Anatomy
from causalunet.design.interventions import Edit, Intervention
from causalunet.design.starts import Noise
from causalunet.design.study import Sample, StudySpec

__all__ = ["Grid"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Grid:
    """Positions along the axes of a store.

    Parameters
    ----------
    interventions : tuple of Intervention
    samples : tuple of Sample
    summary : tuple of str
        Components, and parts of places, that are summarised.
    activations : tuple of str
        Components whose whole output is stored.
    placed : tuple of str
        Places that a store has already, in its order.
    edits : tuple of tuple of Edit, optional
        Of the interventions, where they are known.
    """

    interventions: tuple[Intervention, ...]
    samples: tuple[Sample, ...]
    summary: tuple[str, ...]
    activations: tuple[str, ...]
    placed: tuple[str, ...] = ()
    edits: tuple[tuple[Edit, ...], ...] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, spec: StudySpec, anatomy: Anatomy) -> Grid:
        """The grid of a study, in its own order."""
        record = spec.record
        recorded = tuple(record.summarised(anatomy)), anatomy.select(record.activations)
        return cls(spec.interventions, spec.samples, *recorded, edits=spec.edits)

    @cached_property
    def places(self) -> tuple[str, ...]:
        """Every place that some intervention edits: those stored, then others in the order of the interventions."""
        known = self.edits if self.edits is not None else (item.edits() for item in self.interventions)
        return tuple(dict.fromkeys((*self.placed, *(edit.component for edits in known for edit in edits))))

    def extended(self, asked: Grid) -> Grid:
        """The grid with all of another added at the ends of its axes."""
        known = {item.digest for item in self.interventions}
        return Grid(
            (*self.interventions, *(item for item in asked.interventions if item.digest not in known)),
            _joined(self.samples, asked.samples),
            _joined(self.summary, asked.summary),
            _joined(self.activations, asked.activations),
            self.placed,
        )

    def lacking(self, stored: Grid) -> dict[str, list[str]]:
        """What another grid has and this one lacks, by part of the study.

        Null interventions do not count: studies get one by themselves, as long as their longest window.
        """
        known = {item.digest for item in self.interventions}
        missing = {
            "interventions": [x.label for x in stored.interventions if x.digest not in known and x.kind != "null"],
            "samples": [f"{x.prompt!r} with {_told(x)}" for x in stored.samples if x not in set(self.samples)],
            "record.summary": [name for name in stored.summary if name not in self.summary],
            "record.activations": [name for name in stored.activations if name not in self.activations],
        }
        return {part: entries for part, entries in missing.items() if entries}

    def aligned(self, spec: StudySpec) -> StudySpec:
        """A study with its interventions in the order of this grid."""
        return spec.with_stored(self.interventions)


def _joined(old: tuple[_T, ...], new: tuple[_T, ...]) -> tuple[_T, ...]:
    known = set(old)
    return (*old, *(item for item in new if item not in known))


def _told(sample: Sample) -> str:
    return f"seed {sample.seed}" if type(sample.start) is Noise else str(sample.start)
