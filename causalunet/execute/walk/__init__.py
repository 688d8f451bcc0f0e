"""All runs of a block of samples, step by step."""
