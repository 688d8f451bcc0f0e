"""U-Nets that are formulas: modules joined as in a network, so that parts can be cut and their effect is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from causalunet.design.anatomy import Anatomy, Component, Edge, Role
from causalunet.errors import ModelError
from causalunet.models.exact.banks import ImageBank
from causalunet.models.modules import watched
from causalunet.prediction import Prediction
from causalunet.process import VARIANCE_PRESERVING, Process
from causalunet.schedule import Level, TrainingSchedule
from causalunet.stepping import shrunk

__all__ = ["ExactUNet", "Part", "Picture", "wide"]


@dataclass(frozen=True, slots=True)
class Part:
    """A component of an exact U-Net.

    Parameters
    ----------
    name : str
    role : {"encoder", "bottleneck", "decoder"}
    module : str
        Path below the U-Net.
    into : str
        The component that is given what it puts out, ``out`` for the estimate of x_0; or several, with spaces between.
    """

    name: str
    role: Role
    module: str
    into: str = "out"


class Picture(nn.Module):
    """Base of components that put out images.

    Parameters
    ----------
    image_shape : tuple of int
        (channel, y, x).
    """

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.image_shape = image_shape

    def pixels(self, *given: Any) -> Tensor:
        """What is put out, (row, pixel)."""
        raise NotImplementedError

    def forward(self, *given: Any) -> Tensor:
        """What is put out, float32, (row, channel, y, x)."""
        return self.pixels(*given).unflatten(1, self.image_shape).float()


def wide(like: Tensor, numbers: Any) -> Tensor:
    """Numbers as float64 where a tensor is."""
    return torch.as_tensor(np.asarray(numbers), dtype=torch.float64, device=like.device)


class ExactUNet(nn.Module):
    """Base of every exact denoiser as a network: its components make E[x_0 | x_t], in float64 inside.

    Parameters
    ----------
    bank : ImageBank
        The data.
    alpha_bar : ndarray of float64, (timestep,)
        Share of signal variance at every timestep.

    Attributes
    ----------
    kind : str
        What the denoiser is called.
    prediction : Prediction
        What it puts out: mostly the image itself, since noise in single precision would leave nothing of it where
        there is hardly any signal.
    process : Process
        Of the states that it is given, see `under`.
    """

    kind: ClassVar[str] = ""
    prediction: ClassVar[Prediction] = Prediction("x0")
    bank: Tensor
    log_snr: Tensor

    def __init__(self, bank: ImageBank, alpha_bar: NDArray[np.float64]) -> None:
        super().__init__()
        self.process = VARIANCE_PRESERVING
        self.schedule = TrainingSchedule(alpha_bar)
        self.image_shape = bank.image_shape
        self.register_buffer("bank", torch.from_numpy(bank.images.reshape(len(bank), -1).astype(np.float64)))
        share = torch.from_numpy(np.array(alpha_bar, dtype=np.float64))
        self.register_buffer("log_snr", share.log() - (-share).log1p())

    @property
    def parts(self) -> tuple[Part, ...]:
        """Components in the order in which they run."""
        raise NotImplementedError(self.kind)

    def estimate(self, x: Tensor, share: Tensor, matches: Tensor) -> Tensor:
        """E[x_0 | x_t], (row, channel, y, x), by the components.

        Parameters
        ----------
        x : Tensor of float64, (row, pixel)
        share : Tensor of float64, (row,)
            Of signal variance.
        matches : Tensor of bool, (row, image)
            Images of the bank that each row's condition leaves.
        """
        raise NotImplementedError(self.kind)

    def share(self, timesteps: Tensor) -> Tensor:
        """Share of signal variance, (row,); between whole timesteps the log SNR is linear."""
        last = len(self.log_snr) - 1
        time = timesteps.double().clamp(0, last)
        before = time.floor().long()
        along = time - before
        after = (before + 1).clamp(max=last)
        # The last timestep may be noise alone, and minus infinity is on no line.
        between = torch.lerp(self.log_snr[before], self.log_snr[after], along)
        return torch.where(along == 0, self.log_snr[before], between).sigmoid()

    def forward(self, x: Tensor, timesteps: Tensor, matches: Tensor) -> Tensor:
        """E[x_0 | x_t], (row, channel, y, x).

        Parameters
        ----------
        x : Tensor, (row, channel, y, x)
        timesteps : Tensor, (row,)
        matches : Tensor of bool, (row, image)
        """
        if self.process == VARIANCE_PRESERVING:
            return self.estimate(x.double().flatten(1), self.share(timesteps), matches)
        levels = self.levels(timesteps)
        scale, share = (wide(x, part) for part in ([one.scale for one in levels], [one.alpha_bar for one in levels]))
        return self.estimate(x.double().flatten(1) / scale[:, None], share, matches)

    def under(self, process: Process) -> Self:
        """Let it be given the states of a process.

        Raises
        ------
        ModelError
            It is not known what the denoiser is there.
        """
        if not self.knows(process):
            raise ModelError(
                f"The denoiser 'exact-{self.kind}' is not known in closed form under the process {str(process)!r}. Of "
                "processes whose coordinates have noise of their own take load_optimal(process=...), of those that are "
                "shifted by a given image load_restoration(process=...)."
            )
        self.process, self.schedule = process, TrainingSchedule(self.schedule.alpha_bar, process)
        return self

    def knows(self, process: Process) -> bool:
        """Whether it is the denoiser under a process too; by default where that is a scale and no more."""
        return not (process.split or process.shifted)

    def levels(self, timesteps: Tensor) -> list[Level]:
        """Noise level of every row, between whole timesteps as `TrainingSchedule` has it."""
        last = self.schedule.timesteps - 1
        return [self.schedule.level(min(max(time, 0.0), last)) for time in timesteps.tolist()]

    def example(self, device: torch.device) -> tuple[Tensor, ...]:
        """What a row of a call is given, at timestep 0."""
        x = torch.zeros(1, *self.image_shape, device=device)
        matches = torch.ones(1, len(self.bank), dtype=torch.bool, device=device)
        return (
            shrunk(x, self.process.halvings(self.schedule.level(0).alpha_bar)),
            torch.zeros(1, device=device),
            matches,
        )

    def read_anatomy(self) -> Anatomy:
        """Describe the components as a graph; shapes and FLOPs are read off a call."""
        shapes: dict[str, Any] = {}
        modules = {part.name: self.get_submodule(part.module) for part in self.parts}
        device = self.bank.device
        row = self.example(device)
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), watched(modules, lambda name, output: shapes.update({name: tuple(output.shape[1:])})):
            self(*row)  # once before it is counted: what a condition makes is made for the first of its calls
            with counter:
                self(*row)
        counts = counter.get_flop_counts()
        root = type(self).__name__
        components = tuple(
            Component(
                name=part.name,
                role=part.role,
                level=0,
                depth=len(self.parts) - 1 - index if part.role == "decoder" else index,
                shape=shapes[part.name],
                flops=sum(counts.get(f"{root}.{part.module}", {}).values()),
                parameters=0,
                module=part.module,
            )
            for index, part in enumerate(self.parts)
        )
        edges = tuple(Edge(part.name, target) for part in self.parts for target in part.into.split())
        return Anatomy(components, edges, counter.get_total_flops(), sum(buffer.numel() for buffer in self.buffers()))
