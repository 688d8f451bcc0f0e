"""What a store says of what made its images; of stores that were made before that was kept, what their arrays show."""

from __future__ import annotations

from typing import Any

from causalunet.identity import FINGERPRINT, steps_part
from causalunet.results.guard.checked_store import Reader

__all__ = ["shown_identity", "stored_identity"]


def stored_identity(reader: Reader) -> dict[str, Any]:
    """Every part of the identity that a store knows, as of `causalunet.identity.identity_of`."""
    attributes = reader.stored.attributes
    fingerprint = {FINGERPRINT: attributes.model_fingerprint}
    return {**fingerprint, **shown_identity(reader), **attributes.identity}


def shown_identity(reader: Reader) -> dict[str, Any]:
    """The parts that other places of a store show too: the sampler of its study, its steps, the shape of its images."""
    sampler = reader.stored.attributes.sampler
    parts = {f"sampler.{name}": value for name, value in sampler.get("configuration", {}).items()}
    parts |= {"sampler.name": sampler["name"]} if "name" in sampler else {}
    timesteps, alpha_bars = (reader.read(f"baseline/{name}") for name in ("timestep", "alpha_bar"))
    if timesteps.size:
        parts["steps"] = steps_part(timesteps.tolist(), alpha_bars)
    if reader.has("baseline/x_t"):
        parts["image_shape"] = list(reader.stored.arrays["baseline/x_t"].shape[2:])
    return parts
