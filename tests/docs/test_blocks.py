"""Blocks of Python are found wherever a page can have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import find, first_missing, run

PAGE = """
# Title

```python
a = 1
```

```shell
python not.py
```

```python
print("one of", 2.0, "or", [3, 4])
```

```text
one of 2.01
  [3, 4]
```

- in a list

  ```python
  b = a + 1
  ```

:::{dropdown} Solution
```{code-cell} ipython3
:tags: [hide-input]
c = b + 1
```
:::

::::{tab-set}
```{code-cell} ipython3
:tags: [raises-exception]

c / 0
```
::::

```{note}
Text.
```

<!-- not run: there is
no such model -->
```python
d = load("nothing")
```

````markdown
```python
within = "another block"
```
````
"""


def test_every_block_is_found_with_its_line_and_reason() -> None:
    blocks = list(find(PAGE))
    code = [block.code.strip() for block in blocks]
    assert code == [
        "a = 1",
        'print("one of", 2.0, "or", [3, 4])',
        "b = a + 1",
        "c = b + 1",
        "c / 0",
        'd = load("nothing")',
    ]
    lines = PAGE.splitlines()
    for block in blocks:
        assert block.code.strip() in "\n".join(lines[block.line - 1 : block.line + 1])
    assert [bool(block.reason) for block in blocks] == [False] * 5 + [True]
    assert blocks[5].reason == "there is\nno such model"
    assert [block.raises for block in blocks] == [False, False, False, False, True, False]
    assert [block.shown for block in blocks] == ["", "one of 2.01\n  [3, 4]\n", "", "", "", ""]


def test_pages_run_in_one_namespace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    found = run(page)
    assert (found["a"], found["b"], found["c"]) == (1, 2, 3)
    assert "d" not in found
    assert capsys.readouterr().out == "one of 2.0 or [3, 4]\nZeroDivisionError: division by zero\n"


def test_errors_stand_at_their_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\na = 1\nb = nothing\n```\n")
    with pytest.raises(NameError) as error:
        run(page)
    assert error.traceback[-1].lineno == 4  # counted from zero


def test_an_error_that_is_shown_must_come(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```{code-cell} ipython3\n:tags: [raises-exception]\n1\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:3 shows an error"):
        run(page)


def test_what_a_page_shows_must_be_printed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint('SSIM', 0.91)\n```\n\n```text\nSSIM 0.71\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:2 does not print '0\.71' there"):
        run(page)


@pytest.mark.parametrize(
    ("shown", "printed", "missing"),
    [
        ("1,010 calls", "1010 calls", ""),
        ("a\nb c", "a b\n\nc", ""),
        ("a c", "a b c", ""),
        ("c a", "a b c", "a"),
        ("0.912", "0.913", ""),
        ("0.912", "0.95", "0.912"),
        ("3 blocks", "4 blocks", "3"),
        ("0.0e+00", "4.0e-07", ""),
        ("1.0e-03", "2.0e-03", "1.0e-03"),
        ("[0.10, 0.2]", "[0.100, 0.2]", ""),
        ("b5caf830", "b5caf831", "b5caf830"),
        ("-1.50", "1.50", "-1.50"),
    ],
)
def test_numbers_are_compared_as_numbers(shown: str, printed: str, missing: str) -> None:
    assert first_missing(shown, printed) == missing
