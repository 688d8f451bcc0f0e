"""Images of a bank that were damaged, and are to be restored: the optimal denoiser given what is left of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.design.limits import is_number, shown
from causalunet.errors import ModelError
from causalunet.models.base import register
from causalunet.models.devices import usable_device
from causalunet.models.exact.banks import ImageBank
from causalunet.models.exact.model import ExactModel, bank_or_scenes, schedule_or_cosine
from causalunet.models.exact.optimal import OptimalUNet
from causalunet.models.exact.unet import wide
from causalunet.noise import step_noise
from causalunet.process import AroundResidual, Process
from causalunet.schedule import cosine_alpha_bar

__all__ = ["DAMAGES", "RestorationModel", "RestorationUNet", "load_restoration", "until_half"]

_COARSE = 4


def _coarse(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 4 by 4 pixels, in their places."""
    rows, channels, height, width = images.shape
    if height % _COARSE or width % _COARSE:
        raise ModelError(
            f'damage="coarse" takes means of {_COARSE} by {_COARSE} pixels, and images of the bank have {height} by '
            f"{width}. Make the bank of images whose sides are multiples of {_COARSE}."
        )
    blocks = images.reshape(rows, channels, height // _COARSE, _COARSE, width // _COARSE, _COARSE)
    means = blocks.mean((3, 5), keepdims=True)
    return np.broadcast_to(means, blocks.shape).reshape(images.shape)


def _masked(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grey in the lower half."""
    kept = images.copy()
    kept[:, :, images.shape[2] // 2 :] = 0.0
    return kept


DAMAGES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {"coarse": _coarse, "masked": _masked}
"""What is done to images, (image, channel, y, x), before noise."""


class RestorationUNet(OptimalUNet):
    """E[x_0 | x_t, u] of images of a bank of which u is a damaged one; components as of `OptimalUNet`.

    With x_t = A x_0 + B u + C eps, x_t - B u is the state of a plain process, and how probable each image is before x_t
    is seen is what u says.
    """

    kind = "restoration"

    def knows(self, process: Process) -> bool:
        """Those that are shifted by the given image."""
        return process.shifted and not process.split

    def forward(self, x: Tensor, timesteps: Tensor, given: Tensor, log_weights: Tensor) -> Tensor:  # type: ignore[override]
        """E[x_0 | x_t, u], (row, channel, y, x).

        Parameters
        ----------
        x : Tensor, (row, channel, y, x)
        timesteps : Tensor, (row,)
        given : Tensor, (row, channel, y, x)
            u.
        log_weights : Tensor, (row, image)
            Log p(image | u).
        """
        return self.restored(x, timesteps, given, log_weights)

    def restored(self, x: Tensor, timesteps: Tensor, given: Tensor, log_weights: Tensor) -> Tensor:
        """As `forward`: for subclasses that put out something else."""
        weights = np.array([self.process.weights(level.alpha_bar) for level in self.levels(timesteps)])
        image, of_given, noise = (wide(x, part)[:, None] for part in weights.T)
        scale = torch.hypot(image, noise)
        plain = (x.double().flatten(1) - of_given * given.double().flatten(1)) / scale
        # a state that has less than nothing of the image is one of the image's negative
        plain = torch.where(image < 0, -plain, plain)
        seen = self.logits(plain, self.bank, ((image / scale) ** 2)[:, 0], log_weights.isfinite())
        return self.average(self.weights(seen, log_weights.double()), self.bank)

    def example(self, device: torch.device) -> tuple[Tensor, ...]:
        """What a row of a call is given, at timestep 0."""
        x = torch.zeros(1, *self.image_shape, device=device)
        return x, torch.zeros(1, device=device), x, torch.zeros(1, len(self.bank), device=device)


@dataclass(frozen=True, eq=False)
class RestorationModel(ExactModel):
    """A pixel-space model that restores damaged images of a bank, whose posterior is known exactly.

    A prompt names the image that is damaged: the first one of the bank whose label has all the prompt's words. There is
    no sample without a prompt, and nothing to guide from.

    Parameters
    ----------
    damage : str
    noise : float
        As for `load_restoration`.
    """

    damage: str = field(default="coarse", kw_only=True)
    noise: float = field(default=1.0, kw_only=True)

    guidable = False
    unprompted = False

    @cached_property
    def _damaged(self) -> NDArray[np.float64]:
        """Every image of the bank damaged, without noise."""
        return DAMAGES[self.damage](self.data.images.astype(np.float64))

    def numbers(self, prompts: Sequence[str]) -> NDArray[np.int64]:
        """Which image of the bank each prompt names, (prompt,)."""
        return np.asarray(self.data.matches(prompts).argmax(axis=1), dtype=np.int64)

    def damaged(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """The damaged image u of each prompt, noise and all, (prompt, channel, y, x)."""
        numbers = self.numbers(prompts)
        drawn = step_noise(numbers.tolist(), 0, self.image_shape)
        return (self._damaged[numbers] + self.noise * drawn).astype(np.float32)

    def truth(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """What was damaged, in [0, 1], (prompt, channel, y, x)."""
        return np.asarray((self.data.images[self.numbers(prompts)] + 1) / 2)

    def posterior(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Log p(image | u), (prompt, image): how probable each image is that it was the one that was damaged."""
        given, known = self.damaged(prompts).reshape(len(prompts), -1), self._damaged.reshape(len(self.data), -1)
        squared = np.square(given.astype(np.float64)[:, None] - known).sum(-1)
        log_weights = -squared / (2 * self.noise**2)
        log_weights -= log_weights.max(axis=1, keepdims=True)
        return np.asarray(log_weights - np.log(np.exp(log_weights).sum(axis=1, keepdims=True)))

    def tokens(self, prompts: Sequence[str]) -> tuple[NDArray[Any]]:
        """What prompts become: the number of the image, (prompt, 1)."""
        return (self.numbers(prompts)[:, None],)

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:  # type: ignore[override]
        """The damaged image and log p(image | u), as the U-Net takes them."""
        device = self.unet.bank.device
        return tuple(torch.from_numpy(part).to(device) for part in (self.damaged(prompts), self.posterior(prompts)))

    def given(self, given: Tensor, log_weights: Tensor) -> Tensor:
        """What the states are shifted by: the damaged image."""
        return given


def until_half(alpha_bar: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part of a schedule whose root is above 1/2, and 1/2 at the end: there Resfusion begins.

    Parameters
    ----------
    alpha_bar : ndarray of float64, (timestep,)

    Notes
    -----
    The official code (Shi et al. 2023, ``linear_pro.py``) does so where the next root is below 1/2 by more than 0.01,
    and otherwise begins at that one.
    """
    return np.append(alpha_bar[alpha_bar > 0.25], 0.25)


@register("exact-restoration")
def load_restoration(
    bank: ImageBank | None = None,
    *,
    damage: str = "coarse",
    noise: float = 1.0,
    process: Process | None = None,
    alpha_bar: NDArray[np.float64] | None = None,
    device: str = "cpu",
) -> RestorationModel:
    """Load the optimal denoiser of images of a bank given one of them damaged, under a process that is shifted by it.

    Parameters
    ----------
    bank : ImageBank, optional
        By default ``scene_bank()``.
    damage : str
        ``"coarse"``: means of 4 by 4 pixels; ``"masked"``: grey in the lower half.
    noise : float
        Standard deviation, above 0, of the noise that a damaged image has beside: how much is left to be guessed. It is
        always the same noise for an image.
    process : Process, optional
        By default that of Resfusion, `causalunet.process.AroundResidual`.
    alpha_bar : ndarray, (timestep,), optional
        By default the squared-cosine schedule down to where its root is 1/2, see `until_half`.
    device : str
        Where it runs, such as ``cuda``.

    Raises
    ------
    ModelError
        There is no such damage, or it does not fit the images; the noise is not above 0; the process is not shifted.
    """
    data = bank_or_scenes(bank)
    if damage not in DAMAGES:
        raise ModelError(f"damage={shown(damage)}: there are {', '.join(DAMAGES)}.")
    if not is_number(noise) or noise <= 0:
        raise ModelError(f"noise={shown(noise)}: give a finite number above 0.")
    DAMAGES[damage](data.images[:1].astype(np.float64))  # told now if it does not fit
    share = until_half(cosine_alpha_bar()) if alpha_bar is None else schedule_or_cosine(alpha_bar)
    unet = RestorationUNet(data, share).under(AroundResidual() if process is None else process)
    options = {"damage": damage, "noise": float(noise)}
    made = unet.to(usable_device(device)).eval()
    return RestorationModel(made, data, share, options, damage=damage, noise=float(noise))
