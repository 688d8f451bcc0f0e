"""Interventions as they were stored, made again one by one: some may be of classes that this process does not have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalunet.design.interventions import Edit, Intervention
from causalunet.design.registered import plugins, unregistered
from causalunet.errors import CausalUNetError, DamageError
from causalunet.results.guard.checked_store import Stored, check_specs
from causalunet.results.guard.storage_errors import faults_told

__all__ = ["ReadBack"]

_SPECS = "outcomes/spec"


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What could be made again of a store's interventions.

    Parameters
    ----------
    documents : tuple of dict
        All interventions as JSON, in the order of the store.
    items : dict of int to Intervention
        By position in the store; those that could be read.
    edits : dict of int to tuple of Edit
        Of these.
    unchecked : tuple of str
        Kinds and fills that the process does not know, or whose classes are other ones than when the store was made.
    problems : tuple of str
        Interventions of the package's own kinds and fills that cannot be read.
    """

    documents: tuple[dict[str, Any], ...]
    items: dict[int, Intervention]
    edits: dict[int, tuple[Edit, ...]]
    unchecked: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, stored: Stored, where: object) -> ReadBack:
        """Read all interventions of a store."""
        items: dict[int, Intervention] = {}
        edits: dict[int, tuple[Edit, ...]] = {}
        unchecked: dict[str, None] = {}
        problems: list[str] = []
        try:
            with faults_told(where, "reading the coordinates of"):
                specs = np.asarray(stored.arrays[_SPECS][...]).tolist()
                check_specs(specs, where)
        except DamageError as error:
            return cls((), {}, {}, problems=(f"the stored study cannot be read: {error!s:.200}",))
        documents = tuple(map(json.loads, specs))
        for position, document in enumerate(documents):
            if unknown := list(unregistered(document)):
                unchecked |= dict.fromkeys(unknown)
                continue
            try:
                item = Intervention.from_json(document)
                items[position], edits[position] = item, item.edits()
            except Exception as error:
                items.pop(position, None)
                own = list(plugins(document))
                if not own and not isinstance(error, CausalUNetError | RecursionError):
                    raise
                told = f"{type(error).__name__}: {error!s:.200}"
                unchecked |= dict.fromkeys(f"{name} as it is defined here ({told})" for name in own)
                problems += [] if own else [f"intervention {position} cannot be read back: {error!s:.200}"]
        return cls(documents, items, edits, tuple(unchecked), tuple(problems))
