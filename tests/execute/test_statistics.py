"""Statistics of a model: measured where they are known, and refused where they are another model's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import causalunet as cu
from causalunet.design import CFG, Karras, Leading
from causalunet.design.samplers import statistics as known
from causalunet.errors import SpecError
from causalunet.execute.measure.statistics import _regressed
from causalunet.models.exact import ExactModel, ImageBank, load_gaussian, load_optimal
from causalunet.models.text_to_image import TextToImage

SPACING = Leading()


def bank(size: int = 2) -> ImageBank:
    images = np.random.default_rng(0).uniform(size=(6, 3, size, size)).astype(np.float32)
    return ImageBank(images, [f"image {number}" for number in range(6)])


@pytest.fixture(scope="module")
def model() -> ExactModel:
    return load_gaussian(bank(), groups=5)


@pytest.fixture(scope="module")
def larger() -> ExactModel:
    """Of images that can be compared."""
    return load_gaussian(bank(12), groups=5)


class Without:
    """A model that does not say its slopes."""

    def __init__(self, model: ExactModel) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        if name == "slopes":
            raise AttributeError(name)
        return getattr(self._model, name)


def study(sampler: Any, prompt: str = cu.NO_PROMPT) -> cu.Study:
    return cu.Study(
        name="s", prompts=[prompt], sampler=sampler, interventions=[cu.SkipSteps(cu.Window(3, 1))], seeds=(0,)
    )


def test_closed_form_is_the_diagonal_that_signs_find(model: ExactModel) -> None:
    """By autograd, over many signs, and by hand from the covariance."""
    given: dict[str, Any] = {"seeds": range(2), "levels": 5}
    exact = cu.model_statistics(model, **given)
    signs = cu.model_statistics(Without(model), probes=400, **given)
    np.testing.assert_allclose(signs.linear, exact.linear, atol=0.05)
    assert np.abs(signs.linear[-1] - exact.linear[-1]).max() > 1e-6, "they are one"
    share = 1 / (1 + np.exp(-2 * exact.half_log_snr[-1]))
    covariance = model.gaussian().covariance.numpy()
    gain = covariance @ np.linalg.inv(share * covariance + (1 - share) * np.eye(12))
    np.testing.assert_allclose(exact.linear[-1].ravel(), 1 - share * np.diag(gain), rtol=1e-6)


def test_statistics_of_guided_predictions_are_their_sum(model: ExactModel) -> None:
    """Guidance of strength w weighs slopes as it weighs predictions, of a prompt and of none."""
    given: dict[str, Any] = {"seeds": (0,), "levels": 4, "probes": 64}
    plain = [cu.model_statistics(Without(model), prompts=[prompt], **given) for prompt in ("image 1", cu.NO_PROMPT)]
    found = cu.model_statistics(model, prompts=["image 1"], guidance=CFG(2), **given)
    np.testing.assert_allclose(found.linear, 2 * plain[0].linear - plain[1].linear, atol=1e-5)
    assert found.guidance == CFG(2).to_json()


def test_change_goes_with_f_as_a_line_through_points_says() -> None:
    draw = np.random.default_rng(0)
    f, places = draw.standard_normal((6, 9, 1, 2, 2)).astype(np.float32), np.sort(draw.uniform(0, 2, 6))
    change = np.gradient(f.astype(np.float64), places, axis=0, edge_order=2)
    scaling, bias = _regressed(f, places, pooled=False)
    line = np.polyfit(f[3, :, 0, 1, 0].astype(np.float64), change[3, :, 0, 1, 0], 1)
    np.testing.assert_allclose([scaling[3, 0, 1, 0], bias[3, 0, 1, 0]], line, rtol=1e-6)
    together = np.polyfit(f[3, :, 0].astype(np.float64).ravel(), change[3, :, 0].ravel(), 1)
    pooled = _regressed(f, places, pooled=True)
    np.testing.assert_allclose([one[3].item() for one in pooled], together, rtol=1e-6)


def test_a_network_has_statistics_and_one_number_per_channel(tiny_model: TextToImage) -> None:
    given: dict[str, Any] = {"prompts": ["a red circle"], "seeds": range(3), "levels": 4, "probes": 1}
    each = cu.model_statistics(tiny_model, **given)
    pooled = cu.model_statistics(tiny_model, per="channel", batch=2, **given)
    assert each.linear.shape == (4, *tiny_model.image_shape)
    np.testing.assert_allclose(pooled.linear[..., 0, 0], each.linear.mean((-2, -1)), rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_a_study_with_statistics_runs_and_goes_on(larger: ExactModel, tmp_path: Path) -> None:
    """Named by digest: the same study elsewhere is the same study, and is verified where the statistics are known."""
    made = cu.model_statistics(larger, seeds=range(4), levels=21)
    sampler = cu.DPMSolverV3(steps=6, guidance_scale=1, spacing=SPACING, statistics=made)
    results = study(sampler).run(tmp_path / "s.zarr", model=larger, progress=False)
    assert results.verify(quiet=True).exit_code == 0
    plain = study(replace(sampler, statistics=None)).run(tmp_path / "plain.zarr", model=larger, progress=False)
    assert np.abs(plain.baseline.image.values - results.baseline.image.values).max() > 1e-4
    file = made.save(tmp_path)
    known._KNOWN.clear()
    again = cu.open_results(tmp_path / "s.zarr")
    found = again.verify(quiet=True)
    assert found.exit_code == 4
    assert f"not checkable here: the statistics '{made.digest}' of a model" in found.verdict
    with pytest.raises(SpecError, match=r"No statistics with the digest .*load_statistics\(path\)"):
        study(sampler).plan(larger, calibrate=False)
    cu.load_statistics(file)
    assert study(sampler).plan(larger, calibrate=False).samples == 1


def test_statistics_of_something_else_are_refused_when_planned(larger: ExactModel) -> None:
    made = cu.model_statistics(larger, seeds=(0,), levels=5)
    sampler = cu.DPMSolverV3(steps=6, guidance_scale=1, statistics=made)
    assert study(sampler).plan(larger, calibrate=False).samples == 1
    with pytest.raises(SpecError, match=f"are of the model {larger.fingerprint}, and the study's model"):
        study(sampler).plan(load_optimal(bank(12)), calibrate=False)
    with pytest.raises(SpecError, match=r"measured under the guidance .*'none'"):
        study(replace(sampler, guidance_scale=2.0), "image 1").plan(larger, calibrate=False)
    names = ("half_log_snr", "linear", "scaling", "bias")
    inner: dict[str, Any] = {name: getattr(made, name)[1:-1] for name in names}
    short = replace(made, **inner)
    with pytest.raises(SpecError, match="Give the sampler a spacing within"):
        study(replace(sampler, statistics=short)).plan(larger, calibrate=False)
    within = replace(sampler, statistics=short, spacing=Karras(sigma_min=0.5, sigma_max=20))
    assert study(within).plan(larger, calibrate=False).samples == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"levels": 2}, "got levels=2; it must be an integer of at least 3"),
        ({"probes": 0}, "got probes=0"),
        ({"seeds": ()}, "got no samples"),
        ({"per": "image"}, "it is 'pixel' or 'channel'"),
    ],
)
def test_what_cannot_be_measured(given: dict[str, Any], said: str, model: ExactModel) -> None:
    with pytest.raises(SpecError, match=said):
        cu.model_statistics(model, **given)
