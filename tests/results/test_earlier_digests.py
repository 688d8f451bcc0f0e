"""Stores of earlier versions, to which ``a + b`` and ``b + a``, and windows that touch, were two interventions each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import causalunet as cu
from causalunet.models.text_to_image import TextToImage

SKIP, BLOCK = cu.AblateSkip(1, cu.Window(5, 2)), cu.AblateBlock(1, cu.Window(2, 1))
PAIR = cu.Edit("down.1", cu.Window(2, 1)) + cu.Edit("up.1", cu.Window(5, 1))
FIELDS = {"name": "earlier", "prompts": ["a red circle", "a blue cross"], "sampler": cu.DDPM(steps=5)}
LABELS = ["late first", "early first", "touching", "whole", "pair", "null 5-3"]


@pytest.fixture(scope="module")
def earlier(tiny_model: TextToImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that is laid out, labelled and digested as before sums were values."""
    path = tmp_path_factory.mktemp("earlier") / "results.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("causalunet.design.interventions._in_the_run", lambda part: 0)
        patch.setattr("causalunet.design.windows.joined", tuple)
        patch.setattr("causalunet.design.study._check_distinct", lambda items: None)
        patch.setattr("causalunet.results.meaning.lazy.renewed_digests", lambda texts: {})
        patch.setattr(cu.Composition, "digest", cu.design.Intervention.digest)
        touching = cu.AblateSkip(1, cu.Windows((cu.Window(5, 1), cu.Window(4, 1))), label="touching")
        items = [
            cu.Composition((BLOCK, SKIP), label="late first"),
            cu.Composition((SKIP, BLOCK), label="early first"),
            touching,
            cu.AblateSkip(1, cu.Window(5, 2), label="whole"),
            cu.Composition(PAIR.parts[::-1], label="pair"),
        ]
        results = cu.Study(interventions=items, **FIELDS).run(path, model=tiny_model, progress=False)
        assert len(set(results.outcomes.digest.values)) == len(LABELS)
        assert len(json.loads(results.outcomes.spec.values[2])["configuration"]["window"]) == 2
    return path


@pytest.fixture
def copy(earlier: Path, tmp_path: Path) -> Path:
    shutil.copytree(earlier, tmp_path / "copy.zarr")
    return tmp_path / "copy.zarr"


def test_they_are_found_by_what_they_do(earlier: Path) -> None:
    results = cu.open_results(earlier)
    assert results.outcomes.intervention.values.tolist() == LABELS
    for item, labels in ((SKIP + BLOCK, LABELS[:2]), (SKIP, LABELS[2:4]), (PAIR, ["pair"])):
        found = results.outcomes.digest.values == item.digest
        assert results.outcomes.intervention.values[found].tolist() == labels
    np.testing.assert_array_equal(results.outcomes.digest, results["audit"].digest)
    assert results.verify(quiet=True).verdict == "sound and complete"


@pytest.mark.thorough
def test_they_grow_without_running_anything_again(copy: Path, tiny_model: TextToImage) -> None:
    before = cu.open_results(copy).outcomes.load()
    more = cu.Edit("mid", cu.Window(1, 1)) + cu.Edit("down.0", cu.Window(4, 1))
    grown = cu.Study(interventions=[BLOCK + SKIP, SKIP, PAIR, more], **FIELDS)
    results = grown.run(copy, model=tiny_model, progress=False)
    assert results.outcomes.intervention.values.tolist() == [*LABELS, more.label]
    np.testing.assert_array_equal(results.outcomes.ssim[: len(LABELS)], before.ssim)
    assert results.verify(quiet=True).verdict == "sound and complete"
    fresh = grown.run(copy.with_name("fresh.zarr"), model=tiny_model, progress=False)
    for item in grown.interventions:
        one, other = (
            tree.outcomes.ssim.values[tree.outcomes.digest.values == item.digest] for tree in (results, fresh)
        )
        np.testing.assert_allclose(one, np.broadcast_to(other, one.shape), atol=1e-5)


def test_their_study_is_read_back_once_per_intervention(earlier: Path, copy: Path, tiny_model: TextToImage) -> None:
    study = cu.Study.from_stored(cu.open_results(earlier).attrs["study"])
    assert [item.label for item in study.interventions] == ["late first", "touching", "pair", "null 5-3"]
    results = study.run(copy, model=tiny_model, progress=False)
    assert results.outcomes.intervention.values.tolist() == LABELS


def test_an_export_of_one_is_sound(earlier: Path, tmp_path: Path) -> None:
    cu.open_results(earlier).export(tmp_path / "export.zarr")
    exported = cu.open_results(tmp_path / "export.zarr")
    assert exported.verify(quiet=True).verdict == "sound and complete"
    assert (exported.outcomes.digest.values == (SKIP + BLOCK).digest).sum() == 2
