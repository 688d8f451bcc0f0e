"""``python -m causalunet.cli``."""

from causalunet.cli import command

command()
