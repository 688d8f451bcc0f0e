"""Training: the loss along runs, from the logs that training writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from causalunet.errors import SpecError
from causalunet.paths import given_path
from causalunet.report.style import legend_above, look, new_figure, style

__all__ = ["plot_training"]


def plot_training(logs: Mapping[str, str | Path], *, variable: str = "loss", figure: Figure | None = None) -> Figure:
    """Draw a number along training runs, such as the loss.

    Parameters
    ----------
    logs : mapping of str to path
        For every curve, the file ``log.jsonl`` that ``causalunet train`` writes.
    variable : str
        One of the numbers in the logs.
    figure : matplotlib Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
        Both axes logarithmic; every point is the mean over the iterations since the one before.

    Raises
    ------
    SpecError
        A file is not there or is no such log, or has no such number.
    """
    curves = {name: _read(given_path(path), variable) for name, path in logs.items()}
    with style():
        figure = figure or new_figure(4.2, 2.6)
        ax = figure.subplots()
        for position, (name, (iterations, values)) in enumerate(curves.items()):
            appearance = look(position)
            ax.plot(iterations, values, color=appearance.color, linestyle=appearance.linestyle, label=name)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("iteration")
        ax.set_ylabel(variable.replace("_", " "))
        legend_above(figure, [ax])
    return figure


def _read(path: Path, variable: str) -> tuple[list[int], list[float]]:
    """Iterations and values of a log."""
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [int(record["iteration"]) for record in records], [float(record[variable]) for record in records]
    except KeyError as error:
        known = ", ".join(name for name in records[0] if name != "iteration")
        raise SpecError(f"{path} has no {error.args[0]!r}; there are {known}.") from error
    except (OSError, ValueError, TypeError) as error:
        raise SpecError(
            f"{path} is no log of a training: {error}. It is the file log.jsonl in the directory of causalunet train."
        ) from error
