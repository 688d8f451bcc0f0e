"""``python -m causalunet``."""

from causalunet.cli import command

command()
