"""U-Net objects handed in: studies on them against loops written by hand over the objects themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import causalunet as cu
from causalunet.design import Intervention
from causalunet.errors import ModelError, PromptError
from causalunet.execute import TracedUNet
from causalunet.execute.walk.generate import generate
from causalunet.models import DiffusionModel, from_unet
from causalunet.models.handed_in import HandedIn
from causalunet.noise import initial_noise, step_noise
from causalunet.plan import Action, PlacedFill
from causalunet.schedule import cosine_alpha_bar, linear_alpha_bar
from tests.execute.reference import Change, blocks, changed, draw
from tests.models import stand_ins

STEPS, SIZE, NAMES = 5, 16, ("cat", "dog", "fish")


class Words:
    n_vocab = 12

    def encode(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]


@dataclass(frozen=True)
class Case:
    """An object, how it is handed in, and how one row of it is called by hand."""

    unet: nn.Module
    options: dict[str, Any]
    prompts: tuple[str, ...]
    scale: float
    inputs: Callable[[str], dict[str, Tensor]]
    fraction: float | None = None

    @property
    def model(self) -> HandedIn:
        return from_unet(self.unet, name="handed in", image_size=SIZE, **self.options)


def text_case(unet: nn.Module, encoder: Any, context: int) -> Case:
    def inputs(prompt: str) -> dict[str, Tensor]:
        tokens = encoder.encode(prompt)
        padded = [*tokens, *[encoder.n_vocab - 1] * (context - len(tokens))]
        return {"tokens": torch.tensor([padded]), "mask": torch.arange(context)[None] < len(tokens)}

    return Case(unet, {}, ("a red cat", "dog"), 3.0, inputs)


def class_case(unet: nn.Module) -> Case:
    options = {"classes": NAMES, "alpha_bar": linear_alpha_bar()}
    return Case(unet, options, ("dog", "2"), 1.0, lambda prompt: {"y": torch.tensor([{"dog": 1, "2": 2}[prompt]])})


def plain_case(unet: nn.Module, variance: str = "large", fraction: float | None = None) -> Case:
    options = {"alpha_bar": cosine_alpha_bar(), "variance": variance}
    return Case(unet, options, ("first", "second"), 1.0, lambda prompt: {}, fraction)


def make(kind: str) -> Case:
    """Build a case; the official objects where their packages are installed."""
    few = {"in_channels": 3, "model_channels": 32, "num_res_blocks": 1, "channel_mult": (1, 2)}
    few["attention_resolutions"] = (2,)
    if kind == "text":
        return text_case(stand_ins.randomised(stand_ins.Text2ImUNet(Words())), Words(), 6)
    if kind == "classes":
        return class_case(stand_ins.randomised(stand_ins.UNetModel(num_classes=3)))
    if kind == "plain":
        return plain_case(stand_ins.randomised(stand_ins.UNetModel()))
    if kind == "fixed large variance":
        return plain_case(stand_ins.randomised(stand_ins.UNetModel(out_channels=3)), "large", 1.0)
    if kind == "fixed small variance":
        return plain_case(stand_ins.randomised(stand_ins.UNetModel(out_channels=3)), "small", -1.0)
    if kind == "GLIDE":
        official = pytest.importorskip("glide_text2im.text2im_model").Text2ImUNet
        sizes = {"text_ctx": 8, "xf_width": 32, "xf_layers": 2, "xf_heads": 4, "xf_final_ln": True, "xf_padding": True}
        style = {"num_head_channels": 32, "use_scale_shift_norm": True, "resblock_updown": True}
        unet = official(tokenizer=Words(), out_channels=6, **sizes, **style, **few)
        return text_case(stand_ins.randomised(unet), Words(), 8)
    if kind == "guided-diffusion":
        official = pytest.importorskip("guided_diffusion.unet").UNetModel
        unet = official(
            image_size=SIZE, out_channels=6, num_classes=3, resblock_updown=True, use_checkpoint=True, **few
        )
        return class_case(stand_ins.randomised(unet))
    official = pytest.importorskip("improved_diffusion.unet").UNetModel
    return plain_case(stand_ins.randomised(official(out_channels=3, **few)), "large", 1.0)


STAND_INS = ["text", "classes", "plain", "fixed large variance", "fixed small variance"]
KINDS = [*STAND_INS, "GLIDE", "guided-diffusion", "improved-diffusion"]


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest) -> Case:
    return make(request.param)


def by_hand(
    case: Case, prompt: str, seed: int, alpha_bar: NDArray[np.float64], changes: dict[int, Any], absent: Sequence[int]
) -> NDArray[np.float32]:
    """Sample one image over the object's own forward, rows one at a time, edits hooked in."""
    timesteps = [round(i * (len(alpha_bar) - 1) / (STEPS - 1)) for i in range(STEPS)]
    share = [1.0, *(float(alpha_bar[t]) for t in timesteps)]
    called = [step for step in range(STEPS, 0, -1) if step not in absent]
    x = torch.from_numpy(initial_noise([seed], (3, SIZE, SIZE)))
    for step, target in zip(called, [*called[1:], 0], strict=True):
        t = torch.tensor([float(timesteps[step - 1])])
        with torch.no_grad(), changed(case.unet, changes.get(step, ())):
            output = case.unet(x, t, **case.inputs(prompt)).double()
            eps = output[:, :3]
            if case.scale != 1:
                empty = case.unet(x, t, **case.inputs(""))[:, :3].double()
                eps = empty + case.scale * (eps - empty)
        fraction = output[:, 3:] if case.fraction is None else torch.full_like(eps, case.fraction)
        a, b = share[step], share[target]
        x0 = ((x.double() - math.sqrt(1 - a) * eps) / math.sqrt(a)).clamp(-1, 1)
        noise = torch.from_numpy(step_noise([seed], step, (3, SIZE, SIZE))).double()
        x = draw(x.double(), x0, fraction, noise, a=a, b=b).float()
    return ((x[0].clamp(-1, 1) + 1) / 2).numpy()


def at(steps: Sequence[int], *changes: Change) -> dict[int, Any]:
    return dict.fromkeys(steps, changes)


INTERVENTIONS: dict[str, tuple[Intervention, dict[int, Any], tuple[int, ...]]] = {
    "baseline": (cu.Null(window=cu.Window(STEPS, STEPS)), {}, ()),
    "one block": (cu.AblateBlock(1, cu.Window(STEPS, 2)), at((5, 4), Change("up", 0)), ()),
    "three blocks": (cu.AblateBlock(3, cu.Window(4, 3)), at((4, 3, 2), Change("up", 2)), ()),
    "two skips": (cu.AblateSkip(2, cu.Window(4, 2)), at((4, 3), Change("skip", 0), Change("skip", 1)), ()),
    "steps skipped": (cu.SkipSteps(cu.Window(4, 2)), {}, (4, 3)),
}


@pytest.mark.sampled(1)
def test_studies_are_what_the_object_gives_by_hand(case: Case, tmp_path: Path) -> None:
    model = case.model
    study = cu.Study(
        name="handed in",
        prompts=case.prompts,
        sampler=cu.DDPM(steps=STEPS, guidance_scale=case.scale),
        interventions=[intervention for intervention, _, _ in INTERVENTIONS.values()],
        record=cu.Record(activations=("mid",), summary=("up.*",)),
    )
    images = study.run(tmp_path / "results.zarr", model=model, progress=False).outcomes.image.values
    for name, image in zip(INTERVENTIONS, images, strict=True):
        _, changes, absent = INTERVENTIONS[name]
        expected = [
            by_hand(case, prompt, seed, model.alpha_bar, changes, absent) for seed, prompt in enumerate(case.prompts)
        ]
        np.testing.assert_allclose(image, np.stack(expected), rtol=0, atol=2e-5, err_msg=name)
        assert name == "baseline" or np.abs(image - images[0]).max() > 1e-3


@pytest.mark.sampled(15)
@torch.inference_mode()
@pytest.mark.parametrize("bottom", [1, 3])
def test_dead_blocks_do_not_run_and_change_no_bit(case: Case, bottom: int) -> None:
    model = case.model
    (edit,) = cu.AblateBlock(bottom, cu.Window(1, 1)).edits()
    dead = model.anatomy.dead({edit.component})
    assert len(dead) == 2 * bottom + 1
    action = Action(frozenset({PlacedFill(edit.site, edit.fill)}), dead)
    x = torch.from_numpy(initial_noise([0, 1], model.image_shape))
    arguments = (x, torch.tensor([7.0, 801.0]), *model.encode(case.prompts))
    ran: list[str] = []
    handles = [  # on what is inside: a block that is skipped is called, but does not run
        block[0].register_forward_hook(lambda _m, _i, _o, name=name: ran.append(name))
        for name, block in blocks(case.unet).items()
    ]
    cut = TracedUNet(model.unet, model.anatomy)(action, arguments, 2).output
    for handle in handles:
        handle.remove()
    assert set(ran) == set(model.anatomy.by_name) - dead
    with changed(case.unet, [Change("up", bottom - 1)], {"both": slice(0, 2)}):
        zeroed = model.unet(*arguments)
    assert torch.equal(cut, zeroed)
    assert not torch.equal(cut, model.unet(*arguments))


def test_anatomy_is_that_of_a_real_call(case: Case) -> None:
    model = case.model
    anatomy = model.anatomy
    seen: dict[str, Tensor] = {}
    for name, block in blocks(case.unet).items():
        block.register_forward_hook(lambda _m, _i, output, name=name: seen.update({name: output}))
    context = model.encode(case.prompts)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.unet(torch.zeros(2, 3, SIZE, SIZE), torch.tensor([5.0, 500.0]), *context)
    assert list(seen) == [component.name for component in anatomy.components]
    assert [component.shape for component in anatomy.components] == [tuple(value.shape[1:]) for value in seen.values()]
    assert counter.get_total_flops() == 2 * anatomy.flops
    assert anatomy.parameters == sum(parameter.numel() for parameter in case.unet.parameters())
    assert {component.level for component in anatomy.components} == {0, 1}


def test_it_is_a_model(case: Case) -> None:
    model = case.model
    assert isinstance(model, DiffusionModel)
    assert not case.unet.training
    assert model.factors == {}
    assert model.guidable == (case.scale != 1)
    with pytest.raises(ModelError, match="has no factor reader"):
        model.read_factors(np.zeros((1, 3, SIZE, SIZE), np.float32))
    encoded = model.encode([*case.prompts, ""])
    assert {len(part) for part in encoded} == {3}
    sampler = cu.DDPM(guidance_scale=case.scale)
    study = cu.Study(
        name="priced", prompts=case.prompts, sampler=sampler, interventions=[cu.SkipSteps(cu.Window(9, 1))]
    )
    assert study.plan(model, memory=1).unet_calls > 0


@pytest.mark.parametrize("kind", ["classes", "plain"])
def test_guidance_is_refused_where_there_is_nothing_to_guide_from(kind: str, tmp_path: Path) -> None:
    case = make(kind)
    study = cu.Study(name="guided", prompts=case.prompts, interventions=[cu.AblateBlock(1, cu.Window(3, 1))])
    with pytest.raises(
        ModelError, match=r"Nothing that is known .* its condition left out.*DDPM\(guidance_scale=1\).*null_class="
    ):
        study.run(tmp_path / "results.zarr", model=case.model, progress=False)
    assert not (tmp_path / "results.zarr").exists()
    with pytest.raises(ModelError, match="nothing to guide from"):
        generate(case.prompts, model=case.model)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["classes", "plain", "text"])
def test_samples_without_a_prompt_where_the_condition_can_be_left_out(kind: str, tmp_path: Path) -> None:
    case = make(kind)
    study = cu.Study(
        name="open",
        prompts=[cu.NO_PROMPT],
        seeds=[4],
        sampler=cu.DDPM(steps=3, guidance_scale=1),
        interventions=[cu.AblateBlock(1, cu.Window(3, 1))],
    )
    if kind == "classes":  # its label would have to be one of the classes
        with pytest.raises(
            PromptError, match=r"NO_PROMPT.*its condition left out.*Give every sample a prompt.*null_class="
        ):
            study.run(tmp_path / "results.zarr", model=case.model, progress=False)
        with pytest.raises(PromptError, match="NO_PROMPT"):
            generate([cu.NO_PROMPT], model=case.model, sampler=study.sampler)
        assert not (tmp_path / "results.zarr").exists()
        return
    results = study.run(tmp_path / "results.zarr", model=case.model, progress=False)
    assert bool((results["outcomes"]["status"] == 1).all())
    assert bool((results["outcomes"]["ssim"].sel(kind="ablate_block") < 1).all())


def test_class_prompts() -> None:
    unet, alpha_bar = stand_ins.UNetModel(num_classes=3), linear_alpha_bar()

    def labels(prompts: Sequence[str], classes: Sequence[str] | None) -> list[int]:
        model = from_unet(unet, name="classes", image_size=SIZE, alpha_bar=alpha_bar, classes=classes)
        model.check_prompts(prompts)
        (encoded,) = model.encode(prompts)
        return encoded.tolist()

    assert labels(["dog", "cat", "2"], NAMES) == [1, 0, 2]
    assert labels(["0", "2"], None) == [0, 2]
    assert labels(["crane", "1"], ("crane", "owl", "owl")) == [0, 1]
    with pytest.raises(PromptError, match=r"no class 'bird'. A prompt is a class name, such as 'cat', or an index"):
        labels(["bird"], NAMES)
    with pytest.raises(PromptError, match=r"no class '3'. A prompt is an index, '0' to '2'"):
        labels(["3"], None)
    with pytest.raises(PromptError, match=r"'owl' names more than one class\. Give the index"):
        labels(["owl"], ("crane", "owl", "owl"))
    with pytest.raises(ModelError, match="2 class names were given; this U-Net has 3 classes"):
        labels(["cat"], NAMES[:2])


def test_a_class_that_stands_for_none_is_guided_from(tmp_path: Path) -> None:
    """Against the same loop by hand, the label of "no class" in the unconditional rows."""
    unet = stand_ins.randomised(stand_ins.UNetModel(num_classes=4))
    options = {"alpha_bar": linear_alpha_bar(), "classes": NAMES, "null_class": 3}
    labels = {"dog": 1, "2": 2, "": 3}
    case = Case(unet, options, ("dog", "2"), 2.5, lambda prompt: {"y": torch.tensor([labels[prompt]])})
    model = case.model
    sampler = cu.DDPM(steps=STEPS, guidance_scale=2.5)
    study = cu.Study(
        name="guided", prompts=case.prompts, sampler=sampler, interventions=[cu.AblateBlock(1, cu.Window(3, 1))]
    )
    baseline = study.run(tmp_path / "results.zarr", model=model, progress=False).baseline.image.values
    expected = [by_hand(case, prompt, seed, model.alpha_bar, {}, ()) for seed, prompt in enumerate(case.prompts)]
    np.testing.assert_allclose(baseline, np.stack(expected), rtol=0, atol=2e-5)
    unguided = cu.DDPM(steps=STEPS, guidance_scale=1)
    (image,) = generate([cu.NO_PROMPT], [4], model=model, sampler=unguided)
    unconditional = replace(case, scale=1.0)
    np.testing.assert_allclose(image, by_hand(unconditional, "", 4, model.alpha_bar, {}, ()), rtol=0, atol=2e-5)
    assert model.fingerprint != replace(case, options={**options, "null_class": 0}).model.fingerprint


def test_names_of_classes_beside_one_that_stands_for_none() -> None:
    unet, names = stand_ins.UNetModel(num_classes=4), ("none", *NAMES)

    def labels(prompts: Sequence[str], **options: Any) -> list[int]:
        model = from_unet(unet, name="x", image_size=SIZE, alpha_bar=linear_alpha_bar(), **options)
        return model.encode(prompts)[0].tolist()

    for classes in (names, NAMES):
        assert labels(["cat", "fish", "", "3"], classes=classes, null_class=0) == [1, 3, 0, 3]
    with pytest.raises(PromptError, match=r"Class 0 stands for no class\. Give causalunet\.NO_PROMPT"):
        labels(["0"], null_class=0)
    with pytest.raises(PromptError, match=r"no class '4'.*an index, '1' to '3'"):
        labels(["4"], null_class=0)
    with pytest.raises(ModelError, match="2 class names were given; this U-Net has 3 classes"):
        labels(["cat"], classes=NAMES[:2], null_class=0)
    for wrong in (4, -1, True, "none"):
        with pytest.raises(ModelError, match="is no class of this U-Net, which has classes 0 to 3"):
            labels(["1"], null_class=wrong)


def test_what_changes_images_changes_the_fingerprint() -> None:
    unet = stand_ins.randomised(stand_ins.UNetModel(out_channels=3))
    options: list[dict[str, Any]] = [{}, {"variance": "small"}, {"clip": False}, {"alpha_bar": linear_alpha_bar()}]
    given = [{"alpha_bar": cosine_alpha_bar(), **option} for option in options]
    found = [from_unet(unet, name="plain", image_size=SIZE, **option).fingerprint for option in given]
    again = from_unet(unet, name="other", image_size=SIZE, **given[0]).fingerprint
    assert again == found[0]
    with torch.no_grad():
        next(iter(unet.parameters())).view(-1)[0] += 1
    found.append(from_unet(unet, name="plain", image_size=SIZE, **given[0]).fingerprint)
    assert len(set(found)) == 5


class Upsampler(stand_ins.UNetModel):
    def forward(self, x: Tensor, timesteps: Tensor, low_res: Tensor | None = None) -> Tensor:  # type: ignore[override]
        raise NotImplementedError


class Backwards(stand_ins.UNetModel):
    def u(self, x: Tensor, embedding: Tensor, sequence: Tensor | None) -> Tensor:
        for block in [*self.input_blocks, *self.input_blocks[-1:]]:
            x = block(x, embedding, sequence) if block is not self.input_blocks[-1] else x
        return self.out(x[:, :8].repeat_interleave(1, dim=1))


def keeping_text() -> nn.Module:
    unet = stand_ins.Text2ImUNet(Words())
    unet.cache_text_emb = True
    return unet


REFUSED: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]] = {
    "another network": (
        lambda: nn.Linear(2, 2),
        {},
        "A Linear is not a U-Net of OpenAI's packages: it lacks time_embed",
    ),
    "half precision": (lambda: stand_ins.UNetModel().half(), {}, "computes in torch.float16, torch.float32; only"),
    "upsampling": (Upsampler, {}, "also takes low_res. Models for upsampling and inpainting"),
    "other outputs": (lambda: stand_ins.UNetModel(out_channels=5), {}, "takes 3 channels and gives 5; expected"),
    "no size": (stand_ins.UNetModel, {"image_size": None}, "how large its images are. Give image_size"),
    "another size": (stand_ins.UNetModel, {"image_size": 15}, r"shape \(3, 15, 15\). Is image_size right"),
    "no schedule": (stand_ins.UNetModel, {"alpha_bar": None}, "which noise schedule.*Give alpha_bar"),
    "4000 timesteps": (
        stand_ins.UNetModel,
        {"alpha_bar": cosine_alpha_bar(4000)},
        "4,000 timesteps.*Give rescale_timesteps=True or False",
    ),
    "rescaled to a number": (stand_ins.UNetModel, {"rescale_timesteps": 1000}, "=1000 is neither True nor False"),
    "betas": (stand_ins.UNetModel, {"alpha_bar": np.linspace(0.1, 0.2, 5)}, "numbers that fall from below 1"),
    "another variance": (stand_ins.UNetModel, {"variance": "wide"}, "'wide' is not known; it is one of large, small"),
    "text kept": (keeping_text, {}, "cache_text_emb=False"),
    "no class of none": (stand_ins.UNetModel, {"null_class": 0}, "null_class=0 is no class .*which has none"),
    "no class of texts": (lambda: stand_ins.Text2ImUNet(Words()), {"null_class": 0}, "Text2ImUNet has no classes"),
    "names without classes": (stand_ins.UNetModel, {"classes": NAMES}, "3 class names.*has no classes"),
    "other order": (Backwards, {}, "ran in the order unet.input_blocks.0, .*OpenAI's layout runs every input block"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str) -> None:
    build, options, message = REFUSED[name]
    with pytest.raises(ModelError, match=message):
        from_unet(build(), name="refused", **{"image_size": SIZE, "alpha_bar": cosine_alpha_bar(), **options})


def test_upsamplers_of_the_official_package_are_refused() -> None:
    official = pytest.importorskip("glide_text2im.text2im_model").SuperResText2ImUNet
    few: dict[str, Any] = {"model_channels": 32, "num_res_blocks": 1, "attention_resolutions": (), "channel_mult": (1,)}
    unet = official(8, 32, 1, 4, True, Words(), in_channels=3, out_channels=6, **few)
    with pytest.raises(ModelError, match=r"also takes .*low_res"):
        from_unet(unet, name="upsampler", image_size=SIZE)


def test_the_baseline_is_that_of_the_official_sampler() -> None:
    """Guided sampling by GLIDE's own diffusion object, given our noise."""
    creation = pytest.importorskip("glide_text2im.model_creation")
    case = make("GLIDE")
    diffusion = creation.create_gaussian_diffusion(1000, "squaredcos_cap_v2", str(STEPS))
    prompt, seed = case.prompts[0], 3
    text = {name: torch.cat([given, case.inputs("")[name]]) for name, given in case.inputs(prompt).items()}

    def guided(x: Tensor, timesteps: Tensor, **_: Any) -> Tensor:
        cond, uncond = case.unet(x.repeat(2, 1, 1, 1), timesteps.repeat(2), **text).split(1)
        return torch.cat([uncond[:, :3] + case.scale * (cond - uncond)[:, :3], cond[:, 3:]], dim=1)

    x = torch.from_numpy(initial_noise([seed], (3, SIZE, SIZE)))
    case.unet.eval()
    for index in reversed(range(STEPS)):
        with torch.no_grad():
            moments = diffusion.p_mean_variance(guided, x, torch.tensor([index]), clip_denoised=True)
        noise = torch.from_numpy(step_noise([seed], index + 1, (3, SIZE, SIZE)))
        x = moments["mean"] + (0.5 * moments["log_variance"]).exp() * noise * (index > 0)
    image = generate([prompt], [seed], model=case.model, sampler=cu.DDPM(steps=STEPS, guidance_scale=case.scale))
    np.testing.assert_allclose(image[0], ((x[0].clamp(-1, 1) + 1) / 2).numpy(), rtol=0, atol=2e-5)


def test_a_tokenizer_can_be_handed_in() -> None:
    unet = stand_ins.Text2ImUNet(SimpleNamespace(n_vocab=12))
    tokens = np.full((1, 6), 3), np.ones((1, 6), dtype=bool)
    model = from_unet(unet, name="text", image_size=SIZE, tokenize=lambda prompts: tokens)
    model.check_prompts(["anything"])
    pooled, sequence = model.encode(["anything"])
    assert (pooled.shape, sequence.shape) == ((1, 16), (1, 10, 6))
