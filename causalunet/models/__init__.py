"""Models whose U-Net can be intervened on, by name."""

from causalunet.models.architectures import Architecture, architectures
from causalunet.models.base import DiffusionModel, load_model, model_names, register
from causalunet.models.shapes import load_shapes

__all__ = ["Architecture", "DiffusionModel", "architectures", "load_model", "load_shapes", "model_names", "register"]
