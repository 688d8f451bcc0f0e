"""Taking in U-Net objects by themselves, in the layouts of the packages that people train with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from causalunet.design.limits import plain_number
from causalunet.models.handed_in import HandedIn
from causalunet.models.layouts import LAYOUTS, Asked
from causalunet.models.networks import NetworkModel
from causalunet.models.openai_unets import openai_unet
from causalunet.models.text_to_image import Tokenize
from causalunet.prediction import Prediction

__all__ = ["from_unet"]


def from_unet(
    unet: nn.Module,
    *,
    name: str,
    image_size: int | tuple[int, int] | None = None,
    alpha_bar: NDArray[np.float64] | None = None,
    prediction: Prediction | str | None = None,
    sigmas: tuple[float, float] | None = None,
    tokenize: Tokenize | None = None,
    encode: Callable[[Sequence[str]], Any] | None = None,
    classes: Sequence[str] | None = None,
    null_class: int | None = None,
    variance: Literal["large", "small"] | None = None,
    rescale_timesteps: bool | None = None,
    clip: bool | None = None,
) -> HandedIn | NetworkModel:
    """Make a model of a U-Net object of a known package; its modules are its own.

    Parameters
    ----------
    unet : torch.nn.Module
        GLIDE's ``Text2ImUNet``, or ``UNetModel`` of guided-diffusion or improved-diffusion, with class labels or
        without, that predicts the noise (and the variance); ``EDMPrecond``, ``VPPrecond``, ``VEPrecond`` or
        ``iDDPMPrecond`` of EDM; k-diffusion's ``Denoiser`` around an ``ImageDenoiserModelV1``; lucidrains' ``Unet``,
        alone or in its ``GaussianDiffusion``; ``UNet2DModel``, ``UNet2DConditionModel`` or ``UNet1DModel`` of
        diffusers. It is put into evaluation mode, and moved nowhere.
    name : str
        What results call it.
    image_size : int or tuple of int, optional
        Pixels, or (y, x); by default what the object says, as some do. A U-Net of convolutions takes other sizes than
        those that it was trained with, if they can be halved as often as it does. Of sequences their length.
    alpha_bar : ndarray of float64, (timestep,), optional
        Training schedule, from ``causalunet.schedule``. By default the squared-cosine schedule for GLIDE; most others
        do not say theirs, so it must be said. Not of networks that are told sigma.
    prediction : Prediction or str, optional
        What the network puts out, ``"eps"``, ``"x0"`` or ``"v"``, where the object does not tell: lucidrains' ``Unet``
        alone, and those of diffusers.
    sigmas : tuple of float, optional
        For networks that are told sigma, the ratio of noise to signal (EDM's, k-diffusion's): lowest and highest. By
        default 0.002 to 80, or what the network was made for, if that is less; of k-diffusion's 0.01 to 80.
    tokenize : callable, optional
        For GLIDE: prompts to padded tokens and mask; by default with ``unet.tokenizer``.
    encode : callable, optional
        For a ``UNet2DConditionModel``: prompts to the states of its text encoder, (prompt, token, width).
    classes : sequence of str, optional
        For a class-conditional U-Net: the name of every class, so that prompts are names. Prompts may also be indices,
        such as ``"207"``. The name of `null_class` may be left out. Of an unconditional U-Net prompts only name
        samples: any text.
    null_class : int, optional
        For a class-conditional U-Net that was trained without its class now and then: the index of the class that stood
        for none. Then there is something to guide from, and samples without a prompt can be made. EDM's networks have
        no such class: with ``label_dropout`` they are told zeros.
    variance : {"large", "small"}, optional
        For a U-Net of OpenAI's packages that predicts noise only: which bound of the posterior variance is taken, as in
        Ho et al. 2020. OpenAI's samplers take the large one unless told otherwise, which is the default.
    rescale_timesteps : bool, optional
        Whether a U-Net of OpenAI's packages was trained with timesteps t * 1000 / N, where N is the length of
        ``alpha_bar``: an option of OpenAI's training scripts, which improved-diffusion sets unless told otherwise and
        guided-diffusion does not. With 1000 timesteps it makes no difference; with others it must be said.
    clip : bool, optional
        Whether the estimate of x_0 is clipped to [-1, 1]. By default as the package's own sampler has it: not of
        networks that are told sigma.

    Returns
    -------
    HandedIn or NetworkModel
        Of networks that are told sigma its ``sampler(steps=18, churn=0)`` is that of EDM's ``edm_sampler``.

    Raises
    ------
    ModelError
        The object is none of these, computes in half precision, is told more than a study gives, or cannot do images of
        that size; or more must be said of it, or something was said that says nothing of it.
    """
    said = dict(locals())
    asked = Asked(**{**said, "null_class": plain_number(null_class)})
    for layout in LAYOUTS:
        if layout.knows(unet):
            return layout.take_in(asked)
    return openai_unet(asked, "; ".join(layout.words for layout in LAYOUTS))
