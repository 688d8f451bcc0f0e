"""How far a store is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.results.meaning.completion import Completion, Tally
from causalunet.results.meaning.schema import COMPLETE, FAILED, MISSING


@given(st.lists(st.sampled_from([MISSING, COMPLETE, FAILED])))
def test_every_status_is_counted_once(statuses: list[int]) -> None:
    tally = Tally.of(np.array(statuses, np.int8))
    assert tally.total == len(statuses)
    assert (tally.complete, tally.failed) == (statuses.count(COMPLETE), statuses.count(FAILED))


def test_a_finished_store_is_complete(store: Path, study: cu.Study, results: xr.DataTree) -> None:
    completion = Completion.read(store)
    assert completion.complete
    assert (completion.study, completion.model, completion.digest) == (study.name, study.model, study.digest)
    assert completion.cells == Tally(results.outcomes.status.size, 0, 0)
    assert completion.baselines == Tally(results.baseline.status.size, 0, 0)
    assert completion.unet_calls == int(results.audit.unet_calls.sum())
    assert completion.last == cu.open_results(store).history()[0]
    assert completion.size == sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert (completion.unrecorded, completion.failures, completion.tags, completion.busy) == (0, (), (), {})
