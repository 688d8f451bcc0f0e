"""A sample begins at a start: the noise of a seed, or what somebody else's class says."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import causalunet as cu
from causalunet.design import Noise, Sample, Start
from causalunet.design.starts import STARTS
from causalunet.errors import ConformanceError, PluginError, SpecError
from causalunet.models.text_to_image import TextToImage
from causalunet.noise import initial_noise
from causalunet.schedule import Schedule
from causalunet.testing import check_start
from tests.execute.reference import draw

pytestmark = pytest.mark.usefixtures("guests")

MIRRORED = {"name": "guests.mirrored", "configuration": {"seed": 3}}
CUT = cu.AblateSkip(top=2, window=cu.Window(4, 2))


def study(*interventions: Any, **fields: Any) -> cu.Study:
    return cu.Study(
        name="s",
        prompts=["a red circle"],
        sampler=cu.DDPM(steps=4, guidance_scale=1),
        interventions=interventions or (CUT,),
        **fields,
    )


def test_noise_of_seeds_is_written_as_before() -> None:
    plain = study(seeds=[3, 5])
    assert study(starts=[Noise(3), Noise(5)]) == plain
    assert "starts" not in plain.to_json()
    assert plain.samples == (Sample("a red circle", 3), Sample("a red circle", Noise(5)))
    assert [sample.seed for sample in plain.samples] == [3, 5]


def test_starts_are_written_and_read() -> None:
    mirrored = Start.from_json(MIRRORED)
    assert type(mirrored).__module__ == "guests.mirrored"
    made = study(starts=[Noise(3), mirrored])
    assert cu.Study.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert made.digest != study(seeds=[3]).digest
    assert [sample.start for sample in made.samples] == [Noise(3), mirrored]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: study(seeds=[1], starts=[Noise(1)]), "seeds and starts; give one of them"),
        (lambda: study(starts=[]), "give one or more starts"),
        (lambda: study(starts=[1, 2]), "give one or more starts, such as Noise"),
        (lambda: study(starts=[Start.from_json(MIRRORED)] * 2), "stands twice"),
        (lambda: Noise(-1), r"Noise got seed=-1; it must be an integer of at least 0"),
        (lambda: Start.from_json({"name": "no", "configuration": {}}), "Start 'no' is not known; known: .*noise"),
    ],
)
def test_what_is_no_start_is_told(build: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        build()


def by_hand(model: TextToImage, x: torch.Tensor, seed: int) -> np.ndarray:
    """The uncut run from a state, with the noise of a seed."""
    schedule = Schedule.spaced(model.alpha_bar, 4)
    for step in (4, 3, 2, 1):
        a, b = schedule.alpha_bar(step), schedule.alpha_bar(step - 1)
        with torch.no_grad():
            times = torch.tensor([float(schedule.timestep(step))])
            eps, fraction = model.unet(x, times, *model.encode(["a red circle"])).chunk(2, dim=1)
        x0 = ((x - (1 - a) ** 0.5 * eps) / a**0.5).clamp(-1, 1)
        noise = torch.from_numpy(
            np.random.Generator(np.random.Philox(key=[seed, step])).standard_normal(x[0].shape, "f4")
        )
        x = draw(x, x0, fraction, noise[None], a=a, b=b)
    return np.asarray((x[0].clamp(-1, 1) + 1) / 2)


@pytest.mark.thorough
def test_a_study_from_a_guests_start(tiny_model: TextToImage, tmp_path: Path) -> None:
    """It runs from there, is stored, grows, and is verified; effects are of the same kind as those of any sample."""
    path, starts = tmp_path / "s.zarr", [Noise(3), Start.from_json(MIRRORED)]
    study(starts=starts[:1]).run(path, model=tiny_model, progress=False)
    results = study(starts=starts).run(path, model=tiny_model, progress=False)
    first = results.baseline.x_t.sel(step=4)
    np.testing.assert_array_equal(first[0], initial_noise([3], tiny_model.image_shape)[0])
    np.testing.assert_array_equal(first[1], -first[0])
    np.testing.assert_array_equal(results.baseline.seed, [3, 3])
    assert [json.loads(text)["name"] for text in results.baseline.sample_start.values] == ["noise", "guests.mirrored"]
    expected = by_hand(tiny_model, torch.from_numpy(first.values[1:]), 3)
    np.testing.assert_allclose(results.baseline.image[1], expected, rtol=0, atol=1e-4)
    mse = results.outcomes.mse.sel(kind="ablate_skip").values.ravel()
    assert float(mse.min()) > 1e-4
    assert float(np.ptp(mse)) > 1e-5, "the mirrored start is another sample, with an effect of its own"
    assert cu.analysis.effects(results).sizes["intervention"] == 2
    found = results.verify(quiet=True, deep=True)
    assert found.exit_code == 0, found.verdict
    more = replace(study(starts=starts), interventions=(CUT, cu.SkipSteps(cu.Window(2, 1))))
    assert more.run(path, model=tiny_model, progress=False).verify(quiet=True).exit_code == 0
    with STARTS.scoped(**{"guests.mirrored": None}):
        sys.modules["guests.mirrored"] = None  # type: ignore[assignment]
        found = cu.open_results(path).verify(quiet=True)
        assert found.exit_code == 4
        assert "the start 'guests.mirrored'" in found.verdict
        with pytest.raises(PluginError, match=r"guests\.mirrored"):
            study(seeds=[3]).run(path, model=tiny_model, progress=False)


def own(**members: Any) -> Any:
    kind: Any = type("Own", (Start,), {"name": "own", **members})
    return dataclass(frozen=True)(kind)(3)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (lambda self, shape: np.zeros(shape), r"state: The start 'own' gave \(3, 8, 8\) float64"),
        (lambda self, shape: np.full(shape, np.inf, np.float32), "state: .*not finite"),
        (
            lambda self, shape: np.random.default_rng().standard_normal(shape, "f4"),
            "repeatable: state\\(\\) gave something else",
        ),
        (lambda self, shape: torch.zeros(shape), "state: .*gave a Tensor"),
    ],
)
def test_the_kit_tells_what_is_wrong_with_a_start(state: Any, said: str) -> None:
    with pytest.raises(ConformanceError, match=said):
        check_start(own(state=state))


def test_the_kit_passes_starts() -> None:
    assert check_start(Noise(3))
    assert check_start(Start.from_json(MIRRORED))
    with pytest.raises(SpecError, match="is no start"):
        check_start(3)  # type: ignore[arg-type]
