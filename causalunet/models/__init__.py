"""Models whose U-Net can be intervened on, by name."""

from causalunet.models import exact
from causalunet.models.architectures import Architecture, architectures
from causalunet.models.base import DiffusionModel, load_model, model_names, register
from causalunet.models.dictionaries import load_sparse_autoencoder
from causalunet.models.glide import load_glide
from causalunet.models.lpips import LPIPS
from causalunet.models.networks import from_network
from causalunet.models.pipelines import GivenImage, from_pipeline, load_pretrained
from causalunet.models.rounded import round_weights
from causalunet.models.scenes import load_scenes
from causalunet.models.shapes import load_shapes
from causalunet.models.shapes_flow import load_shapes_flow
from causalunet.models.shapes_latent import load_shapes_latent
from causalunet.models.unets import from_unet

__all__ = [
    "LPIPS",
    "Architecture",
    "DiffusionModel",
    "GivenImage",
    "architectures",
    "exact",
    "from_network",
    "from_pipeline",
    "from_unet",
    "load_glide",
    "load_model",
    "load_pretrained",
    "load_scenes",
    "load_shapes",
    "load_shapes_flow",
    "load_shapes_latent",
    "load_sparse_autoencoder",
    "model_names",
    "register",
    "round_weights",
]
