"""The U-Net against OpenAI's own, where that is installed, and against numbers computed by it, everywhere."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from causalunet.models import openai_anatomy as reading
from causalunet.models.glide import GLIDE_CONFIG
from causalunet.models.openai_anatomy import read_anatomy
from causalunet.models.openai_layout import AttentionBlock, TextUNet, UNetConfig, timestep_embedding
from causalunet.models.shapes import SHAPES_CONFIG
from causalunet.models.text_to_image import TextToImage
from causalunet.models.text_transformer import SelfAttention, TextConfig
from tests.conftest import TINY_CONFIG

GLIDE_PARAMETERS = 385_030_726
TEXT = TextConfig(vocabulary=50, context=12, width=32, layers=2, heads=4)


def config(image_size: int, channel_mult: tuple[int, ...], **sizes: int | tuple[int, ...]) -> UNetConfig:
    fixed = {"model_channels": 32, "num_res_blocks": 1, "head_channels": 32, "attention_resolutions": (8,)}
    return UNetConfig(image_size=image_size, channel_mult=channel_mult, text=TEXT, **{**fixed, **sizes})


CONFIGS = {
    "two levels": config(16, (1, 2)),
    "one level": config(8, (1,), num_res_blocks=2, head_channels=8),
    "two residual blocks, two attention levels": config(16, (1, 1, 2), num_res_blocks=2, attention_resolutions=(8, 4)),
    "three multipliers, narrow heads": config(32, (1, 2, 3), head_channels=16, attention_resolutions=(16, 8)),
    "attention in the bottleneck only": config(
        16, (2, 1), attention_resolutions=(), model_channels=64, head_channels=64
    ),
}


def official_unet(of: UNetConfig) -> nn.Module:
    official = pytest.importorskip("glide_text2im.text2im_model")
    return official.Text2ImUNet(
        text_ctx=of.text.context,
        xf_width=of.text.width,
        xf_layers=of.text.layers,
        xf_heads=of.text.heads,
        xf_final_ln=True,
        xf_padding=True,
        tokenizer=SimpleNamespace(n_vocab=of.text.vocabulary),
        in_channels=of.in_channels,
        model_channels=of.model_channels,
        out_channels=of.out_channels,
        num_res_blocks=of.num_res_blocks,
        attention_resolutions=tuple(of.image_size // size for size in of.attention_resolutions),
        dropout=of.dropout,
        channel_mult=of.channel_mult,
        num_head_channels=of.head_channels,
        use_scale_shift_norm=True,
        resblock_updown=True,
    )


def fill(module: nn.Module) -> None:
    """Set every weight to a number that depends on its name and place only, about as large as initialisation gives."""
    with torch.no_grad():
        for order, (_, parameter) in enumerate(sorted(module.named_parameters())):
            wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * 1.7 + order).view_as(parameter)
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(wave / math.sqrt(fan_in))


def inputs(of: UNetConfig, *, padded: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, timesteps, tokens and mask of two rows."""
    size = of.in_channels * of.image_size**2
    x = torch.sin(torch.arange(2 * size) * 0.7).view(2, of.in_channels, of.image_size, of.image_size)
    tokens = torch.arange(2 * of.text.context).view(2, -1) * 7 % of.text.vocabulary
    lengths = torch.tensor([[5], [0]]) if padded else torch.full((2, 1), of.text.context)
    return x, torch.tensor([3.0, 870.0]), tokens, torch.arange(of.text.context) < lengths


def ours(unet: TextUNet, x: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        return unet(x, timesteps, *unet.encode_text(tokens, mask))


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "no padding"])
@pytest.mark.parametrize("name", CONFIGS)
def test_output_is_that_of_the_official_model(name: str, padded: bool) -> None:
    official, unet = official_unet(CONFIGS[name]).eval(), TextUNet(CONFIGS[name]).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in official.parameters():  # some are zero, some were never filled
        spread = 1 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.2
        nn.init.normal_(parameter, std=spread, generator=generator)
    unet.load_state_dict(official.state_dict(), strict=True)
    x, timesteps, tokens, mask = inputs(CONFIGS[name], padded=padded)
    with torch.no_grad():
        expected = official(x, timesteps, tokens=tokens, mask=mask)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(unet, x, timesteps, tokens, mask), expected, rtol=1e-4, atol=1e-4)


def test_glide_has_the_names_and_shapes_of_the_official_model() -> None:
    with torch.device("meta"):
        official, unet = official_unet(GLIDE_CONFIG), TextUNet(GLIDE_CONFIG)
    expected = {name: value.shape for name, value in official.state_dict().items()}
    assert {name: value.shape for name, value in unet.state_dict().items()} == expected


OFFICIAL_OUTPUT: dict[str, list[float]] = {
    "two levels": [-0.03620, 0.37143, -0.48677, -0.24012, -0.51563, -0.27167],
    "one level": [0.08324, 0.33104, 0.35398, -0.11405, 0.34078, -0.15095],
    "two residual blocks, two attention levels": [-0.10504, 0.32305, -0.26461, 0.45000, -0.22508, 0.39566],
    "three multipliers, narrow heads": [-0.10402, 0.32332, -0.15861, 0.32812, -0.51565, 0.74073],
    "attention in the bottleneck only": [-0.09237, 0.31671, -0.04898, 0.44037, -0.02776, 0.43933],
}
"""Of the official model filled by `fill` on padded `inputs`: mean, SD and four values."""


@pytest.mark.parametrize("name", CONFIGS)
def test_output_is_what_the_official_model_once_gave(name: str) -> None:
    unet = TextUNet(CONFIGS[name]).eval()
    fill(unet)
    output = ours(unet, *inputs(CONFIGS[name], padded=True))
    torch.testing.assert_close(digest(output), torch.tensor(OFFICIAL_OUTPUT[name]), rtol=1e-4, atol=1e-4)


def digest(output: Tensor) -> Tensor:
    return torch.stack([output.mean(), output.std(), *output.flatten()[:: output.numel() // 4 + 1]])


@pytest.mark.parametrize("name", CONFIGS)
def test_recorded_outputs_are_those_of_the_official_model(name: str) -> None:
    official = official_unet(CONFIGS[name]).eval()
    fill(official)
    x, timesteps, tokens, mask = inputs(CONFIGS[name], padded=True)
    with torch.no_grad():
        output = official(x, timesteps, tokens=tokens, mask=mask)
    torch.testing.assert_close(digest(output), torch.tensor(OFFICIAL_OUTPUT[name]), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def glide() -> TextUNet:
    with torch.device("meta"):
        return TextUNet(GLIDE_CONFIG)


def test_glide_has_385_million_parameters(glide: TextUNet) -> None:
    assert sum(parameter.numel() for parameter in glide.parameters()) == GLIDE_PARAMETERS
    assert read_anatomy(glide).parameters == GLIDE_PARAMETERS


def test_dead_shares_of_glide(glide: TextUNet) -> None:
    """Share of the FLOPs of U-Net and text transformer that is not run when the bottom blocks are ablated."""
    tokens, mask = torch.zeros(1, 128, dtype=torch.long, device="meta"), torch.ones(1, 128, device="meta").bool()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        glide.encode_text(tokens, mask)
    assert counter.get_total_flops() / 1e9 == pytest.approx(13.4, abs=0.05)
    anatomy = read_anatomy(glide)
    assert anatomy.flops / 1e9 == pytest.approx(224.9, abs=0.05)
    whole = anatomy.flops + counter.get_total_flops()
    expected = {2: 5.3, 4: 10.8, 6: 19.5, 8: 31.6, 10: 49.4, 12: 71.5}
    for bottom, share in expected.items():
        dead = anatomy.dead({f"up.{bottom - 1}"})
        assert len(dead) == 2 * bottom + 1
        assert 100 * (anatomy.flops - anatomy.live_flops(dead)) / whole == pytest.approx(share, abs=0.1)


@pytest.fixture(scope="module")
def shapes() -> TextUNet:
    torch.manual_seed(0)
    return TextUNet(SHAPES_CONFIG).eval().requires_grad_(False)


def test_anatomy_of_shapes(shapes: TextUNet) -> None:
    anatomy = read_anatomy(shapes)
    names = [*(f"down.{i}" for i in range(16)), "mid", *(f"up.{i}" for i in range(16))]
    assert [component.name for component in anatomy.components] == names
    assert [component.role for component in anatomy.components] == [
        *["encoder"] * 16,
        "bottleneck",
        *["decoder"] * 16,
    ]
    # The last block of a level resamples: its output belongs to the next one.
    encoder = [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    decoder = [3] * 3 + [2] * 4 + [1] * 4 + [0] * 5
    assert [component.level for component in anatomy.components] == [*encoder, 3, *decoder]
    assert [component.depth for component in anatomy.components] == [*range(16), 16, *reversed(range(16))]
    assert list(anatomy.skips) == [f"skip.{i}" for i in range(16)]
    for i, edge in enumerate(anatomy.skips.values()):
        assert (edge.source, edge.target) == (f"down.{i}", f"up.{15 - i}")
        assert anatomy.skip_into(f"up.{15 - i}") == edge
    assert anatomy.parameters == sum(parameter.numel() for parameter in shapes.parameters())


def test_anatomy_is_that_of_a_real_call(shapes: TextUNet) -> None:
    """Order, shapes, edges and FLOPs, seen by hooks on a call with two rows."""
    anatomy = read_anatomy(shapes)
    modules = {component.name: shapes.get_submodule(component.module) for component in anatomy.components}
    taken: dict[str, Tensor] = {}
    seen: dict[str, Tensor] = {}
    handles = [
        *(m.register_forward_hook(lambda _m, given, _o, n=n: taken.update({n: given[0]})) for n, m in modules.items()),
        *(m.register_forward_hook(lambda _m, _g, output, n=n: seen.update({n: output})) for n, m in modules.items()),
    ]
    context = SHAPES_CONFIG.text.context
    text = shapes.encode_text(torch.zeros(2, context, dtype=torch.long), torch.zeros(2, context).bool())
    with FlopCounterMode(display=False) as counter:
        shapes(torch.randn(2, 3, 32, 32), torch.tensor([5.0, 500.0]), *text)
    for handle in handles:
        handle.remove()
    assert list(seen) == [component.name for component in anatomy.components]
    for component in anatomy.components:
        assert seen[component.name].shape == (2, *component.shape)
        into = [edge for edge in anatomy.edges if edge.target == component.name]
        if into:
            assert torch.equal(taken[component.name], torch.cat([seen[edge.source] for edge in into], dim=1))
    assert counter.get_total_flops() == 2 * anatomy.flops
    assert 0 < anatomy.flops - sum(component.flops for component in anatomy.components) < 0.02 * anatomy.flops
    for component, module in zip(anatomy.components, modules.values(), strict=True):
        assert component.parameters == sum(parameter.numel() for parameter in module.parameters())
        assert component.flops > 0


def test_reading_the_anatomy_leaves_the_model_alone(tiny_model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_READ", {})
    before = {name: value.clone() for name, value in tiny_model.unet.state_dict().items()}
    hooks = [len(module._forward_hooks) for module in tiny_model.unet.modules()]
    read_anatomy(tiny_model.unet)
    after = tiny_model.unet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert [len(module._forward_hooks) for module in tiny_model.unet.modules()] == hooks


def test_an_architecture_is_read_once_and_a_changed_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_READ", {})
    first = read_anatomy(TextUNet(TINY_CONFIG))
    assert read_anatomy(TextUNet(TINY_CONFIG)) is first
    changed = TextUNet(TINY_CONFIG)
    changed.out = torch.nn.Sequential(changed.out, torch.nn.Conv2d(6, 6, 1))
    assert read_anatomy(changed).flops > first.flops


def test_timestep_embedding() -> None:
    timesteps, width = [0.0, 1.0, 37.0, 999.0], 10
    found = timestep_embedding(torch.tensor(timesteps), width)
    for row, t in zip(found, timesteps, strict=True):
        angles = [t / 10_000 ** (i / 5) for i in range(5)]
        expected = [*map(math.cos, angles), *map(math.sin, angles)]
        torch.testing.assert_close(row, torch.tensor(expected), rtol=0, atol=1e-4)
    assert torch.equal(timestep_embedding(torch.tensor([5]), width), timestep_embedding(torch.tensor([5.0]), width))


def test_tokens_under_the_mask_do_not_matter(tiny_model: TextToImage) -> None:
    unet, text = tiny_model.unet, tiny_model.unet.config.text
    mask = torch.arange(text.context).expand(2, -1) < torch.tensor([[3], [0]])
    tokens, others = torch.randint(text.vocabulary, (2, 2, text.context), generator=torch.Generator().manual_seed(0))
    same = unet.encode_text(tokens, mask)
    for part, other in zip(same, unet.encode_text(torch.where(mask, tokens, others), mask), strict=True):
        assert torch.equal(part, other)
    changed = tokens.clone()
    changed[0, 2] = (changed[0, 2] + 1) % text.vocabulary
    for part, other in zip(same, unet.encode_text(changed, mask), strict=True):
        assert not torch.equal(part[0], other[0])
        assert torch.equal(part[1], other[1])


def test_shapes_of_text_embeddings(tiny_model: TextToImage) -> None:
    pooled, sequence = tiny_model.encode(["a red circle", ""])
    assert pooled.shape == (2, 4 * tiny_model.unet.config.model_channels)
    assert sequence.shape == (2, tiny_model.unet.config.text.width, tiny_model.unet.config.text.context)


def softmax_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of one head: (token, channel) each."""
    weights = torch.exp(query @ key.T / math.sqrt(query.shape[1]))
    return weights / weights.sum(dim=1, keepdim=True) @ value


def test_attention_is_a_softmax_over_text_and_pixels() -> None:
    torch.manual_seed(0)
    of = config(8, (1,), head_channels=8)
    block, channels, heads = AttentionBlock(of, 32), 32, 4
    nn.init.normal_(block.proj_out.weight)
    x, sequence = torch.randn(2, channels, 3, 5), torch.randn(2, TEXT.width, TEXT.context)
    with torch.no_grad():
        found = block(x, torch.empty(0), sequence)
        for row in range(2):
            pixels = block.norm(x[row : row + 1])[0].flatten(1)
            qkv = block.qkv.weight[:, :, 0] @ pixels + block.qkv.bias[:, None]
            kv = block.encoder_kv.weight[:, :, 0] @ sequence[row] + block.encoder_kv.bias[:, None]
            attended = []
            for head in range(heads):
                query, key, value = qkv[24 * head : 24 * (head + 1)].T.split(8, dim=1)
                text_key, text_value = kv[16 * head : 16 * (head + 1)].T.split(8, dim=1)
                attended.append(softmax_attention(query, torch.cat([text_key, key]), torch.cat([text_value, value])))
            out = block.proj_out.weight[:, :, 0] @ torch.cat(attended, dim=1).T + block.proj_out.bias[:, None]
            torch.testing.assert_close(found[row], x[row] + out.view(channels, 3, 5), rtol=1e-4, atol=1e-4)


def test_text_attention_is_a_softmax_over_all_tokens() -> None:
    torch.manual_seed(0)
    attention, x = SelfAttention(12, heads=3), torch.randn(2, 5, 12)
    with torch.no_grad():
        for row, found in zip(x, attention(x), strict=True):
            qkv = attention.c_qkv(row)
            heads = [softmax_attention(*qkv[:, 12 * head : 12 * (head + 1)].split(4, dim=1)) for head in range(3)]
            torch.testing.assert_close(found, attention.c_proj(torch.cat(heads, dim=1)), rtol=1e-5, atol=1e-5)
