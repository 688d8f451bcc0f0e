"""Running and resuming, as a user does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import zarr

import causalunet as cu
from causalunet.execute.fill.recorder import Recorder
from causalunet.models.base import MODELS
from causalunet.models.text_to_image import TextToImage
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.meaning.completion import Completion
from tests.cli.conftest import Command
from tests.results.identities import tiny_pair

ROOT = Path(__file__).parents[2]
ONE_SAMPLE = "60kB"
"""Memory that makes blocks of one sample, and so a commit per sample."""

SCRIPT = """
import torch

import causalunet as cu
from causalunet.models.openai_layout import TextUNet
from causalunet.models.text_to_image import TextToImage
from causalunet.models.vocabulary import tokenize
from causalunet.schedule import cosine_alpha_bar
from tests.conftest import TINY_CONFIG

torch.set_num_threads(1)

@cu.register("scripted")
def load() -> TextToImage:
    torch.manual_seed(0)
    return TextToImage("scripted", TextUNet(TINY_CONFIG).eval().requires_grad_(False), tokenize, cosine_alpha_bar())

long = cu.Study(
    name="long",
    model="scripted",
    prompts=["a red circle"],
    seeds=range(4),
    sampler=cu.DDPM(steps=5),
    interventions=cu.sweep(cu.AblateBlock, bottom=2, start=(5, 3), length=2),
)
"""


def as_json(study: cu.Study, path: Path) -> Path:
    path.write_text(json.dumps(study.to_json()))
    return path


def commits(store: Path) -> list[str]:
    return [commit.message for commit in Repository.open(Location.parse(store)).history()]


def test_a_study_is_planned_run_and_kept_with_its_file(store: Path, spec: Path, study: cu.Study) -> None:
    results = cu.open_results(store)
    assert cu.Study.from_json(results.attrs["study"]) == study
    (source,) = results.attrs["sources"]
    assert (source["name"], source["text"]) == ("tiny.json", None)
    assert source["sha256"] == hashlib.sha256(spec.read_bytes()).hexdigest()
    assert results.verify(quiet=True)


def test_the_plan_comes_first_and_the_place_last(spec: Path, tmp_path: Path, command: Command) -> None:
    told = command("run", spec, tmp_path / "dry.zarr", "--dry-run")
    assert told.code == 0
    assert re.search(r"Study 'a tiny study' on tiny: 3 samples x 4 interventions", told.out)
    assert re.search(r"U-Net calls +[\d,]+ shared.*time +about .*store +.*dry\.zarr\n$", told.out, flags=re.DOTALL)
    assert not (tmp_path / "dry.zarr").exists()


@pytest.mark.thorough
def test_a_python_study_runs_below_the_working_directory(
    study: cu.Study, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"import causalunet as cu\nstudy = cu.Study.from_json({study.to_json()!r})\n"
    Path("mine.py").write_text(text)
    told = command("run", "mine.py")
    assert (told.code, told.err) == (0, "")
    assert told.out.endswith("Results: results/a-tiny-study.zarr, 12 of 12 cells complete\n")
    for more, kept in (((), None), (("--keep-script",), text), ((), text)):
        assert command("run", "mine.py", *more).code == 0
        (source,) = cu.open_results("results/a-tiny-study.zarr").attrs["sources"]
        assert (source["name"], source["text"]) == ("mine.py", kept)


def test_the_same_command_runs_nothing_twice(copied: Path, spec: Path, command: Command) -> None:
    before = commits(copied)
    for given in (("run", spec, copied), ("resume", copied)):
        told = command(*given)
        assert (told.code, told.err) == (0, "")
        assert "12 of 12 cells complete" in told.out
    assert commits(copied) == before


@pytest.mark.thorough
def test_a_study_that_grew_extends_its_store(copied: Path, study: cu.Study, tmp_path: Path, command: Command) -> None:
    grown = replace(study, interventions=(*study.interventions, cu.AblateSkip(1, cu.Window(3, 1))), seeds=(3, 4))
    told = command("run", as_json(grown, tmp_path / "grown.json"), copied)
    assert told.code == 0
    assert "12 of 12 cells complete\n" in told.out
    assert told.out.endswith("30 of 30 cells complete\n")
    assert cu.open_results(copied).verify(quiet=True)


@pytest.mark.thorough
def test_another_study_is_refused_until_it_is_to_replace(
    copied: Path, study: cu.Study, tmp_path: Path, command: Command
) -> None:
    other = as_json(replace(study, sampler=cu.DDPM(steps=4, guidance_scale=1.0)), tmp_path / "other.json")
    told = command("run", other, copied)
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "sampler.guidance_scale is 3.0 there and 1.0 here" in told.err
    assert "--overwrite" in told.err
    assert command("status", copied).out.count("12 of 12 complete") == 1
    assert command("run", other, copied, "--overwrite").code == 0
    assert cu.open_results(copied).attrs["study"]["sampler"]["configuration"]["guidance_scale"] == 1.0
    assert cu.open_results(copied, at="paper-v1").verify(quiet=True)


@pytest.mark.thorough
def test_failed_cells_are_said_and_can_be_tried_again(
    spec: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, check = tmp_path / "failed.zarr", Recorder._check_finite

    def failing(recorder: Recorder, *arguments: object) -> None:
        recorder.failed[1, 0] = "made to fail"

    monkeypatch.setattr(Recorder, "_check_finite", failing)
    told = command("run", spec, store)
    assert told.code == 3
    assert "1 of 12 cells failed: made to fail (1)" in told.err
    assert "--retry-failed" in told.err
    assert told.err.count("\n") == 1
    status = command("status", store)
    assert status.code == 3
    assert re.search(r"cells +11 of 12 complete, 1 failed\n", status.out)
    assert re.search(r"failures +1 x made to fail\n", status.out)
    monkeypatch.setattr(Recorder, "_check_finite", check)
    assert command("resume", store).code == 3
    assert command("resume", store, "--retry-failed").code == 0
    assert command("status", store).code == 0


@contextmanager
def running(script: Path, store: Path) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, halted after its first commit of samples."""
    process = subprocess.Popen(
        [sys.executable, "-m", "causalunet", "run", str(script), str(store), "--memory", ONE_SAMPLE],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - it forks alone
    )
    try:
        until = time.monotonic() + 200
        while not (store.exists() and "cells" in commits(store)[0]):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.thorough
def test_an_interrupted_run_says_how_to_go_on_and_goes_on(tmp_path: Path, command: Command) -> None:
    script, store = tmp_path / "long.py", tmp_path / "long.zarr"
    script.write_text(SCRIPT)
    with running(script, store) as process:
        while (during := command("status", store)).out.count("no process of this machine"):  # halted between two claims
            process.send_signal(signal.SIGCONT)
            time.sleep(0.02)
            process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=100)
    assert during.code == 3
    assert re.search(rf"at work +process {process.pid}, with 1 block of samples claimed\n", during.out)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].endswith(f"causalunet run {script} {store} --memory {ONE_SAMPLE}")
    assert "Traceback" not in out + err
    after = Completion.read(store)
    assert after.busy == {}
    assert 0 < after.cells.complete < after.cells.total == 12
    assert f"interrupted. {after.cells.complete} of 12 cells are safe in {store}; to go on: " in err

    refused = command("resume", store)
    assert refused.code == 2
    assert "a model called 'scripted', which is not registered here" in refused.err
    assert "Run its script long.py again" in refused.err
    try:
        told = command("run", script, store)
        assert told.code == 0
    finally:
        MODELS._entries.pop("scripted")
    results = cu.open_results(store)
    assert results.verify(quiet=True)
    assert sum(commit.added.get("cells", 0) for commit in results.history()) == 12


@pytest.mark.thorough
def test_resuming_goes_on_after_what_is_stored(
    study: cu.Study, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, store, write = as_json(study, tmp_path / "tiny.json"), tmp_path / "cut.zarr", Recorder.write

    def interrupted(recorder: Recorder) -> None:
        if len(commits(store)) > 3:
            raise KeyboardInterrupt
        write(recorder)

    monkeypatch.setattr(Recorder, "write", interrupted)
    told = command("run", spec, store, "--memory", ONE_SAMPLE)
    assert told.code == 130
    assert told.err == (
        f"causalunet: interrupted. 8 of 12 cells are safe in {store}; to go on: "
        f"causalunet run {spec} {store} --memory {ONE_SAMPLE}\n"
    )
    assert Completion.read(store).cells.complete == 8
    monkeypatch.setattr(Recorder, "write", write)
    told = command("resume", store)
    assert (told.code, told.err) == (0, "")
    assert "8 of 12 cells complete" in told.out
    results = cu.open_results(store)
    assert results.verify(quiet=True)
    assert sum(commit.added.get("cells", 0) for commit in results.history()) == 12


@pytest.mark.thorough
def test_what_cannot_be_resumed_says_why(
    copied: Path,
    spec: Path,
    tmp_path: Path,
    tiny_model: TextToImage,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exported = tmp_path / "export.zarr"
    assert command("export", copied, exported).code == 0
    assert "is an export, which is never written to" in command("resume", exported).err
    assert "There is nothing at" in command("resume", tmp_path / "none.zarr").err
    for part in ("model_fingerprint", "noise_schedule", "clip", "tokens"):
        other = tiny_pair(part, tiny_model).other
        monkeypatch.setitem(MODELS._entries, "tiny", lambda other=other: other)
        told = command("resume", copied)
        assert (told.code, told.err.count("\n")) == (2, 1)
        assert f"was made with something else than the model 'tiny' here: {part} " in told.err
        assert "run its script tiny.json again" in told.err
        told = command("run", spec, copied)
        assert told.code == 2
        assert f"holds another study: {part} " in told.err
    monkeypatch.delitem(MODELS._entries, "tiny")
    assert "a model called 'tiny', which is not registered here" in command("resume", copied).err
    repository = Repository.open(Location.parse(copied))
    session = repository.writable()
    zarr.open_group(session.store, mode="a").attrs["study"] = {"name": "\x1b[2J", "hooks": "x" * 5000}
    repository.commit(session, "damaged", {})
    told = command("resume", copied)
    assert told.code == 2
    assert "holds no study that can be read back" in told.err
    assert "\x1b" not in told.err
    assert len(told.err) < 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--checkpoint", "none.pt"), "The model 'tiny' has no 'checkpoint'. It takes nothing."),
        (("--device", "cpu"), "The model 'tiny' has no 'device'. It takes nothing."),
        (("--memory", "much"), "'much' is not a number of bytes"),
        (("--study", "other"), "no study called 'other'"),
    ],
)
def test_options_that_do_not_fit_are_told(
    spec: Path, tmp_path: Path, command: Command, options: tuple[str, ...], message: str
) -> None:
    told = command("run", spec, tmp_path / "out.zarr", *options)
    assert told.code == 2
    assert message in told.err
    assert not (tmp_path / "out.zarr").exists()


def test_a_place_that_cannot_be_taken_is_told(copied: Path, spec: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for place, message in (
        (tmp_path, "not a results store that can be written to: it holds"),
        (tmp_path / "notes.txt", "it is a file"),
        (tmp_path / "notes.txt" / "below.zarr", "a part of the path is a file"),
        (tmp_path / ("x" * 300), "too long"),
        (copied / "inside" / "x.zarr", f"lies inside the store {copied}"),
        ("s3://user:secret@bucket/prefix", "The address holds credentials"),
        ("ftp://bucket/prefix", "ftp:// addresses"),
    ):
        told = command("run", spec, place)
        assert (told.code, told.err.count("\n")) == (2, 1), told
        assert message in told.err
    assert (tmp_path / "notes.txt").read_text() == "mine"
