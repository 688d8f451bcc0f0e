"""Digests, which name the content of interventions and studies."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["digest_of", "unlabelled", "written"]


def digest_of(content: Any) -> str:
    """Sixteen hexadecimal digits that name a value of plain JSON types."""
    return hashlib.sha256(written(content).encode()).hexdigest()[:16]


def written(content: Any) -> str:
    """A value of plain JSON types as text: the same for equal values."""
    return json.dumps(content, sort_keys=True)


def unlabelled(spec: Any) -> Any:
    """Drop the labels of a JSON spec at every depth."""
    if isinstance(spec, dict):
        return {name: unlabelled(value) for name, value in spec.items() if name != "label"}
    return [unlabelled(entry) for entry in spec] if isinstance(spec, list) else spec
