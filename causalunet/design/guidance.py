"""Guidance: which rows of a U-Net call a sample takes, what each is told, and how their predictions become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.limits import is_number, plain_number, shown
from causalunet.design.named import class_named, write_named
from causalunet.errors import SpecError
from causalunet.registry import Registry

__all__ = ["CFG", "GUIDANCES", "Guidance", "NoGuidance"]

GUIDANCES: Registry[type[Guidance]] = Registry("guidance", "causalunet.guidances")
"""Every guidance that this process knows, by name."""


@clear_calls
@dataclass(frozen=True, slots=True)
class Guidance:
    """Base of every guidance. A subclass names itself and says `combine`.

    Attributes
    ----------
    name : str
        Its name in JSON and in stored results.
    branches : tuple of str
        Rows of a call per sample: ``("cond",)``, or ``("cond", "uncond")``. Edits of a branch are made in its rows, and
        activations and the variance are those of the first.
    scale : float
        How strongly it guides; 1 is not at all.
    """

    name: ClassVar[str] = ""
    branches: ClassVar[tuple[str, ...]] = ("cond", "uncond")

    @property
    def scale(self) -> float:
        """How strongly it guides; 1 is not at all."""
        return 1.0

    @property
    def conditional(self) -> int:
        """Place of the branch that is told the prompt, the first where none is called so."""
        return self.branches.index("cond") if "cond" in self.branches else 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super(Guidance, cls).__init_subclass__(**kwargs)
        if cls.name != Guidance.name:
            GUIDANCES.register(cls.name, cls)

    def prompts(self, prompt: str) -> tuple[str, ...]:
        """What each branch is told of a sample's prompt; the empty prompt is "no condition"."""
        return tuple(prompt if branch == "cond" else "" for branch in self.branches)

    def combine(self, predictions: Sequence[Any]) -> Any:
        """Make one prediction of those of all branches.

        Parameters
        ----------
        predictions : sequence of Tensor, (sample, channel, y, x)
            Of each branch, in their order: noise, image or v, whatever the model predicts.

        Returns
        -------
        Tensor, (sample, channel, y, x)
            New where there is more than one branch.
        """
        raise NotImplementedError(self.name)

    def to_json(self) -> dict[str, Any]:
        """Write as ``{"name": ..., "configuration": {...}}``."""
        return write_named(self)

    @staticmethod
    def from_json(value: Any) -> Guidance:
        """Read what `to_json` wrote.

        Raises
        ------
        SpecError
            The name is not known or the configuration does not fit.
        """
        kind, configuration = class_named(GUIDANCES, value)
        return kind(**configuration)


@clear_calls
@dataclass(frozen=True, slots=True)
class NoGuidance(Guidance):
    """One row per sample, which is told its prompt."""

    name: ClassVar[str] = "none"
    branches: ClassVar[tuple[str, ...]] = ("cond",)

    def combine(self, predictions: Sequence[Any]) -> Any:
        """The only one."""
        return predictions[0]


@clear_calls
@dataclass(frozen=True, slots=True)
class CFG(Guidance):
    """Classifier-free guidance (Ho & Salimans 2022): away from the prediction without a condition.

    Parameters
    ----------
    scale : float
        uncond + scale (cond - uncond).

    Notes
    -----
    The variance is that of the conditional row, as in GLIDE's own sampler (Nichol et al. 2022, section 2.3). It is the
    same for predictions of noise, image and v, which are lines of one another at a given x.
    """

    name: ClassVar[str] = "cfg"

    scale: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", checked_scale(type(self).__name__, "scale", self.scale))

    def combine(self, predictions: Sequence[Any]) -> Any:
        """Weigh the branches."""
        cond, uncond = predictions
        return uncond + self.scale * (cond - uncond)


def checked_scale(kind: str, name: str, value: Any) -> float:
    """A scale as a float.

    Raises
    ------
    SpecError
        It is no finite number of at least 0.
    """
    value = plain_number(value)
    if not is_number(value) or value < 0:
        raise SpecError(f"{kind} got {name}={shown(value)}; it must be a finite number of at least 0.")
    return float(value) + 0.0  # -0.0 == 0.0, so both have one spelling
