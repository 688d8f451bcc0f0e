"""Looking at stores, checking them and passing them on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import causalunet as cu
from causalunet.cli import main
from causalunet.cli.stores import _default_page
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.meaning.completion import Completion
from tests.cli.conftest import Command

ROOT = Path(__file__).parents[2]


def chunk_of(store: Path) -> Path:
    """The largest chunk of a live store."""
    return max((store / "chunks").iterdir(), key=lambda path: path.stat().st_size)


def flip_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_status_of_a_finished_store(store: Path, study: cu.Study, command: Command) -> None:
    told = command("status", store)
    assert (told.code, told.err) == (0, "")
    facts = dict(re.findall(r"^  ([a-z ]+?)  +(.*)$", told.out, flags=re.MULTILINE))
    assert facts["study"] == f"'a tiny study' on tiny, digest {study.digest}"
    assert facts["cells"] == "12 of 12 complete"
    assert facts["baselines"] == "3 of 3 complete"
    assert re.fullmatch(r"39 U-Net calls, [\d.]+ s", facts["spent"])
    assert re.search(r"(ago|just now)\): 12 cells of 3 samples$", facts["last commit"])
    assert facts["at work"] == "no process of this machine"
    assert facts["size"].endswith("kB")
    assert facts["tags"] == "paper-v1"
    assert set(facts) == {"study", "cells", "baselines", "spent", "last commit", "at work", "size", "tags"}


@pytest.mark.parametrize(
    ("claimed", "said"),
    [
        ({}, "no process"),
        ({"block-000000": "A"}, "1 process, or killed since, with 1 block of samples claimed"),
        (
            {"block-000000": "A", "block-000003": "B", "layout": "A"},
            "2 processes, or killed since, with 2 blocks of samples claimed",
        ),
    ],
)
def test_the_status_of_a_store_in_an_object_store_tells_of_claims(
    claimed: dict[str, str], said: str, store: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Completion.read
    monkeypatch.setattr(Completion, "read", lambda path: replace(read(path), busy=None, claimed=claimed, size=None))
    assert re.search(rf"at work +{said}\n", command("status", store).out)


def test_status_goes_on_after_a_store_that_is_none(store: Path, tmp_path: Path, command: Command) -> None:
    told = command("status", tmp_path / "none.zarr", store)
    assert told.code == 2
    assert "There is nothing at" in told.err
    assert "12 of 12 complete" in told.out


def test_what_is_still_to_be_recorded_counts_as_incomplete(copied: Path, command: Command) -> None:
    repository = Repository.open(Location.parse(copied))
    session = repository.writable()
    zarr.open_group(session.store, mode="a")["activations/mid/baseline_status"][1] = 0  # type: ignore[index]
    repository.commit(session, "one output forgotten", {})
    told = command("status", copied)
    assert told.code == 3
    assert re.search(r"to record +1 output of components", told.out)


@pytest.mark.thorough
def test_a_sound_store_and_one_with_a_flipped_byte(copied: Path, command: Command) -> None:
    told = command("verify", copied)
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith(f"{copied}: sound and complete\n")
    assert max(map(len, told.out.splitlines()[1:])) <= 80
    assert command("verify", copied, "--quiet") == (0, "", "")
    flip_one_byte(chunk_of(copied))
    told = command("verify", copied)
    assert told.code == 1
    assert told.out.startswith(f"{copied}: NOT sound\n")
    quiet = command("verify", copied, "--quiet")
    assert quiet.code == 1
    assert re.fullmatch(rf"{copied}: chunks: \S+: chunk [\d/]+: .*\n", quiet.out)


def test_an_incomplete_store_is_sound(copied: Path, command: Command) -> None:
    repository = Repository.open(Location.parse(copied))
    session = repository.writable()
    zarr.open_group(session.store, mode="a")["outcomes/status"][0, 0] = 0  # type: ignore[index]
    repository.commit(session, "a cell taken back", {})
    told = command("verify", copied, "--quiet")
    assert (told.code, told.err) == (3, "")
    assert told.out == f"{copied}: complete cells: 1 cells not run yet\n"
    assert command("verify", copied, "--at", "paper-v1").code == 0


@pytest.mark.thorough
def test_an_export_opens_with_plain_xarray(store: Path, tmp_path: Path, command: Command) -> None:
    path = tmp_path / "export.zarr"
    told = command("export", store, path, "--at", "paper-v1")
    assert told.code == 0
    assert told.out.startswith(f"Exported: {path}, ")
    with xr.open_datatree(path, engine="zarr") as plain:
        assert np.array_equal(plain["outcomes"].ssim, cu.open_results(store).outcomes.ssim)
    assert command("verify", path).code == 0
    told = command("status", path)
    assert told.code == 0
    assert "an export does not change" in told.out
    told = command("export", store, path)
    assert told.code == 2
    assert "never writes over anything" in told.err
    assert "written into a folder" in command("export", store, "s3://bucket/prefix").err
    assert not Path("s3:").exists()


def test_a_page_replaces_nothing_else_unless_told(store: Path, tmp_path: Path, command: Command) -> None:
    page = tmp_path / "other.html"
    page.write_text("mine")
    told = command("report", store, page)
    assert told.code == 2
    assert "replace it with --force" in told.err
    assert page.read_text() == "mine"


@pytest.mark.parametrize(
    ("store", "page"),
    [
        ("results/a.b.zarr", "results/a.b.html"),
        ("a", "a.html"),
        (".", "{cwd}.html"),
        ("s3://bucket/x/a.zarr", "a.html"),
    ],
)
def test_where_the_page_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, page: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert _default_page(Location.parse(store)) == Path(page.format(cwd=tmp_path))


def test_nothing_is_put_into_a_store(copied: Path, tmp_path: Path, command: Command) -> None:
    for given in (("export", copied, copied / "export.zarr"), ("report", copied, copied / "page.html")):
        told = command(*given)
        assert told.code == 2
        assert f"lies inside the store {copied}" in told.err
    assert command("status", copied).code == 0


@pytest.mark.parametrize("name", ["verify", "export", "report", "ls"])
def test_a_tag_that_there_is_not_is_told(store: Path, tmp_path: Path, command: Command, name: str) -> None:
    more = (tmp_path / "out.html",) if name in ("export", "report") else ()
    told = command(name, store, *more, "--at", "paper-v2")
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "no tag or commit 'paper-v2'. Tags: paper-v1" in told.err
    assert not (tmp_path / "out.html").exists()


def test_what_a_stranger_wrote_cannot_steer_the_terminal(copied: Path, command: Command) -> None:
    repository = Repository.open(Location.parse(copied))
    session = repository.writable()
    root = zarr.open_group(session.store, mode="a")
    root.attrs["study"] = {"name": "a\x1b[2Jb\nc", "model": "\r\x07"}
    root["outcomes"].attrs["x\x1b[2J"] = 1
    root["outcomes/ssim"].attrs["long_name"] = "\x1b]0;title\x07"
    repository.commit(session, "me\x1b[31mssage", {})
    for given in (("status", copied), ("ls", copied), ("ls", copied, "--history"), ("ls", copied.parent)):
        told = command(*given)
        assert told.code == 0, told
        assert all(part.isprintable() or part == "\n" for part in told.out + told.err)
    assert "a\\x1b[2Jb c" in command("status", copied).out


@contextmanager
def without_rights(path: Path) -> Iterator[list[str]]:
    """Take away the right to write; gives what a command has to begin with, since root may write everywhere."""
    dropping = shutil.which("setpriv")
    if os.getuid() == 0 and dropping is None:
        pytest.skip("root may write everywhere")
    path.chmod(0o555)
    try:
        yield [dropping, "--bounding-set", "-all"] if os.getuid() == 0 and dropping else []
    finally:
        path.chmod(0o755)


def test_a_folder_that_may_not_be_written_is_told_in_a_line(store: Path, tmp_path: Path) -> None:
    with without_rights(tmp_path) as before:
        done = subprocess.run(
            [*before, sys.executable, "-m", "causalunet.cli", "export", str(store), str(tmp_path / "export.zarr")],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
    assert done.returncode == 2, done
    assert re.search("permission", done.stderr, flags=re.IGNORECASE)
    assert done.stderr.count("\n") == 1


def test_a_reader_that_stops_reading_ends_the_command(store: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "causalunet", "status", str(store)],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_an_error_of_the_system_names_the_file(store: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", "page.html")

    monkeypatch.setattr("causalunet.results.meaning.completion.read_stored", broken)
    assert command("status", store) == (2, "", "causalunet: Permission denied: page.html\n")


def test_an_error_that_nobody_foresaw_is_one_line_too(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("nobody\nknew")

    monkeypatch.setattr("causalunet.results.meaning.completion.read_stored", broken)
    assert main(["status", str(store)]) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(r"causalunet: unexpected KeyError in test_stores\.py, line \d+: .* report it .*\n", told)
    assert main(["--traceback", "status", str(store)]) == 2
    assert "Traceback" in capsys.readouterr().err
