"""Word maps as the study of DAAM makes them: against a loop by hand over what was recorded, and numpy."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr


@pytest.fixture(scope="module")
def study() -> Any:
    path = Path(__file__).parents[1] / "studies" / "systems" / "daam" / "study.py"
    spec = importlib.util.spec_from_file_location("daam", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_likeness_is_the_correlation_of_pixels(study: Any) -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 3, 5, 6))
    dims = ("sample", "y", "x")
    found = study.likeness(xr.DataArray(one, dims=dims), xr.DataArray(other, dims=dims))
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_word_maps_are_sums_of_each_prompts_own_columns(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two places of unlike size; the words stand elsewhere in the second prompt."""
    words = ("a red circle above a blue square", "a blue square below circle")
    where = {"circle": (2, 4), "square": (6, 2)}
    rng, names = np.random.default_rng(0), ("down.0.joint.maps", "mid.joint.maps")
    maps = {name: rng.random((2, 3, 2, n, n, 9)).astype("float32") for name, n in zip(names, (8, 4), strict=True)}

    def spelled(prompt: str) -> list[Any]:
        return [SimpleNamespace(numbers=lambda word: (where[word][words.index(prompt)],))]

    model = SimpleNamespace(spelled=spelled, anatomy=SimpleNamespace(places=(*names, "mid.joint.heads")))
    monkeypatch.setattr(study.cu, "load_model", lambda name: model)
    dims = ("sample", "step", "head", "y", "x", "token")
    tree = {f"activations/{name}": SimpleNamespace(baseline=xr.DataArray(one, dims=dims)) for name, one in maps.items()}

    class Results(dict[str, Any]):
        baseline = xr.Dataset(coords={"prompt": ("sample", list(words))})

    found = study.word_maps(Results(tree), 16)
    for word, sample in [("circle", 0), ("circle", 1), ("square", 0), ("square", 1)]:
        expected = np.zeros((16, 16))
        for one in maps.values():
            summed = sum(one[sample, step, head, ..., where[word][sample]] for step in range(3) for head in range(2))
            grown = torch.nn.functional.interpolate(torch.tensor(summed)[None, None], (16, 16), mode="bicubic")[0, 0]
            expected += np.maximum(grown.numpy(), 0)
        np.testing.assert_allclose(found.sel(word=word).isel(sample=sample), expected, rtol=1e-5)


def test_every_prompt_has_both_words_and_their_colours(study: Any) -> None:
    for prompt in study.PROMPTS:
        words = prompt.split()
        assert all(words.count(word) == 1 and words[words.index(word) - 1] in study.COLOURS for word in study.WORDS)
