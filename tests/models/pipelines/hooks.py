"""Cuts and bypasses by hand, in the forward of diffusers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from causalunet.models.pipelines import PipelineModel

STREAMS = ("encoder_hidden_states", "hidden_states")
"""Keywords of text and image, in the order in which joint blocks put them out."""


@contextmanager
def by_hand(model: PipelineModel, place: str, *, bypass: bool = False) -> Iterator[None]:
    """Zero what a block puts out, or what a skip connection brings, or pass by a block: hooks in diffusers' forward."""
    anatomy, network = model.anatomy, model.unet.unet

    def module(path: str) -> torch.nn.Module:
        return network.get_submodule(path.removeprefix("unet."))

    if place in anatomy.skips:
        edge = anatomy.skips[place]
        target, width = anatomy.by_name[edge.target], anatomy.by_name[edge.source].shape[0]

        def zero_last(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
            joined = given[0].clone()
            joined[:, -width:] = 0
            return (joined, *given[1:])

        handles = [module(target.modules[0]).register_forward_pre_hook(zero_last)]
    else:
        modules = anatomy.by_name[place].modules
        given: dict[Any, Any] = {}

        def note(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            given.update({**dict(enumerate(arguments)), **named})

        def put_out(_m: Any, _g: Any, output: Any) -> Any:
            if isinstance(output, torch.Tensor):
                return given[0] if bypass else torch.zeros_like(output)
            # joint blocks put out text and image, and the last one no text
            own = (given.get(STREAMS[0]), given.get(STREAMS[1])) if len(output) == 2 else (given[0],)
            return tuple(
                part if part is None else (one if bypass else torch.zeros_like(part))
                for part, one in zip(output, own, strict=True)
            )

        handles = [
            module(modules[0]).register_forward_pre_hook(note, with_kwargs=True),
            module(modules[-1]).register_forward_hook(put_out),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
