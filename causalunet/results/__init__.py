"""The stored form of results: schema, writer, and lazy opening without torch."""

from causalunet.results.index import InterventionIndex
from causalunet.results.schema import VARIABLES, Variable
from causalunet.results.store import open_results

__all__ = ["VARIABLES", "InterventionIndex", "Variable", "open_results"]
