"""The study of the tutorials: what is lost if a part is missing for four steps of twenty?

python when.py     # about a minute on two cores; a second time nothing is left to run
"""

from __future__ import annotations

import causalunet as cu

STARTS = (19, 15, 11, 7, 4)
LENGTH = 4

study = cu.Study(
    name="when",
    prompts=[
        "a striped red triangle on the left, dark background",
        "a solid blue circle at the top, light background",
        "a striped green square on the right, light background",
    ],
    seeds=(0, 1),
    sampler=cu.DDPM(steps=20),
    interventions=[
        *cu.sweep(cu.SkipSteps, start=STARTS, length=LENGTH),
        *cu.sweep(cu.AblateSkip, top=2, start=STARTS, length=LENGTH),
        *cu.sweep(cu.AblateBlock, bottom=(2, 8), start=STARTS, length=LENGTH),
    ],
)

if __name__ == "__main__":
    study.run("results/when.zarr")
