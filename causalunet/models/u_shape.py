"""A U-Net as a list of pieces, and the anatomy that follows: which piece is given what, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy, Component, Edge, Role
from causalunet.design.ports import Port
from causalunet.design.views import Channels
from causalunet.models.components import Place, read_components, weights_of

__all__ = ["Piece", "u_anatomy"]


class Piece(NamedTuple):
    """A component of a U, before it is measured.

    Attributes
    ----------
    name : str
    role : {"encoder", "bottleneck", "decoder", "block"}
    paths : tuple of str
        Of its modules, in the order in which they run.
    skip : str
        Of a decoder block: the piece whose output comes over a skip connection that can be cut.
    argument : int or str, optional
        Of the first module, where the skip connection is one of its own; by default it is the last channels of the
        first argument, behind the path.
    inputs : tuple of str, optional
        Pieces whose outputs, summed, are its path; by default the one before, of the first none.
    beside : tuple of str
        Pieces whose outputs, summed, come over a skip connection: of a sum no part can be cut alone.
    ends : bool
        Whether its output goes straight to that of the network, as well as on.
    """

    name: str
    role: Role
    paths: tuple[str, ...]
    skip: str = ""
    argument: int | str | None = None
    inputs: tuple[str, ...] | None = None
    beside: tuple[str, ...] = ()
    ends: bool = False


def u_anatomy(
    unet: nn.Module,
    pieces: Sequence[Piece],
    arguments: Sequence[Tensor],
    *,
    owner: str,
    dims: Mapping[int, tuple[str, ...]] | None = None,
) -> Anatomy:
    """Measure the pieces of a U, and join them.

    Parameters
    ----------
    unet : torch.nn.Module
        Weights are neither read nor changed.
    pieces : sequence of Piece
        In the order in which they run; the last goes to the output.
    arguments : sequence of Tensor
        Of its forward, for one row, on the meta device; the first is x_t.
    owner : str
        What errors call the network.
    dims : mapping, optional
        As for ``read_components``.

    Returns
    -------
    Anatomy
        A skip connection has the number of the piece that it begins at, ``skip.3`` that of ``down.3``.

    Raises
    ------
    ModelError
        Modules did not run once each in that order.
    """
    places = [Place(piece.name, piece.role, depth, piece.paths) for piece, depth in _with_depth(pieces)]
    components, flops = read_components(unet, places, arguments, owner=owner, dims=dims)
    return Anatomy(components, tuple(_edges(pieces, components)), flops, weights_of(unet))


def _with_depth(pieces: Sequence[Piece]) -> Iterator[tuple[Piece, int]]:
    """Every piece with the number of blocks between it and the top of the U."""
    encoder, after = (sum(piece.role == role for piece in pieces) for role in ("encoder", "decoder"))
    before, below = 0, False
    for piece in pieces:
        if piece.role == "encoder":
            yield piece, before
            before += 1
        elif piece.role == "bottleneck":
            below = True
            yield piece, encoder
        else:
            after -= piece.role == "decoder"
            below = below or piece.role == "decoder"
            yield piece, after if below or before == encoder else before


def _edges(pieces: Sequence[Piece], components: Sequence[Component]) -> Iterator[Edge]:
    width = {component.name: component.shape[0] for component in components}
    skips = []
    for number, piece in enumerate(pieces):
        before = (pieces[number - 1].name,) if number else ()
        inputs = before if piece.inputs is None else piece.inputs
        yield from (Edge(source, piece.name) for source in (*inputs, *piece.beside))
        if piece.ends and number + 1 < len(pieces):
            yield Edge(piece.name, "out")
        if piece.skip:
            first = width[inputs[0]] if inputs else 0
            port = Port(0, Channels(range(first, first + width[piece.skip])))
            if piece.argument is not None:
                port = Port(piece.argument)
            skips.append(Edge(piece.skip, piece.name, f"skip.{piece.skip.rpartition('.')[2]}", port))
    yield Edge(pieces[-1].name, "out")
    yield from skips
