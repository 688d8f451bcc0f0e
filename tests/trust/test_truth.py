"""The reader of the other tests is not blind: whatever is changed in a store, it sees."""

from __future__ import annotations

import numpy as np

from causalunet.plan import BASELINE
from causalunet.results.meaning.declaration import ORDINARY
from tests.trust.truth import CLOCK, Truth, Values


def copied(truth: Truth) -> Values:
    return {path: (dims, values.copy()) for path, (dims, values) in truth.values.items()}


def test_every_array_is_compared(truth: Truth) -> None:
    assert truth.compare_values(copied(truth)).wrong == []
    for path in truth.values.keys() - CLOCK:
        there = copied(truth)
        values = there[path][1]
        at = (0,) * values.ndim
        values[at] = f"{values[at]} " if values.dtype.kind in "TO" else 0 if values[at] else 1
        seen = truth.compare_values(there)
        assert seen.wrong or not seen.whole, path


def test_half_a_cell_is_seen(truth: Truth) -> None:
    of_cells = [path for path, (dims, _) in truth.values.items() if dims[:2] == ("intervention", "sample")]
    assert len(of_cells) > 10
    for path in set(of_cells) - {"outcomes/failure"}:  # whose text is empty
        there = copied(truth)
        values = there[path][1]
        values[1, 1] = np.nan if values.dtype.kind == "f" else 0
        if path == "outcomes/status":
            assert (1, 1) not in truth.compare_values(there).cells
        elif values.dtype.kind == "f" or truth.values[path][1][1, 1].any():
            assert truth.compare_values(there).wrong == [f"{path} differs"]


def test_what_is_there_of_an_incomplete_cell_is_seen(truth: Truth) -> None:
    there = copied(truth)
    there["outcomes/status"][1][2, 3] = 0
    there["baseline/status"][1][5] = 0
    seen = truth.compare_values(there)
    assert not seen.whole
    assert (2, 3) not in seen.cells
    assert (BASELINE, 5) not in seen.cells
    named = {problem.partition(" ")[0] for problem in seen.wrong}
    assert named >= {"outcomes/ssim", "trajectory/eps_distance", "activations/mid/intervened", "baseline/x_t"}
    assert all(ORDINARY.variable_at(path) is not None for path in named)
