"""The commands ``models``, ``evaluate`` and ``train``, on what ships with the package."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.table import Table

from causalunet.cli.exits import Exit
from causalunet.cli.printing import tell
from causalunet.console import make_console, print_table
from causalunet.errors import SpecError
from causalunet.progress import show_progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import DataArray, DataTree

    from causalunet.design.samplers import Sampler
    from causalunet.training.evaluation import Evaluation
    from causalunet.training.loop import LoopConfig

    Configuration = TypeVar("Configuration", bound=LoopConfig)

__all__ = ["evaluate", "list_models", "train"]

_OTHER_ANATOMIES = ("shapes-flow", "shapes-latent")


def list_models(options: argparse.Namespace) -> Exit:
    """Print every model with its parameters and anatomy."""
    from causalunet.models import architectures

    table = Table(title="Models", caption="FLOPs: one row of one call, a multiply-add counted as two")
    for column in ("model", "image", "parameters", "encoder +\nbottleneck\n+ decoder", "skips", "GFLOP"):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    known = architectures()
    for entry in known:
        anatomy = entry.anatomy
        blocks = [sum(c.role == role for c in anatomy.components) for role in ("encoder", "bottleneck", "decoder")]
        table.add_row(
            entry.name,
            f"{entry.image_size} x {entry.image_size}",
            f"{anatomy.parameters:,}",
            " + ".join(map(str, blocks)) if any(blocks) else f"{len(anatomy.components)} in a row",
            str(len(anatomy.skips)),
            f"{anatomy.flops / 1e9:.1f}",
        )
    print_table(table, make_console())
    for where in dict.fromkeys(entry.weights for entry in known):
        tell(f"weights of {', '.join(entry.name for entry in known if entry.weights == where)}: {where}")
    if not any(entry.name == "shapes-latent" for entry in known):
        tell("shapes-latent is made of parts of diffusers: pip install 'causalunet[diffusers]'")
    return Exit.DONE


def evaluate(options: argparse.Namespace) -> Exit:
    """Print the share of images that show what their prompt says, overall and by factor."""
    if options.steps is None:
        options.steps = 50 if options.model in _OTHER_ANATOMIES else 100
    return (_evaluate_scenes if options.model == "scenes" else _evaluate_shapes)(options)


def _evaluate_shapes(options: argparse.Namespace) -> Exit:
    with _bar("Model calls", options.prompts * options.steps) as advance:
        evaluation = (_drawn_otherwise if options.model in _OTHER_ANATOMIES else _drawn)(options, advance)
    bar = 0.95 if options.model in _OTHER_ANATOMIES else 0.9
    table = _table(options, "factor", "read as asked")
    table.caption = f"bar: {bar:.0%} of every factor"
    for factor, share in evaluation.shares.items():
        table.add_row(factor, f"{share:.1%}", end_section=factor == "background")
    print_table(table, make_console())
    _write_sheet(options, evaluation.as_results())
    if options.figure:
        from causalunet.report import plot_shares

        counts = {"read as asked": evaluation.counts}
        _write("figure", plot_shares(counts, options.prompts, threshold=bar), options.figure)
    return Exit.DONE


def _drawn(options: argparse.Namespace, advance: Callable[[int], None]) -> Evaluation:
    from causalunet.models import load_shapes
    from causalunet.training.evaluation import evaluate_shapes

    return evaluate_shapes(
        load_shapes(options.checkpoint, options.device),
        n=options.prompts,
        seed=options.seed,
        only_held_out=options.held_out,
        sampler=_sampler(options),
        advance=advance,
    )


def _drawn_otherwise(options: argparse.Namespace, advance: Callable[[int], None]) -> Evaluation:
    from causalunet.training.evaluation import evaluate_anatomy

    return evaluate_anatomy(
        options.model,
        None if options.checkpoint is None else Path(options.checkpoint),
        n=options.prompts,
        seed=options.seed,
        only_held_out=options.held_out,
        steps=options.steps,
        guidance=options.guidance,
        device=options.device,
        advance=advance,
    )


def _evaluate_scenes(options: argparse.Namespace) -> Exit:
    from causalunet.models.scenes import load_scenes
    from causalunet.training.scenes import ScenesTrainingConfig, candidate
    from causalunet.training.scenes_binding import evaluate_binding
    from causalunet.training.scenes_evaluation import evaluate_depth, evaluate_scenes

    chosen = candidate(options.candidate or ScenesTrainingConfig().candidate)
    model = load_scenes(options.checkpoint, options.device, reader=options.reader, config=chosen.unet)
    depth_steps = min(options.steps, 50)
    with _bar("U-Net calls", options.prompts * (options.steps + 4 * depth_steps)) as advance:
        evaluation = evaluate_scenes(
            model,
            chosen.world,
            n=options.prompts,
            seed=options.seed,
            only_held_out=options.held_out,
            sampler=_sampler(options),
            advance=advance,
        )
        depth = [
            evaluate_depth(model, world, n=options.prompts, steps=depth_steps, advance=advance)
            for world in (None, chosen.world)
        ]
    table = _table(options, "of what prompts say", "asked", "read as asked", "95 % interval", "by chance")
    table.caption = "bars: 90% of single factors, 75% of relations"
    counts, chance = {kind: both for kind, both in evaluation.counts.items() if both[1]}, evaluation.chance()
    for kind, both in counts.items():
        told = *_share(*both, digits=1), f"{chance[kind]:.1%}"
        table.add_row(kind, str(both[1]), *told, end_section=kind in ("shape", "relation"))
    print_table(table, make_console())
    changes = Table(title=f"Bottom 4 decoder blocks cut during the first tenth of {depth_steps} steps")
    changes.caption = "bars: any factor in 70% of open samples and in 30% of those with full prompts"
    for column in ("another value is read of", "open samples", "95 % interval", "full prompts", "95 % interval"):
        changes.add_column(column, justify="left" if column.startswith("another") else "right")
    for factor in depth[0].counts:
        shares = [_share(one.counts[factor], options.prompts) for one in depth]
        changes.add_row(factor, *shares[0], *shares[1], end_section=factor == "any")
    print_table(changes, make_console())
    print_table(_binding_table(evaluate_binding(model, chosen.world)), make_console())
    _write_sheet(options, evaluation.as_results())
    if options.figure:
        from causalunet.report import plot_shares

        right, asked = ({kind: both[i] for kind, both in counts.items()} for i in range(2))
        _write("figure", plot_shares({"read as asked": right}, asked, threshold=0.9), options.figure)
    return Exit.DONE


def _binding_table(errors: DataArray) -> Table:
    table = Table(title=f"Squared error of the estimate of x_0, {errors.attrs['samples']} scenes told in full")
    table.caption = "exchanged: between the two groups, by the same words, but for plurals, in another order"
    for column in ("timestep", "log SNR", "own prompt", "colours\nexchanged", "shapes\nexchanged", "none"):
        table.add_column(column, justify="right")
    at = zip(errors["timestep"].values, errors["log_snr"].values, errors.values, strict=True)
    for timestep, log_snr, (own, *others) in at:
        table.add_row(str(timestep), f"{log_snr:.1f}", f"{own:.4f}", *(f"{other / own - 1:+.1%}" for other in others))
    return table


def _share(count: int, of: int, *, digits: int = 0) -> tuple[str, str]:
    """A share and its Wilson interval, in per cent."""
    from causalunet.analysis.intervals import wilson_share

    low, high = wilson_share(count, of)
    return f"{count / of:.{digits}%}", f"[{low:.{digits}%}, {high:.{digits}%}]"


def _sampler(options: argparse.Namespace) -> Sampler:
    from causalunet.design import DDPM

    return DDPM(steps=options.steps, guidance_scale=options.guidance)


def _table(options: argparse.Namespace, first: str, *more: str) -> Table:
    pool = "held-out prompts" if options.held_out else "prompts drawn at random"
    table = Table(title=f"{options.prompts} {pool}, {options.steps} steps, guidance {options.guidance:g}")
    table.add_column(first)
    for column in more:
        table.add_column(column, justify="right")
    return table


def _write_sheet(options: argparse.Namespace, results: DataTree) -> None:
    if options.sheet:
        from causalunet.report import plot_samples

        _write("sheet", plot_samples(results, samples=min(40, options.prompts), columns=8), options.sheet)


def _write(what: str, figure: Figure, path: Path) -> None:
    from causalunet.report import save

    save(figure, path)
    tell(f"{what} written to {path}")


def train(options: argparse.Namespace) -> Exit:
    """Train, printing one line per record; stop at any time and run again to go on."""
    directory = options.directory or Path("training") / options.model
    for record in _records(options, directory):
        tell("  ".join(f"{name} {value:.5g}" for name, value in record.items()))
    made = "pipeline" if options.model == "shapes-latent" else f"{options.model}.safetensors"
    tell(f"weights: {directory / made}")
    if options.figure:
        from causalunet.report import plot_training

        _write("figure", plot_training({options.model: directory / "log.jsonl"}), options.figure)
    return Exit.DONE


@contextmanager
def _bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    with show_progress(description, total, stderr=True) as shown:
        yield shown.advance


_CONFIGURED = (
    "iterations",
    "batch_size",
    "seed",
    "learning_rate",
    "decay",
    "begin_with",
    "autocast",
    "focus_from",
    "layout_until",
    "candidate",
    "prediction",
    "log_snr_shift",
    "text_iterations",
)


def _configured(
    kind: type[Configuration], options: argparse.Namespace, *other_stages: type[LoopConfig]
) -> Configuration:
    """A training's configuration, with what was given and is not about another stage alone.

    Raises
    ------
    SpecError
        Something was given that this training does not have.
    """
    given = {name: getattr(options, name) for name in _CONFIGURED if getattr(options, name) is not None}
    known = {entry.name for entry in fields(kind)}
    of_others = {entry.name for stage in other_stages for entry in fields(stage)}
    if unknown := [name for name in given if name not in known | of_others]:
        option = unknown[0].replace("_", "-")
        raise SpecError(f"--{option} says nothing of the training of {options.model}: it has no such choice.")
    return kind(**{name: value for name, value in given.items() if name in known})


def _records(options: argparse.Namespace, directory: Path) -> Iterator[dict[str, float]]:
    from causalunet.training.loop import Resources

    resources = Resources(
        device=options.device, workers=options.workers, minutes=options.minutes, captured=not options.no_graph
    )
    if options.model == "shapes":
        from causalunet.training.shapes import ShapesTrainingConfig, train_shapes

        return train_shapes(_configured(ShapesTrainingConfig, options), directory, resources=resources)
    if options.model == "shapes-flow":
        from causalunet.training.flow import FlowTrainingConfig, train_flow

        return train_flow(_configured(FlowTrainingConfig, options), directory, resources=resources)
    if options.model == "shapes-latent":
        if options.begin_with is not None:
            raise SpecError("--begin-with is one file of weights, and shapes-latent is trained in two stages.")
        from causalunet.training.latent import AutoencoderTrainingConfig, LatentTrainingConfig, train_pipeline

        first = _configured(AutoencoderTrainingConfig, options, LatentTrainingConfig)
        return train_pipeline(first, _configured(LatentTrainingConfig, options), directory, resources=resources)
    if options.model == "scenes":
        from causalunet.training.scenes import ScenesTrainingConfig, train_scenes

        return train_scenes(_configured(ScenesTrainingConfig, options), directory, resources=resources)
    from causalunet.training.factor_reader import ReaderTrainingConfig, ScenesReaderTrainingConfig, train_reader

    if options.model == "reader":
        return train_reader(_configured(ReaderTrainingConfig, options), directory, resources=resources)
    return train_reader(_configured(ScenesReaderTrainingConfig, options), directory, resources=resources)
