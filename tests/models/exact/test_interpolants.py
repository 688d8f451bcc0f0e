"""Stochastic interpolants in closed form: against the authors' numbers, against each other, and as a model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import causalunet as cu
from causalunet.design import Given, Sampler
from causalunet.design.samplers import Estimate, State
from causalunet.errors import ModelError
from causalunet.identity import identity_of
from causalunet.models.exact import load_interpolant
from causalunet.models.exact.interpolant import LATENTS, Interpolants, Latent, Mix
from causalunet.prediction import Prediction
from causalunet.process import Process
from causalunet.schedule import Level, TrainingSchedule, straight_alpha_bar
from causalunet.testing import check_model, check_sampler
from tests.models.exact.references import conditional_mean, gaussian, small_bank
from tests.samplers.walks import levels_of, walk

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[2] / "golden" / "interpolants.json").read_text())
STRAIGHT = TrainingSchedule(straight_alpha_bar(), Process("straight"), from_noise=True)
BANK, TINY = small_bank(), small_bank(size=4)
SHAPES = ("circle", "square", "triangle", "cross")


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def between(path: str, gamma: str) -> Interpolants:
    """The authors' first end is where our runs begin."""
    ends = [
        Mix(*(tensor(GOLDEN["mixture"][f"{part}{end}"]) for part in ("weights", "means", "covariances")))
        for end in (1, 0)
    ]
    image, other = (end._replace(log_weights=end.log_weights.log()) for end in ends)
    return Interpolants(image, other, Latent({"trig": "trigonometric"}.get(path, path), float(gamma == "brownian")))


def said_of(found: Interpolants) -> Callable[[Any, Level], tuple[Any, Any]]:
    """x_0 and noise, as a walk asks for them."""

    def say(x: torch.Tensor, level: Level) -> tuple[Any, Any]:
        velocity, score = found.velocity_and_score(x * level.scale, tensor(level.noise))
        value = torch.cat([velocity, score], dim=1)
        return Prediction("velocity_score").image_and_noise(value, x, level)

    return say


@pytest.mark.parametrize("model", GOLDEN["models"], ids=lambda one: f"{one['path']} {one['gamma_type']}")
def test_velocity_and_score_are_those_of_the_authors(model: dict[str, Any]) -> None:
    """Their x is ours times the sum of the weights of both ends, and our time is the share of the first in it."""
    kind = {name: model[name] for name in ("path", "gamma_type")}
    (told,) = (one for one in GOLDEN["coefficients"] if kind.items() <= one.items())
    found, x = between(path=kind["path"], gamma=kind["gamma_type"]), tensor(GOLDEN["x"])
    for k in range(len(GOLDEN["times"])):
        a, b, a_slope, b_slope = (told[name][k] for name in ("a", "b", "adot", "bdot"))
        size, growth = a + b, a_slope + b_slope
        velocity, score = found.velocity_and_score(x / size, tensor(a / size))
        theirs = growth * x / size + (a_slope * size - a * growth) / size * velocity
        torch.testing.assert_close(theirs, tensor(model["b"][k]), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(score / size, tensor(model["s"][k]), rtol=1e-12, atol=1e-12)


RUNS = [
    pytest.param(model, run, id=f"{run['method']} {run.get('eps', '')} {model['gamma_type']}")
    for model in GOLDEN["models"]
    for run in model["runs"]
    if model["path"] == "linear" and run["method"] != "sde-heun"
]


@pytest.mark.parametrize(("model", "run"), RUNS)
def test_trajectories_are_those_of_the_authors(model: dict[str, Any], run: dict[str, Any]) -> None:
    with_noise = run["method"] == "sde-euler"
    sampler: Sampler = {
        "euler": cu.Euler,
        "heun2": cu.FlowHeun,
        "sde-euler": lambda: cu.FlowSDE(diffusion=run["eps"]),
    }[run["method"]]()
    levels = levels_of(STRAIGHT, [round(1000 * (1 - time) - 1) for time in run["times"]])[:-1]
    x, noises = tensor(GOLDEN["x"]), [tensor(noise) for noise in GOLDEN["noise"]]
    found = walk(
        sampler, said_of(between("linear", model["gamma_type"])), levels, STRAIGHT, x / levels[0].scale, noises
    )
    expected = run["trajectory"] if with_noise else run["trajectory"][1:]
    for state, level, theirs in zip(found.states, levels[1:], expected, strict=True):
        torch.testing.assert_close(state * level.scale, tensor(theirs), rtol=1e-11, atol=1e-11)


def propagated(sampler: Sampler, found: Interpolants, levels: list[Level]) -> list[np.ndarray]:
    """Mean and covariance of the last state: every step is affine, so what it does to a few points is all of it."""
    mean, covariance = (part.numpy() for part in found.other.moments())
    say, points = said_of(found), torch.cat([torch.zeros(1, len(mean)), torch.eye(len(mean))]).double()
    for at, to in itertools.pairwise(levels):
        step = State(points), (Estimate(*say(points, at), None, points, at),), at, to
        moved = sampler.mean(*step).numpy()
        offset, matrix = moved[0], (moved[1:] - moved[0]).T
        drawn = float(sampler.spread(*step)) ** 2 * np.eye(len(mean))
        mean, covariance = offset + matrix @ mean, matrix @ covariance @ matrix.T + drawn
    scale = levels[-1].scale
    return [scale * mean, scale**2 * covariance]


@pytest.mark.parametrize("latent", [Latent(), Latent("linear", 0.7), Latent("trigonometric", 1.5)], ids=str)
@pytest.mark.parametrize("diffusion", [0.0, 0.3, 2.5])
def test_whatever_the_diffusion_states_are_distributed_alike(latent: Latent, diffusion: float) -> None:
    """Moments of the recursion go to those of x_t with the step, at first order."""
    rng, mixes = np.random.default_rng(3), []
    for _ in range(2):
        root, mean = rng.normal(size=(3, 3)), rng.normal(size=(1, 3))
        mixes.append(Mix(tensor([0.0]), tensor(mean), tensor((root @ root.T / 3 + np.eye(3))[None])))
    found, end = Interpolants(*mixes, latent), tensor(0.2)
    known = [found.pair_means(end)[0].numpy(), found.pair_covariances(end)[0].numpy()]
    sampler, moments = cu.FlowSDE(diffusion=diffusion), []
    for steps in (60, 120):
        levels = levels_of(STRAIGHT, (1000 * np.linspace(1, float(end), steps + 1) - 1).tolist())[:-1]
        moments.append(propagated(sampler, found, levels))
    errors = [max(np.abs(one - other).max() for one, other in zip(some, known, strict=True)) for some in moments]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.2)
    for coarse, fine, expected in zip(*moments, known, strict=True):
        np.testing.assert_allclose(2 * fine - coarse, expected, atol=1e-3)


def test_one_end_of_noise_is_flow_matching_and_ddim() -> None:
    of, pixels = gaussian(5, 5), 5
    image = Mix(tensor([0.0]), of.mean[None], of.covariance[None])
    noise = Mix(tensor([0.0]), torch.zeros(1, pixels).double(), torch.eye(pixels).double()[None])
    say = said_of(Interpolants(image, noise, Latent()))

    def known(x: torch.Tensor, level: Level) -> tuple[Any, Any]:
        share = level.alpha_bar
        x0 = tensor(conditional_mean(of, x.numpy(), share))
        return x0, (x - share**0.5 * x0) / (1 - share) ** 0.5

    x = tensor(np.random.default_rng(0).normal(size=(4, pixels)))
    levels = levels_of(STRAIGHT, [899, 700.5, 420, 200, 50])
    for one, other in zip(say(x, levels[0]), known(x, levels[0]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    flow = walk(cu.Euler(), say, levels, STRAIGHT, x).states
    for sampler, denoise in ((cu.DDIM(), known), (cu.FlowSDE(diffusion=0), say)):
        for one, other in zip(flow, walk(sampler, denoise, levels, STRAIGHT, x).states, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("path", LATENTS)
def test_the_latent_noise_bends_as_it_says(path: str) -> None:
    """g dg/dt is half the slope of g^2; there is none at the ends."""
    t, step = tensor([0.05, 0.3, 0.5, 0.77]), 1e-6
    latent = Latent(path, 1.3)
    slope = (latent.at(t + step)[0] - latent.at(t - step)[0]) / (4 * step)
    torch.testing.assert_close(latent.at(t)[1], slope, rtol=1e-7, atol=1e-8)
    assert latent.at(tensor([0.0, 1.0]))[0].tolist() == pytest.approx([0, 0], abs=1e-15)


def test_the_kits_pass_model_and_sampler() -> None:
    check_model(load_interpolant(BANK, path="trigonometric", latent=2.0), ["a", "a background"])
    check_sampler(cu.FlowSDE(steps=7, diffusion=0.5, guidance_scale=2.0))


def test_a_call_gives_the_formula_and_cuts_take_away_what_is_known() -> None:
    """Densities by SciPy; the velocity without its estimate of the image is larger by that estimate."""
    model, pixels = load_interpolant(TINY, classes=SHAPES, latent=0.5), TINY.images[0].size
    unet: Any = model.unet
    x = torch.randn(3, *TINY.image_shape, generator=torch.Generator().manual_seed(2))
    timesteps, prompts = torch.tensor([99.0, 499.0, 999.0]), ["", "circle", "red"]
    whole = unet(x, timesteps, *model.encode(prompts))
    images, estimates = torch.tensor(TINY.images).double().flatten(1), []
    for row, timestep, prompt in zip(x.double().flatten(1), timesteps, prompts, strict=True):
        t, members = (float(timestep) + 1) / 1000, TINY.matches(SHAPES)
        shown = (members & TINY.matches([prompt])).sum(1) / TINY.matches([prompt]).sum()
        fits = [(images[own].mean(0).numpy(), np.cov(images[own].numpy().T, bias=True)) for own in members]
        noise = 0.01 * np.eye(pixels)
        weights, ends = [], []
        for (i, one), (j, two) in itertools.product(enumerate(fits), enumerate(fits)):
            mean = (1 - t) * one[0] + t * two[0]
            covariance = (1 - t) ** 2 * (one[1] + noise) + t**2 * (two[1] + noise) + t * (1 - t) / 2 * np.eye(pixels)
            with np.errstate(divide="ignore"):
                prior = np.log(shown[i]) + np.log(members.sum(1)[j] / len(TINY))
            weights.append(prior + multivariate_normal(mean, covariance).logpdf(row.numpy()))
            pulled = np.linalg.solve(covariance, row.numpy() - mean)
            ends.append((one[0] + (1 - t) * (one[1] + noise) @ pulled, two[0] + t * (two[1] + noise) @ pulled, pulled))
        share = np.exp(weights - np.max(weights))
        estimates.append([share @ np.stack(part) / share.sum() for part in zip(*ends, strict=True)])
        expected = estimates[-1][1] - estimates[-1][0] + (1 - 2 * t) / 4 * estimates[-1][2]
        said = whole[len(estimates) - 1].flatten()
        assert said.numpy() == pytest.approx(np.concatenate([expected, -estimates[-1][2]]), abs=2e-4)
    unet.image.register_forward_hook(lambda _module, _given, output: torch.zeros_like(output))
    without = unet(x, timesteps, *model.encode(prompts)) - whole
    assert without[:, :3].flatten(1).numpy() == pytest.approx(np.stack([one[0] for one in estimates]), abs=2e-4)
    assert not without[:, 3:].any()


def test_runs_are_studied_and_verified(tmp_path: Path) -> None:
    model = load_interpolant(BANK)
    study = cu.Study(
        name="interpolant",
        prompts=["red"],
        seeds=(0, 1),
        sampler=cu.FlowSDE(guidance_scale=1, diffusion=0.05, spacing=Given(timesteps=range(999, 0, -200))),
        interventions=[cu.Edit("score", cu.Window(4, 2)), cu.SkipSteps(cu.Window(4, 1))],
    )
    results = study.run(tmp_path / "store", model=model, progress=False)
    assert results.verify(quiet=True)
    assert identity_of(model, None, ["red"])["prediction"] == "velocity and score"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"path": "wound"}, "known: linear, trigonometric"),
        ({"latent": -1}, "latent=-1"),
        ({"latent": 4.0, "path": "trigonometric"}, "below 4"),
        ({"pixel_noise": 0}, "no density"),
        ({"classes": ("circle", "red")}, "do not part the bank"),
        ({"other": small_bank(size=5)}, "give equal ones"),
    ],
    ids=str,
)
def test_what_cannot_be_is_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError, match=told):
        load_interpolant(BANK, **options)


def test_a_prediction_has_one_companion() -> None:
    with pytest.raises(ModelError, match="no variance beside"):
        Prediction("velocity_score", variance=True)
    with pytest.raises(cu.CausalUNetError, match="diffusion=-1"):
        cu.FlowSDE(diffusion=-1)
