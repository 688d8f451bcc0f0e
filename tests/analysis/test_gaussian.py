"""Theory of Gaussian images against loops by hand, integrals of the flow, simulation, and the package's own runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
from hypothesis import given, settings
from hypothesis import strategies as st

import causalunet as cu
from causalunet.analysis import gaussian_theory, kick, linear_run, psi, xi
from causalunet.analysis.gaussian import LinearRun
from causalunet.design.samplers import Sampler
from causalunet.errors import SpecError
from causalunet.models.exact import ImageBank, load_gaussian, load_optimal, load_wiener, scene_bank
from causalunet.schedule import Schedule, cosine_alpha_bar, linear_alpha_bar

VARIANCES = np.array([4.0, 1.0, 0.25, 0.01, 0.0])
SCHEDULE = Schedule.spaced(cosine_alpha_bar(), 12)


def estimate(x: np.ndarray, mean: np.ndarray, share: float) -> np.ndarray:
    """E[x_0 | x_t] along axes of the variances above."""
    return mean + np.sqrt(share) * VARIANCES / (share * VARIANCES + 1 - share) * (x - np.sqrt(share) * mean)


def by_hand(
    x: np.ndarray,
    mean: np.ndarray,
    noises: np.ndarray,
    *,
    kind: str,
    skipped: tuple[int, ...] = (),
    cut: dict[int, np.ndarray] | None = None,
    schedule: Schedule = SCHEDULE,
) -> np.ndarray:
    """A loop over the steps, written down from Ho et al. 2020 (equation 7) and Song et al. 2021 (equation 12)."""
    steps = [step for step in range(schedule.steps, 0, -1) if step not in skipped]
    for index, step in enumerate(steps):
        at = schedule.alpha_bar(step)
        to = schedule.alpha_bar(steps[index + 1]) if index + 1 < len(steps) else 1.0
        x0 = estimate(x, mean, at)
        if cut and step in cut:
            x0 = mean + cut[step] * (x0 - mean)
        if kind == "ddim":
            eps = (x - np.sqrt(at) * x0) / np.sqrt(1 - at)
            x = np.sqrt(to) * x0 + np.sqrt(1 - to) * eps
            continue
        alpha = at / to
        x = (np.sqrt(to) * (1 - alpha) * x0 + np.sqrt(alpha) * (1 - to) * x) / (1 - at)
        if to < 1:
            spread = 1 - alpha if kind == "large" else (1 - alpha) * (1 - to) / (1 - at)
            x = x + np.sqrt(spread) * noises[..., schedule.steps - step, :]
    return x


CASES = {
    "whole": {},
    "steps skipped": {"skipped": (9, 8, 5)},
    "stopped early": {"skipped": (2, 1)},
    "cut": {"cut": {7: np.array([0.0, 1.0, 0.5, 1.0, 1.0]), 6: np.zeros(5)}},
    "cut and skipped": {"cut": {7: np.array([0.0, 0.0, 1.0, 1.0, 1.0])}, "skipped": (4, 3)},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["ddim", "small", "large"])
def test_runs_are_those_of_a_loop(kind: str, case: str) -> None:
    rng = np.random.default_rng(0)
    mean, x, noises = rng.normal(size=5), rng.normal(size=(7, 5)), rng.normal(size=(7, 12, 5))
    options = {"ddim": {}, "small": {"eta": 1.0}, "large": {"eta": 1.0, "variance": "large"}}[kind]
    changes = {"skipped": CASES[case].get("skipped", ()), "strength": CASES[case].get("cut")}
    run = linear_run(SCHEDULE, VARIANCES, **options, **changes)
    centred = x - np.sqrt(SCHEDULE.alpha_bar(12)) * mean
    found = mean + run.first * centred + (run.drawn * noises).sum(axis=1)
    assert found == pytest.approx(by_hand(x, mean, noises, kind=kind, **CASES[case]), abs=1e-12)
    assert run.drawn.any() == (kind != "ddim")


@pytest.mark.parametrize("step", [11, 6, 2])
def test_a_kick_moves_the_image_as_the_product_of_what_follows(step: int) -> None:
    """Of a sampler of few steps; `kick` is where these become many."""
    mean, at = np.zeros(5), np.ones(5)
    later = linear_run(Schedule(SCHEDULE.timesteps[:step], SCHEDULE.alpha_bars[: step + 1]), VARIANCES).first
    moved = by_hand(at, mean, np.zeros((12, 5)), kind="ddim", skipped=tuple(range(step + 1, 13)))
    assert later == pytest.approx(moved, abs=1e-12)


def test_the_flow_is_that_of_the_equation() -> None:
    """dx/dt of the probability flow, integrated; the share of signal falls as (1 - t) squared."""
    share = lambda t: (1 - t) ** 2  # noqa: E731

    def velocity(t: float, x: np.ndarray) -> np.ndarray:
        beta = 2 / (1 - t)  # -d log(share) / dt
        score = -x / (1 - share(t) + share(t) * VARIANCES)
        return -0.5 * beta * (x + score)

    solved = scipy.integrate.solve_ivp(velocity, (0.95, 0.05), np.ones(5), rtol=1e-10, atol=1e-12, t_eval=[0.5, 0.05])
    expected = psi([share(0.5), share(0.05)], VARIANCES, share(0.95))
    assert pytest.approx(expected, rel=1e-6) == solved.y.T
    x0 = np.stack([estimate(row, np.zeros(5), share(t)) for row, t in zip(expected, (0.5, 0.05), strict=True)])
    assert xi([share(0.5), share(0.05)], VARIANCES, share(0.95)) == pytest.approx(x0, abs=1e-12)


def test_the_published_number() -> None:
    assert psi(1.0, [2.5], 0.0) == pytest.approx([1.58107], abs=1e-4)  # by numerical integration, 1.58108


def test_ddim_becomes_the_flow_at_order_one() -> None:
    """Of more steps between the same ends; the schedule is smooth in its timesteps."""
    counts, errors = np.array([25, 50, 100, 200]), []
    for steps in counts:
        share = np.cos(np.linspace(0.05, 0.97, steps + 1) * np.pi / 2) ** 2
        schedule = Schedule(tuple(range(steps)), (1.0, *share[1:]))
        follow = Schedule(schedule.timesteps, (float(share[0]), *share[1:]))
        first = np.ones(5)
        for step in range(steps, 0, -1):
            at, to = follow.alpha_bar(step), follow.alpha_bar(step - 1)
            gain = np.sqrt(at) * VARIANCES / (1 - at + at * VARIANCES)
            first = first * (np.sqrt(to) * gain + np.sqrt((1 - to) / (1 - at)) * (1 - np.sqrt(at) * gain))
        errors.append(np.abs(first - psi(share[0], VARIANCES, float(share[-1]))).max())
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(-1, abs=0.2)


def test_kicks_are_what_is_left_of_the_flow() -> None:
    share = np.array([0.9, 0.5, 0.01])
    to_the_image = psi(1.0, VARIANCES, 0.3) / psi(share, VARIANCES, 0.3)
    assert kick(share, VARIANCES) == pytest.approx(to_the_image, abs=1e-12)
    steps = 4000
    fine = Schedule.spaced(cosine_alpha_bar(steps), steps)
    half = steps // 2
    run = linear_run(Schedule(fine.timesteps[:half], fine.alpha_bars[: half + 1]), VARIANCES[:3])
    assert run.first == pytest.approx(kick(fine.alpha_bar(half), VARIANCES[:3]), rel=0.01)


@given(steps=st.integers(1, 30), seed=st.integers(0, 1000), eta=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_skipping_is_running_on_the_steps_that_are_left(steps: int, seed: int, eta: float) -> None:
    rng = np.random.default_rng(seed)
    schedule = Schedule.spaced(linear_alpha_bar(), steps)
    skipped = [step for step in range(1, steps) if rng.random() < 0.4]
    left = [step for step in range(1, steps + 1) if step not in skipped]
    thinned = Schedule(tuple(left), (1.0, *(schedule.alpha_bar(step) for step in left)))
    one, other = (
        linear_run(schedule, VARIANCES, eta=eta, skipped=skipped),
        linear_run(thinned, VARIANCES, eta=eta),
    )
    assert one.first == pytest.approx(other.first, abs=1e-12)
    assert one.drawn[[steps - step for step in reversed(left)]] == pytest.approx(other.drawn, abs=1e-12)
    assert linear_run(schedule, VARIANCES, strength=dict.fromkeys(range(1, steps + 1), 1.0)).first == pytest.approx(
        linear_run(schedule, VARIANCES).first
    )


def test_ddpm_ends_in_the_variance_of_the_data() -> None:
    """With many steps; with few it ends too narrow or too wide, which the same formula tells."""
    for variance in ("small", "large"):
        fine = linear_run(Schedule.spaced(cosine_alpha_bar(2000), 2000), VARIANCES, eta=1.0, variance=variance)
        assert fine.second_moments(0.0) == pytest.approx(VARIANCES, rel=0.02, abs=1e-3)
    coarse = [
        linear_run(Schedule.spaced(cosine_alpha_bar(), 5), VARIANCES, eta=1.0, variance=variance).second_moments(0.0)
        for variance in ("small", "large")
    ]
    assert (coarse[0][:3] < VARIANCES[:3]).all()


def dim_bank() -> ImageBank:
    """Scenes of so little contrast that no image of their Gaussian leaves the range."""
    scenes = scene_bank(60, size=12)
    return ImageBank(0.15 * scenes.images, scenes.labels)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("sampler", [cu.DDIM(steps=8, guidance_scale=1), cu.DDPM(steps=8, guidance_scale=1)])
def test_effects_of_a_study_are_those_of_the_theory(sampler: Sampler, tmp_path: Path) -> None:
    model = load_gaussian(dim_bank(), groups=(1, 3, 8))
    study = cu.Study(
        name="theory",
        prompts=["red"],
        seeds=range(16),
        sampler=sampler,
        interventions=[
            cu.SkipSteps(cu.Window(6, 3)),
            cu.SkipSteps(cu.Window(2, 2)),
            cu.Edit("pc.1", cu.Window(7, 3)),
            cu.Edit("coefficients", cu.Window(4, 1), cu.Scale(0.5)),
            cu.Edit("coefficients", cu.Window(6, 2), view=cu.Channels(0, 4)),
            cu.Edit("pc.0", cu.Window(5, 1), cu.Scale(-1.0)) + cu.SkipSteps(cu.Window(3, 1)),
        ],
    )
    results = study.run(tmp_path / "store", model=model, progress=False)
    theory = gaussian_theory(study, **model.theory("red"))
    fit = model.gaussian("red")
    vectors, mean = fit.vectors.numpy(), fit.mean.numpy()
    noise = results.baseline.x_t.isel(step=0).values.reshape(16, -1)
    centred = noise - np.sqrt(float(results.baseline.alpha_bar[0])) * mean
    image = 2 * results.outcomes.image.values.reshape(len(study.interventions), 16, -1) - 1
    usual = 2 * results.baseline.image.values.reshape(16, -1) - 1
    if isinstance(sampler, cu.DDIM):  # image by image
        found, expected = (usual - mean) @ vectors, theory.baseline_gain.values * (centred @ vectors)
        assert found == pytest.approx(expected, abs=1e-6)
        for item, gain in zip(image, theory.gain.values, strict=True):
            assert (item - mean) @ vectors == pytest.approx(gain * (centred @ vectors), abs=1e-6)
    squares = np.square(image - usual).mean(axis=-1) / 4
    spread = squares.std(axis=1, ddof=1) / np.sqrt(16)
    assert (np.abs(squares.mean(axis=1) - theory.mse.values) <= 4 * spread + 1e-10).all()
    assert results.outcomes.mse.values == pytest.approx(squares, rel=1e-3, abs=1e-9)
    assert theory.effect.sel(intervention=study.interventions[2].label).values.nonzero()[0].tolist() == [1, 2, 3]
    assert theory.effect.sel(intervention=study.interventions[4].label).values.nonzero()[0].tolist() == [0, 4]


def test_what_no_closed_form_is_known_of() -> None:
    model = load_gaussian(dim_bank(), groups=(2,))

    def theory(*interventions: cu.Edit, **options: object) -> object:
        chosen = {"sampler": cu.DDIM(steps=4, guidance_scale=1), "prompts": ["red"], **options}
        study = cu.Study(name="none", interventions=interventions or [cu.SkipSteps(cu.Window(2, 1))], **chosen)
        return gaussian_theory(study, **model.theory("red"))

    with pytest.raises(SpecError, match="guidance 2"):
        theory(sampler=cu.DDIM(steps=4, guidance_scale=2))
    with pytest.raises(SpecError, match=r"in place of mean.*coefficients, pc.0"):
        theory(cu.Edit("mean", cu.Window(2, 1)))
    with pytest.raises(SpecError, match=r"in place of .*pc\.0"):
        theory(cu.Edit("pc.0", cu.Window(2, 1), view=cu.Channels(0)))
    with pytest.raises(cu.CausalUNetError, match="'exact-optimal' has no linear denoiser"):
        load_optimal(dim_bank()).theory()
    whole = load_wiener(dim_bank()).theory("red")
    assert np.square(whole["variances"]).sum() > np.square(model.theory("red")["variances"]).sum()
    assert LinearRun(np.ones(2), np.zeros((3, 2))).second_moments([0.0, 2.0]).tolist() == [1.0, 5.0]
