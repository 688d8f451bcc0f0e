"""The measures of the study of Prompt-to-Prompt, against loops by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr


@pytest.fixture(scope="module")
def study() -> Any:
    path = Path(__file__).parents[1] / "studies" / "systems" / "prompt_to_prompt" / "study.py"
    spec = importlib.util.spec_from_file_location("prompt_to_prompt", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_images_are_compared_with_those_of_the_same_noise(study: Any) -> None:
    values = np.random.default_rng(0).random((3, 3, 2, 3, 4, 5))
    values[1, 1, 0, :, 0, :2] = np.array([0.1, 0.9, 0.0])[:, None]
    dims = ("arm", "prompt", "seed", "channel", "y", "x")
    images = xr.DataArray(
        values, dims=dims, coords={"arm": ["none", "a", "b"], "prompt": ["original", "green", "yellow"]}
    )
    found = study.compared(images)
    for arm in range(3):
        for seed in range(2):
            changed = ((values[arm, 0, seed] - values[0, 0, seed]) ** 2).mean()
            assert float(found["of the original prompt, changed by"][arm, seed]) == pytest.approx(changed)
            for prompt in (1, 2):
                one = found.isel(arm=arm, seed=seed, prompt=prompt - 1)
                image = values[arm, prompt, seed]
                original, own = (((image - values[0, of, seed]) ** 2).mean() for of in (0, prompt))
                assert float(one["from the original's image"]) == pytest.approx(original)
                assert float(one["from the new prompt's image"]) == pytest.approx(own)
                off = np.abs(image - np.array(study.COLOURS[prompt - 1])[:, None, None]).mean(0)
                assert int(one["pixels of the new colour"]) == (off < study.NEAR).sum()


def test_swaps_differ_in_one_word(study: Any) -> None:
    """So that tokens of all prompts have the same numbers."""
    for swap in study.SWAPS:
        pairs = list(zip(swap.split(), study.SOURCE.split(), strict=True))
        assert sum(one != other for one, other in pairs) == 1
