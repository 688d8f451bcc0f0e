"""A package of somebody else's, that brings a fill, a kind of intervention and a model."""
