"""Screening: exact where runs are linear, nothing where nothing is told, the sum over a window, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import causalunet as cu
from causalunet.design import Intervention
from causalunet.errors import SpecError
from causalunet.execute import Block, run_block
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.planning import plan_study
from causalunet.execute.walk.images import KeptImages
from causalunet.models.exact import ExactModel, load_wiener
from causalunet.models.text_to_image import TextToImage
from tests.models.exact.references import small_bank

STEPS = 5
SHRUNK = cu.sweep(cu.Edit, component=("filter", "prior"), start=(5, 3, 1), length=1, fill=cu.Scale(0.7))


@pytest.fixture(scope="module")
def wiener() -> ExactModel:
    return load_wiener(small_bank())


def study_of(model: Any, interventions: Sequence[Intervention], **more: Any) -> cu.Study:
    given = {"seeds": range(3), "sampler": cu.DDIM(steps=STEPS, guidance_scale=1), "prompts": [cu.NO_PROMPT], **more}
    return cu.Study(name="screening", model=model.name, interventions=interventions, **given)


def changes(study: cu.Study, model: Any) -> NDArray[np.float64]:
    """Mean square of the true change of x_0, (intervention, sample)."""
    plan = plan_study(study.bind(model))
    samples = study.samples
    block = Block(0, tuple(one.prompt for one in samples), tuple(one.start for one in samples))
    kept = KeptImages(lambda x0: x0.double().cpu().numpy())
    with InstalledUNet(model.unet, model.anatomy) as unet:
        run_block(unet, plan, block, micro_batch=len(samples), observer=kept)
    runs = np.stack([kept.images[run] for run in range(len(study.interventions))])
    return np.asarray(((runs - kept.images[-1]) ** 2).mean((2, 3, 4)))


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "sampler",
    [
        cu.DDIM(steps=STEPS, guidance_scale=1),
        cu.DDPM(steps=STEPS, guidance_scale=1),
        cu.DPMMultistep(steps=STEPS, guidance_scale=1),
        cu.Heun(steps=STEPS, guidance_scale=1),
    ],
    ids=lambda sampler: sampler.name,
)
def test_of_linear_runs_it_is_the_change_within_its_error(wiener: ExactModel, sampler: Any) -> None:
    study = study_of(wiener, SHRUNK, sampler=sampler)
    found, true = study.screen(model=wiener, probes=300, progress=False), changes(study, wiener)
    of = slice(0, len(SHRUNK))  # the null has neither
    assert (true[of] > 1e-9).all()
    assert (np.abs(found["change"] - true) <= 4.5 * found["error"] + 1e-3 * true)[of].all()
    assert float(found["error"][of].max()) < 0.2 * true[of].max()
    assert not found["change"].sel(kind="null").any()


def test_a_gradient_is_as_good_where_the_network_is_linear(wiener: ExactModel) -> None:
    jumps = cu.sweep(cu.SkipSteps, start=(4, 2), length=1)
    study = study_of(wiener, (*SHRUNK, *jumps))
    by_step, by_gradient = (
        study.screen(model=wiener, method=method, probes=3, progress=False) for method in ("one_step", "gradient")
    )
    np.testing.assert_allclose(by_gradient["change"], by_step["change"], rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("method", ["one_step", "gradient"])
def test_steps_of_a_window_add_up(tiny_model: TextToImage, method: Any) -> None:
    windows = [cu.Window(4, 1), cu.Window(3, 1), cu.Window(4, 2)]
    edits = [cu.Edit("up.2", window, cu.Scale(0.5)) for window in windows]
    first, second, both = np.sqrt(
        study_of(tiny_model, edits).screen(model=tiny_model, method=method, probes=1, progress=False)["change"][:3]
    ).values
    signs = [abs(first + second), abs(first - second)]
    assert np.isclose(both, signs, rtol=1e-3).any(axis=0).all()
    assert (both > 0).all()


def test_what_reaches_nothing_changes_nothing(tiny_model: TextToImage) -> None:
    """Nothing by the identity or the value of the same run; a chain of cut blocks is its last one."""
    one = cu.Window(3, 1)
    own = cu.Edit("mid", one, cu.Patch(prompt="a red circle", sample=None))
    edits = [own, cu.Edit("mid", one, cu.Scale(1.0)), cu.Edit("up.1", one), cu.AblateBlock(bottom=2, window=one)]
    study = study_of(tiny_model, edits, prompts=["a red circle"], seeds=[0])
    found = study.screen(model=tiny_model, probes=2, progress=False)["change"]
    np.testing.assert_allclose(found[:2], 0, atol=1e-12)
    graded = study_of(tiny_model, edits[2:], seeds=[0]).screen(
        model=tiny_model, method="gradient", probes=2, progress=False
    )["change"]
    assert float(graded[0].min()) > 0
    np.testing.assert_allclose(graded[1], graded[0], rtol=1e-5)


def test_what_it_costs(tiny_model: TextToImage) -> None:
    """T calls for the run; back to the last changed step a call and two for every sign; and one for each cell."""
    starts, probes, n = (5, 3), 4, 3
    edits = cu.sweep(cu.Edit, component=("mid", "up.2"), start=starts, length=1)
    study = study_of(tiny_model, edits)
    found = study.screen(model=tiny_model, probes=probes, progress=False)
    back = max(starts) - 1
    assert found.attrs["unet_calls"] == n * (STEPS + back * (1 + 2 * probes) + len(edits))
    assert found.attrs["unet_calls_back"] == n * back * probes
    assert found.attrs["unet_calls_sweep"] == study.plan(tiny_model, calibrate=False).unet_calls
    assert found.attrs["share"] == found.attrs["unet_calls"] / found.attrs["unet_calls_sweep"]
    graded = study.screen(model=tiny_model, method="gradient", probes=probes, progress=False)
    assert graded.attrs["unet_calls"] == n * (STEPS + max(starts) * (1 + 2 * probes))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("method", ["one_step", "gradient"])
def test_samples_do_not_know_of_each_other(tiny_model: TextToImage, method: Any) -> None:
    edits = [cu.Edit("up.1", cu.Window(4, 2), cu.Scale(0.5)), cu.AblateSkip(top=2, window=cu.Window(2, 1))]
    more = {"prompts": ["a red circle", "a blue square"], "sampler": cu.DDPM(steps=STEPS, guidance_scale=3.0)}
    study = study_of(tiny_model, edits, seeds=[0, 4], **more)
    together = study.screen(model=tiny_model, method=method, probes=2, progress=False)
    alone = study.screen(model=tiny_model, method=method, probes=2, memory=1, progress=False)
    np.testing.assert_allclose(alone["change"], together["change"], rtol=1e-3, atol=1e-10)
    fewer = replace(study, prompts=("a blue square",), seeds=(4,)).screen(
        model=tiny_model, method=method, probes=2, progress=False
    )
    np.testing.assert_allclose(fewer["change"][:, 0], together["change"][:, 3], rtol=1e-3, atol=1e-10)


def test_values_of_other_calls_are_those_of_the_study(tiny_model: TextToImage) -> None:
    """At the last step nothing is left out, so the change is the true one: of held, patched and mean values too."""
    fills = (cu.Hold(), cu.Mean(n=2), cu.Patch(prompt="a blue square"), cu.Resample(), cu.Bypass(), cu.Zero())
    edits = [cu.Edit("up.1", cu.Window(1, 1), fill) for fill in fills[:4]]
    edits += [cu.Edit("mid", cu.Window(1, 1), fill) for fill in fills[4:]]
    prompts = ["a red circle", "a striped blue square"]
    sampler = cu.DDIM(steps=STEPS, guidance_scale=3.0)
    study = study_of(tiny_model, edits, prompts=prompts, seeds=None, sampler=sampler)
    found, true = study.screen(model=tiny_model, probes=400, progress=False), changes(study, tiny_model)
    assert (true[: len(edits)] > 0).all()
    assert (np.abs(found["change"] - true) <= 4.5 * found["error"] + 1e-3 * true).all()


def test_the_strongest_are_run_again(tiny_model: TextToImage, tmp_path: Any) -> None:
    edits = cu.sweep(cu.Edit, component=("mid", "up.1", "skip.0"), start=(5, 2), length=1)
    study = study_of(tiny_model, edits)
    found = study.screen(model=tiny_model, probes=2, progress=False)
    order = np.argsort(-found["change"].mean("sample").values[: len(edits)])
    chosen = study.strongest(found, 3)
    assert chosen.interventions[:3] == tuple(edits[index] for index in order[:3])
    results = chosen.run(tmp_path / "top.zarr", model=tiny_model, progress=False)
    assert results.outcomes["mse"].shape == (4, 3)  # with the null
    late = study.strongest(found.sel(start=2), 1)
    assert late.interventions[0].steps == {2}
    for wrong in (0, 7, "3"):
        with pytest.raises(SpecError, match="so 1 to as many"):
            study.strongest(found, wrong)  # type: ignore[arg-type]
    others = study_of(tiny_model, [cu.Edit("up.0", cu.Window(1, 1))])
    with pytest.raises(SpecError, match="no intervention of this study"):
        others.strongest(found, 1)


def test_what_it_cannot_do_is_told(tiny_model: TextToImage) -> None:
    one = cu.Window(3, 1)

    def screen(*edits: Intervention, method: Any = "gradient", probes: Any = 1, **more: Any) -> None:
        more = {"prompts": ["a red circle"], "seeds": [0], **more}
        study_of(tiny_model, edits, **more).screen(model=tiny_model, method=method, probes=probes, progress=False)

    zero = cu.Edit("mid", one)
    maps = next(place.name for place in tiny_model.anatomy.inner if place.name.endswith(".maps"))
    with pytest.raises(SpecError, match="it is 'one_step' or 'gradient'"):
        screen(zero, method="integrated")
    for wrong in (0, 1.5, "8", 5000):
        with pytest.raises(SpecError, match="give an integer in 1"):
            screen(zero, probes=wrong)
    with pytest.raises(SpecError, match="puts values of other calls into mid"):
        screen(cu.Edit("mid", one, cu.Hold()))
    with pytest.raises(SpecError, match="no module computes"):
        screen(cu.Edit(maps, one))
    with pytest.raises(SpecError, match="named by words"):
        screen(cu.Edit(cu.Site("text") @ cu.Tokens("red"), one))
    with pytest.raises(SpecError, match="several times a step"):
        screen(zero, sampler=cu.Heun(steps=STEPS, guidance_scale=1))
    with pytest.raises(SpecError, match="looks back on those"):
        screen(cu.SkipSteps(one), method="one_step", sampler=cu.DPMMultistep(steps=STEPS, guidance_scale=1))


def test_the_model_is_left_as_it_was(tiny_model: TextToImage) -> None:
    def state() -> list[Any]:
        hooks = [(len(one._forward_hooks), len(one._forward_pre_hooks)) for one in tiny_model.unet.modules()]
        return [hooks, [one.grad is None for one in tiny_model.unet.parameters()], torch.is_grad_enabled()]

    before = state()
    study = study_of(tiny_model, [cu.Edit("mid", cu.Window(3, 1))], seeds=[0])
    for method in ("one_step", "gradient"):
        study.screen(model=tiny_model, method=method, probes=1, progress=False)  # type: ignore[arg-type]
    assert state() == before


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["one_step", "gradient"])
@pytest.mark.parametrize("kind", ["shapes", "shapes-flow", "diffusers"])
def test_ranks_on_networks(kind: str, method: Any) -> None:
    """Of trained networks, and of one of diffusers: cells in the order of their runs, from the last steps on."""
    if kind == "diffusers":
        torch.manual_seed(0)
        sizes = {"sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
        down, up = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
        unet = diffusers.UNet2DModel(**sizes, in_channels=3, out_channels=3, down_block_types=down, up_block_types=up)
        model: Any = cu.from_unet(unet, name="few", prediction="eps", alpha_bar=np.linspace(0.999, 0.01, 100))
    else:
        model = cu.load_model(kind)
    sampler = cu.Euler(steps=6, guidance_scale=1) if kind == "shapes-flow" else cu.DDIM(steps=6, guidance_scale=1)
    names = [one.name for one in model.anatomy.components][1:-1]
    edits = cu.sweep(cu.Edit, component=names[:: max(1, len(names) // 4)], start=(5, 3, 1), length=1)
    study = study_of(model, edits, seeds=range(2), sampler=sampler)
    found = study.screen(model=model, method=method, probes=8, progress=False)["change"].mean("sample").values
    true = changes(study, model).mean(1)
    ranks = [np.argsort(np.argsort(values[: len(edits)])) for values in (found, true)]
    assert np.corrcoef(*ranks)[0, 1] > (0.8 if method == "one_step" else 0.5)
