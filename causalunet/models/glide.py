"""GLIDE's base model: 64 x 64 pixels, 385 M parameters (Nichol et al. 2022)."""

from __future__ import annotations

from causalunet.models.openai_layout import UNetConfig
from causalunet.models.text_transformer import TextConfig

__all__ = ["GLIDE_CONFIG"]

GLIDE_CONFIG = UNetConfig(
    image_size=64,
    model_channels=192,
    channel_mult=(1, 2, 3, 4),
    num_res_blocks=3,
    attention_resolutions=(32, 16, 8),
    head_channels=64,
    dropout=0.1,
    text=TextConfig(vocabulary=50257, context=128, width=512, layers=16, heads=8),
)
"""Sizes of the official base checkpoint."""
