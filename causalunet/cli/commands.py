"""The commands and their options, and how they end."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from causalunet import __version__
from causalunet.cli import exploring, listing, measuring, models, running, sharing, stores
from causalunet.cli.exits import Exit
from causalunet.cli.printing import complain, flush, told_warnings
from causalunet.errors import CausalUNetError
from causalunet.progress import what_stays

__all__ = ["give"]

_EXITS = (
    "exit status: 0 done, 1 verify found problems, 2 error, 3 incomplete, 4 verify cannot check all here, "
    "130 interrupted; see docs/cli.md"
)
_STORE = "folder, or address such as s3://bucket/prefix"


def give(arguments: Sequence[str]) -> int:
    """Carry out a command.

    Parameters
    ----------
    arguments : sequence of str

    Returns
    -------
    int
        Exit status, see `Exit`. Errors are told in one line.
    """
    options = argparse.Namespace(traceback=False)
    try:
        code = _parse(arguments, options)
        if code is None:
            with told_warnings():
                code = int(options.command(options))
        flush()
    except KeyboardInterrupt as stopped:
        complain(f"interrupted. {what_stays(stopped)}; to go on: causalunet {shlex.join(arguments)}")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more is flushed into the pipe
        return Exit.CUT_OFF
    except (Exception, SystemExit) as error:
        if options.traceback:
            traceback.print_exc()
        complain(_told(error))
        return Exit.ERROR
    return code


def _parse(arguments: Sequence[str], options: argparse.Namespace) -> int | None:
    """Read arguments into options; the exit status if that is all, as for ``--help`` and for what cannot be read."""
    try:
        _parser().parse_args(arguments, options)
    except SystemExit as ended:
        return int(ended.code or Exit.DONE)
    return None


def _told(error: Exception | SystemExit) -> str:
    """An error in one line; those that nobody foresaw with the place."""
    if isinstance(error, ModuleNotFoundError) and not (error.name or "causalunet").startswith("causalunet"):
        return f"This command needs {error.name}, which is not installed: pip install 'causalunet[run]'."
    if isinstance(error, CausalUNetError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}, line {frame.lineno}"
    if isinstance(error, SystemExit):
        return f"{place} asked for the end of the process ({error!r}). What was committed stays."
    return (
        f"unexpected {type(error).__name__} in {place}: {error}. This is a fault of causalunet; please report it with "
        "what 'causalunet --traceback ...' prints."
    )


class _Command(argparse.ArgumentParser):
    """A command, whose options may stand before, between and after what it is given."""

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:  # type: ignore[override]
        """Go by `argparse.ArgumentParser.parse_known_intermixed_args`, which on Python 3.11 calls this in turn."""
        if self._mixing:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="causalunet", description="Causal interventions on diffusion U-Nets.", epilog=_EXITS
    )
    parser.add_argument("--version", action="version", version=f"causalunet {__version__}")
    parser.add_argument("--traceback", action="store_true", help="with an error, print where it was raised")
    commands = parser.add_subparsers(required=True, metavar="command", parser_class=_Command)
    _add_running(commands)
    _add_measuring(commands)
    _add_looking(commands)
    _add_passing_on(commands)
    _add_models(commands)
    return parser


def _add_running(commands: Any) -> None:
    run = commands.add_parser("run", help="run the study of a file into a results store", epilog=_EXITS)
    run.add_argument("file", metavar="STUDY", help="a .json file, which is only read, or a .py file, which is executed")
    run.add_argument("store", metavar="STORE", nargs="?", help=f"{_STORE} (default results/<study>.zarr)")
    run.add_argument("--study", metavar="NAME", help="which of a file's studies, by variable or by name")
    run.add_argument("--dry-run", action="store_true", help="print the plan, with an estimate of the time, and stop")
    run.add_argument("--overwrite", action="store_true", help="replace another study in the store")
    run.add_argument("--keep-script", action="store_true", help="keep the text of the file with the results")
    run.set_defaults(command=running.run)
    resume = commands.add_parser("resume", help="go on with the study that a store holds", epilog=_EXITS)
    resume.add_argument("store", metavar="STORE", help=_STORE)
    resume.set_defaults(command=running.resume)
    for command in (run, resume):
        command.add_argument("--retry-failed", action="store_true", help="run cells again that are marked as failed")
        command.add_argument(
            "--memory",
            metavar="BYTES",
            type=running.byte_count,
            help="of the device, such as 4GB (half of what is free; on a CPU 1GiB at most)",
        )
        command.add_argument("--checkpoint", metavar="FILE", help="the model's weights, such as glide's base.pt")
        command.add_argument("--device", help="where the model runs, such as cuda (default cpu)")
        shared = command.add_mutually_exclusive_group()
        shared.add_argument("--scheduler", metavar="ADDRESS", help="of a dask cluster, such as tcp://host:8786")
        shared.add_argument(
            "--devices", metavar="N", type=sharing.device_count, help="run on so many GPUs, or else cores, or on 'all'"
        )
        shared.add_argument(
            "--shard", metavar="K/N", type=sharing.share, help="run the K-th of N shares of the samples only"
        )


def _add_measuring(commands: Any) -> None:
    measure = commands.add_parser("measure", help="measure one more outcome of what a store holds", epilog=_EXITS)
    measure.add_argument("store", metavar="STORE", help=_STORE)
    measure.add_argument("outcome", metavar="OUTCOME", help="its name, such as ms_ssim")
    told = "its parameters, such as scales=2, or a JSON object"
    measure.add_argument("parameters", metavar="NAME=VALUE", nargs="*", help=told)
    measure.add_argument("--retry-failed", action="store_true", help="measure cells again of which it failed")
    measure.add_argument("--read-factors", action="store_true", help="load the study's model, whose reader it needs")
    measure.set_defaults(command=measuring.measure)


def _add_looking(commands: Any) -> None:
    status = commands.add_parser("status", help="how far studies are, and who is at work on them", epilog=_EXITS)
    status.add_argument("stores", metavar="STORE", nargs="+", help=_STORE)
    status.set_defaults(command=stores.status)
    verify = commands.add_parser("verify", help="read every chunk of a store and check it", epilog=_EXITS)
    verify.add_argument("--quiet", action="store_true", help="print problems only")
    verify.add_argument("--deep", action="store_true", help="make the outcomes of all cells again, and not of some")
    verify.set_defaults(command=stores.verify)
    ls = commands.add_parser("ls", help="list the stores below a folder, or what is in a store", epilog=_EXITS)
    ls.add_argument("place", metavar="PLACE", nargs="?", help="store or folder (default results, or else .)")
    ls.add_argument("--history", action="store_true", help="list a store's commits, newest first")
    ls.set_defaults(command=listing.ls)
    verify.add_argument("store", metavar="STORE", help=_STORE)
    explore = commands.add_parser("explore", help="look at what a store holds, in a browser", epilog=_EXITS)
    explore.add_argument("store", metavar="STORE", help=_STORE)
    explore.add_argument("--port", type=int, default=0, help="to listen at (default any that is free)")
    explore.add_argument("--address", default="localhost", help="to listen at; others than localhost need a token")
    explore.add_argument("--token", action="store_true", help="make a token also for localhost")
    explore.set_defaults(command=exploring.explore)
    for command in (verify, ls, explore):
        _add_at(command)


def _add_passing_on(commands: Any) -> None:
    export = commands.add_parser("export", help="write a store as plain zarr v3", epilog=_EXITS)
    export.add_argument("store", metavar="STORE", help=_STORE)
    export.add_argument("path", metavar="PATH", help="folder, or file ending in .zip, that does not exist yet")
    export.add_argument("--card", metavar="FILE", help="write a dataset card too (the README.md of a hub)")
    export.set_defaults(command=stores.export)
    report = commands.add_parser("report", help="write a study as one HTML page", epilog=_EXITS)
    report.add_argument("store", metavar="STORE", help=_STORE)
    report.add_argument("page", metavar="PAGE", nargs="?", help="file ending in .html (default beside the store)")
    report.add_argument("--title", help="default the name of the study")
    report.add_argument("--question", help="what the study is to answer")
    report.add_argument("--variable", default="ssim", help="outcome that figures and tables are of (ssim)")
    report.add_argument("--threshold", type=float, help="on the outcome, for the figures (of ssim 0.8)")
    report.add_argument("--force", action="store_true", help="replace a file that is not such a page")
    report.set_defaults(command=stores.report)
    for command in (export, report):
        _add_at(command)


def _add_at(command: argparse.ArgumentParser) -> None:
    command.add_argument("--at", metavar="TAG", help="tag or commit instead of the newest commit")


def _add_models(commands: Any) -> None:
    listed = commands.add_parser("models", help="list models with their parameters and anatomy")
    listed.set_defaults(command=models.list_models)
    evaluate = commands.add_parser("evaluate", help="how often an embedded model draws what its prompt says")
    evaluate.add_argument("model", choices=["shapes", "scenes", "shapes-flow", "shapes-latent"])
    evaluate.add_argument("--prompts", type=int, default=200, help="number of prompts drawn at random")
    evaluate.add_argument("--seed", type=int, default=0, help="seed of the draw")
    evaluate.add_argument("--steps", type=int, help="denoising steps (100; shapes-flow, shapes-latent 50)")
    evaluate.add_argument("--guidance", type=float, default=3.0, help="guidance scale")
    evaluate.add_argument("--held-out", action="store_true", help="only combinations that training never saw")
    evaluate.add_argument("--checkpoint", help="weights other than those that ship: a file, or a pipeline's folder")
    evaluate.add_argument("--sheet", type=Path, help="write a sheet of samples to this PNG")
    evaluate.add_argument("--figure", type=Path, help="write the shares with their intervals to this PNG")
    evaluate.add_argument(
        "--reader", metavar="FILE", help="weights of the reader of scenes, other than those that ship"
    )
    evaluate.set_defaults(command=models.evaluate)
    train = commands.add_parser("train", help="train an embedded model or a factor reader, resumable")
    train.add_argument("model", choices=["shapes", "shapes-flow", "shapes-latent", "reader", "scenes", "scenes-reader"])
    train.add_argument("--directory", type=Path, help="checkpoint, log and weights (default training/<model>)")
    train.add_argument("--iterations", type=int, help="length of the run")
    train.add_argument("--minutes", type=float, help="length in wall-clock time instead: what fits is run")
    train.add_argument("--batch-size", type=int, help="images an iteration")
    train.add_argument("--seed", type=int, help="of the run (0)")
    train.add_argument("--learning-rate", type=float, help="after the warm-up")
    train.add_argument("--decay", type=int, help="iterations of the fall of the rate to zero at the end")
    train.add_argument("--begin-with", metavar="FILE", help="weights to begin with instead of drawn ones")
    train.add_argument("--autocast", metavar="TYPE", help="bfloat16, faster where a processor has it, or float32")
    train.add_argument("--focus-from", type=int, help="iteration from which noise comes first (shapes, scenes)")
    train.add_argument("--layout-until", type=int, help="until which it is noise without a shift (shapes, scenes)")
    train.add_argument("--prediction", metavar="KIND", help="v, or eps, the noise: what is learned (shapes, scenes)")
    train.add_argument("--log-snr-shift", type=float, help="more signal at every timestep (shapes, scenes)")
    train.add_argument("--text-iterations", type=int, help="of the text transformer alone, before all else (scenes)")
    train.add_argument("--workers", type=int, default=0, help="processes that draw batches ahead (0)")
    train.add_argument("--no-graph", action="store_true", help="on a GPU, capture no CUDA graph of a step")
    train.add_argument("--figure", type=Path, help="write the loss along the run to this PNG")
    train.set_defaults(command=models.train)
    for command in (evaluate, train):
        command.add_argument("--device", default="cpu", help="where the model runs, such as cuda (cpu)")
        command.add_argument("--candidate", help="world and network of scenes (free)")
