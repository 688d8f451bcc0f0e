"""Every exception of the package. Each message says what was asked, what exists and what to do."""

from __future__ import annotations

__all__ = [
    "CausalUNetError",
    "CheckpointError",
    "ComponentError",
    "FiringError",
    "MissingExtraError",
    "ModelError",
    "PromptError",
    "SpecError",
    "StoreError",
]


class CausalUNetError(Exception):
    """Root of every error that causalunet raises on purpose."""


class SpecError(CausalUNetError, ValueError):
    """A value of a study (window, intervention, sampler, record) is not valid."""


class ComponentError(SpecError):
    """A component or block count that the model's anatomy does not have."""


class PromptError(CausalUNetError, ValueError):
    """A prompt is empty, too long, or has words that the model does not know."""


class ModelError(CausalUNetError, ValueError):
    """A model name that is not registered, or a model that does not fit the protocol."""


class CheckpointError(CausalUNetError, ValueError):
    """A weights file is not what it should be."""


class StoreError(CausalUNetError, ValueError):
    """A path is not a results store, or holds another study."""


class FiringError(CausalUNetError, RuntimeError):
    """An intervention did not fire as often as it was declared to."""


class MissingExtraError(CausalUNetError, ImportError):
    """An optional extra of the package is not installed."""
