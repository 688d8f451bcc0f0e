"""Networks that are told sigma, EDM's and k-diffusion's: beside their own samplers, and hooks in their own forward."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import causalunet as cu
from causalunet.errors import ModelError, SpecError
from causalunet.execute.walk.generate import generate
from causalunet.models import from_unet
from causalunet.models.layouts.noise_levels import NoiseLevelModel
from causalunet.noise import initial_noise, step_noise
from causalunet.testing import check_model
from tests.models.layout_cuts import Spot, compare_cuts, cut, tensors_of
from tests.models.layout_stand_ins import Denoiser, Preconditioned, TablePreconditioned
from tests.models.stand_ins import randomised

STEPS, SEED = 6, 3
FEW: dict[str, Any] = {"channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8]}


def official(kind: str, **more: Any) -> nn.Module:
    networks = pytest.importorskip("training.networks")
    if not hasattr(networks, "EDMPrecond"):
        pytest.skip("another package is called training")
    width = 64 if more.get("model_type", "") == "DhariwalUNet" or kind == "iDDPMPrecond" else 16
    return randomised(getattr(networks, kind)(16, 3, model_channels=width, **FEW, **more))


def k_diffusion() -> nn.Module:
    library = pytest.importorskip("k_diffusion")
    inner = library.models.ImageDenoiserModelV1(3, 32, (2, 2, 1), (16, 16, 32), (False, True, True))
    return library.Denoiser(randomised(inner), sigma_data=0.5)


NCSN: dict[str, Any] = {"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2}
NETWORKS: dict[str, Callable[[], Any]] = {
    "EDM": Preconditioned,
    "EDM, classes": lambda: Preconditioned(classes=3),
    "EDM, residual": lambda: Preconditioned(residual=True),
    "table": TablePreconditioned,
    "k-diffusion": Denoiser,
    "official EDM, DDPM++": lambda: official("EDMPrecond", model_type="SongUNet"),
    "official EDM, ADM": lambda: official("EDMPrecond", model_type="DhariwalUNet", label_dim=3, label_dropout=0.1),
    "official VP": lambda: official("VPPrecond"),
    "official VE, NCSN++": lambda: official("VEPrecond", resample_filter=[1, 3, 3, 1], **NCSN),
    "official VE, skips": lambda: official("VEPrecond", encoder_type="skip", decoder_type="skip"),
    "official iDDPM": lambda: official("iDDPMPrecond"),
    "official k-diffusion": k_diffusion,
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Any:
    return NETWORKS[request.param]().eval()


def model_of(network: Any, **more: Any) -> NoiseLevelModel:
    size = {} if hasattr(network, "img_resolution") else {"image_size": 16}
    model = from_unet(network, name="levels", **{**size, **more})
    assert isinstance(model, NoiseLevelModel)
    return model


def label_of(network: Any, model: NoiseLevelModel, prompt: str) -> dict[str, Tensor]:
    classes = getattr(network, "label_dim", 0)
    return {"class_labels": torch.eye(classes)[[int(prompt)]]} if classes else {}


def start(sigma: float) -> Tensor:
    """Where runs begin: their states are of variance 1 + sigma^2; ``edm_sampler`` takes sigma^2, so much less."""
    return torch.from_numpy(initial_noise([SEED], (3, 16, 16))) * math.sqrt(1 + sigma**2)


def by_hand(network: Any, sigmas: tuple[float, float], prompt: dict[str, Tensor], **churn: Any) -> np.ndarray:
    """Karras et al. 2022, algorithm 2, in double precision, from our first state and with our noise."""
    rounded = getattr(network, "round_sigma", torch.as_tensor)
    s_churn, noise, most = churn.get("churn", 0.0), churn.get("noise", 1.0), churn.get("churn_max", math.inf)
    levels = torch.linspace(sigmas[1] ** (1 / 7), sigmas[0] ** (1 / 7), STEPS, dtype=torch.float64) ** 7
    levels = torch.cat([rounded(levels), torch.zeros(1, dtype=torch.float64)])
    least, gamma = churn.get("churn_min", 0.0), min(s_churn / STEPS, math.sqrt(2) - 1)
    x = start(float(levels[0])).double()
    for i in range(STEPS):
        churned = least <= levels[i] <= most and gamma > 0
        raised = rounded(levels[i] * (1 + gamma)) if churned else levels[i]
        if churned:
            # drawn on the step that ended here: the package's x_t are at raised levels
            drawn = torch.from_numpy(step_noise([SEED], STEPS - i + 1, (3, 16, 16))).double()
            x = x + (raised**2 - levels[i] ** 2).sqrt() * noise * drawn
        with torch.no_grad():
            slope = (x - network(x.float(), raised.reshape(1).float(), **prompt).double()) / raised
            after, to = x + (levels[i + 1] - raised) * slope, levels[i + 1]
            if i < STEPS - 1:
                last = (after - network(after.float(), to.reshape(1).float(), **prompt).double()) / to
                after = x + (to - raised) * (slope + last) / 2
        x = after
    return ((x[0].clamp(-1, 1) + 1) / 2).float().numpy()


def test_the_baseline_is_that_of_algorithm_1(network: Any) -> None:
    model = model_of(network)
    expected = by_hand(network, model.sigmas, label_of(network, model, "1"))
    (found,) = generate(["1"], [SEED], model=model, sampler=model.sampler(STEPS))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.05
    if not model.whole_timesteps:  # all levels that there are, as the spacing has them by itself
        plain = cu.Heun(steps=STEPS, guidance_scale=1, spacing=cu.design.Karras())
        np.testing.assert_allclose(generate(["1"], [SEED], model=model, sampler=plain)[0], found, rtol=0, atol=1e-5)


def test_the_baseline_is_that_of_algorithm_2_with_churn(network: Any) -> None:
    model = model_of(network)
    if model.whole_timesteps:  # the raised levels are no rows of the table
        return
    churn = {"churn": 3.0, "churn_min": 0.05, "churn_max": 50.0, "noise": 1.003}
    expected = by_hand(network, model.sigmas, label_of(network, model, "1"), **churn)
    (found,) = generate(["1"], [SEED], model=model, sampler=model.sampler(STEPS, **churn))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    without = by_hand(network, model.sigmas, label_of(network, model, "1"))
    assert np.abs(expected - without).max() > 1e-2


def test_the_loop_by_hand_is_the_official_one() -> None:
    sampler = pytest.importorskip("generate").edm_sampler
    network = official("EDMPrecond", model_type="SongUNet").eval()
    noises = (torch.from_numpy(step_noise([SEED], step, (3, 16, 16))) for step in range(STEPS, 1, -1))
    drawn = iter([torch.zeros(1), *noises])
    for churn, options in (
        ({}, {}),
        (
            {"churn": 3.0, "churn_max": 50.0, "noise": 1.003},
            {"S_churn": 3, "S_max": 50, "S_noise": 1.003, "randn_like": lambda x: next(drawn) + torch.zeros_like(x)},
        ),
    ):
        with torch.no_grad():
            x = sampler(network, start(80.0) / 80, num_steps=STEPS, **options)
        expected = ((x[0].clamp(-1, 1) + 1) / 2).float().numpy()
        np.testing.assert_allclose(by_hand(network, (0.002, 80.0), {}, **churn), expected, rtol=0, atol=1e-6)


def test_k_diffusions_own_sampler_gives_the_same() -> None:
    library = pytest.importorskip("k_diffusion")
    network = k_diffusion().eval()
    model = model_of(network)
    sigmas = library.sampling.get_sigmas_karras(STEPS, *model.sigmas, rho=7.0)
    x = start(float(sigmas[0]))
    with torch.no_grad():
        x = library.sampling.sample_heun(network, x, sigmas, disable=True)
    (found,) = generate(["a"], [SEED], model=model, sampler=model.sampler(STEPS))
    np.testing.assert_allclose(found, ((x[0].clamp(-1, 1) + 1) / 2).numpy(), rtol=0, atol=1e-5)


def edm_spots(unet: Any) -> dict[str, Spot]:
    spots, widths, down, aux = {}, {}, 0, 0
    for name, block in unet.enc.items():
        if "aux_down" in name:
            continue
        if "aux" in name:
            spots[f"aux.{aux}"], widths[down - 1] = Spot(block), 0  # what goes on is a sum
            aux += 1
        else:
            spots[f"down.{down}"], widths[down] = Spot(block), block.out_channels
            down += 1
    up = grown = 0
    for name, block in unet.dec.items():
        if "_block" in name:
            spots[f"up.{up}"] = Spot(block)
            if widths[down - 1 - up]:
                spots[f"skip.{down - 1 - up}"] = Spot(block, channels=widths[down - 1 - up])
            up += 1
        elif name.endswith("_up") and "aux" not in name:
            spots[f"upsample.{grown}"], grown = Spot(block), grown + 1
        elif name.endswith("in1"):
            spots["mid"] = Spot(block)
    return spots


def k_spots(unet: Any) -> dict[str, Spot]:
    spots: dict[str, Spot] = {}
    ends = []
    for arm, blocks in (("down", unet.d_blocks), ("up", unet.u_blocks)):
        number = -1
        for level, block in enumerate(blocks):
            for place, module in enumerate(block):
                number += "Res" in type(module).__name__
                if place or arm == "up":  # an encoder's first module halves the size, before the residual blocks
                    spots[f"{arm}.{number}"] = Spot(module)
            if arm == "down":
                ends.append(number)
            elif level:
                spots[f"skip.{ends[-1 - level]}"] = Spot(block, argument=2)
    return spots


def test_every_cut_is_that_of_a_hook_in_the_original_forward(network: Any) -> None:
    model = model_of(network)
    times = (7.0, 30.0) if model.whole_timesteps else (300.25, 801.0)
    arguments = tensors_of(model, ("1", "2"), times)
    sigmas = torch.tensor([math.sqrt((1 - one) / one) for one in model.alpha_bar])
    if model.whole_timesteps:
        sigma = sigmas[[7, 30]]
        assert torch.equal(sigma, network.u.flip(0)[1:][[7, 30]])
    else:
        least, most = model.sigmas
        sigma = torch.tensor([least * (most / least) ** (time / 999) for time in times])
    labels = {"class_labels": torch.eye(3)[[1, 2]]} if getattr(network, "label_dim", 0) else {}
    spots = edm_spots(network.model) if hasattr(network, "model") else k_spots(network.inner_model.u_net)
    compare_cuts(model, spots, arguments, lambda: network(arguments[0], sigma, **labels))


@pytest.mark.parametrize("kind", ["EDM, classes", "EDM, residual", "table", "k-diffusion"])
def test_it_is_what_studies_take_it_for(kind: str) -> None:
    model = model_of(NETWORKS[kind]())
    assert check_model(model, ["0", "1"])
    assert model.guidable == (kind == "EDM, classes")


def test_a_study_of_a_branch_is_sound_and_its_cuts_are_those_of_algorithm_1(tmp_path: Path) -> None:
    """Under guidance, two calls a step: a cut of one branch is one of its calls alone."""
    network, scale = Preconditioned(classes=3).eval(), 1.5
    model = model_of(network)
    spots = edm_spots(network.model)
    study = cu.Study(
        name="levels",
        prompts=["1"],
        seeds=[SEED],
        sampler=model.sampler(STEPS, guidance_scale=scale),
        interventions=[cu.Edit(place, cu.Window(4, 2), branch="cond") for place in ("mid", "skip.1")],
    )
    results = study.run(tmp_path / "s.zarr", model=model, progress=False)
    assert results.verify(quiet=True), str(results.verify(quiet=True))

    class Guided(nn.Module):
        """Sigma tells the step: cuts are in the conditional calls of steps 4 and 3, both of each."""

        place = ""

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            empty = network(x, sigma)
            nonlocal calls
            step, calls = STEPS - calls // 2, calls + 1
            with cut(spots[self.place]) if self.place and step in (4, 3) else nullcontext():
                return empty + scale * (network(x, sigma, torch.eye(3)[[1]]) - empty)

    images = [results.baseline.image.values[0], *results.outcomes.image.sel(kind="edit").values[:, 0]]
    for place, image in zip(("", "mid", "skip.1"), images, strict=True):
        guided, calls = Guided(), 0
        guided.place = place
        expected = by_hand(guided, model.sigmas, {})
        np.testing.assert_allclose(image, expected, rtol=0, atol=1e-5, err_msg=place)
        assert not place or np.abs(image - images[0]).max() > 1e-3


def test_zeros_stand_for_no_class() -> None:
    network = Preconditioned(classes=3)
    model = model_of(network)
    x, time, labels = tensors_of(model, ("", "2"), (500.0, 500.0))
    sigma = torch.full((2,), 0.002 * 40000 ** (500 / 999))
    with torch.inference_mode():
        expected = torch.cat([network(x[:1], sigma[:1]), network(x[1:], sigma[1:], torch.eye(3)[[2]])])
        np.testing.assert_allclose(model.unet(x, time, labels), expected, rtol=0, atol=1e-6)


def test_whole_timesteps_are_wanted_where_a_table_is_asked() -> None:
    """What lies between rows would be taken for the nearest, in silence."""
    model = model_of(TablePreconditioned())
    study = cu.Study(
        name="between",
        prompts=["a"],
        sampler=cu.Heun(steps=4, guidance_scale=1, spacing=cu.design.Karras()),
        interventions=[cu.Edit("mid", cu.Window(2, 1))],
    )
    with pytest.raises(SpecError, match=r"takes whole timesteps only.*asks between them.*Karras\(whole=True\)"):
        study.plan(model, calibrate=False)
    whole = cu.Heun(steps=4, guidance_scale=1, spacing=cu.design.Karras(whole=True))
    assert cu.Study(**{**study_fields(study), "sampler": whole}).plan(model, calibrate=False).unet_calls > 0


def study_fields(study: cu.Study) -> dict[str, Any]:
    return {name: getattr(study, name) for name in ("name", "prompts", "interventions")}


def test_what_no_weight_tells_is_in_the_fingerprint() -> None:
    networks = [Preconditioned(), Preconditioned(sigma_data=1.0), Preconditioned(residual=True)]
    models = [*(model_of(one) for one in networks), model_of(networks[0], sigmas=(0.01, 50.0))]
    assert len({model.fingerprint for model in models}) == len(models)
    assert model_of(Preconditioned()).fingerprint == models[0].fingerprint
    assert models[0].identity == {"preconditioning": "Preconditioned", "sigma_data": 0.5}


WRONG: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "without preconditioning": (
        lambda: Preconditioned().model,
        {},
        "A EDMUNet alone does not say how its input and output are scaled. Give what it was trained in, the EDMPrecond",
    ),
    "k-diffusion's alone": (lambda: Denoiser().inner_model, {}, "A ImageDenoiser alone .* the k_diffusion.Denoiser"),
    "a schedule": (
        Preconditioned,
        {"alpha_bar": [0.5]},
        "alpha_bar says nothing of a Preconditioned: it is told sigma",
    ),
    "a null class": (lambda: Preconditioned(classes=3), {"null_class": 2}, "null_class says nothing of a Precond"),
    "sigmas that fall": (
        Preconditioned,
        {"sigmas": (80.0, 0.1)},
        r"sigmas=\(80.0, 0.1\): give the lowest and the highest",
    ),
    "sigmas beyond": (TablePreconditioned, {"sigmas": (0.1, 90.0)}, "was made for 0.006738 to 20.09"),
    "a size": (
        Preconditioned,
        {"image_size": 15},
        r"cannot be called on an image of shape \(3, 15, 15\). Is image_size",
    ),
    "no size": (Denoiser, {"image_size": None}, "A Denoiser does not say how large its images are. Give image_size"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_told(name: str) -> None:
    build, options, said = WRONG[name]
    with pytest.raises(ModelError, match=said):
        from_unet(build(), name="x", **options)


def test_churn_beyond_the_noise_that_there_is_is_told() -> None:
    model = model_of(Preconditioned())
    with pytest.raises(SpecError, match=r"to sigma=113.1, and the model goes up to 80. Give churn_max below 80"):
        model.sampler(18, churn=40)
    assert model_of(Preconditioned(), sigmas=(0.002, 114.0)).sampler(18, churn=40, sigma_max=80.0).steps == 18


def test_images_that_are_no_squares() -> None:
    model = model_of(Preconditioned(), image_size=(8, 24))
    assert model.anatomy.by_name["mid"].shape == (12, 4, 12)
    assert generate(["a"], [1], model=model, sampler=model.sampler(2)).shape == (1, 3, 8, 24)
