"""The reference shows what the package adds to a class, not all that xarray or the standard library bring."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def leave_out(
    app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Say of a member whether it comes from elsewhere."""
    defined = getattr(member, "fget", None) or getattr(member, "func", None) or member
    module = getattr(defined, "__module__", None) or "causalunet"
    return True if what == "class" and not module.startswith("causalunet") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Listen for members."""
    app.connect("autodoc-skip-member", leave_out)
    return {"parallel_read_safe": True}
