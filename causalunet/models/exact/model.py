"""An exact denoiser as a `DiffusionModel`, and the loaders of all of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.design.anatomy import Anatomy
from causalunet.design.limits import is_integer, is_number, shown
from causalunet.errors import ModelError
from causalunet.models.base import register
from causalunet.models.checkpoints import fingerprint
from causalunet.models.devices import usable_device
from causalunet.models.exact.banks import ImageBank, scene_bank
from causalunet.models.exact.gaussian import Gaussian, GaussianUNet, fitted
from causalunet.models.exact.interpolant import LATENTS, InterpolantUNet, Latent
from causalunet.models.exact.local import LocalUNet
from causalunet.models.exact.mixture import MixtureUNet
from causalunet.models.exact.optimal import OptimalUNet
from causalunet.models.exact.unet import ExactUNet
from causalunet.models.exact.wiener import WienerUNet
from causalunet.models.pixels import InPixels, WithoutReader
from causalunet.prediction import Prediction
from causalunet.process import VARIANCE_PRESERVING, Process
from causalunet.scenes import FACTORS
from causalunet.schedule import cosine_alpha_bar, straight_alpha_bar

if TYPE_CHECKING:  # pyright takes a cached property for none of a protocol's properties
    from builtins import property as cached_property
else:
    from functools import cached_property

__all__ = [
    "ExactModel",
    "load_gaussian",
    "load_interpolant",
    "load_local",
    "load_mixture",
    "load_optimal",
    "load_wiener",
]

_GROUPS = (1, 1, 2, 4, 8, 16, 32)
_LOCAL_IMAGES = 64
_INTERPOLATED = 12


@dataclass(frozen=True, eq=False, repr=False)
class ExactModel(InPixels, WithoutReader):
    """A pixel-space model whose denoiser is a formula over a bank of images. Estimates of x_0 are not clipped.

    Prompts stand for the images whose labels have all their words, see `ImageBank`; the empty prompt for all.

    Parameters
    ----------
    unet : ExactUNet
    data : ImageBank
    alpha_bar : ndarray of float64, (timestep,)
        Share of signal variance at every timestep.
    options : mapping
        What else the denoiser was made with: plain values, by name.
    """

    unet: ExactUNet
    data: ImageBank
    alpha_bar: NDArray[np.float64]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def process(self) -> Process:
        """Which states the U-Net is given."""
        return self.unet.process

    @property
    def name(self) -> str:
        """What results call it."""
        return f"exact-{self.unet.kind}"

    @property
    def prediction(self) -> Prediction:
        """Of its U-Net."""
        return self.unet.prediction

    @property
    def clip(self) -> bool:
        """Not: a mean of images is within their range, and clipping would undo what is linear."""
        return False

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, y, x) of an image."""
        return self.data.image_shape

    @cached_property
    def anatomy(self) -> Anatomy:
        """Read off the U-Net at first use."""
        return self.unet.read_anatomy()

    @cached_property
    def fingerprint(self) -> str:
        """Digest of bank, noise schedule and options."""
        told = [self.name, self.data.digest, fingerprint(self.unet), dict(self.options)]
        if self.process != VARIANCE_PRESERVING:
            told.append(self.process.to_json())
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Parts of what makes the images that not every model has, see ``causalunet.identity.identity_of``."""
        return {"bank": self.data.digest, **self.options}

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for prompts that no image of the bank matches."""
        self.data.matches(prompts)

    def tokens(self, prompts: Sequence[str]) -> tuple[NDArray[np.bool_]]:
        """What prompts become: the images that match, (prompt, image)."""
        return (self.data.matches(prompts),)

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor]:
        """As `tokens`, for the U-Net."""
        return (torch.from_numpy(self.data.matches(prompts)).to(self.unet.bank.device),)

    def gaussian(self, prompt: str = "") -> Gaussian:
        """Gaussian with the mean and covariance of the images that a prompt stands for, to the rank of the model's."""
        images = self.unet.bank[torch.from_numpy(self.data.matches([prompt])[0])]
        rank = self.unet.fitting.rank if isinstance(self.unet, GaussianUNet | WienerUNet) else None
        return fitted(images, rank)

    def theory(self, prompt: str = "") -> dict[str, Any]:
        """What `causalunet.analysis.gaussian_theory` is given for samples of a prompt, by keyword.

        Raises
        ------
        ModelError
            The denoiser is not linear.
        PromptError
            As for `check_prompts`.
        """
        if not isinstance(self.unet, GaussianUNet | WienerUNet):
            raise ModelError(
                f"The model {self.name!r} has no linear denoiser, so that effects have no closed form; "
                "'exact-gaussian' and 'exact-wiener' do. Effects on this one are known by running many samples."
            )
        fit = self.gaussian(prompt)
        return {
            "alpha_bar": self.alpha_bar,
            "variances": fit.variances.cpu().numpy(),
            "offsets": (fit.mean @ fit.vectors).cpu().numpy(),
            "pixels": int(np.prod(self.image_shape)),
            "branches": self.unet.answers if isinstance(self.unet, GaussianUNet) else {},
        }

    def slopes(self, prompt: str, alpha_bar: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """How the estimate of x_0 goes with x_t, number by number; None where the denoiser is not linear.

        Parameters
        ----------
        prompt : str
        alpha_bar : ndarray of float64, (level,)

        Returns
        -------
        ndarray of float64, (level, channel, y, x), or None
        """
        if not isinstance(self.unet, GaussianUNet | WienerUNet):
            return None
        found: NDArray[np.float64] = self.gaussian(prompt).slopes(torch.from_numpy(alpha_bar)).cpu().numpy()
        return found.reshape(-1, *self.image_shape)


@register("exact-gaussian")
def load_gaussian(
    bank: ImageBank | None = None,
    *,
    groups: int | Sequence[int] = _GROUPS,
    alpha_bar: NDArray[np.float64] | None = None,
    process: Process = VARIANCE_PRESERVING,
    device: str = "cpu",
) -> ExactModel:
    """Load the exact denoiser of the Gaussian with the mean and covariance of a bank of images.

    Its components are the mean, the coefficients, and a branch for every few principal components, ``pc.0`` ...

    Parameters
    ----------
    bank : ImageBank, optional
        By default ``scene_bank()``.
    groups : int or sequence of int
        Number of principal components of each branch, from the largest variance on. What lies beyond them is left out
        of the covariance: the data are then the Gaussian of that rank.
    alpha_bar : ndarray, (timestep,), optional
        Share of signal variance at every timestep; by default the squared-cosine schedule of the embedded model.
    process : Process
        Of the states that the U-Net is given.
    device : str
        Where it runs, such as ``cuda``.

    Raises
    ------
    ModelError
        The groups are not integers of at least 1, or more than there are pixels; the device is not there.
    """
    data = bank_or_scenes(bank)
    pixels = data.images[0].size
    counts = [groups] if isinstance(groups, int) else list(groups)
    if not counts or not all(is_integer(count) and count >= 1 for count in counts) or sum(counts) > pixels:
        raise ModelError(
            f"groups={shown(groups)}: give the number of principal components of every branch, integers of at least 1; "
            f"together at most {pixels}, the numbers of an image."
        )
    sizes = [int(count) for count in counts]
    share = schedule_or_cosine(alpha_bar)
    return _made(GaussianUNet(data, share, sizes), data, share, process, device, groups=sizes)


@register("exact-mixture")
def load_mixture(
    bank: ImageBank | None = None,
    *,
    classes: Sequence[str] = FACTORS["shape"],
    rank: int = 16,
    alpha_bar: NDArray[np.float64] | None = None,
    process: Process = VARIANCE_PRESERVING,
    device: str = "cpu",
) -> ExactModel:
    """Load the exact denoiser of a mixture of low-rank Gaussians, one for each class of images.

    Its components are ``evidence``, ``weights`` and an expert for every class, ``expert.0`` ...

    Parameters
    ----------
    bank : ImageBank, optional
        By default ``scene_bank()``.
    classes : sequence of str
        Prompts of which every image matches one; by default the shapes of scenes.
    rank : int
        Number of principal components of a class.
    alpha_bar, process, device
        As for `load_gaussian`.

    Raises
    ------
    PromptError, ModelError
        A class is not one of the bank, an image matches none or several, or the rank is not an integer from 1 to the
        numbers of an image; the device is not there.
    """
    data = bank_or_scenes(bank)
    pixels = data.images[0].size
    if not is_integer(rank) or not 1 <= rank <= pixels:
        raise ModelError(f"rank={shown(rank)}: give an integer from 1 to {pixels}, the numbers of an image.")
    share, named = schedule_or_cosine(alpha_bar), [str(name) for name in classes]
    return _made(
        MixtureUNet(data, share, named, int(rank)), data, share, process, device, classes=named, rank=int(rank)
    )


@register("exact-optimal")
def load_optimal(
    bank: ImageBank | None = None,
    *,
    alpha_bar: NDArray[np.float64] | None = None,
    process: Process = VARIANCE_PRESERVING,
    device: str = "cpu",
) -> ExactModel:
    """Load the optimal denoiser of a bank of images: what it makes are, in the end, these images.

    Its components are those of an attention over the bank: ``logits``, ``weights`` and ``average``.

    Parameters
    ----------
    bank : ImageBank, optional
        By default ``scene_bank()``.
    alpha_bar, process, device
        As for `load_gaussian`.

    Raises
    ------
    ModelError
        The device is not there.
    """
    data, share = bank_or_scenes(bank), schedule_or_cosine(alpha_bar)
    return _made(OptimalUNet(data, share), data, share, process, device)


@register("exact-wiener")
def load_wiener(
    bank: ImageBank | None = None,
    *,
    alpha_bar: NDArray[np.float64] | None = None,
    process: Process = VARIANCE_PRESERVING,
    device: str = "cpu",
) -> ExactModel:
    """Load the best linear denoiser of a bank of images.

    Its components are ``filter``, what comes from x_t, and ``prior``, what is known without it.

    Parameters
    ----------
    bank : ImageBank, optional
        By default ``scene_bank()``.
    alpha_bar, process, device
        As for `load_gaussian`.

    Raises
    ------
    ModelError
        The device is not there.
    """
    data, share = bank_or_scenes(bank), schedule_or_cosine(alpha_bar)
    return _made(WienerUNet(data, share), data, share, process, device)


@register("exact-local")
def load_local(
    bank: ImageBank | None = None,
    *,
    threshold: float = 0.02,
    alpha_bar: NDArray[np.float64] | None = None,
    process: Process = VARIANCE_PRESERVING,
    device: str = "cpu",
) -> ExactModel:
    """Load the analytic local denoiser of a bank of images, which puts images together from parts of several.

    Its components are ``logits``, ``weights`` and ``average``, as of `load_optimal`, for every pixel.

    Parameters
    ----------
    bank : ImageBank, optional
        By default ``scene_bank(64)``: its work grows with the number of images times the square of that of pixels.
    threshold : float
        Pixels count as near each other where the Wiener filter has at least this share of its largest entry.
    alpha_bar, process, device
        As for `load_gaussian`.

    Raises
    ------
    ModelError
        The threshold is not a number from 0 to 1; the device is not there.
    """
    data, share = bank_or_scenes(bank, _LOCAL_IMAGES), schedule_or_cosine(alpha_bar)
    if not is_number(threshold) or not 0 <= threshold <= 1:
        raise ModelError(f"threshold={shown(threshold)}: give a number from 0 (every pixel is near) to 1.")
    return _made(LocalUNet(data, share, float(threshold)), data, share, process, device, threshold=float(threshold))


@register("exact-interpolant")
def load_interpolant(
    bank: ImageBank | None = None,
    *,
    other: ImageBank | None = None,
    classes: Sequence[str] = (),
    path: str = "linear",
    latent: float = 1.0,
    pixel_noise: float = 0.1,
    device: str = "cpu",
) -> ExactModel:
    """Load velocity and score of a stochastic interpolant between two banks of images, or mixtures of Gaussians.

    A run begins with a sample of the other end, which is what its start has to give. Its components are ``evidence``,
    ``weights``, and ``image``, ``other`` and ``score``, see ``causalunet.models.exact.interpolant.InterpolantUNet``.

    Parameters
    ----------
    bank : ImageBank, optional
        Where runs end; by default ``scene_bank(size=12)``.
    other : ImageBank, optional
        Where they begin; by default the same bank.
    classes : sequence of str
        Prompts of which every image of both banks matches one, such as the values of a factor: each is a Gaussian. By
        default one Gaussian stands for all.
    path : str
        ``"linear"`` or ``"trigonometric"``.
    latent : float
        c of g^2 = c t (1 - t), the variance of the noise between the ends, at least 0; below 4 on the trigonometric
        path.
    pixel_noise : float
        Standard deviation of the noise that every pixel has at both ends, above 0.
    device
        As for `load_gaussian`.

    Raises
    ------
    ModelError
        The banks have other shapes, or a number, a path or the classes do not fit.
    """
    data = scene_bank(size=_INTERPOLATED) if bank is None else bank_or_scenes(bank)
    begin = data if other is None else bank_or_scenes(other)
    if begin.image_shape != data.image_shape:
        raise ModelError(f"Images at the ends have shapes {data.image_shape} and {begin.image_shape}; give equal ones.")
    if path not in LATENTS:
        raise ModelError(f"path={shown(path)} is not known; known: {', '.join(LATENTS)}.")
    most = 4.0 if path == "trigonometric" else math.inf
    if not is_number(latent) or not 0 <= latent < most:
        raise ModelError(f"latent={shown(latent)}: give a number of at least 0, below 4 on the trigonometric path.")
    if not is_number(pixel_noise) or pixel_noise <= 0:
        raise ModelError(f"pixel_noise={shown(pixel_noise)}: give a number above 0; without it there is no density.")
    named = [str(name) for name in classes] or [""]
    unet = InterpolantUNet(data, begin, named, Latent(path, float(latent)), float(pixel_noise))
    options = {"other": begin.digest, "classes": named, "path": path, "latent": latent, "pixel_noise": pixel_noise}
    return _made(unet, data, straight_alpha_bar(), Process("straight"), device, **options)


def bank_or_scenes(bank: ImageBank | None, images: int | None = None) -> ImageBank:
    """A bank as it was given, or one of scenes.

    Raises
    ------
    ModelError
        It is none.
    """
    if bank is None:
        return scene_bank() if images is None else scene_bank(images)
    if not isinstance(bank, ImageBank):
        raise ModelError(
            f"bank={shown(bank)} is no ImageBank. Give causalunet.models.ImageBank(images, labels) or scene_bank()."
        )
    return bank


def schedule_or_cosine(alpha_bar: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """A noise schedule as it was given, or that of the embedded model."""
    return cosine_alpha_bar() if alpha_bar is None else np.asarray(alpha_bar, dtype=np.float64)


def _made(
    unet: ExactUNet, data: ImageBank, alpha_bar: NDArray[np.float64], process: Process, device: str, **options: Any
) -> ExactModel:
    return ExactModel(unet.under(process).to(usable_device(device)).eval(), data, alpha_bar, options)
