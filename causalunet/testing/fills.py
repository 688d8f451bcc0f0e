"""Whether a fill puts in place what the executor takes it for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from causalunet.design.donors import FillContext
from causalunet.design.fills import FILLS, Fill, Jump, says_what
from causalunet.design.limits import shown
from causalunet.errors import SpecError
from causalunet.testing.report import Checks, Conformance
from causalunet.testing.values import registered, round_trip

__all__ = ["check_fill"]

_ROWS = 3
_SHAPES = ((_ROWS, 8, 6, 6), (_ROWS, 5, 1, 7))
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_SEED = 20_261_129
_ROUNDING = 100
"""In units of the last place of the largest number: what the order of adding up may do."""


def check_fill(fill: Fill, *, values: Sequence[Tensor] | None = None) -> Conformance:
    """Check that a fill does what studies rely on.

    It is known by its name and comes back from JSON; gives a new tensor of the same shape and dtype, on the same
    device, the same every time, and finite; leaves value, donors and PyTorch's random numbers alone; does not mix
    rows; and if it says that it severs, owes nothing to the numbers of the value. Donors are made up,
    with numbers for every row.

    Parameters
    ----------
    fill : Fill
    values : sequence of Tensor, optional
        Values to try it on, (row, channel, y, x), with two rows or more. By default random numbers in two shapes and
        four types of floating point, cut out of larger tensors, as what comes over a skip connection is.

    Returns
    -------
    Conformance

    Raises
    ------
    ConformanceError
        A check failed; each failure is a line of the message.
    SpecError
        It is no fill, or a value has fewer than two rows.

    Examples
    --------
    >>> import causalunet as cu
    >>> from causalunet.testing import check_fill
    >>> check_fill(cu.Scale(0.5))
    <Conformance of "the fill 'scale'": passes 10 checks>
    """
    if not isinstance(fill, Fill):
        raise SpecError(f"{shown(fill)} is no fill. Give an instance of a subclass of causalunet.design.Fill.")
    if values is not None and not all(
        isinstance(value, Tensor) and value.ndim == 4 and len(value) > 1 for value in values
    ):
        raise SpecError(
            "check_fill(values=) takes tensors (row, channel, y, x) of two rows or more; give several rows."
        )
    name = type(fill).__name__
    checks = Checks(f"the fill {fill.name or name!r}")
    checks.run("registered", "its name", lambda: _named(fill))
    checks.run("JSON", "a round trip", lambda: round_trip(fill, Fill.from_json), needs=["registered"])
    if isinstance(fill, Jump):  # of the whole call, which then does not happen: there is no value
        return checks.done()
    tried = [value.detach().clone() for value in values] if values is not None else _random_values()
    some = f"{len(tried)} values"
    with torch.random.fork_rng(_gpus()), torch.inference_mode():
        checks.run("same shape, dtype", some, lambda: _fits(fill, tried))
        basis = ["same shape, dtype"]
        checks.run("a new tensor", some, lambda: _apart(fill, tried), basis)
        checks.run("value untouched", some, lambda: _untouched(fill, tried), basis)
        checks.run("repeatable", some, lambda: _repeatable(fill, tried), basis)
        checks.run("rows apart", f"{_rows(tried)} rows", lambda: _rows_apart(fill, tried), [*basis, "repeatable"])
        checks.run("finite", f"{some}, and zeros", lambda: _finite(fill, tried), basis)
        checks.run("severs", f"says {fill.severs}", lambda: _severs(fill, tried), [*basis, "repeatable"])
        checks.run("device", _device(), lambda: _on_device(fill, tried), basis)
    return checks.done()


def _context(fill: Fill, value: Tensor, row: int) -> FillContext:
    """What a study would tell a fill; donors of a row have the same numbers whatever rows are beside it."""
    rows = torch.arange(row + 1, row + 1 + len(value), dtype=torch.float32)
    donors = []
    for number, _ in enumerate(fill.donors):
        generator = torch.Generator().manual_seed(_SEED + number)
        one = torch.randn(1, *value.shape[1:], generator=generator) * rows[:, None, None, None]
        donors.append(one.to(value.dtype).to(value.device))
    timestep = torch.full((len(value),), 500.0, device=value.device)
    times = tuple(0.6 + 0.1 * number for number in range(len(donors)))
    return FillContext(3, timestep, timestep / 1000, tuple(donors), donor_times=times)


def _put(fill: Fill, value: Tensor, row: int = 0) -> Any:
    """What a fill puts in place of a value whose first row is a certain one of several."""
    return fill.put(value, _context(fill, value, row))


def _random_values() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in _SHAPES for dtype in _DTYPES]


def _cut_out(value: Tensor) -> tuple[Tensor, Tensor]:
    """The same numbers as some channels of a larger tensor; also give that."""
    around = torch.cat([value, value, value], dim=1)
    return around[:, value.shape[1] : 2 * value.shape[1]], around


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def _rows(tried: Sequence[Tensor]) -> int:
    return sum(len(value) for value in tried)


def _named(fill: Fill) -> Iterator[str]:
    yield from registered(fill, FILLS, "name")
    if not says_what(fill):
        yield f"{type(fill).__name__} does not say what it puts in place: give the class apply(self, value)."


def _fits(fill: Fill, tried: Sequence[Tensor]) -> Iterator[str]:
    for value in tried:
        given, _ = _cut_out(value)
        try:
            found: Any = _put(fill, given)
        except Exception as error:  # of foreign code
            yield f"apply() of {_described(value)} ended in {type(error).__name__}: {error!s:.200}"
            continue
        if not isinstance(found, Tensor) or found.shape != value.shape or found.dtype != value.dtype:
            yield (
                f"apply() gave {_described(found)} for {_described(value)}. It has to give a tensor of the same shape "
                "and dtype: end with .expand_as(value).clone() or .to(value.dtype)."
            )


def _apart(fill: Fill, tried: Sequence[Tensor]) -> Iterator[str]:
    for value in tried:
        given, around = _cut_out(value)
        context = _context(fill, given, 0)
        found = fill.put(given, context)
        place = found.untyped_storage().data_ptr()
        if any(place == donor.untyped_storage().data_ptr() for donor in context.donors):
            yield (
                f"what it gave for {_described(value)} shares memory with a donor: a U-Net that goes on in place would "
                "change the value that is kept. End with .clone()."
            )
            return
        shared = place == around.untyped_storage().data_ptr()
        repeated = any(step == 0 and size > 1 for step, size in zip(found.stride(), found.shape, strict=True))
        if shared or repeated:
            what = "shares memory with the value" if shared else "has several numbers in one place of memory"
            yield (
                f"what apply() gave for {_described(value)} {what}: a U-Net that goes on in place would change other "
                "numbers too. End with .clone()."
            )
            return


def _untouched(fill: Fill, tried: Sequence[Tensor]) -> Iterator[str]:
    for value in tried:
        given, around = _cut_out(value)
        before, context = around.clone(), _context(fill, given, 0)
        fill.put(given, context)
        same = zip(context.donors, _context(fill, given, 0).donors, strict=True)
        if not all(torch.equal(donor, as_made) for donor, as_made in same):
            yield (
                f"it wrote into a donor, for {_described(value)}, which is kept for later calls. Make a new tensor: "
                "donor * 2, not donor.mul_(2)."
            )
            return
        if not torch.equal(around, before):
            yield (
                f"apply() wrote into the value, {_described(value)}, which others hold. Make a new tensor: value * 2, "
                "not value.mul_(2) nor value[...] = ...; or begin with value = value.clone()."
            )
            return


def _repeatable(fill: Fill, tried: Sequence[Tensor]) -> Iterator[str]:
    torch.manual_seed(_SEED)  # whatever was drawn before; the caller has its own numbers back afterwards
    state = torch.get_rng_state()
    for value in tried:
        if not torch.equal(_put(fill, value.clone()), _put(fill, value.clone())):
            yield (
                f"apply() gave something else the second time, for the same {_described(value)}. A run has to be the "
                "same whenever it is made: draw random numbers from a generator made in apply() with a seed that is a "
                "field, the same numbers for each row."
            )
            return
    if not torch.equal(torch.get_rng_state(), state):
        yield (
            "apply() moved on or seeded PyTorch's random numbers, which are the user's. Use a generator of its own, "
            "torch.Generator(value.device).manual_seed(seed)."
        )


def _rows_apart(fill: Fill, tried: Sequence[Tensor]) -> Iterator[str]:
    for value in tried:
        together = _put(fill, value.clone())
        alone = torch.cat([_put(fill, row.clone(), number) for number, row in enumerate(value.split(1))])
        if not _close(together, alone):
            row = next(number for number in range(len(value)) if not _close(together[number], alone[number]))
            yield (
                f"row {row} of {_described(value)} gets other numbers beside other rows than alone. Results would "
                "depend on the batch: let means go over channel, y and x only, and random numbers be the same for each "
                "row."
            )
            return


def _close(one: Tensor, other: Tensor) -> bool:
    largest = max(float(one.abs().max()), float(other.abs().max()), 1.0)
    difference = float((one.double() - other.double()).abs().max())
    return difference <= _ROUNDING * torch.finfo(one.dtype).eps * largest


def _finite(fill: Fill, tried: Sequence[Tensor]) -> Iterator[str]:
    for value in tried:
        for given, what in ((value.clone(), "finite numbers"), (torch.zeros_like(value), "zeros")):
            if not bool(_put(fill, given).isfinite().all()):
                yield (
                    f"apply() gave numbers that are not finite for {what}, {_described(value)}; the run would fail. "
                    "Values of zeros do occur, where parts above are cut: add a small number before dividing."
                )
                return


def _severs(fill: Fill, tried: Sequence[Tensor]) -> Iterator[str]:
    if not fill.severs:
        return
    for value in tried:
        found = [_put(fill, given) for given in (value.clone(), value.flip(-1) * 3 + 1, torch.zeros_like(value))]
        if not all(torch.equal(found[0], other) for other in found[1:]):
            yield (
                f"it says severs = True, and what it puts in place of {_described(value)} depends on the numbers "
                "there. What feeds only that place does not run, so there are none: leave severs False, or use the "
                "shape of the value only."
            )
            return


def _gpus() -> list[int]:
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []


def _device() -> str:
    return "cuda" if _gpus() else "PyTorch's meta device"


def _on_device(fill: Fill, tried: Sequence[Tensor]) -> Iterator[str]:
    device = "cuda" if _gpus() else "meta"
    for value in tried:
        try:
            found = _put(fill, value.to(device))
        except Exception as error:  # of foreign code
            if device == "meta":  # where nothing can depend on numbers, which a fill may
                continue
            yield f"apply() of {_described(value)} on {device} ended in {type(error).__name__}: {error!s:.200}"
            return
        if found.device.type != device:
            yield (
                f"apply() gave a tensor on {found.device} for one on {device}. Make tensors with device=value.device, "
                "or by value.new_zeros(...) and the like."
            )
            return
