"""The studies of the tutorials: what is lost if a part is missing for 4 of 20 steps?

Once on open samples, which have no prompt, and once on prompts that say everything.

python when.py     # two minutes on two cores; a second time nothing is left to run
"""

from __future__ import annotations

import causalunet as cu

STARTS = (19, 15, 11, 7, 4)
LENGTH = 4

interventions = (
    *cu.sweep(cu.SkipSteps, start=STARTS, length=LENGTH),
    *cu.sweep(cu.AblateSkip, top=2, start=STARTS, length=LENGTH),
    *cu.sweep(cu.AblateBlock, bottom=(2, 8), start=STARTS, length=LENGTH),
)
open_study = cu.Study(
    name="when, open",
    prompts=(cu.NO_PROMPT,),
    seeds=tuple(range(12)),
    sampler=cu.DDPM(steps=20, guidance_scale=1),
    interventions=interventions,
)
study = cu.Study(
    name="when",
    prompts=(
        "a striped red triangle on the left, dark background",
        "a solid blue circle at the top, light background",
        "a striped green square on the right, light background",
    ),
    seeds=(0, 1),
    sampler=cu.DDPM(steps=20),
    interventions=interventions,
)

if __name__ == "__main__":
    open_study.run("results/open.zarr")
    study.run("results/when.zarr")
