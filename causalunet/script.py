"""What every study script does: choose a size, show the plans, run, draw; later scripts read earlier ones."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr
from rich.console import Console

from causalunet.console import make_console
from causalunet.errors import CausalUNetError, StoreError
from causalunet.progress import what_stays
from causalunet.results.store import Results, open_results
from causalunet.study import Study

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["Folder", "by_place", "drawn_across", "labels_by_place", "plot_by_place", "run_script", "with_interval"]


@dataclass(frozen=True, slots=True)
class Folder:
    """Where a study script of some size keeps its results, beside those of the other studies.

    Parameters
    ----------
    study : Path
        Folder of the script.
    size : str
        Such as "quick".
    output : Path
        Folder of stores and figures.
    retry_failed : bool
        Whether cells that are marked as failed are to be run again.
    """

    study: Path
    size: str
    output: Path
    retry_failed: bool = False

    @property
    def store(self) -> Path:
        """The results store of a script of one study."""
        return self.store_of("")

    def store_of(self, part: str) -> Path:
        """The results store of one of several studies of a script, by its name; of the only one, by ``""``."""
        return self.output / f"{_joined(self.size, part)}.zarr"

    @property
    def figures(self) -> Path:
        """Folder of figures and of the report."""
        return self.output / self.size

    def earlier(self, name: str, part: str = "") -> Results:
        """Open the results of another script of the same size.

        Parameters
        ----------
        name : str
            Folder of that script.
        part : str
            Which of its studies, where it has several.

        Raises
        ------
        StoreError
            It was not run yet; the message has the command.
        """
        output = self.output.parent.parent / name / self.output.name
        path = output / f"{_joined(self.size, part)}.zarr"
        if not path.exists():
            raise StoreError(
                f"This study starts from the results of {name}, and there are none at {path}. Run that one first: "
                f"python {self.study.parent.name}/{name}/study.py --{self.size}"
            )
        return open_results(path)


def run_script(
    script: str | Path,
    description: str,
    sizes: Mapping[str, Callable[[Folder], Study | Mapping[str, Study]]],
    draw: Callable[[Any, Folder, Console], None],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run a study, or several that belong together, from the command line and draw the figures.

    Parameters
    ----------
    script : path
        The script's own ``__file__``; results go to the folder ``results`` beside it.
    description : str
        Shown by ``--help``; its first line is the question on the study's page, ``report.html`` among the figures.
    sizes : mapping of str to callable
        What makes the study, by the name of its option; the first is the default. Several studies, such as samples
        with and without a prompt, are a mapping of their names to them.
    draw : callable
        Given the results (of several studies: by their names), the folder and a console.
    arguments : sequence of str, optional
        By default those of the process.

    Notes
    -----
    Ends the process with status 130 on Ctrl-C, and with 2 and one line on the package's own errors.
    """
    here = Path(script).resolve().parent
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    chosen = parser.add_mutually_exclusive_group()
    for name, make in sizes.items():
        chosen.add_argument(
            f"--{name}",
            action="store_const",
            const=name,
            dest="size",
            help=_first_line(make.__doc__).replace("%", "%%"),
        )
    parser.add_argument("--output", type=Path, default=here / "results", help="folder for store and figures")
    parser.add_argument("--keep-script", action="store_true", help="keep the text of this script with the results")
    parser.add_argument("--overwrite", action="store_true", help="replace results of another version of the study")
    parser.add_argument("--retry-failed", action="store_true", help="run cells again that are marked as failed")
    options = parser.parse_args(arguments)
    size = options.size or next(iter(sizes))
    console, folder = make_console(), Folder(here, size, options.output, options.retry_failed)
    try:
        made = sizes[size](folder)
        studies = {"": made} if isinstance(made, Study) else made
        results = {}
        for part, study in studies.items():
            console.print(str(study.plan()), highlight=False, markup=False, soft_wrap=True)
            chosen_too = {name: getattr(options, name) for name in ("overwrite", "keep_script", "retry_failed")}
            results[part] = study.run(folder.store_of(part), **chosen_too)
        draw(results[""] if isinstance(made, Study) else results, folder, console)
        for part, found in results.items():
            _write_page(found, folder.figures / f"{_joined('report', part)}.html", _first_line(description))
    except KeyboardInterrupt as stopped:
        told = f"Interrupted. {what_stays(stopped)}; the same command goes on after it."
        console.print(told, highlight=False, markup=False, soft_wrap=True)
        sys.exit(130)
    except CausalUNetError as error:
        make_console(stderr=True).print(str(error), highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    stores = ", ".join(str(folder.store_of(part)) for part in studies)
    console.print(f"Results: {stores}   figures: {folder.figures}", highlight=False, markup=False, soft_wrap=True)


def labels_by_place(results: xr.DataTree, cut: str) -> dict[str, list[str]]:
    """Find the interventions that are labelled ``"cut, place, start"``, as what has no coordinate for its place is.

    Parameters
    ----------
    results : xarray.DataTree
    cut : str
        What is done at all of them, the first of the three.

    Returns
    -------
    dict of str to list of str
        Labels by place, in the order of the study.
    """
    found: dict[str, list[str]] = {}
    for label in results.children["outcomes"].to_dataset()["intervention"].values.tolist():
        if label.startswith(f"{cut}, "):
            found.setdefault(label.split(", ")[1], []).append(label)
    return found


def by_place(results: xr.DataTree, cut: str) -> xr.DataArray:
    """SSIM of the interventions of `labels_by_place`, (place, start, sample), starts as the run goes.

    Raises
    ------
    StoreError
        Some of the cells failed or were not run yet.
    """
    from causalunet.analysis import curve

    found = labels_by_place(results, cut)
    curves = [curve(results, "ssim", intervention=some)["ssim"].reset_coords(drop=True) for some in found.values()]
    return xr.concat(curves, dim=xr.Variable("place", list(found))).transpose("place", "start", "sample")


def plot_by_place(panels: Mapping[str, tuple[xr.DataTree, str]], *, columns: int, threshold: float) -> Figure:
    """Draw mean SSIM by start step with 95 % intervals, a curve for each place.

    Parameters
    ----------
    panels : mapping of str to (xarray.DataTree, str)
        Titles to results and what is done, as for `labels_by_place`; row by row.
    columns : int
        Panels of a row. One legend stands above all where places are the same in all, else each panel has its own.
    threshold : float
        Drawn as a line.
    """
    from matplotlib.figure import Figure

    from causalunet.report import plot_trend

    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.9 * columns, 2.8 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for ax, (title, (results, cut)) in zip(axes, panels.items(), strict=False):
        selections = {place: {"intervention": some} for place, some in labels_by_place(results, cut).items()}
        plot_trend(results, selections, threshold=threshold, band="interval", ax=ax)
        ax.set(title=title, xlabel="start step", ylabel="mean SSIM" if ax in axes[::columns] else "")
        ax.get_legend().remove()
    for ax in axes[len(panels) :]:
        ax.remove()
    drawn = axes[: len(panels)]
    handles, names = drawn[0].get_legend_handles_labels()
    if all(ax.get_legend_handles_labels()[1] == names for ax in drawn):
        figure.legend(handles, names, loc="outside upper center", ncols=len(names), fontsize=8)
    else:
        for ax in drawn:
            ax.legend(loc="lower right", fontsize=6)
    return figure


def with_interval(value: float, bounds: Sequence[float] | NDArray[np.float64]) -> str:
    """A number with its interval; "none" in place of NaN, as of a step where there is none."""
    said = ["none" if math.isnan(one) else f"{one:.3g}" for one in (value, *bounds)]
    return f"{said[0]} [{said[1]}, {said[2]}]"


def drawn_across(
    models: Mapping[str, str],
    samplers: Sequence[str],
    kinds: Mapping[str, str],
    *,
    reference: str,
    early: int,
    name: str,
) -> Callable[[dict[str, Results], Folder, Console], None]:
    """Make what draws a sweep under several samplers on several models, for `run_script`; one panel for each model.

    Parameters
    ----------
    models : mapping of str to str
        Names of models to titles; studies are called by model and sampler, as in ``"shapes ddim"``. Those that a size
        leaves out are not drawn.
    samplers : sequence of str
        What they are called.
    kinds : mapping of str to str
        Kinds of intervention to what is done, a row of panels each.
    reference : str
        The sampler that the others are divided by.
    early : int
        How many of the first starts count as early.
    name : str
        Of the figure.

    Returns
    -------
    callable
        Prints mean squared errors to each sampler's own whole run, by the first step of the window, and how many times
        those of the reference the early ones are, with 95 % intervals.
    """

    def draw(results: dict[str, Results], folder: Folder, console: Console) -> None:
        from matplotlib.figure import Figure

        from causalunet.analysis import across
        from causalunet.report import save

        run = {model: title for model, title in models.items() if f"{model} {reference}" in results}
        figure = Figure(figsize=(3.4 * len(run), 3.1 * len(kinds)), layout="constrained")
        axes = figure.subplots(len(kinds), len(run), squeeze=False)
        for row, (kind, done) in enumerate(kinds.items()):
            for column, (model, title) in enumerate(run.items()):
                of_model = {sampler: results[f"{model} {sampler}"] for sampler in samplers}
                found = across(of_model, reference=reference, early=early, kind=kind)
                for line in _told(found, f"{title}, {done}"):
                    console.print(line, highlight=False, markup=False, soft_wrap=True)
                ax = axes[row, column]
                means = found["mean"].where(found["mean"] > 0).values  # of a logarithm
                for sampler, curve in zip(samplers, means, strict=True):
                    ax.plot(found["start"].values, curve, marker="o", ms=3, lw=1, label=sampler)
                ax.set(xlabel="first step", yscale="log", title=title)
                ax.invert_xaxis()
            axes[row, 0].set_ylabel(f"mean squared error, {done}")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(samplers))
        save(figure, folder.figures / f"{name}.png")

    return draw


def _told(found: xr.Dataset, title: str) -> Iterator[str]:
    """Lines of the table of `drawn_across`."""
    starts = " ".join(f"{start:>9.0f}" for start in found["start"].values)
    yield f"{title}\n{'first step':24} calls {starts}   early, times {found.attrs['reference']}"
    for place, name in enumerate(found["study"].values):
        one = found.isel(study=place)
        means = " ".join(f"{value:9.2e}" for value in one["mean"].values)
        low, high = one["early_interval"].values
        yield f"{name:24} {int(one['calls']):5} {means}   {float(one['early']):.2f} ({low:.2f} to {high:.2f})"


def _write_page(results: xr.DataTree, path: Path, question: str) -> None:
    from causalunet.report import report

    path.parent.mkdir(parents=True, exist_ok=True)
    report(results, path, question=question, force=True)


def _joined(name: str, part: str) -> str:
    return f"{name}-{part}" if part else name


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
