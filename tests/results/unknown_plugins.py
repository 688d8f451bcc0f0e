"""Makes a store with a kind, a fill, a view, a sampler and an outcome of somebody else's; run in a process of its own.

``python -m tests.results.unknown_plugins PATH``
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import causalunet as cu
from causalunet.design import Fill, Intervention
from causalunet.design.outcomes import OutcomeDim
from causalunet.design.samplers import DDPM
from causalunet.design.views import Axes, View
from causalunet.design.views.base import Selection
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.declaration import DeclaredOutcome
from causalunet.results.meaning.schema import COMPLETE, Variable
from tests.results.golden.make import golden_model


@dataclass(frozen=True, slots=True)
class Negated(Fill):
    """The value with its sign turned."""

    name: ClassVar[str] = "stranger_fill"

    def apply(self, value: Any) -> Any:
        """Turn the sign."""
        return -value


@dataclass(frozen=True, slots=True)
class First(View):
    """The first channel."""

    name: ClassVar[str] = "stranger_view"
    dims: ClassVar[tuple[str, ...]] = ("channel",)

    def selected(self, axes: Axes) -> Mapping[str, Selection]:
        """One channel."""
        return {"channel": (0,)}


@dataclass(frozen=True, slots=True)
class Milder(Intervention):
    """A kind that says more of itself."""

    kind: ClassVar[str] = "stranger_kind"
    strength: float
    window: cu.Window

    def edits(self) -> tuple[cu.Edit, ...]:
        """One edit."""
        return (cu.Edit("mid", self.window, cu.Scale(1 - self.strength)),)

    def coordinates(self) -> dict[str, Any]:
        """With its strength, in numbers and in words, and whether it is mild."""
        told = {"strength": self.strength, "words": f"by {self.strength:g}", "mild": self.strength < 0.5, "rank": 2}
        return {**Intervention.coordinates(self), **told}


@dataclass(frozen=True, slots=True, kw_only=True)
class Another(DDPM):
    """Steps as those of DDPM."""

    name: ClassVar[str] = "stranger_sampler"


OUTCOME = DeclaredOutcome(
    name="stranger_outcome",
    variables=(
        Variable(
            group="outcomes",
            name="stranger_outcome",
            dims=("intervention", "sample", "token"),
            dtype="float32",
            meaning="attention to each word",
            range=(0.0, 1.0),
            better="higher",
            outcome="stranger_outcome",
        ),
    ),
    digest="0" * 16,
    written={"name": "stranger_outcome", "configuration": {}},
    brings=(OutcomeDim(name="token", labels=("a", "red", "circle"), meaning="of the prompt"),),
)


def _make(path: Path) -> None:
    study = cu.Study(
        name="of a stranger",
        prompts=["a red circle", "a blue cross"],
        sampler=Another(steps=3),
        interventions=[
            Milder(0.25, cu.Window(3, 1)),
            Milder(0.75, cu.Window(3, 1)),
            cu.Edit("up.1", cu.Window(2, 1), Negated(), view=First()),
            cu.AblateBlock(1, cu.Window(2, 1)),
        ],
    )
    assert study.run(path, model=golden_model(), progress=False).verify(quiet=True)
    writer = StudyWriter(Repository.open(Location.parse(path)))
    writer.declare(OUTCOME)
    writer.write("outcomes/stranger_outcome", (), np.float32(0.5))
    writer.write("outcomes/stranger_outcome_status", (), np.array(COMPLETE))
    writer.commit("measured", {})


if __name__ == "__main__":
    _make(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)
