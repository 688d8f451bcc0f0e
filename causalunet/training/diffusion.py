"""The training loss of a diffusion model with learned variance.

Source: Nichol & Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models", equations 14-16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["HybridLoss", "discretized_gaussian_nll", "gaussian_kl", "noise_weight"]


def noise_weight(alpha_bar: NDArray[np.float64], max_weight: float = 5.0) -> NDArray[np.float64]:
    """Weight of the squared error of the noise: SNR^(-1/2), clipped to [0.1, max_weight] and scaled to mean one.

    Plain L_simple spends nearly all of its gradient on the last timesteps, and what is settled at low SNR stays behind.
    The same idea as P2 (Choi et al. 2022) and min-SNR weighting (Hang et al. 2023).

    Parameters
    ----------
    alpha_bar : ndarray of float64, (timestep,)
        The training schedule.
    max_weight : float
        Upper clip, which the noisiest timesteps reach.

    Returns
    -------
    ndarray of float64, (timestep,)
    """
    weight: NDArray[np.float64] = np.clip((alpha_bar / (1 - alpha_bar)) ** -0.5, 0.1, max_weight)
    return weight / weight.mean()


def gaussian_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL divergence of N(mean1, variance1) from N(mean2, variance2), elementwise, in nats."""
    return 0.5 * (
        -1.0
        + log_variance2
        - log_variance1
        + (log_variance1 - log_variance2).exp()
        + (mean1 - mean2).square() * (-log_variance2).exp()
    )


def discretized_gaussian_nll(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Negative log likelihood of 8-bit images in [-1, 1] under a Gaussian, elementwise, in nats."""
    inverse = (-0.5 * log_variance).exp()
    upper = torch.special.ndtr((x + 1 / 255 - mean) * inverse)
    lower = torch.special.ndtr((x - 1 / 255 - mean) * inverse)
    upper = torch.where(x > 0.999, torch.ones_like(upper), upper)
    lower = torch.where(x < -0.999, torch.zeros_like(lower), lower)
    return -(upper - lower).clamp(min=1e-12).log()


@dataclass(frozen=True)
class HybridLoss:
    """L_simple + L_vlb / 1000, where L_vlb teaches the variance only.

    L_simple is weighted, see `noise_weight`.

    Parameters
    ----------
    alpha_bar : ndarray of float64, (timestep,)
        The training schedule.
    max_weight : float
        Upper clip of the weight, which the noisiest timesteps reach.
    device : str or torch.device
        Of the images.
    """

    alpha_bar: NDArray[np.float64]
    max_weight: float = 5.0
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        alpha_bar = self.alpha_bar
        previous = np.append(1.0, alpha_bar[:-1])
        beta = 1 - alpha_bar / previous
        variance = beta * (1 - previous) / (1 - alpha_bar)
        tables = {
            "signal": np.sqrt(alpha_bar),
            "noise": np.sqrt(1 - alpha_bar),
            "weight": noise_weight(alpha_bar, self.max_weight),
            "log_beta": np.log(beta),
            "log_variance": np.log(np.append(variance[1], variance[1:])),
            "from_x0": beta * np.sqrt(previous) / (1 - alpha_bar),
            "from_xt": (1 - previous) * np.sqrt(1 - beta) / (1 - alpha_bar),
        }
        object.__setattr__(self, "_tables", _on(self.device, tables))

    def diffuse(self, x0: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """Draw x_t given x_0: equation 9 of Ho et al. 2020; all images (batch, channel, y, x)."""
        return self._at("signal", timesteps) * x0 + self._at("noise", timesteps) * noise

    def __call__(
        self,
        output: Tensor,
        x0: Tensor,
        xt: Tensor,
        timesteps: Tensor,
        noise: Tensor,
        weight: Tensor | None = None,
        *,
        of: Literal["eps", "v"] = "eps",
    ) -> tuple[Tensor, Tensor]:
        """Compare a prediction with the truth.

        Parameters
        ----------
        output : Tensor, (batch, 2 * channel, y, x)
            Predicted noise, or v, and variance fraction.
        x0, xt, noise : Tensor, (batch, channel, y, x)
        timesteps : Tensor of int, (batch,)
        weight : Tensor, (batch,), optional
            Of the squared errors, if not that of the loss.
        of : {"eps", "v"}
            What is predicted: the noise, or v of Salimans & Ho 2022, section 4, of which the noise follows.

        Returns
        -------
        loss : Tensor, scalar
        mse : Tensor, (batch,)
            Unweighted squared error of what is predicted.
        """
        predicted, fraction = output.chunk(2, dim=1)
        told, asked = predicted, noise
        if of == "v":
            signal, spread = self._at("signal", timesteps), self._at("noise", timesteps)
            predicted, asked = signal * told + spread * xt, signal * noise - spread * x0
        mse = (told - asked).square().mean(dim=(1, 2, 3))
        variational = self._variational(predicted.detach(), fraction, x0, xt, timesteps)
        if weight is None:
            weight = self._tables["weight"][timesteps]  # type: ignore[attr-defined]
        return (weight * mse).mean() + variational.mean(), mse.detach()

    def _variational(self, predicted: Tensor, fraction: Tensor, x0: Tensor, xt: Tensor, timesteps: Tensor) -> Tensor:
        """L_vlb in bits per dimension; times 1000 timesteps over 1000 is one."""
        lower, upper = self._at("log_variance", timesteps), self._at("log_beta", timesteps)
        log_variance = lower + (fraction + 1) / 2 * (upper - lower)
        estimate = (xt - self._at("noise", timesteps) * predicted) / self._at("signal", timesteps)
        from_x0, from_xt = self._at("from_x0", timesteps), self._at("from_xt", timesteps)
        mean = from_x0 * estimate + from_xt * xt
        kl = gaussian_kl(from_x0 * x0 + from_xt * xt, lower, mean, log_variance)
        nll = discretized_gaussian_nll(x0, mean, log_variance)
        nats = torch.where(timesteps[:, None, None, None] == 0, nll, kl)
        return nats.mean(dim=(1, 2, 3)) / math.log(2.0)

    def _at(self, name: str, timesteps: Tensor) -> Tensor:
        return self._tables[name][timesteps][:, None, None, None]  # type: ignore[attr-defined]


def _on(device: str | torch.device, tables: dict[str, NDArray[np.float64]]) -> dict[str, Tensor]:
    return {name: torch.tensor(values, dtype=torch.float32, device=device) for name, values in tables.items()}
