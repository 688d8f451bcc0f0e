"""Do statistics of the model make early skips cheaper? After Zheng et al. 2023, arXiv 2310.13268.

DPM-Solver-v3 solves exactly what of the model is straight by its statistics, so that a long step, such as over steps
that are skipped, ought to be nearer to the steps that it stands for. Two steps are skipped, from every start on, under
samplers of equally many U-Net calls; each image is compared with the one that its own sampler makes otherwise.

    python studies/systems/dpm_solver_v3/study.py --quick     # two minutes on two cores
    python studies/systems/dpm_solver_v3/study.py --medium    # ten minutes
"""

from __future__ import annotations

from typing import Any

import causalunet as cu
from causalunet.design import Leading, Sampler
from causalunet.script import Folder, drawn_across, run_script

MODELS = {"exact-gaussian": "Gaussian", "exact-optimal": "optimal denoiser", "shapes": "trained model"}
FIRST_SEED = 1000
"""Of the runs along which statistics are measured: other noise than that of the samples."""


def measured(folder: Folder, model: str, samples: int) -> cu.ModelStatistics:
    """Statistics of a model, one number for every channel; of an earlier call of this script if there was one."""
    path = folder.output / f"{folder.size}-{model}-statistics.npz"
    if path.exists():
        return cu.load_statistics(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    seeds = range(FIRST_SEED, FIRST_SEED + samples)
    found = cu.model_statistics(model, seeds=seeds, levels=25, probes=1, per="channel")
    found.save(path)
    return found


def samplers(steps: int, statistics: cu.ModelStatistics | None) -> dict[str, Sampler]:
    """One U-Net call a step, at the same timesteps."""
    given: dict[str, Any] = {"steps": steps, "guidance_scale": 1.0, "spacing": Leading()}
    return {
        "DDIM": cu.DDIM(**given),
        "DPM++ 2M": cu.DPMMultistep(**given),
        "v3 without": cu.DPMSolverV3(**given),
        "v3 with statistics": cu.DPMSolverV3(statistics=statistics, **given),
    }


def quick(folder: Folder) -> dict[str, cu.Study]:
    """8 steps, 8 open samples, statistics of 6."""
    return make_studies(folder, steps=8, samples=8, measured_on=6)


def medium(folder: Folder) -> dict[str, cu.Study]:
    """16 steps, 24 open samples, statistics of 24."""
    return make_studies(folder, steps=16, samples=24, measured_on=24)


def make_studies(folder: Folder, *, steps: int, samples: int, measured_on: int) -> dict[str, cu.Study]:
    """One for each model and sampler."""
    return {
        f"{model} {name}": cu.Study(
            name=f"dpm_solver_v3, {model}, {name}, {folder.size}",
            model=model,
            prompts=[cu.NO_PROMPT],
            seeds=range(samples),
            sampler=sampler,
            interventions=cu.sweep(cu.SkipSteps, start=range(steps - 1, 2, -1), length=2),
        )
        for model in MODELS
        for name, sampler in samplers(steps, measured(folder, model, measured_on)).items()
    }


if __name__ == "__main__":
    draw = drawn_across(
        MODELS,
        list(samplers(2, None)),
        {"skip_steps": "two steps skipped"},
        reference="DDIM",
        early=2,
        name="dpm_solver_v3",
    )
    run_script(__file__, __doc__ or "", {"quick": quick, "medium": medium}, draw)
