"""Laws of what is printed."""

from __future__ import annotations

import datetime
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from causalunet.cli.printing import ago, aligned, folded, one_line, plain, size, told_warnings
from causalunet.cli.running import byte_count
from causalunet.errors import CausalUNetWarning


@given(st.text())
def test_nothing_printed_can_steer_a_terminal(text: str) -> None:
    shown = plain(text)
    assert all(part.isprintable() or part == "\n" for part in shown)
    assert plain(shown) == shown
    assert len(one_line(text)) <= 10 * 200
    assert "\n" not in one_line(text)


def test_an_escape_sequence_is_spelled_out() -> None:
    assert plain("a\x1b[2Jb\rc") == "a\\x1b[2Jb\\rc"


@given(st.lists(st.tuples(st.text("abc", max_size=9), st.text("def", max_size=9)), min_size=1))
def test_columns_stand_under_each_other(rows: list[tuple[str, str]]) -> None:
    lines = aligned(rows, right=(0,))
    width = max(len(first) for first, _ in rows)
    assert [line[:width].strip() for line in lines] == [first for first, _ in rows]
    assert [line[width:].strip() for line in lines] == [second for _, second in rows]


@example(["results/first-study.zarr" * 9])
@given(st.lists(st.text("ab/-", min_size=1, max_size=120), min_size=1))
def test_folding_never_breaks_a_word(words: list[str]) -> None:
    assert folded(" ".join(words), first="  ", rest="    ").split() == words


@given(st.integers(1, 10**6), st.sampled_from(["", "B", "k", "kB", "MB", " GB", "KiB", "mib", "GiB"]))
def test_sizes_are_read_as_they_are_meant(number: int, unit: str) -> None:
    factor = {"": 1, "b": 1, "k": 1e3, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    assert byte_count(f"{number}{unit}") == number * factor[unit.strip().lower()]


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "1 XB", "nan", "1e9", "1" * 40, "0.0001kB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(Exception, match="not a number of bytes"):
        byte_count(text)


def test_sizes_and_ages_in_words() -> None:
    assert [size(number) for number in (None, 0, 999, 1_000, 12_345_678, 999_999_999, 5 * 10**12)] == [
        "-",
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 MB",
        "1,000.0 MB",
        "5,000.0 GB",
    ]
    now = datetime.datetime.now(datetime.UTC)
    assert ago(now - datetime.timedelta(days=2, hours=3)) == "2 days ago"
    assert ago(now - datetime.timedelta(minutes=1, seconds=5)) == "1 minute ago"
    assert ago(now + datetime.timedelta(hours=1)) == "just now"


def test_warnings_are_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with told_warnings():
        for _ in range(2):
            warnings.warn("run with retry_failed=True", CausalUNetWarning, stacklevel=1)
    assert capsys.readouterr().err == "causalunet: warning: run with --retry-failed\n" * 2
