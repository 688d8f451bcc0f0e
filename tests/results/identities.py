"""Models that differ in one thing each that changes images, and stores that know less of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import zarr
from torch import nn

import causalunet as cu
from causalunet.models import DiffusionModel, from_unet
from causalunet.models.text_to_image import TextToImage
from causalunet.models.vocabulary import tokenize
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.schedule import cosine_alpha_bar, linear_alpha_bar
from tests.models import stand_ins

NAMES = ("cat", "dog", "fish")
HANDED_IN = {
    "noise_schedule": {"alpha_bar": linear_alpha_bar(400)},
    "clip": {"clip": False},
    "prediction": {"variance": "small"},
    "timestep_scale": {"rescale_timesteps": True},
    "null_class": {"null_class": 1},
    "tokens": {"classes": NAMES[::-1]},
    "image_shape": {"image_size": 12},
    "weights": {},
}
TINY = ("noise_schedule", "clip", "tokens", "model_fingerprint")


@dataclass(frozen=True)
class Pair:
    """A model, another one that differs in one part, and prompts that both can read."""

    part: str
    model: DiffusionModel
    other: DiffusionModel
    prompts: tuple[str, ...] = ("cat", "dog")
    sampler: cu.DDPM = field(default=cu.DDPM(steps=3, guidance_scale=2.0))

    @property
    def study(self) -> cu.Study:
        cut = cu.AblateBlock(1, cu.Window(2, 1))
        return cu.Study(name="same", prompts=self.prompts, sampler=self.sampler, interventions=[cut])

    @property
    def grown(self) -> cu.Study:
        more = cu.AblateBlock(1, cu.Window(3, 1))
        return replace(self.study, interventions=[*self.study.interventions, more])


@cache
def unet(shift: float = 0.0) -> nn.Module:
    """Class-conditional, of noise alone."""
    made = stand_ins.randomised(stand_ins.UNetModel(out_channels=3, num_classes=4))
    with torch.no_grad():
        made.out[2].bias += shift  # type: ignore[index]
    return made


def handed_in(part: str = "") -> DiffusionModel:
    """One of a U-Net object; of another one than usual in a part."""
    options: dict[str, Any] = {
        "alpha_bar": cosine_alpha_bar(400),
        "rescale_timesteps": False,
        "null_class": 0,
        "classes": NAMES,
        "image_size": 16,
        **HANDED_IN.get(part, {}),
    }
    return from_unet(unet(0.1 if part == "weights" else 0.0), name="handed in", **options)


def swapped(prompts: Sequence[str]) -> Any:
    """Tokens of a vocabulary in which two words have changed places."""
    return tokenize([prompt.replace("red", "-").replace("blue", "red").replace("-", "blue") for prompt in prompts])


def tiny_pair(part: str, tiny_model: TextToImage) -> Pair:
    """The tiny model and another one."""
    changes: dict[str, Any] = {
        "noise_schedule": {"alpha_bar": linear_alpha_bar()},
        "clip": {"clip": False},
        "tokens": {"tokenize": swapped},
        "model_fingerprint": {},
    }
    other = replace(tiny_model, **changes[part])
    if part == "model_fingerprint":
        other = replace(tiny_model, unet=shifted(tiny_model))
    return Pair(part, tiny_model, other, ("a red circle", "a green cross"))


def shifted(model: TextToImage) -> Any:
    """Its U-Net with another bias."""
    made = type(model.unet)(model.unet.config)
    made.load_state_dict(model.unet.state_dict())
    with torch.no_grad():
        made.out[2].bias += 0.1
    return made.eval().requires_grad_(False)


def forget(path: Path, *parts: str) -> None:
    """Take parts of the identity out of a store; all that earlier versions did not keep, unless they are named."""
    change(path, lambda identity: {name: identity[name] for name in identity if parts and name not in parts})


def change(path: Path, how: Any) -> None:
    """Change the identity that a store keeps; an empty one is none."""
    repository = Repository.open(Location.parse(path))
    session = repository.writable()
    attributes = zarr.open_group(session.store, mode="a").attrs
    if made := how(dict(attributes["identity"])):  # type: ignore[arg-type]
        attributes["identity"] = made
    else:
        del attributes["identity"]
    repository.commit(session, "another identity", {})
