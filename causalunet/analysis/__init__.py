"""Effects from stored results: numpy, scipy and xarray only."""
