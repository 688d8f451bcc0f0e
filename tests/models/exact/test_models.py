"""Exact denoisers as models: the kit, the formulas call by call, and edits whose effect is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import causalunet as cu
from causalunet.errors import ModelError, PromptError
from causalunet.identity import identity_of
from causalunet.models import DiffusionModel
from causalunet.models.exact import (
    ExactModel,
    ImageBank,
    Mixture,
    load_gaussian,
    load_local,
    load_mixture,
    load_optimal,
    load_wiener,
    local,
    optimal,
)
from causalunet.models.exact.gaussian import fitted
from causalunet.testing import check_model
from tests.models.exact.references import small_bank

BANK = small_bank()
LOADERS: dict[str, Callable[..., ExactModel]] = {
    "gaussian": load_gaussian,
    "mixture": load_mixture,
    "optimal": load_optimal,
    "wiener": load_wiener,
    "local": load_local,
}
PROMPTS = ("red", "", "circle", "dark background")
TIMESTEPS = torch.tensor([5.0, 300.0, 700.0, 990.0])


def expected(kind: str, model: ExactModel, x: torch.Tensor) -> np.ndarray:
    """E[x_0 | x_t] of every row by the function of its kind, over what its prompt leaves of the bank."""
    rows, images = [], torch.tensor(BANK.images).double().flatten(1)
    for row, prompt, timestep in zip(x, PROMPTS, TIMESTEPS, strict=True):
        share, left = float(model.alpha_bar[int(timestep)]), torch.from_numpy(BANK.matches([prompt])[0])
        at, data = row.double().flatten()[None], images[left]
        if kind == "gaussian":
            found = fitted(data, 64).denoise(at, share)
        elif kind == "wiener":
            found = fitted(data).denoise(at, share)
        elif kind == "optimal":
            found = optimal.denoise(at, data, share)
        elif kind == "local":
            found = local.denoise(at, data, share, local.mask_of(fitted(images), share))
        else:
            members = BANK.matches(["circle", "square", "triangle", "cross"])
            counts = (members & left.numpy()).sum(axis=1)
            fits = [fitted(images[torch.from_numpy(own)], 16) for own in members]
            classes = type(fits[0])(*(torch.stack(parts) for parts in zip(*fits, strict=True)))
            found = Mixture(torch.from_numpy(counts / counts.sum()).log(), classes).denoise(at, share)
        rows.append(found.reshape(BANK.image_shape).numpy())
    return np.stack(rows)


def estimate(model: ExactModel, x: torch.Tensor) -> np.ndarray:
    """What a call of the U-Net says of x_0."""
    found: np.ndarray = model.unet(x, TIMESTEPS, *model.encode(PROMPTS)).numpy()
    return found


@pytest.mark.parametrize("kind", LOADERS)
def test_a_call_gives_the_formula(kind: str) -> None:
    model = LOADERS[kind](BANK)
    x = torch.randn(4, *BANK.image_shape, generator=torch.Generator().manual_seed(1))
    assert estimate(model, x) == pytest.approx(expected(kind, model, x), abs=1e-6)


@pytest.mark.parametrize("kind", LOADERS)
def test_the_kit_passes_it(kind: str) -> None:
    model = LOADERS[kind](BANK)
    assert isinstance(model, DiffusionModel)
    check_model(model, ["a", "a background"])  # which leave all images: no weight is 1
    registered = cu.load_model(f"exact-{kind}", bank=BANK)
    assert (registered.name, registered.fingerprint) == (f"exact-{kind}", model.fingerprint)


@pytest.mark.parametrize("groups", [(4,), (1, 1), 3])
def test_the_kit_passes_few_branches(groups: object) -> None:
    check_model(load_gaussian(BANK, groups=groups), ["red", "circle"])


def test_components_are_what_they_say() -> None:
    """Cut by hand: the coefficients are projections, and a branch adds the part of its principal components."""
    model, data = load_gaussian(BANK, groups=(1, 2)), torch.tensor(BANK.images).double().flatten(1)
    found: dict[str, torch.Tensor] = {}
    for component in model.anatomy.components:
        model.unet.get_submodule(component.module).register_forward_hook(
            lambda _module, _given, output, name=component.name: found.update({name: output})
        )
    x = torch.randn(1, *BANK.image_shape, generator=torch.Generator().manual_seed(1))
    model.unet(x, torch.tensor([400.0]), *model.encode([""]))
    share, centred = model.alpha_bar[400], data - data.mean(0)
    values, vectors = np.linalg.eigh((centred.T @ centred / len(data)).numpy())
    for name, some in (("pc.0", [-1]), ("pc.1", [-2, -3])):
        along = vectors[:, some].T @ (x.double().flatten() - np.sqrt(share) * data.mean(0)).numpy()
        gains = np.sqrt(share) * values[some] / (1 - share + share * values[some])
        assert found[name].flatten().numpy() == pytest.approx(vectors[:, some] @ (gains * along), abs=1e-5)
        assert np.abs(along) == pytest.approx(
            found["coefficients"].flatten().abs().numpy()[[-1 - i for i in some]], abs=1e-4
        )
    assert found["mean"].flatten().numpy() == pytest.approx(data.mean(0).numpy(), abs=1e-6)


def prior(images: torch.Tensor, share: float) -> np.ndarray:
    """What a Wiener filter says of x_t = 0, but for what it lets through of that."""
    fit = fitted(images)
    covariance, pixels = fit.covariance.numpy(), images.shape[1]
    through = share * covariance @ np.linalg.inv(share * covariance + (1 - share) * np.eye(pixels))
    return fit.mean.numpy() - through @ fit.mean.numpy()


CUTS: dict[tuple[str, str], Callable[[torch.Tensor, float], np.ndarray]] = {
    ("optimal", "logits"): lambda images, share: images.mean(0).numpy(),  # equal weights
    ("optimal", "weights"): lambda images, share: np.zeros(images.shape[1]),
    ("local", "logits"): lambda images, share: images.mean(0).numpy(),
    ("wiener", "filter"): prior,
    ("gaussian", "coefficients"): lambda images, share: images.mean(0).numpy(),
}


@pytest.mark.parametrize(("kind", "component"), CUTS)
def test_cuts_have_the_effect_that_is_known(kind: str, component: str) -> None:
    model, images = LOADERS[kind](BANK), torch.tensor(BANK.images).double().flatten(1)
    module = model.unet.get_submodule(model.anatomy.by_name[component].module)
    module.register_forward_hook(lambda _module, _given, output: torch.zeros_like(output))
    x = torch.randn(4, *BANK.image_shape, generator=torch.Generator().manual_seed(1))
    for prompt, timestep, found in zip(PROMPTS, TIMESTEPS, estimate(model, x), strict=True):
        left = torch.from_numpy(BANK.matches([prompt])[0])
        known = CUTS[kind, component](images[left], float(model.alpha_bar[int(timestep)]))
        assert found.flatten() == pytest.approx(known, abs=1e-6)


def test_a_study_makes_images_of_the_bank(tmp_path: Path) -> None:
    """What the optimal denoiser ends in is one of the images that the prompt stands for."""
    study = cu.Study(
        name="bank",
        prompts=["red", "square"],
        sampler=cu.DDIM(steps=20, guidance_scale=1),
        interventions=[cu.Edit("logits", cu.Window(20, 20), label="no logits")],
    )
    results = study.run(tmp_path / "store", model=load_optimal(BANK), progress=False)
    image, shown = 2 * results.baseline.image.values - 1, BANK.matches(["red", "square"])
    for made, left in zip(image, shown, strict=True):
        assert np.abs(made - BANK.images[left]).max((1, 2, 3)).min() < 1e-4
    cut = 2 * results.outcomes.image.sel(intervention="no logits").values - 1
    for made, left in zip(cut, shown, strict=True):
        assert made == pytest.approx(BANK.images[left].mean(0), abs=1e-4)


def test_times_between_timesteps_are_between() -> None:
    unet = load_optimal(BANK).unet
    share = unet.share(torch.tensor([-1.0, 0.0, 10.0, 10.5, 11.0, 999.0, 1200.0]))
    at = load_optimal(BANK).alpha_bar
    assert share[[1, 2, 4, 5]].numpy() == pytest.approx(at[[0, 10, 11, 999]], rel=1e-9)
    assert at[11] < float(share[3]) < at[10]
    assert (float(share[0]), float(share[-1])) == (float(share[1]), float(share[-2]))


def test_prompts_are_conditions() -> None:
    model = load_optimal(BANK)
    model.check_prompts(["red", ""])
    with pytest.raises(PromptError, match="purple"):
        model.check_prompts(["purple circle"])
    assert torch.equal(*model.encode(["red circle"]), torch.from_numpy(BANK.matches(["red circle"])))


def test_what_changes_images_is_known_of() -> None:
    """A store goes on with the same bank, noise schedule and options, and with no others."""
    darker = ImageBank(BANK.images * 0.5, BANK.labels)
    models = [
        load_gaussian(BANK),
        load_gaussian(BANK, groups=(4, 4)),
        load_gaussian(darker),
        load_gaussian(BANK, alpha_bar=cu.models.exact.model.cosine_alpha_bar(500)),
        load_wiener(BANK),
        load_local(BANK),
        load_local(BANK, threshold=0.1),
        load_mixture(BANK),
        load_mixture(BANK, rank=2),
    ]
    assert len({model.fingerprint for model in models}) == len(models)
    assert identity_of(models[1], None, ["red"])["groups"] == [4, 4]
    assert identity_of(models[2], None, ["red"])["bank"] == darker.digest


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (lambda: load_gaussian(BANK, groups=()), "groups="),
        (lambda: load_gaussian(BANK, groups=(1, 0)), "integers of at least 1"),
        (lambda: load_gaussian(BANK, groups=(400, 40)), "at most 432"),
        (lambda: load_mixture(BANK, rank=0), "rank=0"),
        (lambda: load_mixture(BANK, classes=("circle", "square")), "matches 0 of them"),
        (lambda: load_mixture(BANK, classes=("circle", "square", "cross", "triangle", "red")), "matches 2 of them"),
        (lambda: load_local(BANK, threshold=2), "threshold=2"),
        (lambda: load_optimal(BANK.images), "is no ImageBank"),
        (lambda: load_wiener(BANK, device="nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_loaded(load: Callable[[], object], told: str) -> None:
    with pytest.raises(ModelError, match=told):
        load()


def test_verification_searches_and_shortcuts_run_on_them(tmp_path: Path) -> None:
    """Under guidance and partial prompts, with the identity of a store that a shortcut is bound to."""
    model, sampler = load_mixture(BANK, rank=4), cu.DDPM(steps=6, guidance_scale=2)
    cut = cu.Edit("expert.0", cu.Window(5, 2)) + cu.SkipSteps(cu.Window(2, 1))
    skips = cu.sweep(cu.SkipSteps, start=(5, 4, 3), length=2)
    options = {"name": "all", "prompts": ["red", "light background"], "sampler": sampler}
    study = cu.Study(interventions=[cut, *skips], **options)
    results = study.run(tmp_path / "store", model=model, progress=False)
    assert results.verify(deep=True, quiet=True)
    assert float(results.outcomes.ssim.sel(kind="null").min()) == 1
    found = cu.Study(interventions=skips, **options).search(tmp_path / "found", model=model, progress=False)
    first = cu.analysis.first_redundant_step(results, lasting=False, kind="skip_steps")
    assert found["step"].values == pytest.approx(first["step"].values, nan_ok=True)
    shortcut = cu.Shortcut(name="short", intervention=cut, sampler=sampler, identity=results.identity)
    images = shortcut.apply(options["prompts"], model=model)
    assert images == pytest.approx(results.outcomes.image.values[0], abs=1e-5)
    with pytest.raises(ModelError, match="rank"):
        shortcut.apply(options["prompts"], model=load_mixture(BANK, rank=5))
