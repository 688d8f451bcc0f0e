"""Stochastic interpolants between two mixtures of Gaussians: velocity and score in closed form, and their U-Net.

x_t = (1 - t) x_0 + t u + g(t) z, where x_0 is an image, u is drawn from other images, and z is noise (Albergo, Boffi &
Vanden-Eijnden 2023, arXiv 2303.08797; there time runs the other way). The other paths of the paper are this one, for
another g: x is divided by the sum of both weights, and time is told by their ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from causalunet.models.exact.banks import ImageBank
from causalunet.models.exact.mixture import parted
from causalunet.models.exact.unet import ExactUNet, Part, Picture
from causalunet.prediction import Prediction
from causalunet.process import Process
from causalunet.schedule import straight_alpha_bar

__all__ = ["LATENTS", "InterpolantUNet", "Interpolants", "Latent", "Mix", "fitted_mix"]

_TIMESTEPS = 1000


def _linear(t: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    return strength * t * (1 - t), strength * (1 - 2 * t) / 2


def _trigonometric(t: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    # cos and sin of an angle, times sqrt(1 - g^2), weigh the ends; their ratio is that of 1 - t and t.
    angle = torch.atan2(t, 1 - t)
    share = 2 / math.pi * angle
    g2, g2_slope = strength * share * (1 - share), strength * (1 - 2 * share)
    size2, size2_slope = (1 - g2) * (1 + (2 * angle).sin()), (1 - g2) * math.pi * (2 * angle).cos()
    size2_slope = size2_slope - g2_slope * (1 + (2 * angle).sin())
    share_slope = 2 / math.pi / ((1 - t).square() + t.square())
    return g2 / size2, (g2_slope * size2 - g2 * size2_slope) / size2.square() * share_slope / 2


LATENTS: dict[str, Callable[[Tensor, float], tuple[Tensor, Tensor]]] = {
    "linear": _linear,
    "trigonometric": _trigonometric,
}
"""By path, g^2 and g dg/dt of the straight line that it is, for g^2 = c share (1 - share) in the path's own time.

The trigonometric path, sqrt(1 - g^2) (cos x_0 + sin u) + g z of pi / 2 times its own time, needs c below 4.
"""


class Latent(NamedTuple):
    """The noise between the ends.

    Attributes
    ----------
    path : str
        A key of ``LATENTS``.
    strength : float
        c, at least 0.
    """

    path: str = "linear"
    strength: float = 0.0

    def at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """g^2 and g dg/dt at times 0 (image) to 1, of the shape of t."""
        return LATENTS[self.path](t, self.strength)


class Mix(NamedTuple):
    """A mixture of Gaussians of any covariance.

    Attributes
    ----------
    log_weights : Tensor, (..., class)
    means : Tensor, (class, pixel)
    covariances : Tensor, (class, pixel, pixel)
    """

    log_weights: Tensor
    means: Tensor
    covariances: Tensor

    def draw(self, noise: Tensor, quantile: float) -> Tensor:
        """One sample, (pixel,).

        Parameters
        ----------
        noise : Tensor, (pixel,)
            Standard normal.
        quantile : float
            From 0 to 1: names the class, as the weights add up in their order.
        """
        reached = self.log_weights.softmax(-1).cumsum(-1)
        own = min(int((reached < quantile).sum()), len(self.means) - 1)
        return self.means[own] + torch.linalg.cholesky(self.covariances[own]) @ noise

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the whole, (pixel,) and (pixel, pixel)."""
        weights = self.log_weights.softmax(-1)
        mean = weights @ self.means
        off = self.means - mean
        within = torch.einsum("c,cpq->pq", weights, self.covariances)
        return mean, within + torch.einsum("c,cp,cq->pq", weights, off, off)


class Interpolants(NamedTuple):
    """x_t = (1 - t) x_0 + t u + g z at one t: a mixture again, with a class for every pair of classes of both ends.

    Attributes
    ----------
    image, other : Mix
        Of x_0 and of u, with n and m classes.
    latent : Latent
    """

    image: Mix
    other: Mix
    latent: Latent

    def pair_means(self, t: Tensor) -> Tensor:
        """Mean of x_t of every pair, (pair, pixel): those of the first class of the image end come first."""
        pairs = (1 - t) * self.image.means[:, None] + t * self.other.means
        return pairs.flatten(0, 1)

    def pair_covariances(self, t: Tensor) -> Tensor:
        """Covariance of x_t of every pair, (pair, pixel, pixel)."""
        pairs = (1 - t).square() * self.image.covariances[:, None] + t.square() * self.other.covariances
        noise = self.latent.at(t)[0] * torch.eye(pairs.shape[-1], dtype=pairs.dtype, device=pairs.device)
        return pairs.flatten(0, 1) + noise

    def pulls(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Of every pair, log p(x_t | pair) but for a constant, (row, pair), and minus its score, (row, pair, pixel)."""
        off = x[:, None] - self.pair_means(t)
        roots = torch.linalg.cholesky(self.pair_covariances(t))
        pulled = torch.cholesky_solve(off.permute(1, 2, 0), roots).permute(2, 0, 1)
        volumes = roots.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -(off * pulled).sum(-1) / 2 - volumes, pulled

    def log_weights(self) -> Tensor:
        """Of the pairs, before anything is seen, (..., pair): the ends are drawn apart from each other."""
        return (self.image.log_weights[..., :, None] + self.other.log_weights).flatten(-2)

    def ends(self, pulled: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """E[x_0 | x_t, pair] and E[u | x_t, pair], each (row, pair, pixel), from what `pulls` gave."""
        both = pulled.unflatten(1, (len(self.image.means), len(self.other.means)))
        image = torch.einsum("rnmp,npq->rnmq", both, self.image.covariances)
        other = torch.einsum("rnmp,mpq->rnmq", both, self.other.covariances)
        found = self.image.means[:, None] + (1 - t) * image, self.other.means + t * other
        return found[0].flatten(1, 2), found[1].flatten(1, 2)

    def velocity_and_score(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """E[dx_t/dt | x_t] and the gradient of log p(x_t), each (row, pixel).

        Parameters
        ----------
        x : Tensor, (row, pixel)
        t : Tensor, ()
        """
        seen, pulled = self.pulls(x, t)
        weights = (seen + self.log_weights()).softmax(-1)
        image, other = (torch.einsum("rk,rkp->rp", weights, end) for end in self.ends(pulled, t))
        score = -torch.einsum("rk,rkp->rp", weights, pulled)
        return other - image - self.latent.at(t)[1] * score, score


def fitted_mix(bank: ImageBank, classes: Sequence[str], pixel_noise: float) -> Mix:
    """Fit a Gaussian to the images of every class, as probable as there are images of it, and noise of every pixel.

    Parameters
    ----------
    bank : ImageBank
    classes : sequence of str
        Prompts of which every image matches one; the empty prompt alone for one class of all.
    pixel_noise : float
        Standard deviation, which makes densities of what lies on a plane.
    """
    images = torch.from_numpy(bank.images.reshape(len(bank), -1).astype(np.float64))
    members = torch.from_numpy(parted(bank, classes))
    noise = pixel_noise**2 * torch.eye(images.shape[1], dtype=torch.float64)
    own = [images[member] for member in members]
    counts = torch.tensor([float(len(some)) for some in own], dtype=torch.float64)
    covariances = [(some - some.mean(0)).T @ (some - some.mean(0)) / len(some) + noise for some in own]
    return Mix((counts / counts.sum()).log(), torch.stack([some.mean(0) for some in own]), torch.stack(covariances))


class _Evidence(nn.Module):
    """Log p(x_t | pair) as channels of one pixel; 0 for the best."""

    def forward(self, seen: Tensor) -> Tensor:
        return (seen - seen.amax(dim=1, keepdim=True))[:, :, None, None].float()


class _Weights(nn.Module):
    """Probabilities of the pairs."""

    def forward(self, seen: Tensor, log_weights: Tensor) -> Tensor:
        return (seen[:, :, 0, 0].double() + log_weights).softmax(1)[:, :, None, None].float()


class _Mean(Picture):
    """Mean over the pairs by their weights."""

    def pixels(self, weights: Tensor, of_pairs: Tensor) -> Tensor:
        return torch.einsum("rk,rkp->rp", weights[:, :, 0, 0].double(), of_pairs)


class InterpolantUNet(ExactUNet):
    """Velocity and score of an interpolant between mixtures of Gaussians.

    Components are ``evidence`` (how well each pair of classes fits, a channel for each), ``weights`` (their
    probabilities), and the three that are put together: ``image``, E[x_0 | x_t], ``other``, E[u | x_t], ``score``.
    With one class at each end only these three are components.

    Parameters
    ----------
    bank, other : ImageBank
        At the end of a run, and at its beginning.
    classes : sequence of str
        Prompts of which every image of both banks matches one; the empty one alone for a Gaussian at each end. A
        condition says how probable the classes are at the image end.
    latent : Latent
    pixel_noise : float
        Standard deviation of the noise that every pixel has at both ends.
    """

    kind: ClassVar[str] = "interpolant"
    prediction: ClassVar[Prediction] = Prediction("velocity_score")

    def __init__(
        self, bank: ImageBank, other: ImageBank, classes: Sequence[str], latent: Latent, pixel_noise: float
    ) -> None:
        super().__init__(bank, straight_alpha_bar(_TIMESTEPS))
        self.latent = latent
        self.register_buffer("members", torch.from_numpy(parted(bank, classes)))
        for name, own in (("image", bank), ("other", other)):
            for part, value in fitted_mix(own, classes, pixel_noise)._asdict().items():
                self.register_buffer(f"{name}_{part}", value)
        self.evidence, self.weights = _Evidence(), _Weights()
        self.image, self.other, self.score = (_Mean(bank.image_shape) for _ in range(3))

    def end(self, name: str) -> Mix:
        """The mixture at an end, ``"image"`` or ``"other"``."""
        return Mix(*(self.get_buffer(f"{name}_{part}") for part in Mix._fields))

    @property
    def parts(self) -> tuple[Part, ...]:
        """Evidence and weights, where there are several pairs, and what is put together."""
        ends = ("image", "other", "score")
        ahead = (
            Part("evidence", "encoder", "evidence", "weights"),
            Part("weights", "bottleneck", "weights", " ".join(ends)),
        )
        several = len(self.get_buffer("members")) > 1
        return (*(ahead if several else ()), *(Part(name, "decoder", name) for name in ends))

    def knows(self, process: Process) -> bool:
        """The straight path, whose time is the share of the other end."""
        return process == Process("straight")

    def times(self, timesteps: Tensor) -> Tensor:
        """From 0, the image, to 1, the other end, (row,)."""
        return (timesteps.double().clamp(0, _TIMESTEPS - 1) + 1) / _TIMESTEPS

    def forward(self, x: Tensor, timesteps: Tensor, matches: Tensor) -> Tensor:
        """Velocity and score, (row, 2 * channel, y, x); parameters as of `ExactUNet.forward`."""
        return self.estimate(x.double().flatten(1), self.times(timesteps), matches)

    def estimate(self, x: Tensor, share: Tensor, matches: Tensor) -> Tensor:
        """Velocity and score, (row, 2 * channel, y, x); ``share`` is the time of every row."""
        counts = matches.double() @ self.get_buffer("members").double().T
        image = self.end("image")._replace(log_weights=(counts / counts.sum(1, keepdim=True)).log())
        between = Interpolants(image, self.end("other"), self.latent)
        times, of_row = share.unique(return_inverse=True)
        rows = [(of_row == number).nonzero()[:, 0] for number in range(len(times))]
        back = torch.cat(rows).argsort()
        pulls = [between.pulls(x[own], t) for own, t in zip(rows, times, strict=True)]
        ends = [between.ends(pulled, t) for (_, pulled), t in zip(pulls, times, strict=True)]
        seen, pulled = (torch.cat(part)[back] for part in zip(*pulls, strict=True))
        images, others = (torch.cat(part)[back] for part in zip(*ends, strict=True))
        weights = self.weights(self.evidence(seen), between.log_weights())
        image_end, other_end, score = (
            self.image(weights, images),
            self.other(weights, others),
            self.score(weights, -pulled),
        )
        bent = self.latent.at(share)[1][:, None, None, None].float()
        return torch.cat([other_end - image_end - bent * score, score], dim=1)
