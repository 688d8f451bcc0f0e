"""Pipelines of diffusers as models."""

from causalunet.models.pipelines.given import GivenImage
from causalunet.models.pipelines.hub import load_pretrained
from causalunet.models.pipelines.model import PipelineModel
from causalunet.models.pipelines.reading import PIPELINES, from_pipeline

__all__ = ["PIPELINES", "GivenImage", "PipelineModel", "from_pipeline", "load_pretrained"]
