"""The commands ``status``, ``verify``, ``export`` and ``report``: they read, and need no torch."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from causalunet.cli.exits import Exit
from causalunet.cli.printing import ago, aligned, complain, count, moment, one_line, quoted, size, tell
from causalunet.console import make_console, print_table
from causalunet.errors import CausalUNetError, StoreError
from causalunet.paths import given_path
from causalunet.results.engine.location import Location, check_outside
from causalunet.results.meaning.completion import Completion, Tally
from causalunet.results.store import open_results

__all__ = ["export", "report", "status", "verify"]


def status(options: argparse.Namespace) -> Exit:
    """Print how far stores are."""
    worst = Exit.DONE
    for place, store in enumerate(options.stores):
        try:
            completion = Completion.read(store)
        except CausalUNetError as error:
            complain(error)
            worst = Exit.ERROR
            continue
        if place:
            tell()
        tell(completion.where)
        tell("\n".join(aligned(_facts(completion), indent="  ")))
        if not completion.complete and worst == Exit.DONE:
            worst = Exit.INCOMPLETE
    return worst


def verify(options: argparse.Namespace) -> Exit:
    """Read every chunk of a store and print what was checked."""
    found = open_results(options.store, at=options.at).verify(deep=options.deep, quiet=True)
    code = Exit(found.exit_code)
    if not options.quiet:
        tell(f"{found.where}: {found.verdict}")
        print_table(found.table(), make_console())
        return code
    for finding in found.findings:
        for line in finding.lines:
            tell(f"{found.where}: {finding.check}: {line}")
    return code


def export(options: argparse.Namespace) -> Exit:
    """Write plain zarr v3, and beside it what a hub or an archive wants to be told of it."""
    if Location.parse(options.path).folder is None:
        raise StoreError(
            f"An export is written into a folder or a .zip on a disk, and {options.path} is none. Copy it there "
            "afterwards."
        )
    results = open_results(options.store, at=options.at)
    if options.card is not None:
        from causalunet.report.card import card

        text = card(results, Path(options.path).name)
        with given_path(options.card).open("x", encoding="utf-8") as file:
            file.write(text)
    path = results.export(options.path)
    tell(f"Exported: {path}, {size(Completion.read(path).size)}")
    return Exit.DONE


def report(options: argparse.Namespace) -> Exit:
    """Write a study as one page."""
    from causalunet.report.page import report as write_page

    results = open_results(options.store, at=options.at)
    page = given_path(options.page) if options.page else _default_page(results.source.location)
    check_outside(page)
    written = write_page(
        results,
        page,
        title=options.title,
        question=options.question,
        variable=options.variable,
        threshold=options.threshold,
        force=options.force,
    )
    tell(f"Page: {written}")
    return Exit.DONE


def _default_page(location: Location) -> Path:
    """Beside the store; in the working directory for one that is not on a disk."""
    if location.folder is None:
        return Path(f"{Path(location.prefix).stem}.html")
    given = given_path(str(location))
    folder = given if given.stem.strip(".") else location.folder.resolve()
    return folder.with_name(f"{folder.stem}.html")


def _facts(completion: Completion) -> list[tuple[str, str]]:
    facts = [
        ("study", f"{quoted(completion.study)} on {one_line(completion.model, 40)}, digest {completion.digest}"),
        ("cells", _tallied(completion.cells)),
        ("baselines", _tallied(completion.baselines)),
    ]
    if completion.unrecorded:
        facts.append(
            ("to record", count(completion.unrecorded, "output") + " of components, of runs that are complete")
        )
    facts += [("failures", f"{times:,} x {one_line(reason)}") for reason, times in completion.failures]
    facts.append(("spent", f"{count(completion.unet_calls, 'U-Net call')}, {completion.seconds:,.1f} s"))
    last = completion.last
    if last is None:
        when = completion.changed
        told = "not known when" if when is None else f"{moment(when)} ({ago(when)})"
        facts.append(("exported", f"{told}; an export does not change"))
    else:
        facts.append(("last commit", f"{moment(last.time)} ({ago(last.time)}): {one_line(last.message, 80)}"))
        facts.append(("at work", _at_work(completion)))
    if completion.size is not None:
        facts.append(("size", size(completion.size)))
    if completion.tags:
        facts.append(("tags", ", ".join(one_line(tag, 60) for tag in completion.tags)))
    return facts


def _tallied(tally: Tally) -> str:
    rest = [f"{number:,} {name}" for number, name in ((tally.failed, "failed"), (tally.missing, "missing")) if number]
    return ", ".join([f"{tally.complete:,} of {tally.total:,} complete", *rest])


def _at_work(completion: Completion) -> str:
    busy, claimed = completion.busy, completion.claimed
    if claimed:
        number = len(set(claimed.values()))
        return f"{number:,} process{'' if number == 1 else 'es'}, or killed since, with {_blocks(claimed)}"
    if busy is None:
        return "no process" if completion.size is None else "not known: claims on this disk cannot be seen"
    if not busy:
        return "no process of this machine"
    numbers = sorted({number for number in busy.values() if number})
    processes = f"process {', '.join(map(str, numbers))}" if numbers else "a process"
    return f"{processes}, with {_blocks(busy)}"


def _blocks(claims: Iterable[str]) -> str:
    return f"{count(sum(name.startswith('block-') for name in claims), 'block')} of samples claimed"
