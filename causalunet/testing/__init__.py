"""A conformance kit: whether what you bring is what studies take it for, checked before anything is run.

Each function gives a report of all its checks, or raises `ConformanceError` with one line per failure. For use in the
tests of a package of your own, and whenever a model, a fill, a view, a kind of intervention, a sampler or an outcome is
new. `plant` puts a fault into a model, to see that the kit finds it there.
"""

from causalunet.testing.fills import check_fill
from causalunet.testing.interventions import check_intervention
from causalunet.testing.misfires import MISFIRES, Misfire, plant
from causalunet.testing.models import check_model
from causalunet.testing.outcomes import check_outcome
from causalunet.testing.report import Conformance
from causalunet.testing.samplers import check_sampler
from causalunet.testing.starts import check_start
from causalunet.testing.views import check_view

__all__ = [
    "MISFIRES",
    "Conformance",
    "Misfire",
    "check_fill",
    "check_intervention",
    "check_model",
    "check_outcome",
    "check_sampler",
    "check_start",
    "check_view",
    "plant",
]
