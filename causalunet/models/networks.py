"""Any network that says where its blocks are, as a `DiffusionModel`."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy, Edge, Role, u_edges
from causalunet.design.limits import shown
from causalunet.errors import ModelError
from causalunet.models.checkpoints import fingerprint
from causalunet.models.components import Place, read_components, weights_of
from causalunet.models.devices import device_of
from causalunet.models.inner import with_inner
from causalunet.models.labels import Prepare, label_reader
from causalunet.models.pixels import InPixels, WithoutReader
from causalunet.prediction import Prediction
from causalunet.process import VARIANCE_PRESERVING, Process

if TYPE_CHECKING:  # pyright takes a cached property for none of a protocol's properties
    from builtins import property as cached_property
else:
    from functools import cached_property

__all__ = ["CalledNetwork", "NetworkModel", "from_network"]

Call = Callable[..., Tensor]
"""Of the network, x, timesteps and labels, one row each, to what it predicts."""

_ROLES: dict[str, Role] = {"down": "encoder", "mid": "bottleneck", "up": "decoder"}


class CalledNetwork(nn.Module):
    """A network, called the one way the executor calls: ``unet(x, timesteps, labels)``.

    Parameters
    ----------
    network : torch.nn.Module
    call : callable
        As for `from_network`.
    whole_timesteps : bool
        Whether it is given integers.
    """

    def __init__(self, network: nn.Module, call: Call, *, whole_timesteps: bool) -> None:
        super().__init__()
        self.network, self.call, self.whole_timesteps = network, call, whole_timesteps

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """What the network predicts, (row, channel, y, x)."""
        return self.call(self.network, x, timesteps.long() if self.whole_timesteps else timesteps, labels)


@dataclass(frozen=True, eq=False, repr=False)
class NetworkModel(InPixels, WithoutReader):
    """A pixel-space model around a network, made by `from_network`.

    Parameters
    ----------
    name : str
    unet : torch.nn.Module
        Called as ``unet(x, timesteps, *context)``.
    anatomy : Anatomy
    image_shape : tuple of int
        (channel, y, x).
    alpha_bar : ndarray of float64, (timestep,)
        Training schedule.
    prepare : callable
        Prompts to what the network is told of them.
    prediction : Prediction
    process : Process
    clip : bool
        Whether the estimate of x_0 is clipped to [-1, 1].
    whole_timesteps : bool
        Whether the network takes whole timesteps only.
    guidable : bool
        Whether the empty prompt means "no condition", so that there is something to guide from.
    conditional : bool
        Whether it has conditions at all.
    settings : mapping
        What changes images beside weights, by name: plain values.
    """

    name: str
    unet: nn.Module
    anatomy: Anatomy
    image_shape: tuple[int, int, int]
    alpha_bar: NDArray[np.float64]
    prepare: Prepare
    prediction: Prediction
    process: Process = VARIANCE_PRESERVING
    clip: bool = True
    whole_timesteps: bool = False
    guidable: bool = True
    conditional: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of weights, schedule, prediction, process, clipping and settings: what changes the images."""
        told: list[Any] = [fingerprint(self.unet), str(self.prediction), str(self.process), self.clip]
        told += [dict(sorted(self.settings.items()))] if self.settings else []
        digest = hashlib.sha256(json.dumps(told).encode())
        digest.update(np.ascontiguousarray(self.alpha_bar, dtype=np.float64).tobytes())
        return digest.hexdigest()[:16]

    @property
    def identity(self) -> Mapping[str, Any]:
        """Its settings, as parts of what makes the images."""
        return self.settings

    @property
    def unprompted(self) -> bool:
        """Whether a sample without a prompt can be made: also of a network that never has a condition."""
        return self.guidable or not self.conditional

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for prompts that the model cannot read."""
        self.prepare(prompts)

    def tokens(self, prompts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """What prompts become, one row per prompt: labels, (prompt,)."""
        return self.prepare(prompts)

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """The same, where the network is."""
        return tuple(torch.from_numpy(part).to(device_of(self.unet)) for part in self.prepare(prompts))


def from_network(
    network: nn.Module,
    *,
    name: str,
    parts: Mapping[str, str | tuple[str, ...]],
    image_shape: tuple[int, int, int],
    alpha_bar: NDArray[np.float64],
    prediction: Prediction | str = "eps",
    process: Process = VARIANCE_PRESERVING,
    skips: bool | Mapping[str, str] = True,
    call: Call | None = None,
    classes: int | Sequence[str] | None = None,
    null_class: int | None = None,
    clip: bool = True,
    whole_timesteps: bool = False,
) -> NetworkModel:
    """Make a model of any network, by saying where its blocks are; shapes, costs and weights are read off it.

    Parameters
    ----------
    network : torch.nn.Module
        Put into evaluation mode, and moved nowhere.
    name : str
        What results call it.
    parts : mapping of str to str or tuple of str
        Path of the module of every component, in the order in which they run; of one that is several modules all of
        them. In a U they are called ``down.i`` from the top, ``mid``, ``up.i`` from the bottom.
    image_shape : tuple of int
        (channel, y, x).
    alpha_bar : ndarray of float64, (timestep,)
        Training schedule, from ``causalunet.schedule``.
    prediction : Prediction or str
        What the network puts out.
    process : Process
        How large the states are that it is given.
    skips : bool or mapping of str to str
        True: every ``down.i`` ends in the ``up.i`` opposite, as in a U. A mapping says which component's output ends in
        which; False is a network without skip connections. What enters a component enters its first module.
    call : callable, optional
        ``call(network, x, timesteps, labels)``; by default ``network(x, timesteps)``, and with ``labels`` where there
        are classes.
    classes : int or sequence of str, optional
        Number of classes, or their names. Without classes prompts only name samples.
    null_class : int, optional
        The class that stands for none. Only with it there is something to guide from; the rows of a guided call are
        those of the prompts first, then those without one, in whatever order the network's own pipeline has them.
    clip : bool
        Whether the estimate of x_0 is clipped to [-1, 1].
    whole_timesteps : bool
        Whether the network takes whole timesteps only, such as rows of a table: it is given integers then.

    Returns
    -------
    NetworkModel

    Raises
    ------
    ModelError
        There is no such module, modules ran in another order, a component puts out no tensor, or the network cannot be
        called.
    SpecError, ComponentError
        Names of components are none, or skip connections do not fit them.
    """
    kind = Prediction(prediction) if isinstance(prediction, str) else prediction
    count = classes if isinstance(classes, int) or classes is None else len(classes)
    names = None if isinstance(classes, int) else classes
    usual: Call = _without_labels if count is None else _with_labels
    unet = CalledNetwork(network.eval(), call or usual, whole_timesteps=whole_timesteps)
    paths = {part: (path,) if isinstance(path, str) else tuple(path) for part, path in parts.items()}
    prepare = label_reader(count, names, null_class)
    labels = torch.from_numpy(prepare([""] if null_class is not None or count is None else ["0"])[0])
    anatomy = _read(unet, paths, _edges(list(paths), skips), image_shape, labels.to("meta"))
    schedule = np.asarray(alpha_bar, dtype=np.float64)
    guidable, conditional = null_class is not None, count is not None
    said = kind, process, clip, whole_timesteps, guidable, conditional
    return NetworkModel(name, unet, anatomy, image_shape, schedule, prepare, *said)


def _without_labels(network: nn.Module, x: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
    output: Tensor = network(x, timesteps)
    return output


def _with_labels(network: nn.Module, x: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
    output: Tensor = network(x, timesteps, labels)
    return output


def _edges(names: Sequence[str], skips: bool | Mapping[str, str]) -> tuple[Edge, ...]:
    """One after the other, and across."""
    path = [Edge(*pair) for pair in itertools.pairwise([*names, "out"])]
    if skips is True:
        arms = [sum(name.startswith(f"{arm}.") for name in names) for arm in ("down", "up")]
        return (*path, *(edge for edge in u_edges(*arms) if edge.name))
    across = dict(skips) if isinstance(skips, Mapping) else {}
    if strange := [end for pair in across.items() for end in pair if end not in names]:
        raise ModelError(f"skips names {shown(strange[0])}, which is no component; there are {', '.join(names)}.")
    return (*path, *(Edge(*pair, f"skip.{number}") for number, pair in enumerate(across.items())))


def _read(
    unet: CalledNetwork,
    parts: Mapping[str, tuple[str, ...]],
    edges: tuple[Edge, ...],
    image_shape: tuple[int, int, int],
    labels: Tensor,
) -> Anatomy:
    """Shapes, order and costs, by one call on the meta device."""
    kind, arms = type(unet.network).__name__, [name.partition(".")[0] for name in parts]
    places = [
        Place(
            name,
            _ROLES.get(arms[number], "block"),
            len(parts) - 1 - number if arms[number] == "up" else number,
            tuple(f"network.{path}" for path in own),
        )
        for number, (name, own) in enumerate(parts.items())
    ]
    x, timesteps = torch.empty(1, *image_shape, device="meta"), torch.zeros(1, device="meta")
    try:
        components, flops = read_components(unet, places, (x, timesteps, labels), owner=kind)
    except AttributeError as error:
        raise ModelError(f"A path of parts is none of this {kind}: {error}.") from error
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f"This {kind} cannot be called with one image of {image_shape}: {type(error).__name__}: {error!s:.300}. "
            + (
                "Tensors that are made on the way have to be on x.device."
                if "meta" in str(error)
                else "Say how by call=."
            )
        ) from error
    return with_inner(Anatomy(components, edges, flops, weights_of(unet)), unet, (x, timesteps, labels))
