"""What the root of a store says of its study: read, checked and written here, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from causalunet.design.limits import is_integer, is_number, shown
from causalunet.errors import DamageError, StoreError
from causalunet.plan import GROUP
from causalunet.results.guard.declared import read_declaration
from causalunet.results.meaning.declaration import EARLIER, Declaration
from causalunet.results.meaning.schema import FORMAT, FORMAT_VERSION

__all__ = ["StoreAttributes"]

_UNDECLARED = 2
"""Version of the format whose stores do not say what they hold."""
_READ = (_UNDECLARED, FORMAT_VERSION)

_MAPPINGS = ("study", "factors", "ssim", "versions", "identity")
_TEXTS = ("digest", "model_fingerprint", "created_at", "layout_id")
_NUMBERS = ("model_flops", "threads", "unet_calls_planned", "unet_calls_naive", "unet_calls_run", "seconds")
_LISTS = ("sources", "rounding")
_OF_STUDY = {"name": str, "model": str, "sampler": dict, "record": dict, "prompts": list, "interventions": list}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAttributes:
    """Attributes of the root of a store. What a store does not know is None, or empty.

    Attributes
    ----------
    study : dict
        As `StudySpec.to_json` wrote it.
    digest : str
        Of the study.
    model_fingerprint : str, optional
    identity : dict
        What made the images, but for the fingerprint, see ``causalunet.identity``.
    factors : dict of str to list of str
        Values of every factor that the model reads.
    ssim : dict, optional
        Definition of SSIM.
    versions : dict
        Of what made the store.
    model_flops, threads, unet_calls_planned, unet_calls_naive : int, optional
    sources : tuple of dict
        The study's files, see ``causalunet.provenance``.
    rounding : tuple of dict
        What a call of the U-Net rounds off, an entry for every device and type of weights that it was run with; see
        ``causalunet.execute.measure.rounding.rounding_of``.
    block : int
        Samples per chunk.
    group : int
        Interventions per part.
    created_at : str, optional
    layout_id : str, optional
        Changes with every layout, so that a process that knows another one sees it. Where None, laying out gives one.
    format_version : int
    declaration : Declaration
        What the store holds.
    others : dict
        What other versions wrote beside these.
    """

    study: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    model_fingerprint: str | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    factors: dict[str, list[str]] = field(default_factory=dict)
    ssim: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    model_flops: float | None = None
    threads: int | None = None
    unet_calls_planned: int | None = None
    unet_calls_naive: int | None = None
    sources: tuple[dict[str, Any], ...] = ()
    rounding: tuple[dict[str, Any], ...] = ()
    block: int = 1
    group: int = GROUP
    created_at: str | None = None
    layout_id: str | None = None
    format_version: int = FORMAT_VERSION
    declaration: Declaration = EARLIER
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def sampler(self) -> dict[str, Any]:
        """Of the study, as JSON; empty if it has none."""
        found: dict[str, Any] = self.study.get("sampler", {})
        return found

    def to_json(self) -> dict[str, Any]:
        """Write with plain JSON types; what is not known is left out."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        values |= {name: list(getattr(self, name)) for name in _LISTS}
        values |= {"declaration": self.declaration.to_json()}
        if self.format_version == _UNDECLARED:
            del values["declaration"]
        if not self.rounding:
            del values["rounding"]
        others = values.pop("others")
        return {"format": FORMAT, **others, **{name: value for name, value in values.items() if value is not None}}

    @classmethod
    def from_json(cls, attributes: Any, where: object) -> StoreAttributes:
        """Check the attributes of a root, and read them.

        Parameters
        ----------
        attributes : JSON value
        where : object
            Whose text names the store.

        Raises
        ------
        StoreError
            They are not those of a results store, or of a version that is not read.
        DamageError
            Something is not what a study writes.
        """
        attributes = attributes if isinstance(attributes, dict) else {}
        if attributes.get("format") != FORMAT:
            raise StoreError(
                f"{where} is a zarr store, but not one of causalunet's results, or its creation was cut off. "
                "Give the path of a store that study.run(...) wrote."
            )
        version = attributes.get("format_version")
        if version not in _READ or not is_integer(version):
            raise StoreError(
                f"{where} has format version {shown(version)}; this causalunet reads {' and '.join(map(str, _READ))}. "
                "Open it with the version of causalunet that wrote it."
            )
        if wrong := _wrong(attributes):
            raise DamageError(f"{where} is damaged: its attributes {', '.join(wrong)} are not what a study writes.")
        known = {entry.name for entry in fields(cls)} - {"others"}
        given = {name: value for name, value in attributes.items() if name in known and value is not None}
        given |= {name: tuple(given.get(name, ())) for name in _LISTS}
        if version == _UNDECLARED:
            given["declaration"] = EARLIER
        else:
            told = given.get("declaration")
            given["declaration"] = read_declaration(told, where, factors=bool(given.get("factors")))
        others = {name: value for name, value in attributes.items() if name not in known and name != "format"}
        return cls(**given, others=others)


def _wrong(attributes: Mapping[str, Any]) -> list[str]:
    """Attributes that are not of the form that the package goes by."""
    wrong = [name for name in _MAPPINGS if not isinstance(attributes.get(name, {}), dict)]
    wrong += [name for name in _TEXTS if not isinstance(attributes.get(name, ""), str)]
    wrong += [name for name in _NUMBERS if not is_number(attributes.get(name, 0))]
    sizes = {"block": attributes.get("block"), "group": attributes.get("group", GROUP)}
    wrong += [name for name, size in sizes.items() if not (is_integer(size) and 1 <= size < 1 << 40)]
    if wrong:
        return wrong
    study, factors = (attributes.get(name, {}) for name in ("study", "factors"))
    wrong += [f"study.{name}" for name, kind in _OF_STUDY.items() if not isinstance(study.get(name, kind()), kind)]
    tokens = attributes.get("identity", {}).get("tokens", {})
    wrong += ["identity"] if not isinstance(tokens, dict) or not _are_texts(list(tokens.values())) else []
    wrong += ["factors"] if not all(_are_texts(values) for values in factors.values()) else []
    for name in _LISTS:
        entries = attributes.get(name, [])
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            wrong.append(name)
    sampler = study.get("sampler", {})
    if not isinstance(sampler, dict) or not isinstance(sampler.get("configuration", {}), dict):
        wrong.append("study.sampler")
    return wrong


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
