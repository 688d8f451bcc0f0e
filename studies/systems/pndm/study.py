"""Does an edit at the start leak further where history is kept? After Liu et al. 2022, arXiv 2202.09778.

PNDM goes along the noise of four steps, and begins with pseudo Runge-Kutta steps, of four U-Net calls each.
An edit in one of these is made in all four calls, and what the first said of it stays in the history of three more
steps. Under DDIM nothing of it is kept but the state. A component is cut for one step, or two steps are skipped, from
every start on; each image is compared with the one that its own sampler makes otherwise.

    python studies/systems/pndm/study.py --quick     # a minute on two cores
    python studies/systems/pndm/study.py --medium    # with the trained model
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import causalunet as cu
from causalunet.design import Leading, Sampler
from causalunet.script import Folder, drawn_across, run_script

MODELS = {"exact-gaussian": "Gaussian", "exact-optimal": "optimal denoiser", "shapes": "trained model"}
CUT = {"exact-gaussian": "pc.1", "exact-optimal": "average", "shapes": "up.5"}
"""A branch, all of the estimate, and the lower decoder."""


def samplers(steps: int) -> dict[str, Sampler]:
    """At the same timesteps; they differ in U-Net calls."""
    given: dict[str, Any] = {"steps": steps, "guidance_scale": 1.0, "spacing": Leading()}
    return {
        "DDIM": cu.DDIM(**given),
        "PNDM": cu.PNDM(**given),
        "PNDM, Runge-Kutta": cu.PNDM(runge_kutta=True, **given),
    }


def quick(folder: Folder) -> dict[str, cu.Study]:
    """8 steps, 12 open samples, on the exact models."""
    return make_studies(folder, [name for name in MODELS if name.startswith("exact")], steps=8, samples=12)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """16 steps, 24 open samples, on the trained model too."""
    return make_studies(folder, list(MODELS), steps=16, samples=24)


def make_studies(folder: Folder, models: Sequence[str], *, steps: int, samples: int) -> dict[str, cu.Study]:
    """One for each model and sampler."""
    return {
        f"{model} {name}": cu.Study(
            name=f"pndm, {model}, {name}, {folder.size}",
            model=model,
            prompts=[cu.NO_PROMPT],
            seeds=range(samples),
            sampler=sampler,
            interventions=[
                *(cu.Edit(CUT[model], cu.Window(start, 1)) for start in range(steps - 1, 1, -1)),
                *(cu.SkipSteps(cu.Window(start, 2)) for start in range(steps - 1, 2, -1)),
            ],
        )
        for model in models
        for name, sampler in samplers(steps).items()
    }


if __name__ == "__main__":
    draw = drawn_across(
        MODELS,
        list(samplers(2)),
        {"edit": "cut for one step", "skip_steps": "two steps skipped"},
        reference="DDIM",
        early=2,
        name="pndm",
    )
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
