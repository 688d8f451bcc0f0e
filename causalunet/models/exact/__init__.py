"""Models whose truth is known: denoisers in closed form over a bank of images, behind the protocol of all models."""

from causalunet.models.exact.banks import ImageBank, scene_bank
from causalunet.models.exact.gaussian import Gaussian
from causalunet.models.exact.mixture import Mixture
from causalunet.models.exact.model import (
    ExactModel,
    load_gaussian,
    load_interpolant,
    load_local,
    load_mixture,
    load_optimal,
    load_wiener,
)
from causalunet.models.exact.restoration import RestorationModel, load_restoration

__all__ = [
    "ExactModel",
    "Gaussian",
    "ImageBank",
    "Mixture",
    "RestorationModel",
    "load_gaussian",
    "load_interpolant",
    "load_local",
    "load_mixture",
    "load_optimal",
    "load_restoration",
    "load_wiener",
    "scene_bank",
]
