"""Worlds that embedded models are trained on, in which every cause is known."""
