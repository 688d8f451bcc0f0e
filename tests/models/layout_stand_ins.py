"""Small networks in the layouts of other packages, written anew with what is peculiar to each."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Denoiser", "Diffusion", "LucidUNet", "Preconditioned", "TablePreconditioned"]


def told(times: Tensor, width: int = 8) -> Tensor:
    rates = torch.exp(-math.log(1000) * torch.arange(width // 2, device=times.device) / (width // 2))
    angles = times.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class EDMBlock(nn.Module):
    """With a module called ``skip``, as nnsight calls what leaves a module out, and sizes that others ask it for."""

    def __init__(self, inputs: int, outputs: int, *, up: bool = False, down: bool = False) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.up, self.down = inputs, outputs, up, down
        self.conv, self.affine = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Linear(8, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2) if self.down else F.interpolate(x, scale_factor=2.0) if self.up else x
        h = torch.tanh(self.conv(x) + self.affine(emb)[:, :, None, None])
        return h.add_(self.skip(x))


class EDMUNet(nn.Module):
    """Blocks in dictionaries; whether one is given a skip connection hangs on the number of its channels."""

    def __init__(self, channels: int, classes: int, *, residual: bool) -> None:
        super().__init__()
        self.label_dropout = 0.1 if classes else 0
        self.map_label = nn.Linear(classes, 8) if classes else None
        enc: dict[str, nn.Module] = {
            "16x16_conv": nn.Conv2d(channels, 8, 3, padding=1),
            "16x16_block0": EDMBlock(8, 8),
            "8x8_down": EDMBlock(8, 8, down=True),
        }
        if residual:
            enc["8x8_aux_residual"] = nn.Conv2d(channels, 8, 4, stride=2, padding=1)
        enc["8x8_block0"] = EDMBlock(8, 12)
        dec = {
            "8x8_in0": EDMBlock(12, 12),
            "8x8_in1": EDMBlock(12, 12),
            "8x8_block0": EDMBlock(24, 12),
            "8x8_block1": EDMBlock(20, 12),
            "16x16_up": EDMBlock(12, 12, up=True),
            "16x16_block0": EDMBlock(20, 8),
            "16x16_block1": EDMBlock(16, 8),
        }
        self.enc, self.dec = nn.ModuleDict(enc), nn.ModuleDict(dec)
        self.out_conv = nn.Conv2d(8, channels, 3, padding=1)

    def forward(self, x: Tensor, noise: Tensor, class_labels: Tensor | None) -> Tensor:
        emb, aux, skips = told(noise), x, list[Tensor]()
        if self.map_label is not None:
            emb = emb + self.map_label(class_labels)
        for name, block in self.enc.items():
            if "aux" in name:
                x = skips[-1] = aux = (x + block(aux)) / math.sqrt(2)
            else:
                x = block(x, emb) if isinstance(block, EDMBlock) else block(x)
                skips.append(x)
        for block in self.dec.values():
            if x.shape[1] != block.in_channels:
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, emb)
        return self.out_conv(x)


class Preconditioned(nn.Module):
    """Karras et al. 2022, table 1, last column."""

    def __init__(self, *, classes: int = 0, residual: bool = False, sigma_data: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.img_resolution, self.img_channels, self.label_dim = 16, 3, classes
        self.sigma_min, self.sigma_max, self.sigma_data = 0, float("inf"), sigma_data
        self.model = EDMUNet(3, classes, residual=residual)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return torch.as_tensor(sigma)

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        x, sigma = x.float(), sigma.float().reshape(-1, 1, 1, 1)
        if self.label_dim and class_labels is None:
            class_labels = torch.zeros(1, self.label_dim, device=x.device)
        total = (sigma**2 + self.sigma_data**2).sqrt()
        output = self.model(x / total, sigma.log().flatten() / 4, class_labels=class_labels)
        return self.sigma_data**2 / total**2 * x + sigma * self.sigma_data / total * output


class TablePreconditioned(Preconditioned):
    """Of the rows of a table only, as iDDPM's is: what lies between is taken for the nearest."""

    u: Tensor

    def __init__(self, rows: int = 40) -> None:
        super().__init__()
        self.register_buffer("u", torch.cat([torch.linspace(3.0, -5.0, rows).exp(), torch.zeros(1)]))
        self.sigma_min, self.sigma_max = float(self.u[rows - 1]), float(self.u[0])

    def round_sigma(self, sigma: Tensor) -> Tensor:
        flat = torch.as_tensor(sigma).reshape(-1, 1)
        return self.u[(flat - self.u).abs().argmin(dim=1)].reshape(sigma.shape).to(sigma)

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        index = (sigma.float().reshape(-1, 1) - self.u).abs().argmin(dim=1)
        sigma = sigma.float().reshape(-1, 1, 1, 1)
        return x.float() - sigma * self.model(x.float() / (sigma**2 + 1).sqrt(), index, class_labels=None)


class ResBlock(nn.Module):
    """Of k-diffusion: told a dictionary of conditions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.mapper = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Linear(8, outputs)
        self.straight = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return self.straight(x) + torch.tanh(self.conv(x) + self.mapper(cond["cond"])[:, :, None, None])


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return x + self.mix(x.mean(dim=(2, 3), keepdim=True) * x)


class Level(nn.Sequential):
    """Joins a skip connection, which is an argument of its own, and calls its layers in turn."""

    def forward(self, x: Tensor, cond: dict[str, Tensor], skip: Tensor | None = None) -> Tensor:  # type: ignore[override]
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        for layer in self:
            x = layer(x, cond) if isinstance(layer, ResBlock | Attention) else layer(x)
        return x


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.skip_stages = 0
        self.d_blocks = nn.ModuleList(
            [
                Level(nn.Identity(), ResBlock(8, 8), ResBlock(8, 8)),
                Level(nn.AvgPool2d(2), ResBlock(8, 12), Attention(12)),
            ]
        )
        self.u_blocks = nn.ModuleList(
            [
                Level(ResBlock(12, 8), Attention(8), nn.Upsample(scale_factor=2)),
                Level(ResBlock(16, 8), ResBlock(8, 8), nn.Identity()),
            ]
        )

    def forward(self, x: Tensor, cond: dict[str, Tensor]) -> Tensor:
        skips = []
        for block in self.d_blocks:
            x = block(x, cond)
            skips.append(x)
        for number, (block, skip) in enumerate(zip(self.u_blocks, reversed(skips), strict=True)):
            x = block(x, cond, skip if number > 0 else None)
        return x


class ImageDenoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_in, self.unet_cond_dim = 3, 0
        self.proj_in, self.u_net, self.proj_out = nn.Conv2d(3, 8, 1), Stack(), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.proj_out(self.u_net(self.proj_in(x), {"cond": told(sigma.log() / 4)}))


class Denoiser(nn.Module):
    """k-diffusion's preconditioning."""

    def __init__(self, sigma_data: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner_model, self.sigma_data = ImageDenoiser(), sigma_data

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        total = (sigma[:, None, None, None] ** 2 + self.sigma_data**2) ** 0.5
        output = self.inner_model(x / total, sigma)
        return output * sigma[:, None, None, None] * self.sigma_data / total + x * self.sigma_data**2 / total**2


class LucidBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.mlp = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Linear(8, outputs)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(self.conv(x)) + self.mlp(time)[:, :, None, None]


class Told(nn.Module):
    def forward(self, times: Tensor) -> Tensor:
        return told(times)


class LucidUNet(nn.Module):
    """As lucidrains': attention is added to its input between the modules, and that sum goes over a skip connection."""

    def __init__(self, *, out_dim: int = 3, self_condition: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.channels, self.out_dim, self.self_condition, self.downsample_factor = 3, out_dim, self_condition, 2
        self.init_conv, self.time_mlp = nn.Conv2d(3, 8, 3, padding=1), Told()

        def level(inputs: int, outputs: int, more: int, resize: nn.Module) -> nn.ModuleList:
            blocks = [
                LucidBlock(inputs + more, inputs),
                LucidBlock(inputs + more, inputs),
                nn.Conv2d(inputs, inputs, 1),
            ]
            return nn.ModuleList([*blocks, nn.Sequential(resize, nn.Conv2d(inputs, outputs, 3, padding=1))])

        self.downs = nn.ModuleList([level(8, 8, 0, nn.AvgPool2d(2)), level(8, 12, 0, nn.Identity())])
        self.mid_block1, self.mid_attn, self.mid_block2 = LucidBlock(12, 12), nn.Conv2d(12, 12, 1), LucidBlock(12, 12)
        self.ups = nn.ModuleList([level(12, 8, 8, nn.Upsample(scale_factor=2)), level(8, 8, 8, nn.Identity())])
        self.final_res_block, self.final_conv = LucidBlock(16, 8), nn.Conv2d(8, out_dim, 1)

    def forward(self, x: Tensor, time: Tensor, x_self_cond: Tensor | None = None) -> Tensor:
        x = self.init_conv(x)
        r, t, h = x.clone(), self.time_mlp(time), list[Tensor]()
        for block1, block2, attn, downsample in self.downs:  # type: ignore[misc]
            x = block1(x, t)
            h.append(x)
            x = block2(x, t)
            x = attn(x) + x
            h.append(x)
            x = downsample(x)
        x = self.mid_block1(x, t)
        x = self.mid_attn(x) + x
        x = self.mid_block2(x, t)
        for block1, block2, attn, upsample in self.ups:  # type: ignore[misc]
            x = block1(torch.cat((x, h.pop()), dim=1), t)
            x = block2(torch.cat((x, h.pop()), dim=1), t)
            x = attn(x) + x
            x = upsample(x)
        return self.final_conv(self.final_res_block(torch.cat((x, r), dim=1), t))


class Diffusion(nn.Module):
    """What such a network is trained in: it knows the schedule and what is predicted."""

    alphas_cumprod: Tensor

    def __init__(self, model: Any, image_size: Any, timesteps: int, objective: str = "pred_v") -> None:
        super().__init__()
        self.model, self.image_size, self.objective = model, image_size, objective
        betas = torch.linspace(1e-3, 0.3, timesteps, dtype=torch.float64)
        self.register_buffer("alphas_cumprod", torch.cumprod(1 - betas, dim=0).float())
