"""Views: which part of a value is edited."""

from causalunet.design.views.base import VIEWS, Axes, View
from causalunet.design.views.intersection import Intersection, crossed, parts_of, views_meet
from causalunet.design.views.selections import Branch, Channels, Pixels, Rows, Whole, check_branch

__all__ = [
    "VIEWS",
    "Axes",
    "Branch",
    "Channels",
    "Intersection",
    "Pixels",
    "Rows",
    "View",
    "Whole",
    "check_branch",
    "crossed",
    "parts_of",
    "views_meet",
]
