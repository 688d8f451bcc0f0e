"""How the weights that ship with the package were made; each module is a documented, resumable command."""
