"""Networks that are told sigma, the ratio of noise to signal, and give the image (Karras et al. 2022, section 5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.design.limits import is_number, plain_number, shown
from causalunet.design.samplers import EDM, Heun, Sampler
from causalunet.design.spacings import Given
from causalunet.errors import ModelError, SpecError
from causalunet.models.networks import NetworkModel
from causalunet.prediction import training_of
from causalunet.schedule import exploding_alpha_bar

__all__ = ["NoiseLevelModel", "NoiseLevels", "checked_sigmas", "geometric"]

_MOST_CHURN = math.sqrt(2) - 1


class NoiseLevels(nn.Module):
    """A network that is told sigma, called as the executor calls, with timesteps.

    Parameters
    ----------
    network : torch.nn.Module
        Of x_0 + sigma eps and sigma, (row,), to an estimate of x_0.
    alpha_bar : ndarray of float64, (timestep,)
        1 / (1 + sigma^2) of every timestep; between two of them log sigma is a straight line.
    call : callable
        ``call(network, x, sigma, labels)``.
    """

    def __init__(self, network: nn.Module, alpha_bar: NDArray[np.float64], call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network, self.call = network, call
        self._log_sigma = (np.log1p(-alpha_bar) - np.log(alpha_bar)) / 2

    def sigma(self, timesteps: Tensor) -> Tensor:
        """Sigma of timesteps, (row,); in double precision where the device has it."""
        kind = torch.float32 if timesteps.device.type == "mps" else torch.float64
        table = torch.as_tensor(self._log_sigma, dtype=kind, device=timesteps.device)
        time = timesteps.to(kind)
        below = time.floor().clamp(0, max(len(table) - 2, 0)).long()
        share = time - below
        above = (below + 1).clamp(max=len(table) - 1)
        return ((1 - share) * table[below] + share * table[above]).exp()

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Estimate of x_0, (row, channel, y, x)."""
        return self.call(self.network, x, self.sigma(timesteps), labels).float()


@dataclass(frozen=True, eq=False)
class NoiseLevelModel(NetworkModel):
    """A model around such a network.

    Parameters are those of `NetworkModel`, and

    Parameters
    ----------
    sigmas : tuple of float
        Lowest and highest ratio of noise to signal that its own samplers take.
    """

    sigmas: tuple[float, float] = (0.002, 80.0)

    def sampler(
        self,
        steps: int = 18,
        guidance_scale: float = 1.0,
        *,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        rho: float = 7.0,
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float = math.inf,
        noise: float = 1.0,
    ) -> Sampler:
        """The sampler whose runs are those of EDM's ``edm_sampler`` (Karras et al. 2022, algorithms 1 and 2).

        Parameters
        ----------
        steps : int
            ``num_steps``, from 2.
        guidance_scale : float
            Weight of the conditional over the unconditional prediction; 1 means no guidance and one row per call.
        sigma_min, sigma_max : float, optional
            Ratios of noise to signal of the last step and the first; by default those of the model.
        rho : float
            Of the noise levels between (equation 5).
        churn, churn_min, churn_max, noise : float
            ``S_churn``, ``S_min``, ``S_max`` and ``S_noise``. Without churn no noise is drawn.

        Raises
        ------
        SpecError
            Steps lie outside the noise that the model was made for, churn leads there, or a value is none.
        """
        least = self.sigmas[0] if sigma_min is None else sigma_min
        most = self.sigmas[1] if sigma_max is None else sigma_max
        levels = np.linspace(most ** (1 / rho), least ** (1 / rho), steps) ** rho
        if self.whole_timesteps:
            levels = np.array([self._nearest(sigma) for sigma in levels])
        if not churn:
            return Heun(guidance_scale=guidance_scale, spacing=self._spacing(levels))
        raised = np.where(
            (levels >= churn_min) & (levels <= churn_max), levels * (1 + min(churn / steps, _MOST_CHURN)), levels
        )
        if raised[0] > (highest := training_of(self).level(len(self.alpha_bar) - 1).sigma) * (1 + 1e-9):
            raise SpecError(
                f"Churn raises the noise of the first step to sigma={raised[0]:.4g}, and the model goes up to "
                f"{highest:.4g}. Give churn_max below {levels[0]:.4g}, or make the model with sigmas up to "
                f"{raised[0]:.4g} and give sigma_max={levels[0]:.4g} here."
            )
        return EDM(
            guidance_scale=guidance_scale,
            spacing=self._spacing(raised),
            churn=churn,
            noise=noise,
            sigma_min=max(churn_min, least / 2),  # finite, where no bound was given
            sigma_max=min(churn_max, 2 * most),
        )

    def _spacing(self, sigmas: NDArray[np.float64]) -> Given:
        training = training_of(self)
        return Given(timesteps=tuple(training.level_of(-2 * math.log(sigma)).timestep for sigma in sigmas))

    def _nearest(self, sigma: float) -> float:
        """Of the levels that there are, as ``round_sigma``."""
        there = np.sqrt((1 - self.alpha_bar) / self.alpha_bar)
        return float(there[np.abs(there - sigma).argmin()])


def checked_sigmas(given: Any, usual: tuple[float, float]) -> tuple[float, float]:
    """Lowest and highest ratio of noise to signal.

    Raises
    ------
    ModelError
        They are none.
    """
    found = (
        usual if given is None else tuple(plain_number(one) for one in given) if isinstance(given, tuple | list) else ()
    )
    if len(found) != 2 or not all(is_number(one) for one in found) or not 0 < found[0] < found[1]:
        raise ModelError(
            f"sigmas={shown(given)}: give the lowest and the highest ratio of noise to signal, (0.002, 80.0)."
        )
    return float(found[0]), float(found[1])


def geometric(sigmas: tuple[float, float], timesteps: int = 1000) -> NDArray[np.float64]:
    """Timesteps for noise that is continuous, (timestep,): a straight line in log sigma, so that any lies between."""
    return exploding_alpha_bar(timesteps, *sigmas)
