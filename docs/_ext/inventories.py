"""What the site links to in other projects' documentation.

Inventories are usually fetched at every build. These few names are written down instead, so that a build needs no
network and gives the same site tomorrow.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sphinx.util.inventory import InventoryFile

_PROJECTS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "python": (
        "https://docs.python.org/3/",
        {
            "json": ("module", "library/json.html"),
            "pathlib.Path": ("class", "library/pathlib.html#pathlib.Path"),
        },
    ),
    "numpy": (
        "https://numpy.org/doc/stable/",
        {"numpy.ndarray": ("class", "reference/generated/numpy.ndarray.html")},
    ),
    "xarray": (
        "https://docs.xarray.dev/en/stable/",
        {
            "xarray.DataArray": ("class", "generated/xarray.DataArray.html"),
            "xarray.Dataset": ("class", "generated/xarray.Dataset.html"),
            "xarray.DataTree": ("class", "generated/xarray.DataTree.html"),
            "xarray.open_datatree": ("function", "generated/xarray.open_datatree.html"),
        },
    ),
    "scipy": (
        "https://docs.scipy.org/doc/scipy/",
        {
            "scipy.stats.bootstrap": (
                "function",
                "reference/generated/scipy.stats.bootstrap.html",
            )
        },
    ),
    "zarr": (
        "https://zarr.readthedocs.io/en/stable/",
        {"zarr": ("module", "index.html")},
    ),
    "torch": (
        "https://docs.pytorch.org/docs/stable/",
        {
            "torch.Tensor": ("class", "tensors.html"),
            "torch.nn.Module": ("class", "generated/torch.nn.Module.html"),
        },
    ),
    "matplotlib": (
        "https://matplotlib.org/stable/",
        {
            "matplotlib.figure.Figure": (
                "class",
                "api/_as_gen/matplotlib.figure.Figure.html",
            )
        },
    ),
}


def mapping(folder: Path) -> dict[str, tuple[str, str]]:
    """Write the inventories into a folder; gives what `intersphinx_mapping` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, tuple[str, str]] = {}
    for project, (url, names) in _PROJECTS.items():
        path = folder / f"{project}.inv"
        InventoryFile.dump(str(path), *_as_environment(project, names))  # type: ignore[arg-type]
        made[project] = (url, str(path))
    return made


def _as_environment(project: str, names: dict[str, tuple[str, str]]) -> tuple[Any, Any]:
    """The part of a Sphinx environment that `InventoryFile.dump` reads: one domain with its objects."""
    objects = [
        (name, name, kind, page.partition("#")[0], page.partition("#")[2], 1)
        for name, (kind, page) in names.items()
    ]
    domain = SimpleNamespace(name="py", get_objects=lambda: objects)
    environment = SimpleNamespace(
        config=SimpleNamespace(project=project, version=""),
        domains=SimpleNamespace(sorted=lambda: [domain]),
    )
    return environment, SimpleNamespace(get_target_uri=lambda page: page)
