"""Causal interventions on diffusion U-Nets: declarative studies, stored and queryable results.

Writing, planning and reading studies needs no torch; running them does (``pip install 'causalunet[run]'``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from causalunet import analysis, prompts
from causalunet.design import (
    DDPM,
    AblateBlock,
    AblateSkip,
    Composition,
    Edit,
    Identity,
    Null,
    Record,
    Scale,
    SkipSteps,
    Window,
    Windows,
    Zero,
    cut_relax_cut,
    sweep,
)
from causalunet.errors import CausalUNetError, MissingExtraError
from causalunet.prompts import NO_PROMPT
from causalunet.results import open_results
from causalunet.shortcut import Shortcut, time_interventions, time_shortcut
from causalunet.study import Study

if TYPE_CHECKING:
    from causalunet import report
    from causalunet.models import from_unet, load_model, register

__version__ = "0.1.0"

__all__ = [
    "DDPM",
    "NO_PROMPT",
    "AblateBlock",
    "AblateSkip",
    "CausalUNetError",
    "Composition",
    "Edit",
    "Identity",
    "Null",
    "Record",
    "Scale",
    "Shortcut",
    "SkipSteps",
    "Study",
    "Window",
    "Windows",
    "Zero",
    "analysis",
    "cut_relax_cut",
    "from_unet",
    "load_model",
    "open_results",
    "prompts",
    "register",
    "report",
    "sweep",
    "time_interventions",
    "time_shortcut",
]

_NEEDS_TORCH = dict.fromkeys(("from_unet", "load_model", "register"), "causalunet.models")


def __getattr__(name: str) -> Any:
    """Import what needs torch, or matplotlib, when it is first asked for."""
    if name == "report":
        return import_module("causalunet.report")
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module 'causalunet' has no attribute {name!r}")
    try:
        return getattr(import_module(_NEEDS_TORCH[name]), name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"causalunet.{name} needs {error.name}, which is not installed. Install the extra: "
            "pip install 'causalunet[run]'."
        ) from error
