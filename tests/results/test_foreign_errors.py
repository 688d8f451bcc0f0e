"""Errors that are not the store's are never told as damage: whoever reads "damaged" may delete a good store."""

from __future__ import annotations

import builtins
import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.cli import main
from causalunet.design.fills import FILLS
from causalunet.design.interventions import KINDS
from causalunet.errors import CausalUNetError, DamageError, ModelError, PluginError, StorageError
from causalunet.models.text_to_image import TextToImage
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.guard.checked_store import read_stored, stored_grid
from causalunet.results.guard.storage_errors import faults_told
from causalunet.results.meaning.layout import Layout
from causalunet.schedule import Schedule, cosine_alpha_bar
from tests.results.test_places import STUDY

FOREIGN = [
    kind
    for kind in vars(builtins).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError | ExceptionGroup)
]


def told_by(action: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        action()
    assert not isinstance(caught.value, DamageError)
    assert "damage" not in str(caught.value)
    return caught.value


@given(st.sampled_from(FOREIGN), st.text(max_size=9))
def test_writing_never_says_damaged(kind: type[Exception], text: str) -> None:
    def write() -> None:
        with faults_told("a store", "writing to", writing=True):
            raise kind(text)

    error = told_by(write)
    assert type(error) is kind or (issubclass(kind, OSError) and type(error) is StorageError)


EXHAUSTED = [
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("can't start new thread"),
    MemoryError(),
    icechunk.IcechunkError("x I/O error | context: fetch_manifest |-> Allocation error : not enough memory"),
    RuntimeError("zstd returned null pointer when creating new context"),
    RuntimeError("OS can't spawn worker thread: Resource temporarily unavailable (os error 11)"),
]
"""The last ones as the storage engine said them under a limit of 400 megabytes."""


@pytest.mark.parametrize("writing", [False, True])
@pytest.mark.parametrize("error", EXHAUSTED, ids=range(len(EXHAUSTED)))
def test_exhausted_memory_is_told_as_such(error: Exception, writing: bool) -> None:
    def use() -> None:
        with faults_told("a store", "reading from", writing=writing):
            raise error

    assert isinstance(told := told_by(use), StorageError | MemoryError)
    assert isinstance(told, MemoryError) or "ulimit -v" in str(told)


@pytest.mark.parametrize("error", [EXHAUSTED[3], icechunk.IcechunkError("of some kind"), OSError(errno.ENOSPC, "full")])
def test_a_store_that_is_being_made_is_neither_damaged_nor_gone(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: TextToImage
) -> None:
    def make(_: object) -> None:
        raise error

    monkeypatch.setattr("causalunet.results.engine.repository.make", make)
    told = told_by(lambda: STUDY.run(tmp_path / "s.zarr", model=tiny_model, progress=False))
    assert isinstance(told, StorageError)
    assert "Failed creating" in str(told)
    assert "is gone" not in str(told)
    assert not list(tmp_path.iterdir())


@pytest.mark.sampled(15)
@pytest.mark.parametrize("kind", [KeyError, ZeroDivisionError, ValueError, AttributeError, RuntimeError])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (TextToImage, "decode"),
        (TextToImage, "encode"),
        (TextToImage, "fingerprint"),
        (cu.AblateBlock, "coordinates"),
        (cu.AblateBlock, "edits"),
        (Layout, "known"),
        (Layout, "coordinates"),
        (Schedule, "log_snr"),
    ],
)
def test_what_ends_a_run_arrives_as_it_was_raised(
    kind: type[Exception],
    owner: type,
    name: str,
    tiny_model: TextToImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*arguments: Any, **named: Any) -> None:
        raise kind("mine")

    monkeypatch.setattr(owner, name, property(fails) if name == "fingerprint" else fails)
    # A study of its own: one that was run keeps the edits that it was given.
    error = told_by(lambda: replace(STUDY).run(tmp_path / "s.zarr", model=tiny_model, progress=False))
    assert type(error) is kind or isinstance(error, CausalUNetError)
    assert "mine" in str(error)


def test_images_of_another_shape_are_the_models(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TextToImage, "decode", lambda self, x0: np.zeros((len(x0), 3, 20, 20), np.float32))
    error = told_by(lambda: STUDY.run(tmp_path / "s.zarr", model=tiny_model, progress=False))
    assert isinstance(error, ModelError)
    assert "(1, 3, 20, 20)" in str(error)
    assert "image_shape" in str(error)


@pytest.mark.parametrize("last", [0.0, -0.1, np.nan, 1.0])
def test_a_schedule_that_ends_in_nothing_is_told_before_anything_runs(
    last: float, tiny_model: TextToImage, tmp_path: Path
) -> None:
    model = replace(tiny_model, alpha_bar=np.append(cosine_alpha_bar()[:-1], last))
    error = told_by(lambda: STUDY.run(tmp_path / "s.zarr", model=model, progress=False))
    assert isinstance(error, ModelError)
    assert "end above 0" in str(error)
    assert not list(tmp_path.iterdir())


def test_plug_ins_that_are_not_imported_are_named(
    store: Path, tiny_model: TextToImage, study: cu.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(KINDS._entries, "ablate_block")
    monkeypatch.delitem(FILLS._entries, "zero")
    location = Location.parse(store)
    stored = read_stored(Repository.open(location).readable(), location)
    for action in (
        lambda: stored_grid(stored, location),
        lambda: study.run(store, model=tiny_model, progress=False),
    ):
        error = told_by(action)
        assert isinstance(error, PluginError)
        assert "the kind 'ablate_block'" in str(error)
        assert "import the modules that define them" in str(error)
    assert cu.open_results(store).outcomes.ssim.notnull().all(), "reading needs no plug-in"


def test_resuming_names_them_too(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(KINDS._entries, "skip_steps")
    assert main(["resume", str(store)]) == 2
    said = capsys.readouterr().err
    assert "the kind 'skip_steps'" in said
    assert "damage" not in said
