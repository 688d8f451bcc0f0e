"""``python -m causalunet.cli``."""

from causalunet.cli import command

if __name__ == "__main__":  # and not where a worker's process imports it
    command()
