"""When does skipping steps matter under EVODiff, against DPM-Solver++ and DDIM? After Li, Chen & Zeng 2025.

Two steps are skipped, from every start on, under samplers of equally many U-Net calls; each image is compared with the
one that its own sampler makes otherwise. EVODiff weighs each step by projections of what the U-Net said in the two
before, so that a step that is left out changes the weights of the next.

    python studies/systems/evodiff/study.py --quick     # two minutes on two cores
    python studies/systems/evodiff/study.py --medium    # ten minutes
"""

from __future__ import annotations

from typing import Any

import causalunet as cu
from causalunet.design import Leading, Sampler
from causalunet.script import Folder, drawn_across, run_script

MODELS = {"exact-gaussian": "Gaussian", "exact-optimal": "optimal denoiser", "shapes": "trained model"}


def samplers(steps: int) -> dict[str, Sampler]:
    """One U-Net call a step, at the same timesteps."""
    given: dict[str, Any] = {"steps": steps, "guidance_scale": 1.0, "spacing": Leading()}
    return {
        "DDIM": cu.DDIM(**given),
        "DPM++ 2M": cu.DPMMultistep(**given),
        "EVODiff": cu.EVODiff(**given),
        "EVODiff, official": cu.EVODiff(official=True, **given),
    }


def quick(folder: Folder) -> dict[str, cu.Study]:
    """10 steps, 8 open samples."""
    return make_studies(folder, steps=10, samples=8)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """16 steps, 24 open samples."""
    return make_studies(folder, steps=16, samples=24)


def make_studies(folder: Folder, *, steps: int, samples: int) -> dict[str, cu.Study]:
    """One for each model and sampler."""
    return {
        f"{model} {name}": cu.Study(
            name=f"evodiff, {model}, {name}, {folder.size}",
            model=model,
            prompts=[cu.NO_PROMPT],
            seeds=range(samples),
            sampler=sampler,
            interventions=cu.sweep(cu.SkipSteps, start=range(steps - 1, 2, -1), length=2),
        )
        for model in MODELS
        for name, sampler in samplers(steps).items()
    }


if __name__ == "__main__":
    draw = drawn_across(
        MODELS, list(samplers(2)), {"skip_steps": "two steps skipped"}, reference="DDIM", early=3, name="evodiff"
    )
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
