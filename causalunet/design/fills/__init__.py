"""What is put in place of a component's output: the third part of (component, window, fill)."""

from causalunet.design.fills.base import FILLS, Fill, Jump, fill_words, says_what
from causalunet.design.fills.caching import Extrapolate, Hold
from causalunet.design.fills.directions import Project
from causalunet.design.fills.features import Feature, SparseAutoencoder
from causalunet.design.fills.numbers import AddNoise, Clamp, Quantize
from causalunet.design.fills.others import Mean, Resample
from causalunet.design.fills.softmax import Exclude
from causalunet.design.fills.spectra import BandScale, FrequencyScale
from causalunet.design.fills.tables import FromTable, MaskChannels
from causalunet.design.fills.usual import Bypass, Identity, Patch, Scale, Zero

__all__ = [
    "FILLS",
    "AddNoise",
    "BandScale",
    "Bypass",
    "Clamp",
    "Exclude",
    "Extrapolate",
    "Feature",
    "Fill",
    "FrequencyScale",
    "FromTable",
    "Hold",
    "Identity",
    "Jump",
    "MaskChannels",
    "Mean",
    "Patch",
    "Project",
    "Quantize",
    "Resample",
    "Scale",
    "SparseAutoencoder",
    "Zero",
    "fill_words",
    "says_what",
]
