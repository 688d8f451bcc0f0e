"""Donors: values of the edited place, or what it is made of, that a fill puts in place or mixes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from causalunet.calls import clear_calls
from causalunet.design.limits import LARGEST, check_text, is_integer, plain_number, shown
from causalunet.dims import CHANNEL, ROW, X, Y
from causalunet.errors import PromptError, SpecError
from causalunet.prompts import NoPrompt

__all__ = ["Donor", "FillContext", "OfBaseline", "OwnBefore", "OwnInput"]


@clear_calls
@dataclass(frozen=True, slots=True)
class OwnBefore:
    """The run's own value at the last step before the window that is called: of a window of steps 50 ... 46, step 51's.

    Of a step of several U-Net calls it is the value of the first, which looks at the state itself; it is put in place
    in all calls of the window's steps.
    """


@clear_calls
@dataclass(frozen=True, slots=True)
class OfBaseline:
    """The value at the same step in a run without intervention.

    Of a step of several U-Net calls it is the value of the first, which looks at the state itself; it is put in place
    in all calls of that step.

    Parameters
    ----------
    prompt : str, optional
        Of that run; by default each sample's own.
    seed : int, optional
        Likewise.
    """

    prompt: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        prompt, seed = self.prompt, plain_number(self.seed)
        object.__setattr__(self, "seed", seed)
        if seed is not None and (not is_integer(seed) or not 0 <= seed <= LARGEST):
            raise SpecError(f"seed={shown(self.seed)} is no seed of a run; give an integer of at least 0, below 2**63.")
        if prompt is None:
            return
        if not isinstance(prompt, str) or isinstance(prompt, NoPrompt) or not prompt.strip():
            raise PromptError(
                f"prompt={shown(prompt)} is no prompt of a run; give words, or None for each sample's own prompt."
            )
        check_text("A donor", "prompt", prompt, kind=PromptError)


@clear_calls
@dataclass(frozen=True, slots=True)
class OwnInput:
    """What the component is given in the same call, of the shape of what it puts out, see ``Component.input``.

    A skip connection has none, nor has a component whose input and output have two shapes.
    """


Donor = OwnBefore | OfBaseline | OwnInput
"""Where a fill takes a value from."""


@clear_calls
@dataclass(frozen=True, slots=True)
class FillContext:
    """Where in a run a fill is put in place.

    Attributes
    ----------
    step : int
        T ... 1.
    timestep : Tensor, (row,)
        Training timestep that the U-Net is told.
    time : Tensor, (row,)
        The same as a share of the training schedule, 0 ... 1.
    donors : tuple of Tensor, (row, channel, y, x)
        One for each of the fill's ``donors``, of the shape and dtype of the value. Others hold them: they are never
        written into.
    dims : tuple of str
        Names of the dimensions of the value, rows first.
    """

    step: int
    timestep: Any
    time: Any
    donors: tuple[Any, ...] = ()
    dims: tuple[str, ...] = (ROW, CHANNEL, Y, X)
