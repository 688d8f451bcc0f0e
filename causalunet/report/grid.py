"""Grid: images of the same samples side by side, a row per start of the intervention (figures 3, 5 and 6)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from causalunet.analysis.curves import curve
from causalunet.analysis.selection import outcomes
from causalunet.analysis.sweeps import edited_windows
from causalunet.design.windows import Window
from causalunet.dims import INTERVENTION, SAMPLE
from causalunet.errors import SpecError
from causalunet.report.backends import Backend, check_backend
from causalunet.report.chosen import baseline_images
from causalunet.report.pictures import captions, line_height, pack, sample_positions, show, wrap
from causalunet.report.style import new_figure, style

if TYPE_CHECKING:
    from bokeh.models import LayoutDOM

__all__ = ["plot_grid"]

_CELL = 0.8
_FONT = 6.5
_LABEL_FONT = 7
_LABELS = 1.45  # inches at the left for labels of interventions
_MOST_ROWS = 8
_TILE = 110  # pixels, in a browser
_WORDS = {"relax": "relaxed for"}


@overload
def plot_grid(
    results: xr.DataTree,
    selection: Mapping[str, Any],
    *,
    by: str = "start",
    rows: Sequence[int] | Sequence[str] | None = None,
    samples: int | Sequence[int] = 6,
    allow_incomplete: bool = False,
    figure: Figure | None = None,
    backend: Literal["matplotlib"] = "matplotlib",
) -> Figure: ...


@overload
def plot_grid(
    results: xr.DataTree,
    selection: Mapping[str, Any],
    *,
    by: str = "start",
    rows: Sequence[int] | Sequence[str] | None = None,
    samples: int | Sequence[int] = 6,
    allow_incomplete: bool = False,
    backend: Literal["bokeh"],
) -> LayoutDOM: ...


def plot_grid(
    results: xr.DataTree,
    selection: Mapping[str, Any],
    *,
    by: str = "start",
    rows: Sequence[int] | Sequence[str] | None = None,
    samples: int | Sequence[int] = 6,
    allow_incomplete: bool = False,
    figure: Figure | None = None,
    backend: Backend = "matplotlib",
) -> Figure | LayoutDOM:
    """Show images of intervened runs below those of the baseline run.

    Parameters
    ----------
    results : xarray.DataTree
    selection : mapping
        One sweep, as for `causalunet.analysis.curve`; of any interventions with ``by="intervention"``.
    by : str
        Coordinate of the interventions that the rows run along, such as "start", "length" or "relax". Along
        "intervention" rows are any interventions by their labels, such as compositions, in the order given.
    rows : sequence of int or str, optional
        Values along it, one row each; start steps are drawn in the order of the run. By default all of them, or eight
        spread evenly.
    samples : int or sequence of int
        Columns: the first so many samples, or samples by their coordinate.
    allow_incomplete : bool
        As for `causalunet.analysis.curve`.
    figure : matplotlib Figure, optional
        To draw into; a new one by default.
    backend : {"matplotlib", "bokeh"}
        "bokeh" for a browser or a notebook, where prompts are told under the mouse. Needs the extra ``explore``;
        ``bokeh.io.show`` shows what comes back.

    Returns
    -------
    matplotlib.figure.Figure or bokeh.models.LayoutDOM
        First row the baseline, titles the prompts, row labels the steps of the window.

    Raises
    ------
    SpecError, StoreError
        As for `causalunet.analysis.curve`; also if a row or a sample is not there.
    MissingExtraError
        Bokeh is asked for and not installed.

    Examples
    --------
    >>> labels = ["ablate_block bottom=2 10-6", "ablate_skip top=2 10-6"]
    >>> figure = plot_grid(results, {"intervention": labels}, by="intervention")
    """
    check_backend(backend, into=figure is not None)
    data = curve(results, "image", by=by, allow_incomplete=allow_incomplete, **selection)
    data = data.isel({SAMPLE: sample_positions(data, samples)})
    data = data.sel({by: _rows(data[by].values, rows, by)})
    baseline = baseline_images(results, data[SAMPLE])
    images = np.concatenate([baseline.values[None], data["image"].transpose(by, SAMPLE, ...).values])
    labels = ["baseline", *_row_labels(data, by, outcomes(results))]
    if backend == "bokeh":
        return _sheet(images, labels, captions(data))
    height, width = (_CELL * size / max(images.shape[-2:]) for size in images.shape[-2:])
    titles = [wrap(caption, width, _FONT, lines=5) for caption in captions(data)]
    above = line_height(_FONT) * max(len(title.splitlines()) for title in titles)
    with style():
        if figure is None:
            left = _LABELS if by == INTERVENTION else 0.75
            figure = new_figure(left + (width + 0.05) * images.shape[1], above + 0.1 + (height + 0.05) * len(images))
        pack(figure)
        axes = figure.subplots(*images.shape[:2], squeeze=False)
        for row, label in enumerate(labels):
            for column, ax in enumerate(axes[row]):
                show(ax, images[row, column], "NW")
            axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=_LABEL_FONT)
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title, fontsize=_FONT, pad=3)
    return figure


def _sheet(images: NDArray[Any], labels: list[str], prompts: Sequence[str]) -> LayoutDOM:
    from causalunet.report.interactive.sheet import Tile, draw_sheet, pixels

    tiles = [
        [
            Tile(pixels(image), label if column == 0 else "", told=f"{label}: {prompt}")
            for column, (image, prompt) in enumerate(zip(row, prompts, strict=True))
        ]
        for label, row in zip((" ".join(label.split()) for label in labels), images, strict=True)
    ]
    return draw_sheet(tiles, tile=_TILE)


def _rows(known: NDArray[Any], rows: Sequence[Any] | None, by: str) -> list[Any]:
    if rows is None:
        spread = np.linspace(0, len(known) - 1, min(len(known), _MOST_ROWS)).round().astype(int)
        return [known.tolist()[position] for position in spread]
    missing = [value for value in rows if value not in known.tolist()]
    if missing or not len(rows):
        raise SpecError(f"No intervention of the selection has {by} {missing}; there are {known.tolist()}.")
    return list(dict.fromkeys(rows)) if by == INTERVENTION else sorted(set(rows), reverse=by == "start")


def _row_labels(data: xr.Dataset, by: str, every: xr.Dataset) -> list[str]:
    """The steps of each intervention, or the first where they are not in one piece; else the value of the row."""
    if by == INTERVENTION:
        return [wrap(str(label), _LABELS - 0.1, _LABEL_FONT, lines=4) for label in data[by].values]
    if by not in ("start", "length"):
        return [f"{_WORDS.get(by, by)} {value}" for value in data[by].values]
    names, rows = np.broadcast_to(data[INTERVENTION].values, data.sizes[by]), every[INTERVENTION].values.tolist()
    return [_steps(every.isel({INTERVENTION: rows.index(str(name))})) for name in names]


def _steps(row: xr.Dataset) -> str:
    own = Window(int(row["start"]), int(row["length"]))
    first, *others = edited_windows(json.loads(str(row["spec"].values))) or (own,)
    if others:
        return f"from step {first.start}"
    return f"step {first.start}" if first.length == 1 else f"steps {first.start}-{first.stop}"
