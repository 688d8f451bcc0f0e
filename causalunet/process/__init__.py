"""Processes that lead from an image to noise: how large a state is, what it is shifted by, what has noise of its own.

Two processes with the same ratio of signal to noise are the same but for the scale of x and for how time is told
(Karras et al. 2022, section 2; Kingma et al. 2021, section 5.1). So what samplers, states and stores hold is x of scale
1. What else a process is, samplers need not know: see `causalunet.stepping`.
"""

from causalunet.process.base import PROCESSES, SCALES, VARIANCE_PRESERVING, Process, Shift, Weights
from causalunet.process.coordinates import Pyramid, ShortestPath
from causalunet.process.shifted import AddedImage, AddedResidual, AroundResidual, Bridge

__all__ = [
    "PROCESSES",
    "SCALES",
    "VARIANCE_PRESERVING",
    "AddedImage",
    "AddedResidual",
    "AroundResidual",
    "Bridge",
    "Process",
    "Pyramid",
    "Shift",
    "ShortestPath",
    "Weights",
]
