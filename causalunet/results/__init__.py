"""The stored form of results: schema, transactional writing, and lazy opening without torch."""

from causalunet.results.index import InterventionIndex
from causalunet.results.repository import Commit
from causalunet.results.schema import VARIABLES, Variable
from causalunet.results.store import Results, open_results

__all__ = ["VARIABLES", "Commit", "InterventionIndex", "Results", "Variable", "open_results"]
