"""A study that can plan and run itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import xarray as xr

from causalunet.analysis.criteria import Criterion, chosen_criterion
from causalunet.bound import BoundStudy
from causalunet.calls import clear_calls
from causalunet.design.facts import facts_html, facts_of_study
from causalunet.design.families import Axis, families
from causalunet.design.limits import shown
from causalunet.design.study import StudySpec
from causalunet.errors import MissingExtraError
from causalunet.metrics import check_size
from causalunet.plan import Plan
from causalunet.provenance import calling_source
from causalunet.results.engine.location import Location
from causalunet.results.store import Results, open_results
from causalunet.screening import Method, check_screening, screened, strongest

if TYPE_CHECKING:
    from distributed import Client

    from causalunet.cluster.workers import Workers
    from causalunet.models.base import DiffusionModel

__all__ = ["Study", "chosen_model", "load_registered", "runner_on_workers"]

_KEPT = "_loaded"
"""Where a study keeps its registered model, beside the fields."""


@clear_calls
@dataclass(frozen=True, kw_only=True, init=False)
class Study(StudySpec):
    """Causal interventions on a diffusion U-Net, over samples and steps.

    Parameters
    ----------
    name : str
    interventions : iterable of Intervention
        With labels and contents that differ. A `Null` is added unless there is one: it measures the noise floor, from
        the earliest step that an intervention edits. None (``[]``) in a study that only records the baseline.
    prompts : iterable of str
        `causalunet.NO_PROMPT` among them is a sample without a condition: nothing but the noise decides what its image
        shows. Give it seeds, and ``DDPM(guidance_scale=1)``.
    seeds : iterable of int, optional
        Every prompt is sampled with every seed. By default each prompt is sampled once, the first with seed 0, the
        second with seed 1, and so on.
    model : str
        Registered model name.
    sampler : DDPM
    record : Record
    outcomes : iterable of str or Outcome
        Measured of every run beside SSIM, PSNR, MSE and, if the model reads any, factors: by name or themselves, such
        as ``[MultiScaleSSIM(3), "histogram_distance"]``; see `causalunet.design.outcomes.Outcome`.

    Examples
    --------
    >>> import causalunet as cu
    >>> study = cu.Study(
    ...     name="first",
    ...     prompts=["a striped red triangle on the left, dark background"],
    ...     interventions=cu.sweep(cu.AblateBlock, bottom=2, start=(9, 5), length=2),
    ...     sampler=cu.DDPM(steps=10),
    ... )
    >>> study.plan(calibrate=False).unet_calls
    33
    """

    def _repr_html_(self) -> str:
        """What is asked, for notebooks."""
        return facts_html(f"Study {shown(self.name)}", facts_of_study(self))

    def bind(self, model: DiffusionModel | None = None) -> BoundStudy:
        """Bring the study and a model together; nothing of the model is run.

        Parameters
        ----------
        model : DiffusionModel, optional
            Instead of the registered one.

        Returns
        -------
        BoundStudy
            The one value that planning and running depend on: with ``identity``, all that changes the images.

        Raises
        ------
        SpecError, ModelError, MissingExtraError
            There are more steps than timesteps, the noise schedule does not fall, or there is no such model.
        """
        bound: BoundStudy = super().bind(self._chosen(model))
        return bound

    def plan(self, model: DiffusionModel | None = None, *, calibrate: bool = True, memory: int | None = None) -> Plan:
        """Lay out the runs and their cost. Printed, or shown by a notebook, it says U-Net calls, FLOPs, bytes and time.

        Parameters
        ----------
        model : DiffusionModel, optional
            Instead of the registered one.
        calibrate : bool
            Time a few U-Net calls for the time estimate.
        memory : int, optional
            Budget in bytes, as for `run`.

        Raises
        ------
        PromptError, ComponentError, SpecError, ModelError, MissingExtraError
            What the model cannot do is told here, before anything runs.
        """
        bound = self.bind(model)
        from causalunet.execute.fill.pace import paced
        from causalunet.execute.planning import plan_study

        check_size(bound.picture_shape)
        plan = paced(plan_study(bound))
        if not calibrate:
            return plan
        from causalunet.execute import calibrate as measure

        return plan.calibrated(measure(plan, memory))

    def run(
        self,
        path: str | Path,
        *,
        model: DiffusionModel | None = None,
        client: Client | Workers | None = None,
        memory: int | None = None,
        overwrite: bool = False,
        retry_failed: bool = False,
        keep_script: bool = False,
        progress: bool = True,
    ) -> Results:
        """Run the study into a results store and open it.

        Parameters
        ----------
        path : path or str
            Folder of the store, or its address (``s3://bucket/prefix``, ``gs://bucket/prefix``). What it already holds
            is not run again, so an interrupted run goes on by the same call. Interventions, samples and recorded
            components that the study has and it has not extend it. Several processes may run one study into one store.
        model : DiffusionModel, optional
            Instead of the registered one.
        client : distributed.Client or Workers, optional
            Of a dask cluster, whose workers run the study: on the registered model, or what
            `causalunet.Workers` loads, and into the same path.
        memory : int, optional
            Budget in bytes for the activations of a call, and again for the states of a block of samples, on the device
            of the model; by default half of what is free there, and on a CPU 1 GiB at the most.
        overwrite : bool
            Replace a store that holds another study; the old results stay in its history.
        retry_failed : bool
            Run cells again that are marked as failed.
        keep_script : bool
            Keep the text of the calling script with the results, and with every export of them. Its name, SHA-256 and
            git commit are kept in any case.
        progress : bool
            Show how far it is: a bar on a terminal, one line that renews itself in a notebook, elsewhere a line every
            ten seconds.

        Returns
        -------
        Results
            As from `open_results`.

        Raises
        ------
        SpecError, ModelError
            As for `plan`; ``memory`` is no number of bytes; or workers could not load the model.
        ClusterError
            Workers have another model, other software or another disk, or the scheduler is gone.
        StoreError
            The path holds something else than this study; the differences are named.
        StorageError, WriteConflictError
            The store could not be written. What was committed stays, and the same call goes on after it.
        FiringError
            An intervention did not fire as often as declared.
        MemoryExhaustedError
            Not even one sample of a U-Net call fits into memory.
        KeyboardInterrupt
            Ctrl-C; a note with it says how many cells of how many are safe.

        Warns
        -----
        CausalUNetWarning
            Cells failed; they are marked, and the rest was run.
        """
        place = Location.parse(path)  # a relative path means the working directory of now, also after the run
        plan = self.plan(model, calibrate=False)
        _runner(client)(
            plan,
            place,
            memory=memory,
            overwrite=overwrite,
            retry_failed=retry_failed,
            source=calling_source(keep_text=keep_script),
            progress=progress,
        )
        return open_results(place)

    def search(
        self,
        path: str | Path,
        *,
        by: Axis = "start",
        threshold: float | None = None,
        criterion: Criterion | None = None,
        model: DiffusionModel | None = None,
        memory: int | None = None,
        overwrite: bool = False,
        retry_failed: bool = False,
        keep_script: bool = False,
        progress: bool = True,
    ) -> xr.Dataset:
        """Find by bisection how far the study's interventions stay without visible effect, and run no more than that.

        The interventions are sorted into families that differ only in their start (figure 8 of the paper), only in the
        length of their window (figure 9) or only in the relaxation between their cuts (figure 10). In every family the
        hardest member is sought that passes a criterion, see `causalunet.analysis.bisection`. Each is run from the
        stored baseline state where it first differs.

        Parameters
        ----------
        path : path
            Folder of the store, as for `run`. What it holds is not run again, and all that is run is stored.
        by : {"start", "length", "relax"}
            What the members of a family differ in.
        threshold : float, optional
            Short for ``Criterion(threshold=...)``; by default 0.8 on mean SSIM.
        criterion : Criterion, optional
            When an intervention is without visible effect.
        model, memory, overwrite, retry_failed, keep_script, progress
            As for `run`; cells are run again where they are asked for.

        Returns
        -------
        xarray.Dataset
            Along ``family``: the answer ``step``, ``length`` or ``relax``, NaN where not even the easiest member
            passes; ``asked``, how many members were run; ``candidates`` and ``statistic``, (family, candidate), the
            members from easy to hard and what the criterion made of those run; ``samples`` that judged the family, and
            ``failed``, (family, candidate). The attributes give the criterion and the U-Net calls, of search and sweep.

        Raises
        ------
        SpecError
            No two interventions make a family, or activations are to be recorded.
        StoreError, FiringError
            As for `run`.

        Warns
        -----
        CausalUNetWarning
            Cells that were asked for failed.

        Notes
        -----
        A sample of which a member failed is left out for the whole family, so that all members are judged by the same
        samples, and the answer speaks of these only: where the intervention makes the numbers infinite, they are those
        that it harms least. A member of which too few samples are left by itself (none, or one for a criterion that
        needs two) does not pass, and leaves those of the others as they are. Where no sample is left to all members,
        nothing passes and ``samples`` is 0.
        """
        criterion = chosen_criterion(criterion, threshold)
        families(self.interventions, by)
        plan = self.plan(model, calibrate=False)
        from causalunet.search import search_plan

        return search_plan(
            plan,
            path,
            by=by,
            criterion=criterion,
            memory=memory,
            overwrite=overwrite,
            retry_failed=retry_failed,
            source=calling_source(keep_text=keep_script),
            progress=progress,
        )

    def screen(
        self,
        *,
        method: Method = "one_step",
        probes: int = 4,
        model: DiffusionModel | None = None,
        memory: int | None = None,
        progress: bool = True,
    ) -> xr.Dataset:
        """Estimate what every intervention of the study would change, without running it.

        The uncut run is made once, and random signs of its image go back through it (`probes` times): products of what
        they became with what an intervention changes of a state say what is left of that in the image, to first order.

        Parameters
        ----------
        method : {"one_step", "gradient"}
            Whether what an intervention changes of a state is computed, by the one U-Net call of each step of its
            window under it, or taken to first order too: gradient times difference of the activation, which takes no
            calls of its own.
        probes : int
            Random signs per sample; each takes one pass back through the run, counted as two U-Net calls a step.
        model, memory, progress
            As for `run`.

        Returns
        -------
        xarray.Dataset
            ``change`` (intervention, sample), the estimated mean square of the change of x_0, with the coordinates of
            `Results.outcomes`; ``error``, its standard error by the signs. The attributes count the U-Net calls that
            it took, ``unet_calls``, those of the whole study, ``unet_calls_sweep``, and their ``share``.

        Raises
        ------
        SpecError
            There is no such method; the sampler looks back on steps that an intervention skips; or a gradient is asked
            for of a fill that takes values of other calls, of attention maps or logits, of tokens named by words, or
            under a sampler of several calls a step.
        PromptError, ComponentError, ModelError, MissingExtraError
            As for `plan`.

        Notes
        -----
        Steps of a window add up: what they change of each other's calls is left out, as is all that is not linear in
        the rest of the run. Estimates of x_0 that are clipped have no gradient there, as they have no effect. Where
        images are states, a quarter of ``change`` estimates the outcome ``mse``, since pixels are in [0, 1]; latents
        are compared as they are. It is made to rank: run what `strongest` gives, and say of nothing else that it has
        an effect.

        Gradient times difference is attribution patching (Nanda 2023; Syed et al. 2023), here with the norm of the
        change instead of a metric's, by Hutchinson's (1989) estimate.
        """
        check_screening(method, probes)
        from causalunet.execute.planning import plan_study

        return screened(plan_study(self.bind(model)), method=method, probes=probes, memory=memory, progress=progress)

    def strongest(self, found: xr.Dataset, top: int) -> Study:
        """The study of the interventions that a screening finds strongest, to confirm them by running it.

        Parameters
        ----------
        found : xarray.Dataset
            From `screen`, or part of it: ``found.sel(fill="zero")``.
        top : int
            How many, by the mean of ``change`` over samples; nulls are not among them.

        Returns
        -------
        Study
            With those interventions, the strongest first.

        Raises
        ------
        SpecError
            The screening is of other interventions, or of fewer.
        """
        return replace(self, interventions=tuple(strongest(found, self.interventions, top)))

    def _chosen(self, given: DiffusionModel | None) -> DiffusionModel:
        """The model given, or the registered one, which a study loads once: to plan, to run and to run again."""
        if given is not None:
            return chosen_model(given, self.model)
        loader, kept = _loader_of(self.model), vars(self).get(_KEPT)
        if kept is None or kept[0] is not loader:  # a loader may be defined again in between
            kept = (loader, load_registered(self.model))
            vars(self)[_KEPT] = kept
        model: DiffusionModel = kept[1]
        return model

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != _KEPT}


def _runner(client: Client | Workers | None) -> Callable[..., None]:
    if client is not None:
        return partial(runner_on_workers(), client=client)
    from causalunet.execute.fill.run_plan import run_plan

    return run_plan


def runner_on_workers() -> Callable[..., None]:
    """What runs a plan on workers.

    Raises
    ------
    MissingExtraError
        Dask is not installed.
    """
    try:
        from causalunet.cluster.coordinator import run_on_workers
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Running on workers needs {error.name}, which is not installed. Install the extra: "
            "pip install 'causalunet[cluster]'."
        ) from error
    return run_on_workers


def chosen_model(given: DiffusionModel | None, name: str) -> DiffusionModel:
    """The model given, if any, or the registered one.

    Raises
    ------
    ModelError
        What was given is no model, or there is none of that name.
    """
    if given is None:
        return load_registered(name)
    from causalunet.models.checking import check_model

    check_model(given)
    return given


def load_registered(name: str) -> DiffusionModel:
    """Load a registered model, or say which extra is missing."""
    model: DiffusionModel = _models().load_model(name)
    return model


def _loader_of(name: str) -> object:
    return _models().loader_of(name)


def _models() -> ModuleType:
    try:
        from causalunet.models import base
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Running a study needs {error.name}, which is not installed. Install the extra: "
            "pip install 'causalunet[run]'. Reading and plotting stored results works without it."
        ) from error
    return base
