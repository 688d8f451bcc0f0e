"""Samplers: how a run goes from noise to an image, one file for each."""

from causalunet.design.samplers.base import SAMPLERS, Estimate, Query, Sampler, State
from causalunet.design.samplers.ddim import DDIM
from causalunet.design.samplers.ddpm import DDPM
from causalunet.design.samplers.deis import DEIS
from causalunet.design.samplers.dpm_multistep import DPMMultistep
from causalunet.design.samplers.dpm_singlestep import DPMSinglestep
from causalunet.design.samplers.dpm_v3 import DPMSolverV3
from causalunet.design.samplers.euler import Euler, EulerAncestral
from causalunet.design.samplers.evodiff import EVODiff
from causalunet.design.samplers.flow import FlowHeun
from causalunet.design.samplers.flow_sde import FlowSDE
from causalunet.design.samplers.heun import EDM, Heun
from causalunet.design.samplers.lcm import LCM
from causalunet.design.samplers.pndm import PNDM
from causalunet.design.samplers.statistics import ModelStatistics, load_statistics
from causalunet.design.samplers.unipc import UniPC

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "EDM",
    "LCM",
    "PNDM",
    "SAMPLERS",
    "DPMMultistep",
    "DPMSinglestep",
    "DPMSolverV3",
    "EVODiff",
    "Estimate",
    "Euler",
    "EulerAncestral",
    "FlowHeun",
    "FlowSDE",
    "Heun",
    "ModelStatistics",
    "Query",
    "Sampler",
    "State",
    "UniPC",
    "load_statistics",
]
