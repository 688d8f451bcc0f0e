"""Taking in pipelines whose network is a transformer."""

from __future__ import annotations

from causalunet.errors import ModelError
from causalunet.models.labels import label_reader
from causalunet.models.pipelines.asked import Asked
from causalunet.models.pipelines.conditions import JointTexts, Labels, MaskedTexts, PooledTexts
from causalunet.models.pipelines.latents import in_latents, shapes_of
from causalunet.models.pipelines.model import PipelineModel
from causalunet.models.pipelines.networks import (
    ClassTransformer,
    JointTransformer,
    MaskedTransformer,
    PackedTransformer,
)
from causalunet.models.pipelines.refusals import check_network
from causalunet.models.pipelines.schedulers import Asking

__all__ = ["dit", "flux", "pixart", "stable_diffusion_3"]

_PACKED = 2
"""Side of the squares of latents that are one token of Flux."""


def dit(asked: Asked) -> PipelineModel:
    """Of classes: DiT."""
    asked.refuse_guidance()
    pipe, config = asked.pipe, asked.pipe.transformer.config
    check_network(pipe.transformer)
    # The last embedding stands for no class: what the network was trained with where its class was dropped.
    count, null = config.num_embeds_ada_norm + 1, config.num_embeds_ada_norm
    labels = Labels(label_reader(count, asked.classes, null if asked.null_class is None else asked.null_class))
    return in_latents(asked, pipe.vae, ClassTransformer(pipe.transformer), labels)


def pixart(asked: Asked) -> PipelineModel:
    """Of texts: PixArt."""
    asked.refuse_classes()
    asked.refuse_guidance()
    pipe = asked.pipe
    check_network(pipe.transformer)
    _, (_, y, x) = shapes_of(pipe.vae, pipe.transformer, asked.size)
    return in_latents(asked, pipe.vae, MaskedTransformer(pipe.transformer, (y, x)), MaskedTexts(pipe))


def stable_diffusion_3(asked: Asked) -> PipelineModel:
    """Of texts, by flow matching, in joint blocks: Stable Diffusion 3 and 3.5."""
    asked.refuse_classes()
    asked.refuse_guidance()
    asked.require("text_encoder_2", "tokenizer_2")
    pipe, network = asked.pipe, asked.pipe.transformer
    check_network(network)
    shapes = shapes_of(pipe.vae, network, asked.size)
    (_, y, x), patch = shapes[0], network.config.patch_size
    asking = Asking((y // patch) * (x // patch))
    return in_latents(asked, pipe.vae, JointTransformer(network), JointTexts(pipe), shapes=shapes, asking=asking)


def flux(asked: Asked) -> PipelineModel:
    """Of texts, by flow matching, in joint blocks and then blocks of one stream: FLUX.1."""
    asked.refuse_classes()
    asked.require("text_encoder_2", "tokenizer_2")
    pipe, network = asked.pipe, asked.pipe.transformer
    check_network(network)
    if not network.config.guidance_embeds:
        asked.refuse_guidance()
    elif asked.told_guidance is None:
        raise ModelError(
            "This network has distilled guidance: it is told the scale at every call (guidance_embeds), as FLUX.1 "
            "[dev] is. Give it, as from_pipeline(pipe, told_guidance=3.5)."
        )
    made_for = (pipe.default_sample_size, pipe.default_sample_size)
    shapes = shapes_of(pipe.vae, network, asked.size, packed=_PACKED, made_for=made_for)
    (_, y, x) = shapes[0]
    asking = Asking((y // _PACKED) * (x // _PACKED), from_one=True)
    packed = PackedTransformer(network, pipe.scheduler.config.num_train_timesteps, asked.told_guidance)
    return in_latents(asked, pipe.vae, packed, PooledTexts(pipe), shapes=shapes, asking=asking)
