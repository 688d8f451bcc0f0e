"""Causal interventions on diffusion U-Nets: declarative studies, stored and queryable results.

Writing, planning and reading studies needs no torch; running them does (``pip install 'causalunet[run]'``).
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causalunet import analysis, explore, prompts, report
    from causalunet.cluster import Workers
    from causalunet.design import (
        DDIM,
        DDPM,
        DEIS,
        EDM,
        LCM,
        PNDM,
        AblateBlock,
        AblateSkip,
        AddNoise,
        BandScale,
        Bypass,
        Channels,
        Clamp,
        Composition,
        DPMMultistep,
        DPMSinglestep,
        DPMSolverV3,
        Edit,
        Euler,
        EulerAncestral,
        EVODiff,
        Exclude,
        Extrapolate,
        Feature,
        FlowHeun,
        FlowSDE,
        FrequencyScale,
        FromTable,
        Heads,
        Heun,
        Hold,
        Identity,
        MaskChannels,
        Mean,
        Null,
        Patch,
        Pixels,
        Project,
        Quantize,
        Queries,
        Record,
        Resample,
        Rows,
        Scale,
        Site,
        SkipSteps,
        SparseAutoencoder,
        Tokens,
        UniPC,
        Whole,
        Window,
        Windows,
        Zero,
        controls,
        cut_relax_cut,
        factorial,
        mediation,
        sweep,
    )
    from causalunet.design.listing import sites
    from causalunet.design.samplers import ModelStatistics, load_statistics
    from causalunet.errors import CausalUNetError, MissingExtraError
    from causalunet.execute import model_statistics
    from causalunet.latents import decode_x0
    from causalunet.models import from_network, from_pipeline, from_unet, load_model, register
    from causalunet.prompts import NO_PROMPT
    from causalunet.results import open_results
    from causalunet.shortcut import Shortcut, time_interventions, time_shortcut
    from causalunet.study import Study

__version__ = "0.1.0"

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "EDM",
    "LCM",
    "NO_PROMPT",
    "PNDM",
    "AblateBlock",
    "AblateSkip",
    "AddNoise",
    "BandScale",
    "Bypass",
    "CausalUNetError",
    "Channels",
    "Clamp",
    "Composition",
    "DPMMultistep",
    "DPMSinglestep",
    "DPMSolverV3",
    "EVODiff",
    "Edit",
    "Euler",
    "EulerAncestral",
    "Exclude",
    "Extrapolate",
    "Feature",
    "FlowHeun",
    "FlowSDE",
    "FrequencyScale",
    "FromTable",
    "Heads",
    "Heun",
    "Hold",
    "Identity",
    "MaskChannels",
    "Mean",
    "MissingExtraError",
    "ModelStatistics",
    "Null",
    "Patch",
    "Pixels",
    "Project",
    "Quantize",
    "Queries",
    "Record",
    "Resample",
    "Rows",
    "Scale",
    "Shortcut",
    "Site",
    "SkipSteps",
    "SparseAutoencoder",
    "Study",
    "Tokens",
    "UniPC",
    "Whole",
    "Window",
    "Windows",
    "Workers",
    "Zero",
    "analysis",
    "controls",
    "cut_relax_cut",
    "decode_x0",
    "explore",
    "factorial",
    "from_network",
    "from_pipeline",
    "from_unet",
    "load_model",
    "load_statistics",
    "mediation",
    "model_statistics",
    "open_results",
    "prompts",
    "register",
    "report",
    "sites",
    "sweep",
    "time_interventions",
    "time_shortcut",
]

_HOMES = {
    "causalunet.cluster": ("Workers",),
    "causalunet.design": (
        "AddNoise",
        "BandScale",
        "Clamp",
        "FrequencyScale",
        "FromTable",
        "Project",
        "Quantize",
        "AblateBlock",
        "AblateSkip",
        "Bypass",
        "Channels",
        "Composition",
        "DDIM",
        "DDPM",
        "DEIS",
        "DPMMultistep",
        "DPMSinglestep",
        "EDM",
        "Edit",
        "EVODiff",
        "DPMSolverV3",
        "Euler",
        "EulerAncestral",
        "Exclude",
        "Extrapolate",
        "Feature",
        "FlowHeun",
        "FlowSDE",
        "Heads",
        "Heun",
        "Hold",
        "Identity",
        "MaskChannels",
        "Mean",
        "LCM",
        "Null",
        "PNDM",
        "Patch",
        "Pixels",
        "Queries",
        "Record",
        "Resample",
        "Rows",
        "Scale",
        "Site",
        "SkipSteps",
        "SparseAutoencoder",
        "Tokens",
        "UniPC",
        "Whole",
        "Window",
        "Windows",
        "Zero",
        "controls",
        "cut_relax_cut",
        "decode_x0",
        "factorial",
        "mediation",
        "sweep",
    ),
    "causalunet.design.listing": ("sites",),
    "causalunet.design.samplers": ("ModelStatistics", "load_statistics"),
    "causalunet.errors": ("CausalUNetError", "MissingExtraError"),
    "causalunet.execute": ("model_statistics",),
    "causalunet.latents": ("decode_x0",),
    "causalunet.models": ("from_network", "from_pipeline", "from_unet", "load_model", "register"),
    "causalunet.prompts": ("NO_PROMPT",),
    "causalunet.results": ("open_results",),
    "causalunet.shortcut": ("Shortcut", "time_interventions", "time_shortcut"),
    "causalunet.study": ("Study",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: some need torch or matplotlib, and all of them take a while."""
    if name not in _HOME and not _is_submodule(name):
        raise AttributeError(f"module 'causalunet' has no attribute {name!r}")
    home = _HOME.get(name)
    try:
        found = getattr(import_module(home), name) if home else import_module(f"causalunet.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "causalunet").startswith("causalunet"):
            raise
        from causalunet.errors import MissingExtraError

        raise MissingExtraError(
            f"causalunet.{name} needs {error.name}, which is not installed. Install the extra: "
            "pip install 'causalunet[run]'."
        ) from error
    globals()[name] = found
    return found


def _is_submodule(name: str) -> bool:
    return name.isidentifier() and not name.startswith("_") and find_spec(f"causalunet.{name}") is not None


def __dir__() -> list[str]:
    """Names for use, and what Python asks of every module."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
