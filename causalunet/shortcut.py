"""Shortcuts: executable inference plans that leave out what a study found redundant."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls
from causalunet.design.facts import facts_html, sampler_words
from causalunet.design.interventions import Intervention, check_edits
from causalunet.design.limits import check_keys, check_plain, check_text, is_integer, read_json, shown
from causalunet.design.samplers import DDPM, Sampler
from causalunet.design.starts import Start
from causalunet.design.study import check_fits, listed, listed_seeds, listed_starts, one_run
from causalunet.errors import ModelError, SpecError
from causalunet.identity import FINGERPRINT, differences
from causalunet.paths import given_path
from causalunet.plan import cost_of_run
from causalunet.prediction import training_of
from causalunet.study import chosen_model, load_registered

if TYPE_CHECKING:
    import xarray as xr

    from causalunet.models.base import DiffusionModel

__all__ = ["Shortcut", "time_interventions", "time_shortcut"]

_FORMAT, _VERSION = "causalunet-shortcut", 1
_MOST_BYTES = 1 << 20


@clear_calls
@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """An inference plan: a sampler, and what is left out of its run.

    Parameters
    ----------
    name : str
    intervention : Intervention
        What is left out, such as ``AblateBlock(4, cut_relax_cut(...)) + SkipSteps(Window(17, 17))``.
    sampler : Sampler
        Whose run it shortens.
    model : str
        Registered model name.
    fingerprint : str
        Of the weights that it was found on; empty to fit any.
    identity : mapping
        Of what it was found on, ``results.identity``: weights, noise schedule, clipping, tokens. What is the model's of
        it must be that of the model it is applied to; empty to fit any.
    evidence : mapping
        What it was derived from, such as digests of studies and thresholds; of plain JSON types, kept as it is.

    Raises
    ------
    SpecError
        A field is of another kind, or an edit of the intervention could never fire in a run of the sampler.

    Examples
    --------
    >>> from causalunet import AblateBlock, SkipSteps, Window, cut_relax_cut
    >>> cuts = cut_relax_cut(70, cut=10, relax=5, cuts=3)
    >>> shortcut = Shortcut(
    ...     name="three cuts, then stop",
    ...     intervention=AblateBlock(6, cuts) + SkipSteps(Window(17, 17)),
    ...     sampler=DDPM(steps=100),
    ... )
    >>> Shortcut.from_json(shortcut.to_json()) == shortcut
    True
    """

    name: str
    intervention: Intervention
    sampler: Sampler = field(default_factory=DDPM)
    model: str = "shapes"
    fingerprint: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict, hash=False)
    evidence: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, kind in (
            ("intervention", Intervention),
            ("sampler", Sampler),
            ("identity", Mapping),
            ("evidence", Mapping),
        ):
            if not isinstance(getattr(self, name), kind):
                raise SpecError(f"Shortcut got {name}={shown(getattr(self, name))}; give a {kind.__name__}.")
        for name in ("name", "model", "fingerprint"):
            check_text("Shortcut", name, getattr(self, name))
        check_plain("The evidence of a shortcut", dict(self.evidence))
        check_plain("The identity of a shortcut", dict(self.identity))
        for part in self.identity:
            check_text("The identity of a shortcut", "part", part)
        check_edits((self.intervention,))
        check_fits(self.intervention, self.sampler)

    def _repr_html_(self) -> str:
        """What is left out of which run, for notebooks."""
        told = {
            "model": self.model,
            "sampler": sampler_words(self.sampler),
            "left out": self.intervention.label,
            **{f"evidence, {name.replace('_', ' ')}": str(value) for name, value in self.evidence.items()},
        }
        return facts_html(f"Shortcut {shown(self.name)}", told)

    def apply(
        self,
        prompts: Iterable[str],
        seeds: Iterable[int] | None = None,
        *,
        starts: Start | Iterable[Start] | None = None,
        model: DiffusionModel | None = None,
        traced: bool = False,
        memory: int | None = None,
    ) -> NDArray[np.float32]:
        """Draw images along the shortcut.

        Parameters
        ----------
        prompts : iterable of str
        seeds : iterable of int, optional
            Paired with prompts as in `causalunet.Study`.
        starts : iterable of Start, optional
            Instead of seeds, as in `causalunet.Study`.
        model : DiffusionModel, optional
            Instead of the registered one.
        traced : bool
            Call the U-Net through nnsight. Otherwise the cuts are installed in its modules, once per change, and the
            U-Net is called plainly; the images are the same.
        memory : int, optional
            As for `time_shortcut`.

        Returns
        -------
        ndarray of float32, (sample, channel, y, x)
            In [0, 1].

        Raises
        ------
        ModelError
            The model differs from the one that the shortcut was found on.
        PromptError, ComponentError, SpecError, MissingExtraError
            What the model cannot do is told before anything runs.
        """
        loaded = self.load(model)
        from causalunet.execute.walk.generate import generate

        return generate(
            listed(prompts),
            listed_seeds(seeds),
            starts=starts,
            model=loaded,
            sampler=self.sampler,
            intervention=self.intervention,
            traced=traced,
            memory=memory,
        )

    def cost(self, model: DiffusionModel | None = None) -> dict[str, float]:
        """What is left of the uncut run's cost; nothing is run.

        Parameters
        ----------
        model : DiffusionModel, optional
            Instead of the registered one.

        Returns
        -------
        dict
            ``unet_calls`` and ``flops`` per sample, ``calls_share`` and ``flops_share`` of the uncut run's.
        """
        loaded = self.load(model)
        schedule = self.sampler.schedule(training_of(loaded))
        own, uncut = (cost_of_run(run, self.sampler, loaded.anatomy, schedule) for run in (self.intervention, None))
        return {
            "unet_calls": own.unet_calls,
            "flops": own.flops,
            "calls_share": own.unet_calls / uncut.unet_calls,
            "flops_share": own.flops / uncut.flops,
        }

    def load(self, model: DiffusionModel | None = None) -> DiffusionModel:
        """Load the registered model, or check the one given.

        Raises
        ------
        ModelError
            It differs from the one that the shortcut was found on; the parts of the identity that do are named.
        """
        loaded = chosen_model(model, self.model)
        if (expected := self._expected()) and (different := differences(expected, loaded, self.sampler)):
            raise ModelError(
                f"The shortcut {self.name!r} was found on another model than {loaded.name!r} here: "
                f"{'; '.join(different)}. Give that model, derive a shortcut for this one, or drop the check with "
                "dataclasses.replace(shortcut, fingerprint='', identity={})."
            )
        return loaded

    def _expected(self) -> dict[str, Any]:
        """Parts of the identity that a model must have; the sampler is the shortcut's own."""
        own = self.sampler.to_json()["configuration"]
        as_found = all(self.identity.get(f"sampler.{name}") == own.get(name) for name in ("steps", "spacing"))
        chosen = {name for name in self.identity if not name.startswith("sampler.") and (name != "steps" or as_found)}
        fingerprint = {FINGERPRINT: self.fingerprint} if self.fingerprint else {}
        return {name: part for name, part in self.identity.items() if name in chosen} | fingerprint

    def to_json(self) -> dict[str, Any]:
        """Write with plain JSON types."""
        identity = {"identity": dict(self.identity)} if self.identity else {}  # which earlier versions do not read
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "name": self.name,
            "intervention": self.intervention.to_json(),
            "sampler": self.sampler.to_json(),
            "model": self.model,
            "fingerprint": self.fingerprint,
            **identity,
            "evidence": dict(self.evidence),
        }

    @classmethod
    def from_json(cls, value: Any) -> Shortcut:
        """Read what `to_json` wrote.

        Raises
        ------
        SpecError
            It is not a shortcut, or one of a later version.
        """
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            raise SpecError(f"{shown(value)} is not a shortcut; give what Shortcut.to_json() wrote.")
        if value.get("version") != _VERSION or not is_integer(value["version"]):
            raise SpecError(
                f"The shortcut has version {shown(value.get('version'))}; this causalunet reads {_VERSION}."
            )
        parts = {name: entry for name, entry in value.items() if name not in ("format", "version")}
        check_keys("A shortcut", parts, [entry.name for entry in fields(cls)])
        if lacking := [name for name in ("name", "intervention", "sampler") if name not in parts]:
            raise SpecError(f"The shortcut cannot be read: it lacks {', '.join(lacking)}.")
        readers: dict[str, Callable[[Any], Any]] = {
            "intervention": Intervention.from_json,
            "sampler": Sampler.from_json,
        }
        return cls(**{name: readers[name](entry) if name in readers else entry for name, entry in parts.items()})

    def save(self, path: str | Path) -> Path:
        """Write as a JSON file."""
        path = given_path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n")
        return path

    @classmethod
    def open(cls, path: str | Path) -> Shortcut:
        """Read a JSON file.

        Raises
        ------
        SpecError
            There is no such file, or it is not a shortcut.
        """
        path = given_path(path)
        try:
            if not path.is_file():
                raise SpecError(f"There is no shortcut at {path}. shortcut.save(path) writes one.")
            with path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise SpecError(f"{path} cannot be read: {error.strerror}.") from error
        if len(content) > _MOST_BYTES:
            raise SpecError(f"{path} is too long; a shortcut has at most {_MOST_BYTES} bytes.")
        try:
            value = read_json(content)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"{path} is not a shortcut: it cannot be read as JSON ({error!s:.200}).") from error
        return cls.from_json(value)


def time_shortcut(
    shortcut: Shortcut,
    prompts: Iterable[str],
    seeds: Iterable[int] | None = None,
    *,
    starts: Start | Iterable[Start] | None = None,
    model: DiffusionModel | None = None,
    repeats: int = 5,
    traced: bool = False,
    memory: int | None = None,
) -> xr.Dataset:
    """Measure wall time along a shortcut against the uncut run.

    Every repeat runs all arms in turn, in an order that rotates; one round before warms up and does not count. All arms
    encode each prompt once.

    Parameters
    ----------
    shortcut : Shortcut
    prompts, seeds, starts
        The batch, as for `Shortcut.apply`.
    model : DiffusionModel, optional
        Instead of the registered one.
    repeats : int
        Timed rounds, at least 1.
    traced : bool
        Call the U-Net through nnsight in all arms, instead of plainly.
    memory : int, optional
        Budget in bytes for the activations of a call, on the device of the model; by default half of what is free
        there, and on a CPU 1 GiB at the most.

    Returns
    -------
    xarray.Dataset
        Along ``arm``, "uncut", "cuts", "steps" and "shortcut" (the cuts alone, the skipped steps alone, both):
        ``seconds`` (arm, repeat); ``saved`` (arm,), the share of the uncut run's time, median over repeats of the
        ratio within a repeat; ``spread`` (arm, bound), quartiles of the same; ``flops_saved`` and ``kernels_saved``
        (arm,), shares of the uncut run's FLOPs and of its operations on tensors; ``unet_calls`` (arm,) per sample.
        Scalars ``saved_by_steps``, the share saved by the skipped steps alone, and ``saved_by_cuts``, what the cuts add
        to it. The attributes name batch size, samples in the largest U-Net call (fewer, if memory holds no
        more or ran out), device, threads, baseline, and whether TF32 was on.

    Raises
    ------
    SpecError, ModelError
        As for `Shortcut.apply`.

    Notes
    -----
    Kernels are the operations of the U-Net calls that PyTorch dispatches, views left out, counted on up to two samples;
    their number does not depend on the batch.
    """
    if not isinstance(shortcut, Shortcut):
        raise SpecError(f"{shown(shortcut)} is no Shortcut; time_interventions times interventions by themselves.")
    loaded = shortcut.load(model)
    prompts, seeds, starts = listed(prompts), listed_seeds(seeds), listed_starts(starts)
    from causalunet.execute.measure.timing import shortcut_arms, time_arms

    arms = {
        name: one_run(prompts, seeds, shortcut.sampler, arm, starts=starts).bind(loaded)
        for name, arm in shortcut_arms(shortcut.intervention).items()
    }
    timed = time_arms(arms, repeats=repeats, traced=traced, memory=memory)
    steps = float(timed["saved"].sel(arm="steps")) if "steps" in arms else 0.0
    cuts = float(timed["saved"].sel(arm="shortcut")) - steps
    parts = {"saved_by_steps": ((), steps, {"units": "1"}), "saved_by_cuts": ((), cuts, {"units": "1"})}
    return timed.assign(parts).assign_attrs(shortcut=shortcut.name)


def time_interventions(
    interventions: Mapping[str, Intervention],
    prompts: Iterable[str],
    seeds: Iterable[int] | None = None,
    *,
    starts: Start | Iterable[Start] | None = None,
    model: str | DiffusionModel = "shapes",
    sampler: Sampler | None = None,
    repeats: int = 5,
    traced: bool = False,
    memory: int | None = None,
) -> xr.Dataset:
    """Measure wall time under several interventions against the uncut run, all in turn.

    Parameters
    ----------
    interventions : mapping of str to Intervention
        By name.
    prompts, seeds, starts
        The batch, as for `Shortcut.apply`.
    model : str or DiffusionModel
    sampler : Sampler, optional
        By default 100 steps at guidance 3.
    repeats, traced, memory
        As for `time_shortcut`.

    Returns
    -------
    xarray.Dataset
        As of `time_shortcut`, without the two parts; ``arm`` is "uncut" and the names.
    """
    if not isinstance(interventions, Mapping):
        raise SpecError(f"{shown(interventions)} cannot be timed; give interventions by name, {{name: intervention}}.")
    loaded = load_registered(model) if isinstance(model, str) else chosen_model(model, "")
    sampler, starts = sampler or DDPM(), listed_starts(starts)
    prompts, seeds = listed(prompts), listed_seeds(seeds)
    from causalunet.execute.measure.timing import time_arms

    arms = {
        name: one_run(prompts, seeds, sampler, arm, starts=starts).bind(loaded)
        for name, arm in {"uncut": None, **interventions}.items()
    }
    return time_arms(arms, repeats=repeats, traced=traced, memory=memory)
