"""Samplers: how a run goes from noise to an image, one file for each."""

from causalunet.design.samplers.base import SAMPLERS, Estimate, Query, Sampler, State
from causalunet.design.samplers.ddim import DDIM
from causalunet.design.samplers.ddpm import DDPM

__all__ = ["DDIM", "DDPM", "SAMPLERS", "Estimate", "Query", "Sampler", "State"]
