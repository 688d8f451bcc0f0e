"""What a study could not honour in a pipeline, told by name before anything is called."""

from __future__ import annotations

from typing import Any

from torch import nn

from causalunet.errors import ModelError

__all__ = ["check_network", "check_pipeline"]


def check_pipeline(pipe: Any) -> None:
    """Raise `ModelError` where a part is missing or does what no study could tell.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
    """
    kind = type(pipe).__name__
    needed = ("unet", "transformer", "vae", "vqvae", "scheduler", "text_encoder", "tokenizer")
    missing = [name for name in needed if _lacks(pipe, name)]
    if missing:
        raise ModelError(f"This {kind} has no {' and no '.join(missing)}; load it with all its parts.")
    if getattr(pipe, "safety_checker", None) is not None:
        raise ModelError(
            f"The safety checker of this {kind} is active. It turns images black, which would be measured as an effect "
            "of an intervention; studies do not call it. Load the pipeline with safety_checker=None."
        )
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module):
            _check_weights(part, name, kind)
    _check_together(pipe, kind)


def _lacks(pipe: Any, name: str) -> bool:
    return name in pipe.components and pipe.components[name] is None


def _check_weights(part: nn.Module, name: str, owner: str) -> None:
    if any(value.is_meta for value in part.parameters()):
        raise ModelError(
            f"Weights of {name} of this {owner} are on the meta device, which keeps none: never loaded, "
            "or are offloaded. Load it without low_cpu_mem_usage or device_map, and do not offload it."
        )
    # Text encoders of T5 keep some layers in float32, by their own account, since half precision overflows there.
    kept = getattr(part, "_keep_in_fp32_modules", None) or ()
    floating = [
        value
        for path, value in part.named_parameters()
        if value.is_floating_point() and not {*path.split(".")} & {*kept}
    ]
    kinds = {str(value.dtype).removeprefix("torch.") for value in floating}
    if len(kinds) > 1:
        raise ModelError(
            f"Weights of {name} of this {owner} are of several precisions, {' and '.join(sorted(kinds))}; bring them "
            f"to one, as with pipe.{name}.to(torch.float32)."
        )


def _check_together(pipe: Any, owner: str) -> None:
    """A network computes with what text encoders say, so these are of its precision; a decoder may be of another."""
    kinds: dict[str, list[str]] = {}
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module) and (name in ("unet", "transformer") or name.startswith("text_encoder")):
            for value in (value for value in part.parameters() if value.is_floating_point()):
                kinds.setdefault(str(value.dtype).removeprefix("torch."), []).append(name)
                break
    if len(kinds) > 1:
        told = " and ".join(f"{', '.join(names)} in {kind}" for kind, names in kinds.items())
        raise ModelError(
            f"Parts of this {owner} that compute together are of several precisions, {told}; bring them to one, as "
            "with pipe.to(torch.float32)."
        )


def check_network(unet: Any, *, beside: int = 0) -> None:
    """Raise `ModelError` for a network whose modules are not called as they are, or that is told more than that.

    Parameters
    ----------
    unet : torch.nn.Module
    beside : int
        Channels of what it is told beside x_t.
    """
    kind = type(unet).__name__
    if hasattr(unet, "_orig_mod"):
        raise ModelError(
            "The network is compiled (torch.compile): its modules are not called one by one, so that edits would be "
            "passed over in silence. Give the pipeline as it was before, with pipe.unet = pipe.unet._orig_mod."
        )
    if isinstance(unet, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ModelError(
            f"The network is in a {kind}, which runs copies of its modules. Give the pipeline the network itself, with "
            "pipe.unet = pipe.unet.module; several processes can fill one store."
        )
    if getattr(unet.config, "encoder_hid_dim_type", None) in ("ip_image_proj", "image_proj", "text_image_proj"):
        raise ModelError(
            "An IP adapter is active: the network is told an image beside the text, which no study gives it. Unload it "
            "with pipe.unload_ip_adapter()."
        )
    if any(getattr(block, "s1", None) is not None for block in getattr(unet, "up_blocks", ())):
        raise ModelError(
            "FreeU is on: it filters skip connections between the blocks, where no study could cut them. Turn it off "
            "with pipe.disable_freeu()."
        )
    given, put_out = unet.config.in_channels - beside, unet.config.out_channels
    if beside and given != put_out:
        raise ModelError(
            f"This {kind} takes {unet.config.in_channels} channels and puts out {put_out}; of a network that is told "
            f"an image of {beside} beside x_t {beside + put_out} are expected."
        )
    if put_out is not None and given not in (put_out, put_out // 2):
        raise ModelError(
            f"This {kind} takes {given} channels and puts out {put_out}: it is told "
            "an image beside x_t, as for inpainting or upscaling, which no study gives it."
        )
