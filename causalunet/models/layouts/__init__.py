"""U-Nets of other packages than OpenAI's: one module for each layout, which knows its networks when it sees them."""

from causalunet.models.layouts import denoising_diffusion, edm, k_diffusion, without_pipeline
from causalunet.models.layouts.asked import Asked, Layout

__all__ = ["LAYOUTS", "Asked", "Layout"]

LAYOUTS: tuple[Layout, ...] = (edm.LAYOUT, k_diffusion.LAYOUT, denoising_diffusion.LAYOUT, without_pipeline.LAYOUT)
"""In the order in which they are tried."""
