"""What every run has to keep to, under processes of every kind; on exact models, whose truth is known."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import causalunet as cu
from causalunet.design.samplers import SAMPLERS
from causalunet.errors import ModelError, SpecError
from causalunet.execute import generate
from causalunet.models.exact import ExactModel, ImageBank, load_gaussian, load_optimal, load_restoration
from causalunet.models.exact.restoration import RestorationModel
from causalunet.prediction import Prediction
from causalunet.process import AddedImage, AddedResidual, AroundResidual, Bridge, Process, Pyramid, ShortestPath
from causalunet.schedule import TrainingSchedule, cosine_alpha_bar
from causalunet.testing import check_model
from tests.analysis.synthetic import edited

STEPS = 4
TIMES = np.arange(1, 33) / 33
PLAIN = "variance-preserving"
BRIDGE, ADDED = Bridge(spread=0.8), AddedResidual(noise=1.0)
PYRAMID = Pyramid(signals=(0.9, 0.7), noises=(0.4, 1.5))


def bank(apart: float = 0.02) -> ImageBank:
    """Images that are near each other, so that a run ends between them."""
    rng = np.random.default_rng(0)
    images = 0.4 * rng.uniform(-1, 1, (3, 12, 12)) + apart * rng.uniform(-1, 1, (6, 3, 12, 12))
    return ImageBank(images, [f"image {number}" for number in range(6)])


def restoring(process: Process, alpha_bar: Any) -> RestorationModel:
    return load_restoration(bank(0.05), noise=0.8, process=process, alpha_bar=alpha_bar)


MODELS: dict[str, Callable[[], ExactModel]] = {
    "around-residual": lambda: restoring(AroundResidual(), np.linspace(0.97, 0.25, 20)),
    "added-residual": lambda: restoring(ADDED, 1 / (1 + np.linspace(0.15, 1, 20) ** 2)),
    "added-image": lambda: restoring(AddedImage(), np.linspace(0.97, 0.1, 20)),
    "bridge": lambda: restoring(BRIDGE, np.array([BRIDGE.alpha_bar(t) for t in np.linspace(0.05, 0.97, 20)])),
    "shortest-path": lambda: load_optimal(bank(), process=ShortestPath(), alpha_bar=1 - TIMES),
    "pyramid": lambda: load_optimal(bank(), process=PYRAMID, alpha_bar=PYRAMID.alpha_bars),
}
STEPPED = {"pyramid": 2}


FEW = ("around-residual", "pyramid")
"""Whose runs are made every time."""


def several(*names: str) -> list[Any]:
    return [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in names]


@pytest.fixture(scope="module", params=several(*MODELS))
def model(request: pytest.FixtureRequest) -> ExactModel:
    return MODELS[request.param]()


def samples(model: ExactModel) -> dict[str, Any]:
    """Two."""
    if model.process.shifted:
        return {"prompts": ["image 1", "image 4"]}
    return {"prompts": [cu.NO_PROMPT], "seeds": (0, 1)}


def of_steps(sampler: type, model: ExactModel) -> Any:
    return sampler(steps=STEPPED.get(model.process.name, STEPS), guidance_scale=1)


MORE = [pytest.param(kind, marks=pytest.mark.slow) for kind in (cu.DPMMultistep, cu.Heun, cu.PNDM)]


@pytest.mark.thorough
@pytest.mark.parametrize("sampler", [cu.DDPM, *MORE])
def test_runs_keep_to_the_laws(model: ExactModel, sampler: type, tmp_path: Path) -> None:
    """Null runs are the baseline, forks are runs from noise, baselines are made again, and no batch is seen."""
    one = of_steps(cu.DDIM if model.process.resized and sampler is not cu.DDPM else sampler, model)
    last = cu.Window(1, 1)
    early, late = cu.Edit("weights", cu.Window(2, 1), cu.Scale(0.5)), cu.Edit("weights", last, cu.Scale(0.5))

    def study_of(*interventions: Any) -> cu.Study:
        return cu.Study(name="s", **samples(model), sampler=one, interventions=[*interventions, cu.Null(last)])

    study_of(early).run(tmp_path / "s.zarr", model=model, progress=False)
    grown = study_of(early, late).run(tmp_path / "s.zarr", model=model, progress=False)
    assert float(grown.audit.null_difference.max()) == 0
    assert float(grown.audit.drift.max()) < 1e-5
    images = grown.outcomes.image
    whole = study_of(early, late).run(tmp_path / "whole.zarr", model=model, progress=False)
    np.testing.assert_array_equal(images, whole.outcomes.image.sel(intervention=images.intervention.values))
    for item in (early, late):
        changed = images.sel(intervention=item.label).values - grown.baseline.image.values
        assert np.abs(changed).max() > 1e-5, "the case tests nothing"
    found = grown.verify(quiet=True, deep=True)
    assert found.exit_code == 0, found.verdict
    alone = generate(**samples(model), model=model, sampler=one, traced=False, memory=1)
    np.testing.assert_allclose(grown.baseline.image, alone, rtol=0, atol=1e-5)


def test_skipped_steps_are_a_run_without_them(model: ExactModel) -> None:
    window, steps = (cu.Window(1, 1), 1) if model.process.resized else (cu.Window(3, 2), 2)
    one, given = of_steps(cu.DDIM, model), {"model": model, "traced": False, **samples(model)}
    found = generate(**given, sampler=one, intervention=cu.SkipSteps(window))
    times = one.schedule(TrainingSchedule(model.alpha_bar, model.process, from_noise=True)).timesteps[::-1]
    left = tuple(time for step, time in zip(range(one.steps, 0, -1), times, strict=True) if step not in set(window))
    thinned = cu.DDIM(steps=steps, guidance_scale=1, spacing=cu.design.Given(timesteps=left))
    np.testing.assert_allclose(found, generate(**given, sampler=thinned), rtol=0, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("name", several("shortest-path", "added-residual", "bridge", "pyramid"))
def test_what_does_not_follow_is_told(name: str, tmp_path: Path) -> None:
    """States, the image that they are shifted by, and noise that is not of the seed."""
    model, path = MODELS[name](), tmp_path / "s.zarr"
    null, sampler = cu.Null(cu.Window(1, 1)), of_steps(cu.DDPM, model)
    study = cu.Study(name="s", **samples(model), sampler=sampler, interventions=[null])
    results = study.run(path, model=model, progress=False)
    assert ("given" in results.baseline) == model.process.shifted
    told: set[str] = set()
    for variable in ("x_t", "eps", "x0_hat", *(("given",) if model.process.shifted else ())):
        copy, at = tmp_path / f"{variable}.zarr", (1,) if variable == "given" else (1, -1)
        shutil.copytree(path, copy)
        with edited(copy) as root:
            array: Any = root[f"baseline/{variable}"]
            array[at] = np.asarray(array[at]) + np.float32(0.01)
        found = cu.open_results(copy).verify(quiet=True, deep=True)
        wrong = {finding.check: finding.problems for finding in found.findings if finding.problems}
        assert wrong.get("baselines"), f"{variable} of {name}: {found.verdict}"
        told |= {*wrong["baselines"]}
    assert all(problem.startswith("sample 1: ") for problem in told)


@pytest.mark.parametrize("name", ["around-residual", "pyramid"])
def test_models_are_what_studies_rely_on(name: str) -> None:
    assert check_model(MODELS[name](), ["image 1", "image 4"], places=("weights",))


def test_the_optimal_denoiser_is_that_of_densities_of_pixels() -> None:
    """Under noise of coordinates, which is correlated among pixels."""
    model, level = MODELS["shortest-path"](), 12
    process, share = model.process, float(model.alpha_bar[level])
    x = np.random.default_rng(3).standard_normal((1, 3, 12, 12))
    basis = np.kron(process.basis(12), process.basis(12))
    shares = process.shares(share, 12, 12)[process.bands(12, 12).ravel()]
    signal, covariance = basis.T @ np.diag(np.sqrt(shares)) @ basis, basis.T @ np.diag(1 - shares) @ basis
    images = model.data.images.astype(np.float64)
    logs = [
        sum(
            multivariate_normal.logpdf(x[0, channel].ravel(), signal @ image[channel].ravel(), covariance)
            for channel in range(3)
        )
        for image in images
    ]
    expected = np.tensordot(np.exp(logs - logsumexp(logs)), images, axes=1)
    found = model.unet(torch.from_numpy(x), torch.tensor([float(level)]), *model.encode([""]))
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=1e-5)
    assert np.exp(logs - logsumexp(logs)).max() < 0.999, "the case tests nothing"


@pytest.mark.parametrize("name", ["around-residual", "added-residual", "added-image", "bridge"])
def test_the_restoring_denoiser_is_bayes_rule(name: str) -> None:
    model: Any = MODELS[name]()
    (u,), images = model.damaged(["image 2"]).astype(np.float64), model.data.images.astype(np.float64)
    time = len(model.alpha_bar) // 2
    a, b, c = model.process.weights(float(model.alpha_bar[time]))
    means = images.reshape(6, 3, 3, 4, 3, 4).mean((3, 5)).repeat(4, axis=2).repeat(4, axis=3)
    x = a * images[3] + b * u + c * np.random.default_rng(1).standard_normal(u.shape)
    logs = -np.square(x - a * images - b * u).sum((1, 2, 3)) / (2 * c**2)
    logs -= np.square(u - means).sum((1, 2, 3)) / (2 * 0.8**2)
    weights = np.exp(logs - logsumexp(logs))
    found = model.unet(torch.from_numpy(x[None]), torch.tensor([float(time)]), *model.encode(["image 2"]))
    np.testing.assert_allclose(found[0].numpy(), np.tensordot(weights, images, axes=1), rtol=0, atol=1e-5)
    assert weights.max() < 0.999, "the case tests nothing"


def planned(model: Any, sampler: Any, **fields: Any) -> None:
    given = samples(model) if isinstance(model, RestorationModel) else {"prompts": [cu.NO_PROMPT]}
    items = [cu.Null(cu.Window(1, 1))]
    cu.Study(name="s", **given, sampler=sampler, interventions=items, **fields).plan(model, calibrate=False)


def test_samplers_that_do_not_fit_are_told_when_planned() -> None:
    spd, pyramid = MODELS["shortest-path"](), MODELS["pyramid"]()
    with pytest.raises(SpecError, match=r"'dpmpp_singlestep' asks the U-Net where the ratio .* at different times"):
        planned(spd, of_steps(cu.DPMSinglestep, spd))
    with pytest.raises(SpecError, match=r"'heun' divides by the signal.*Samplers that work there: ddim, ddpm, euler"):
        planned(pyramid, of_steps(cu.Heun, pyramid))
    with pytest.raises(SpecError, match=r"'flow_heun' takes several U-Net calls a step.*different sizes"):
        planned(pyramid, of_steps(cu.design.samplers.FlowHeun, pyramid))
    with pytest.raises(SpecError, match=r"records whole activations \(average\), whose size changes"):
        planned(pyramid, of_steps(cu.DDPM, pyramid), record=cu.Record(activations=("average",)))
    with SAMPLERS.scoped():

        @dataclass(frozen=True, slots=True, kw_only=True)
        class Normed(cu.DDIM):
            name: ClassVar[str] = "normed"
            elementwise: ClassVar[bool] = False

        with pytest.raises(SpecError, match=r"'normed' looks at all numbers of a state together.*there: ddim, ddpm"):
            planned(spd, of_steps(Normed, spd))
        restoring = MODELS["around-residual"]()
        planned(restoring, of_steps(Normed, restoring))


def test_models_that_do_not_fit_are_told_when_planned() -> None:
    @dataclass(frozen=True, eq=False)
    class Saying(ExactModel):
        prediction: Any = None
        process: Any = None

    def saying(of: str, process: Process, **more: Any) -> Saying:
        plain = load_gaussian(bank(), groups=2, alpha_bar=cosine_alpha_bar()[:900])
        return Saying(plain.unet, plain.data, plain.alpha_bar, prediction=Prediction(of, **more), process=process)

    one = cu.DDIM(steps=3, guidance_scale=1)
    with pytest.raises(ModelError, match=r"predicts the resnoise, of a given image.*'variance-preserving' has none"):
        planned(saying("resnoise", Process()), one)
    with pytest.raises(ModelError, match=r"no method given\(\*context\)"):
        planned(saying("x0", AroundResidual()), one)
    with pytest.raises(ModelError, match=r"noise and variance of pixels.*noise of coordinates"):
        planned(saying("eps", ShortestPath(), variance=True), one)
    with pytest.raises(ModelError, match="not known in closed form under the process 'shortest-path"):
        load_gaussian(bank(), process=ShortestPath())
    with pytest.raises(ModelError, match="load_restoration"):
        load_optimal(bank(), process=AroundResidual())
    with pytest.raises(ModelError, match="damage='burnt': there are coarse, masked"):
        load_restoration(bank(), damage="burnt")
    with pytest.raises(ModelError, match="noise=0: give a finite number above 0"):
        load_restoration(bank(), noise=0)


@pytest.mark.parametrize("process", ["variance-exploding", "straight"])
def test_exact_models_are_given_states_of_any_scale(process: str) -> None:
    one, share = cu.DDIM(steps=6, guidance_scale=1), cosine_alpha_bar()[:900]
    models = [load_gaussian(bank(), groups=3, alpha_bar=share, process=Process(of)) for of in (PLAIN, process)]
    images = [generate([cu.NO_PROMPT], [0], model=model, sampler=one, traced=False) for model in models]
    np.testing.assert_allclose(images[0], images[1], rtol=0, atol=1e-5)
    assert models[0].fingerprint != models[1].fingerprint
