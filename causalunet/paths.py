"""Paths as users give them."""

from __future__ import annotations

import os
from pathlib import Path

from causalunet.errors import CausalUNetError, SpecError

__all__ = ["given_path"]


def given_path(path: object, error: type[CausalUNetError] = SpecError) -> Path:
    """Make a path of what was given: ``~`` is the home folder, and ``..`` is followed.

    Raises
    ------
    CausalUNetError
        Of the given kind: it is no text and no path, is empty, or names a user whose home folder is not known.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise error(f"{path!r:.200} is no path. Give text or a pathlib.Path, such as 'results/first.zarr'.")
    try:
        found = Path(text).expanduser()
    except RuntimeError as unknown:
        raise error(f"The home folder that {text!r:.200} begins with is not known. Write the path out.") from unknown
    return found.resolve() if ".." in found.parts else found
