"""What a user writes: windows, fills, interventions, sweeps, studies, and the anatomy that they speak of."""

from causalunet.design.anatomy import Anatomy, Component, Edge
from causalunet.design.donors import FillContext, OfBaseline, OwnBefore, OwnInput
from causalunet.design.fills import Bypass, Fill, Hold, Identity, Jump, Patch, Scale, Zero
from causalunet.design.guidance import CFG, Guidance, NoGuidance
from causalunet.design.inner import InnerPlace
from causalunet.design.interventions import Composition, Edit, Intervention
from causalunet.design.kinds import AblateBlock, AblateSkip, Null, SkipSteps
from causalunet.design.listing import sites
from causalunet.design.ports import Port
from causalunet.design.record import Record
from causalunet.design.samplers import (
    DDIM,
    DDPM,
    DEIS,
    EDM,
    LCM,
    PNDM,
    DPMMultistep,
    DPMSinglestep,
    DPMSolverV3,
    Euler,
    EulerAncestral,
    EVODiff,
    FlowHeun,
    FlowSDE,
    Heun,
    Sampler,
    UniPC,
)
from causalunet.design.site import Site
from causalunet.design.spacings import Beta, Exponential, Given, Karras, Leading, Linspace, Spacing, Trailing
from causalunet.design.starts import Noise, Start
from causalunet.design.study import Sample, StudySpec
from causalunet.design.sweeps import sweep
from causalunet.design.views import Axes, Channels, Heads, Pixels, Rows, Tokens, View, Whole
from causalunet.design.windows import Window, Windows, cut_relax_cut

__all__ = [
    "CFG",
    "DDIM",
    "DDPM",
    "DEIS",
    "EDM",
    "LCM",
    "PNDM",
    "AblateBlock",
    "AblateSkip",
    "Anatomy",
    "Axes",
    "Beta",
    "Bypass",
    "Channels",
    "Component",
    "Composition",
    "DPMMultistep",
    "DPMSinglestep",
    "DPMSolverV3",
    "EVODiff",
    "Edge",
    "Edit",
    "Euler",
    "EulerAncestral",
    "Exponential",
    "Fill",
    "FillContext",
    "FlowHeun",
    "FlowSDE",
    "Given",
    "Guidance",
    "Heads",
    "Heun",
    "Hold",
    "Identity",
    "InnerPlace",
    "Intervention",
    "Jump",
    "Karras",
    "Leading",
    "Linspace",
    "NoGuidance",
    "Noise",
    "Null",
    "OfBaseline",
    "OwnBefore",
    "OwnInput",
    "Patch",
    "Pixels",
    "Port",
    "Record",
    "Rows",
    "Sample",
    "Sampler",
    "Scale",
    "Site",
    "SkipSteps",
    "Spacing",
    "Start",
    "StudySpec",
    "Tokens",
    "Trailing",
    "UniPC",
    "View",
    "Whole",
    "Window",
    "Windows",
    "Zero",
    "cut_relax_cut",
    "sites",
    "sweep",
]
