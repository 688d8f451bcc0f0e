"""The command ``causalunet``: list models, evaluate and train what ships with the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from causalunet.errors import CausalUNetError

__all__ = ["main"]

_console = Console()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    int
        Exit status: 0, or 2 after an error that is told in one line.
    """
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("causalunet"):
            raise
        _complain(f"This command needs {error.name}, which is not installed: pip install 'causalunet[run]'.")
        return 2
    except CausalUNetError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        _complain("interrupted; what was saved stays, the same command goes on")
        return 130
    return 0


def _complain(message: str) -> None:
    Console(stderr=True).print(f"causalunet: {message}", highlight=False, markup=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="causalunet", description="Causal interventions on diffusion U-Nets.")
    commands = parser.add_subparsers(required=True, metavar="command")
    listing = commands.add_parser("models", help="list models with their parameters and anatomy")
    listing.set_defaults(command=_models)
    evaluate = commands.add_parser("evaluate", help="how often the embedded model draws what its prompt says")
    evaluate.add_argument("model", choices=["shapes"])
    evaluate.add_argument("--prompts", type=int, default=200, help="number of prompts drawn at random")
    evaluate.add_argument("--seed", type=int, default=0, help="seed of the draw")
    evaluate.add_argument("--steps", type=int, default=100, help="denoising steps")
    evaluate.add_argument("--guidance", type=float, default=3.0, help="guidance scale")
    evaluate.add_argument("--held-out", action="store_true", help="only combinations that training never saw")
    evaluate.add_argument("--checkpoint", help="weights other than those that ship")
    evaluate.add_argument("--sheet", type=Path, help="write a sheet of samples to this PNG")
    evaluate.add_argument("--figure", type=Path, help="write the shares with their intervals to this PNG")
    evaluate.set_defaults(command=_evaluate)
    train = commands.add_parser("train", help="train the embedded model or the factor reader, resumable")
    train.add_argument("model", choices=["shapes", "reader"])
    train.add_argument("--directory", type=Path, help="checkpoint, log and weights (default training/<model>)")
    train.add_argument("--iterations", type=int, help="length of the run")
    train.set_defaults(command=_train)
    return parser


def _models(options: argparse.Namespace) -> None:
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
    _console.print(table)


def _evaluate(options: argparse.Namespace) -> None:
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
    _console.print(table)
    from causalunet import report

    if options.sheet:
        report.save(
            report.plot_samples(evaluation.as_results(), samples=min(40, options.prompts), columns=8), options.sheet
        )
        _console.print(f"sheet written to {options.sheet}")
    if options.figure:
        counts = {"read as asked": evaluation.counts}
        report.save(report.plot_shares(counts, options.prompts, threshold=0.9), options.figure)
        _console.print(f"figure written to {options.figure}")


def _train(options: argparse.Namespace) -> None:
    """Train, printing one line per record; stop at any time and run again to go on."""
    directory = options.directory or Path("training") / options.model
    for record in _records(options.model, directory, options.iterations):
        _console.print("  ".join(f"{name} {value:.5g}" for name, value in record.items()), highlight=False)
    _console.print(f"weights: {directory / options.model}.safetensors")


@contextmanager
def _bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total)
        yield lambda n: progress.advance(task, n)


def _records(model: str, directory: Path, iterations: int | None) -> Iterator[dict[str, float]]:
    changed = {} if iterations is None else {"iterations": iterations}
    if model == "shapes":
        from causalunet.training.shapes import ShapesTrainingConfig, train_shapes

        yield from train_shapes(ShapesTrainingConfig(**changed), directory)
    else:
        from causalunet.training.reader import ReaderTrainingConfig, train_reader

        yield from train_reader(ReaderTrainingConfig(**changed), directory)


if __name__ == "__main__":
    sys.exit(main())
