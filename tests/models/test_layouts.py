"""lucidrains' networks, and those of diffusers without a pipeline: beside loops and hooks by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import causalunet as cu
from causalunet.errors import ModelError, SpecError
from causalunet.execute.walk.generate import generate
from causalunet.models import from_unet
from causalunet.noise import initial_noise, step_noise
from causalunet.prediction import Prediction
from causalunet.schedule import linear_alpha_bar
from causalunet.testing import check_model
from tests.models.layout_cuts import Spot, compare_cuts, tensors_of
from tests.models.layout_stand_ins import Diffusion, LucidUNet
from tests.models.stand_ins import randomised

SEED = 3
FEW: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
AUDIO: dict[str, Any] = {"sample_size": 64, "in_channels": 2, "out_channels": 2}
TEMPORAL: dict[str, Any] = {
    "down_block_types": ("DownResnetBlock1D", "DownResnetBlock1D"),
    "up_block_types": ("UpResnetBlock1D",),
    "mid_block_type": "MidResTemporalBlock1D",
    "block_out_channels": (32, 64),
    "time_embedding_type": "positional",
    "use_timestep_embedding": True,
    "act_fn": "mish",
    "out_block_type": "OutConv1DBlock",
}


def states(prompts: Any) -> Tensor:
    """For a text encoder: as many numbers as it has letters."""
    return torch.stack([torch.full((5, 6), float(len(prompt))) for prompt in prompts])


def lucid() -> nn.Module:
    library = pytest.importorskip("denoising_diffusion_pytorch")
    torch.manual_seed(0)
    return randomised(library.Unet(dim=16, dim_mults=(1, 2), attn_dim_head=8, attn_heads=2))


def diffusers_2d(**more: Any) -> nn.Module:
    down, up = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
    return randomised(diffusers.UNet2DModel(down_block_types=down, up_block_types=up, **FEW, **more))


def conditioned(**more: Any) -> nn.Module:
    down, up = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    given = {"down_block_types": down, "up_block_types": up, "cross_attention_dim": 6, "attention_head_dim": 4}
    return randomised(diffusers.UNet2DConditionModel(**FEW, **given, **more))


def sequences(**more: Any) -> nn.Module:
    return randomised(diffusers.UNet1DModel(**{**AUDIO, **more}))


class Case:
    """A network, how it is taken in, and how it is called by hand."""

    def __init__(self, network: Any, call: Callable[..., Tensor], prompt: str = "a", **options: Any) -> None:
        self.network, self.call, self.prompt = network.eval(), call, prompt
        self.options = {"alpha_bar": linear_alpha_bar(), "prediction": "v", **options}

    @property
    def model(self) -> Any:
        return from_unet(self.network, name="layout", **self.options)


def plainly(network: Any, x: Tensor, t: Tensor, prompts: Any) -> Tensor:
    return network(x, t)


def by_diffusers(network: Any, x: Tensor, t: Tensor, prompts: Any) -> Tensor:
    return network(x, t).sample


CASES: dict[str, Callable[[], Case]] = {
    "lucid": lambda: Case(LucidUNet(), plainly, image_size=16),
    "official lucid": lambda: Case(lucid(), plainly, image_size=16),
    "UNet2DModel": lambda: Case(diffusers_2d(), by_diffusers),
    "UNet2DModel, classes": lambda: Case(
        diffusers_2d(num_class_embeds=4),
        lambda network, x, t, prompts: network(x, t, torch.tensor([int(one or 3) for one in prompts])).sample,
        "1",
        null_class=3,
    ),
    "UNet2DConditionModel": lambda: Case(
        conditioned(), lambda network, x, t, prompts: network(x, t, states(prompts)).sample, "a cat", encode=states
    ),
    "UNet1DModel": lambda: Case(
        sequences(extra_in_channels=64),
        lambda network, x, t, prompts: network(x[:, :, 0], t).sample[:, :, None],
    ),
    "UNet1DModel, temporal": lambda: Case(
        sequences(**TEMPORAL), lambda network, x, t, prompts: network(x[:, :, 0], t).sample[:, :, None]
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


@pytest.mark.sampled(1)
def test_the_baseline_is_that_of_a_loop_by_hand(case: Case, tmp_path: Path) -> None:
    model, scale = case.model, 2.0
    guided = model.guidable
    study = cu.Study(
        name="layout",
        prompts=[case.prompt],
        seeds=[SEED],
        sampler=cu.DDIM(steps=3, guidance_scale=scale if guided else 1),
        interventions=[cu.Edit("up.0", cu.Window(3, 2))],
    )
    results = study.run(tmp_path / "s.zarr", model=model, progress=False)
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    share, x = linear_alpha_bar(), torch.from_numpy(initial_noise([SEED], model.image_shape))
    for at, to in zip((999, 500, 0), (500, 0, None), strict=True):
        with torch.no_grad():
            v = case.call(case.network, x, torch.tensor([at]), [case.prompt])
            if guided:
                empty = case.call(case.network, x, torch.tensor([at]), [""])
                v = empty + scale * (v - empty)
        signal, noise = math.sqrt(share[at]), math.sqrt(1 - share[at])
        x0 = (signal * x - noise * v).clamp(-1, 1)
        eps = (x - signal * x0) / noise
        later = 1.0 if to is None else share[to]
        x = math.sqrt(later) * x0 + math.sqrt(1 - later) * eps
    found = results.baseline.image.values[0]
    expected = ((x[0].clamp(-1, 1) + 1) / 2).numpy()
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=0, atol=1e-5)
    assert np.abs(results.outcomes.image.sel(kind="edit").values[0, 0] - found).max() > 1e-3


def lucid_spots(network: Any) -> dict[str, Spot]:
    levels = len(network.downs)
    spots = {"down.0": Spot(network.init_conv), "mid": Spot(network.mid_block2)}
    widths = [network.init_conv.out_channels]
    last = Spot(network.final_res_block, channels=widths[0])
    for level, (first, _second, attend, _resize) in enumerate(network.downs):
        spots[f"down.{2 * level + 1}"], spots[f"down.{2 * level + 2}"] = Spot(first), Spot(attend, added=True)
        width = next(weight for weight in first.parameters() if weight.ndim == 4).shape[0]
        widths += [width, width]
    for level, (first, second, _attend, resize) in enumerate(network.ups):
        left = 2 * (levels - level)
        spots[f"up.{2 * level}"], spots[f"up.{2 * level + 1}"] = Spot(first), Spot(resize)
        spots[f"skip.{left}"] = Spot(first, channels=widths[left])
        spots[f"skip.{left - 1}"] = Spot(second, channels=widths[left - 1])
    return {**spots, f"up.{2 * levels}": Spot(network.final_res_block), "skip.0": last}


def diffusers_spots(network: Any) -> dict[str, Spot]:
    """Two levels of one residual block each, the lower with attention."""
    (upper, lower), (below, above) = network.down_blocks, network.up_blocks
    return {
        "down.0": Spot(network.conv_in),
        "down.1": Spot(upper.resnets[0]),
        "down.2": Spot(upper.downsamplers[0]),
        "down.3": Spot(lower.attentions[0]),
        "mid": Spot(network.mid_block),
        "up.0": Spot(below.attentions[0]),
        "up.1": Spot(below.attentions[1]),
        "upsample.0": Spot(below.upsamplers[0]),
        "up.2": Spot(above.resnets[0]),
        "up.3": Spot(above.resnets[1]),
        "skip.3": Spot(below.resnets[0], channels=16),
        "skip.2": Spot(below.resnets[1], channels=8),
        "skip.1": Spot(above.resnets[0], channels=8),
        "skip.0": Spot(above.resnets[1], channels=8),
    }


def sequence_spots(network: Any) -> dict[str, Spot]:
    spots = {"mid": Spot(network.mid_block)}
    downs, ups = network.down_blocks, network.up_blocks
    for number, block in enumerate(downs):
        spots[f"down.{number}"] = Spot(block.attentions[-1] if hasattr(block, "attentions") else block.resnets[-1])
    for number, block in enumerate(ups):
        spots[f"up.{number}"] = Spot(block)
        source = len(downs) - 1 - number
        width = network.config.block_out_channels[source]
        spots[f"skip.{source}"] = Spot(block.resnets[0], channels=width)
    return spots


@pytest.mark.sampled(3)
def test_every_cut_is_that_of_a_hook_in_the_original_forward(case: Case) -> None:
    model, prompts, times = case.model, (case.prompt, case.prompt), (300.0, 801.0)
    arguments = tensors_of(model, prompts, times)
    kind = type(case.network).__name__
    spots_of = {"UNet1DModel": sequence_spots, "UNet2DModel": diffusers_spots, "UNet2DConditionModel": diffusers_spots}
    spots = spots_of.get(kind, lucid_spots)(case.network)
    compare_cuts(model, spots, arguments, lambda: case.call(case.network, arguments[0], torch.tensor(times), prompts))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", ["lucid", "UNet1DModel", "UNet2DModel, classes", "UNet2DConditionModel"])
def test_it_is_what_studies_take_it_for(kind: str) -> None:
    case = CASES[kind]()
    assert check_model(case.model, ["0", "2"])


def diffusion_by_hand(diffusion: Any, steps: int) -> np.ndarray:
    """Ho et al. 2020, algorithm 2, with the posterior's variance and a clipped estimate; v as it was predicted."""
    share = [1.0, *diffusion.alphas_cumprod.double().tolist()]
    x = torch.from_numpy(initial_noise([SEED], (3, 16, 16))).double()
    for step in range(steps, 0, -1):
        a, b = share[step], share[step - 1]
        with torch.no_grad():
            v = diffusion.model(x.float(), torch.tensor([step - 1])).double()
        x0 = (math.sqrt(a) * x - math.sqrt(1 - a) * v).clamp(-1, 1)
        beta = 1 - a / b
        mean = (beta * math.sqrt(b) * x0 + (1 - b) * math.sqrt(a / b) * x) / (1 - a)
        noise = torch.from_numpy(step_noise([SEED], step, (3, 16, 16))).double()
        x = mean + math.sqrt(beta * (1 - b) / (1 - a)) * noise
    return ((x[0].clamp(-1, 1) + 1) / 2).float().numpy()


def test_a_diffusion_object_says_schedule_prediction_and_size() -> None:
    diffusion = Diffusion(LucidUNet(), (16, 16), timesteps=8)
    model = from_unet(diffusion, name="diffusion")
    assert (model.prediction, model.image_shape) == (Prediction("v"), (3, 16, 16))
    (found,) = generate(["a"], [SEED], model=model, sampler=cu.DDPM(steps=8, guidance_scale=1))
    np.testing.assert_allclose(found, diffusion_by_hand(diffusion, 8), rtol=0, atol=1e-5)


def test_the_official_diffusion_object_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("denoising_diffusion_pytorch")
    diffusion = library.GaussianDiffusion(lucid(), image_size=16, timesteps=8).eval()
    drawn = iter([torch.from_numpy(step_noise([SEED], step, (3, 16, 16))) for step in range(8, 1, -1)])
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", lambda *_, **__: torch.from_numpy(initial_noise([SEED], (3, 16, 16))))
        patch.setattr(torch, "randn_like", lambda *_, **__: next(drawn))
        expected = diffusion.p_sample_loop((1, 3, 16, 16))[0].clamp(0, 1).numpy()
    model = from_unet(diffusion, name="diffusion")
    (found,) = generate(["a"], [SEED], model=model, sampler=cu.DDPM(steps=8, guidance_scale=1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found, diffusion_by_hand(diffusion, 8), rtol=0, atol=1e-5)


def test_a_table_of_times_wants_whole_timesteps() -> None:
    """Asked between two rows a table would give one of them: told when a study is planned."""

    class Table(LucidUNet):
        def __init__(self) -> None:
            super().__init__()
            table = nn.Embedding(1000, 8)
            self.time_mlp = nn.Sequential()
            self.time_mlp.append(Rounded(table))

    class Rounded(nn.Module):
        def __init__(self, table: nn.Embedding) -> None:
            super().__init__()
            self.table = table

        def forward(self, times: Tensor) -> Tensor:
            return self.table(times.long())

    model = from_unet(Table(), name="table", image_size=16, alpha_bar=linear_alpha_bar(), prediction="eps")
    study = cu.Study(
        name="between",
        prompts=["a"],
        sampler=cu.Euler(steps=4, guidance_scale=1, spacing=cu.design.Karras()),
        interventions=[cu.Edit("mid", cu.Window(2, 1))],
    )
    with pytest.raises(SpecError, match=r"takes whole timesteps only \(it says the same at .* as at .*\).*whole=True"):
        study.plan(model, calibrate=False)


SAID: dict[str, Any] = {"alpha_bar": linear_alpha_bar(), "prediction": "eps"}
WRONG: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "no schedule": (
        LucidUNet,
        {"prediction": "eps", "image_size": 16},
        "which noise schedule it was trained with. Give al",
    ),
    "no prediction": (LucidUNet, {"alpha_bar": linear_alpha_bar()}, "does not say what it predicts. Give prediction"),
    "a size": (
        LucidUNet,
        {**SAID, "image_size": 17},
        r"image_size=\(17, 17\): this LucidUNet halves images 1 times; give m",
    ),
    "its own estimate": (lambda: LucidUNet(self_condition=True), SAID, "is also told its own last estimate"),
    "a variance": (
        lambda: LucidUNet(out_dim=6),
        {**SAID, "image_size": 16},
        "3 channels and gives 6; noise would be 3",
    ),
    "a schedule twice": (
        lambda: Diffusion(LucidUNet(), 16, 8),
        {"alpha_bar": [0.5]},
        "alpha_bar says nothing of a Diff",
    ),
    "sigmas": (diffusers_2d, {**SAID, "sigmas": (0.1, 2.0)}, "sigmas says nothing of a UNet2DModel: say alpha_bar="),
    "no states": (
        conditioned,
        SAID,
        r"told the states of a text encoder. Give encode, of prompts to these, \(prompt, t",
    ),
    "other states": (
        conditioned,
        {**SAID, "encode": lambda prompts: torch.zeros(1, 6)},
        r"encode gave \(1, 6\) for 1 prompts; this UNet2DConditionModel is told \(prompt, token, 6\)",
    ),
    "classes of a text": (
        conditioned,
        {**SAID, "null_class": 1, "encode": states},
        "null_class says nothing of a UNet2DC",
    ),
    "another of diffusers": (
        lambda: conditioned(time_cond_proj_dim=8),
        {**SAID, "encode": states},
        r"is told more than the states of a text encoder \(time_cond_proj_dim\)",
    ),
    "a size of diffusers": (diffusers_2d, {**SAID, "image_size": 15}, r"shape \(3, 15, 15\). Is image_size right"),
    "a picture of a sequence": (
        sequences,
        {**SAID, "image_size": (8, 8)},
        "a UNet1DModel is of sequences; give their len",
    ),
    "an unknown one": (
        lambda: nn.Linear(2, 2),
        {},
        "A Linear is not a U-Net of OpenAI's packages.*EDMPrecond.*from_network",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_told(name: str) -> None:
    build, options, said = WRONG[name]
    with pytest.raises(ModelError, match=said):
        from_unet(build(), name="x", **options)
