"""The list of checksums: no change passes, and a list that was cut off raises no false alarm."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalunet.errors import DamageError
from causalunet.results.engine.checksums import SUMS, Sums

names = st.from_regex(r"\A(snapshots|manifests)/[0-9A-Z]{20}\Z")
contents = st.dictionaries(names, st.binary(min_size=1, max_size=50), min_size=1, max_size=5)


def lay_out(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


@given(contents, st.data())
def test_a_changed_file_is_told(files: dict[str, bytes], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        lay_out(folder, files)
        Sums(folder).add(files)
        Sums(folder).check(files)
        name = data.draw(st.sampled_from(sorted(files)))
        changed = data.draw(st.binary(max_size=50).filter(lambda content: content != files[name]))
        (folder / name).write_bytes(changed)
        with pytest.raises(DamageError, match=f"{name} is not as it was written"):
            Sums(folder).check(files)
        Sums(folder).check(files.keys() - {name})


@given(contents, st.data())
def test_a_list_that_was_cut_off_is_completed(files: dict[str, bytes], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        lay_out(folder, files)
        Sums(folder).add(files)
        whole = (folder / SUMS).read_bytes()
        (folder / SUMS).write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
        sums = Sums(folder)
        sums.check(files)
        sums.add(files)
        sums.check(files)
        for name, content in files.items():
            (folder / name).write_bytes(content + b" ")
            with pytest.raises(DamageError):
                Sums(folder).check([name])


def test_what_is_not_listed_passes(tmp_path: Path) -> None:
    Sums(tmp_path).check(["snapshots/A"])
    (tmp_path / SUMS).write_bytes(b"\x00\xff\nnothing\n")
    Sums(tmp_path).check(["snapshots/A"])
