"""What was said of a U-Net that is taken in, and what every layout does with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy
from causalunet.design.limits import is_integer, plain_number, shown
from causalunet.errors import ModelError
from causalunet.models.inner import Text, with_inner
from causalunet.models.networks import NetworkModel
from causalunet.models.u_shape import Piece, u_anatomy
from causalunet.prediction import Prediction

__all__ = ["Asked", "Layout", "anatomy_of", "checked_shares", "checked_size"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A U-Net, and what was said of it; what was not is None. The names are those of ``from_unet``."""

    unet: Any
    name: str
    image_size: Any = None
    alpha_bar: Any = None
    prediction: Any = None
    sigmas: Any = None
    tokenize: Any = None
    encode: Any = None
    classes: Sequence[str] | None = None
    null_class: int | None = None
    variance: Any = None
    rescale_timesteps: Any = None
    clip: bool | None = None

    @property
    def kind(self) -> str:
        """Class of the network."""
        return type(self.unet).__name__

    def refuse(self, why: str, *names: str) -> None:
        """Raise `ModelError` if something was said that says nothing of this network.

        Parameters
        ----------
        why : str
            What the error goes on with.
        *names : str
            Of what must not have been said.
        """
        if said := [name for name in names if getattr(self, name) is not None]:
            raise ModelError(
                f"{' and '.join(said)} {'says' if len(said) == 1 else 'say'} nothing of a {self.kind}: {why}"
            )

    def size(self, usual: Any = None) -> tuple[int, int]:
        """Pixels along y and x.

        Parameters
        ----------
        usual : int or sequence of int, optional
            What the network says itself.
        """
        return checked_size(self.kind, self.image_size if self.image_size is not None else usual)

    def shares(self) -> NDArray[np.float64]:
        """The training schedule, which has to be said."""
        if self.alpha_bar is None:
            raise ModelError(
                f"A {self.kind} does not say which noise schedule it was trained with. Give alpha_bar: "
                "causalunet.schedule.cosine_alpha_bar() or linear_alpha_bar(), or another."
            )
        return checked_shares(self.alpha_bar)

    def predicted(self, usual: str | None = None) -> Prediction:
        """What the network puts out.

        Parameters
        ----------
        usual : str, optional
            Unless something else is said; without it something has to be.
        """
        found = usual if self.prediction is None else self.prediction
        if found is None:
            raise ModelError(
                f"A {self.kind} does not say what it predicts. Give prediction, such as 'eps', 'x0' or 'v'."
            )
        return found if isinstance(found, Prediction) else Prediction(found)


class Layout(NamedTuple):
    """Networks that are built alike.

    Attributes
    ----------
    words : str
        Which they are, in words.
    knows : callable
        Whether a module is one of them.
    take_in : callable
        What was asked, to a model.
    """

    words: str
    knows: Callable[[nn.Module], bool]
    take_in: Callable[[Asked], NetworkModel]


def checked_size(kind: str, given: Any) -> tuple[int, int]:
    """Pixels along y and x.

    Parameters
    ----------
    kind : str
        What errors call the network.
    given : int or sequence of int
        Of a square one number.

    Raises
    ------
    ModelError
        Nothing is given, or something that is no size.
    """
    if given is None:
        raise ModelError(f"A {kind} does not say how large its images are. Give image_size, in pixels.")
    sides = [plain_number(side) for side in given] if isinstance(given, tuple | list) else [plain_number(given)] * 2
    if len(sides) != 2 or not all(is_integer(side) and side > 0 for side in sides):
        raise ModelError(f"image_size={shown(given)} is no size; give a number of pixels, or (y, x).")
    return sides[0], sides[1]


def checked_shares(alpha_bar: Any) -> NDArray[np.float64]:
    """A training schedule, (timestep,).

    Raises
    ------
    ModelError
        It does not fall from below 1 to above 0.
    """
    values = np.asarray(alpha_bar, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not (np.diff([1.0, *values, 0.0]) < 0).all():
        raise ModelError(
            "alpha_bar is the share of signal variance left at every training timestep: numbers that fall from below 1 "
            f"to above 0. Got an array of shape {values.shape}, from {values.flat[:1]} to {values.flat[-1:]}."
        )
    return values


def anatomy_of(
    unet: nn.Module,
    pieces: Sequence[Piece],
    image_shape: tuple[int, int, int],
    context: Sequence[Tensor],
    owner: str,
    *,
    text: Text | None = None,
    **options: Any,
) -> Anatomy:
    """Measure a network on an image of a size.

    Parameters
    ----------
    unet : torch.nn.Module
    pieces : sequence of Piece
    image_shape : tuple of int
    context : sequence of Tensor
        What it is told beside the timestep, of one row.
    owner : str
    text : Text, optional
        Which of what it is told is the states of a text encoder.
    **options
        Of `u_anatomy`.

    Raises
    ------
    ModelError
        It cannot do that size.
    """
    x, timesteps = torch.empty(1, *image_shape, device="meta"), torch.zeros(1, device="meta")
    try:
        given = (x, timesteps, *(part.to("meta") for part in context))
        return with_inner(u_anatomy(unet, pieces, given, owner=owner, **options), unet, given, text=text)
    except (RuntimeError, TypeError, AssertionError, ValueError) as error:
        raise ModelError(
            f"This {owner} cannot be called on an image of shape {image_shape}. Is image_size right? The call ended in "
            f"{type(error).__name__}: {' '.join(str(error).split()):.300}"
        ) from error
