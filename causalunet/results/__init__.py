"""The stored form of results: schema, transactional writing, and lazy opening without torch."""

from causalunet.results.engine.repository import Commit
from causalunet.results.meaning.declaration import Declaration, DeclaredOutcome
from causalunet.results.meaning.index import InterventionIndex
from causalunet.results.meaning.schema import VARIABLES, DeclaredCoordinate, Variable
from causalunet.results.store import Results, open_results

__all__ = [
    "VARIABLES",
    "Commit",
    "Declaration",
    "DeclaredCoordinate",
    "DeclaredOutcome",
    "InterventionIndex",
    "Results",
    "Variable",
    "open_results",
]
