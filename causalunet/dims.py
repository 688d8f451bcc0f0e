"""Names, order and meaning of every dimension of stored results."""

from __future__ import annotations

__all__ = [
    "BIN",
    "CHANNEL",
    "COMPONENT",
    "DIMS",
    "FACTOR",
    "HEAD",
    "INPUT",
    "INSIDE",
    "INTERVENTION",
    "LATENTS",
    "LATENT_CHANNEL",
    "LATENT_X",
    "LATENT_Y",
    "PLACE",
    "QUERY",
    "ROW",
    "SAMPLE",
    "STEP",
    "TAP_X",
    "TAP_Y",
    "TOKEN",
    "X",
    "Y",
]

SAMPLE = "sample"
STEP = "step"
COMPONENT = "component"
INTERVENTION = "intervention"
PLACE = "place"
CHANNEL = "channel"
Y = "y"
X = "x"
FACTOR = "factor"
BIN = "bin"
LATENT_CHANNEL = "latent_channel"
LATENT_Y = "latent_y"
LATENT_X = "latent_x"
"""Names of the dimensions; `DIMS` says what each means."""

HEAD = "head"
TOKEN = "token"
QUERY = "query"
INPUT = "input"
TAP_Y = "tap_y"
TAP_X = "tap_x"
"""Of places inside components; `INSIDE` says what each means."""

ROW = "row"
"""Of what a U-Net computes on, never of what is stored: one sample in one branch."""

DIMS: dict[str, str] = {
    INTERVENTION: "one intervened run per entry, in the order of the study; coordinates name its kind and window",
    SAMPLE: "unit of analysis: one prompt with one seed",
    STEP: "denoising step T ... 1, descending as the run goes; the call at step t maps x_t to x_(t-1)",
    COMPONENT: "block of the U-Net in execution order: down.i, mid, up.i",
    PLACE: "where an edit applies: a block, a skip connection (skip.i), or unet for a step that is skipped",
    CHANNEL: "image or activation channel",
    Y: "row, from the top, in pixels of the component's resolution",
    X: "column, from the left, in pixels of the component's resolution",
    BIN: "bin of the histograms of what is summarised",
    FACTOR: "what a model's factor reader tells apart, such as colour and shape",
}
"""Every dimension with its meaning, in the order in which arrays carry them."""

LATENTS: dict[str, str] = {
    LATENT_CHANNEL: "channel of a latent, of models whose images are decoded from latents",
    LATENT_Y: "row of a latent, from the top",
    LATENT_X: "column of a latent, from the left",
}
"""Dimensions that states have instead of an image's, of models whose images are decoded from latents."""

INSIDE: dict[str, str] = {
    HEAD: "attention head; of keys and values that heads share, a group of them",
    TOKEN: "token of a text, or patch of an image, in their order; of attention maps what is asked, text before image",
    INPUT: "of weights a channel that the layer is given; ``channel`` is one that it gives",
    TAP_Y: "of the weights of a convolution, row of the kernel",
    TAP_X: "of the weights of a convolution, column of the kernel",
    QUERY: "of attention maps what asks, where that is no pixel: token of a text, or patch of an image",
}
"""Dimensions that places inside components have, beside those of an image."""
