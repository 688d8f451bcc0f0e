"""A study that takes a moment, cut into many parts: three blocks of two samples, two groups of interventions each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

import causalunet as cu
from causalunet import plan
from causalunet.execute.fill import store_filler as runner
from causalunet.execute.fill.pace import Pace
from causalunet.models.openai_layout import TextUNet
from causalunet.models.text_to_image import TextToImage
from causalunet.models.vocabulary import tokenize
from causalunet.results.engine import leases
from causalunet.schedule import cosine_alpha_bar
from tests.conftest import TINY_CONFIG

MEMORY = 1_000_000
"""Budget in bytes that makes blocks of two samples."""
PARTS = 6
"""Commits of cells of an uninterrupted run."""
BEAT_SECONDS, LEASE_SECONDS = 0.4, 3.0
"""Of claims in object stores."""


@cache
def model() -> TextToImage:
    """The model of the other tests; here it is made in other processes too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = TextUNet(TINY_CONFIG)
        for parameter in unet.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    return TextToImage("tiny", unet.eval().requires_grad_(False), tokenize, cosine_alpha_bar())


STUDY = cu.Study(
    name="trust",
    prompts=["a red circle", "a blue cross", "a striped cyan square, light background"],
    seeds=[1, 2],
    sampler=cu.DDPM(steps=3, guidance_scale=1.0),
    interventions=[
        cu.AblateBlock(2, cu.Window(3, 1)),
        cu.AblateSkip(1, cu.Window(2, 1)),
        cu.SkipSteps(cu.Window(2, 1)),
        cu.Null(cu.Window(2, 1)),
    ],
    record=cu.Record(activations="mid", summary=("mid", "up.1"), steps=(3, 1), of="all"),
)


def in_small_groups(put: Callable[[object, str, Any], None] = setattr) -> None:
    """Two interventions to a part instead of 128, a commit after each, and claims taken over soon, in this process."""
    put(plan, "GROUP", 2)
    put(runner, "Pace", partial(Pace, 0.0))
    put(leases, "BEAT_SECONDS", BEAT_SECONDS)
    put(leases, "LEASE_SECONDS", LEASE_SECONDS)


def run(path: Path | str) -> cu.results.Results:
    """Run the study in this process."""
    return STUDY.run(path, model=model(), memory=MEMORY, progress=False)
