"""Views: which part of a value is edited."""

from causalunet.design.views.base import VIEWS, Axes, View
from causalunet.design.views.intersection import Intersection, crossed, parts_of, views_meet
from causalunet.design.views.numbered import Channels, Heads, Queries, Tokens
from causalunet.design.views.selections import Branch, Pixels, Rows, Whole, check_branch

__all__ = [
    "VIEWS",
    "Axes",
    "Branch",
    "Channels",
    "Heads",
    "Intersection",
    "Pixels",
    "Queries",
    "Rows",
    "Tokens",
    "View",
    "Whole",
    "check_branch",
    "crossed",
    "parts_of",
    "views_meet",
]
