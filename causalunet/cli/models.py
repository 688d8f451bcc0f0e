"""The commands ``models``, ``evaluate`` and ``train``, on what ships with the package."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.table import Table

from causalunet.cli.exits import Exit
from causalunet.cli.printing import tell
from causalunet.console import make_console, print_table
from causalunet.progress import show_progress

__all__ = ["evaluate", "list_models", "train"]


def list_models(options: argparse.Namespace) -> Exit:
    """Print every model with its parameters and anatomy."""
    from causalunet.models import architectures

    table = Table(title="Models", caption="FLOPs: one row of one U-Net call, a multiply-add counted as two")
    for column in ("model", "image", "parameters", "encoder + bottleneck + decoder", "skips", "GFLOP", "weights"):
        table.add_column(column, justify="left" if column in ("model", "weights") else "right")
    for entry in architectures():
        anatomy = entry.anatomy
        blocks = [sum(c.role == role for c in anatomy.components) for role in ("encoder", "bottleneck", "decoder")]
        table.add_row(
            entry.name,
            f"{entry.image_size} x {entry.image_size}",
            f"{anatomy.parameters:,}",
            " + ".join(map(str, blocks)),
            str(len(anatomy.skips)),
            f"{anatomy.flops / 1e9:.1f}",
            entry.weights,
        )
    print_table(table, make_console())
    return Exit.DONE


def evaluate(options: argparse.Namespace) -> Exit:
    """Print the share of images that show what their prompt says, overall and by factor."""
    from causalunet.design import DDPM
    from causalunet.models import load_shapes
    from causalunet.training.evaluation import evaluate_shapes

    sampler = DDPM(steps=options.steps, guidance_scale=options.guidance)
    with _bar("U-Net calls", options.prompts * options.steps) as advance:
        evaluation = evaluate_shapes(
            load_shapes(options.checkpoint),
            n=options.prompts,
            seed=options.seed,
            only_held_out=options.held_out,
            sampler=sampler,
            advance=advance,
        )
    pool = "held-out prompts" if options.held_out else "prompts drawn at random"
    table = Table(title=f"{options.prompts} {pool}, {options.steps} steps, guidance {options.guidance:g}")
    table.add_column("factor")
    table.add_column("read as asked", justify="right")
    for factor, share in evaluation.shares.items():
        table.add_row(factor, f"{share:.1%}", end_section=factor == "background")
    print_table(table, make_console())
    from causalunet import report

    if options.sheet:
        report.save(
            report.plot_samples(evaluation.as_results(), samples=min(40, options.prompts), columns=8), options.sheet
        )
        tell(f"sheet written to {options.sheet}")
    if options.figure:
        counts = {"read as asked": evaluation.counts}
        report.save(report.plot_shares(counts, options.prompts, threshold=0.9), options.figure)
        tell(f"figure written to {options.figure}")
    return Exit.DONE


def train(options: argparse.Namespace) -> Exit:
    """Train, printing one line per record; stop at any time and run again to go on."""
    directory = options.directory or Path("training") / options.model
    for record in _records(options.model, directory, options.iterations):
        tell("  ".join(f"{name} {value:.5g}" for name, value in record.items()))
    tell(f"weights: {directory / options.model}.safetensors")
    return Exit.DONE


@contextmanager
def _bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    with show_progress(description, total, stderr=True) as shown:
        yield shown.advance


def _records(model: str, directory: Path, iterations: int | None) -> Iterator[dict[str, float]]:
    changed = {} if iterations is None else {"iterations": iterations}
    if model == "shapes":
        from causalunet.training.shapes import ShapesTrainingConfig, train_shapes

        yield from train_shapes(ShapesTrainingConfig(**changed), directory)
    else:
        from causalunet.training.factor_reader import ReaderTrainingConfig, train_reader

        yield from train_reader(ReaderTrainingConfig(**changed), directory)
