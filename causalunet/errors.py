"""Every exception of the package. Each message says what was asked, what exists and what to do."""

from __future__ import annotations

from typing import Any

__all__ = [
    "CausalUNetError",
    "CausalUNetWarning",
    "CheckpointError",
    "ClusterError",
    "ComponentError",
    "ConformanceError",
    "DamageError",
    "FiringError",
    "MemoryExhaustedError",
    "MissingExtraError",
    "ModelError",
    "PluginError",
    "PromptError",
    "SpecError",
    "StorageError",
    "StoreError",
    "WriteConflictError",
]


class CausalUNetError(Exception):
    """Root of every error that causalunet raises on purpose."""


class CausalUNetWarning(UserWarning):
    """Something went wrong that did not stop the run; the message says what and where it is marked."""


class SpecError(CausalUNetError, ValueError):
    """A value of a study (window, intervention, sampler, record) is not valid."""


class ComponentError(SpecError):
    """A component or block count that the model's anatomy does not have."""


class PromptError(CausalUNetError, ValueError):
    """A prompt is empty, too long, or has words that the model does not know."""


class ModelError(CausalUNetError, ValueError):
    """A model name that is not registered, or a model that does not fit the protocol."""


class ConformanceError(CausalUNetError, ValueError):
    """A check of ``causalunet.testing`` failed: what somebody brings is not what studies need.

    Attributes
    ----------
    report : causalunet.testing.Conformance
        What every check found; prints as a table.
    """

    report: Any = None


class CheckpointError(CausalUNetError, ValueError):
    """A weights file is not what it should be."""


class ClusterError(CausalUNetError, RuntimeError):
    """Workers of a cluster cannot run a study, or are gone. What was committed stays."""


class StoreError(CausalUNetError, ValueError):
    """A path is not a results store, or holds another study."""


class DamageError(StoreError):
    """A results store holds bytes that it should not, or lacks some that it should hold."""


class PluginError(StoreError):
    """A kind of intervention, a fill or a model is of a package that this process has not imported, or cannot."""


class StorageError(StoreError):
    """Storage refused to take or to give bytes: disk full, no permission, no network. What was committed stays."""


class WriteConflictError(StoreError):
    """Another process wrote the same part of a store; its values stay."""


class MemoryExhaustedError(CausalUNetError, MemoryError):
    """Not even one sample of a U-Net call fits into memory."""


class FiringError(CausalUNetError, RuntimeError):
    """An intervention did not fire as often as it was declared to."""


class MissingExtraError(CausalUNetError, ImportError):
    """An optional extra of the package is not installed."""
