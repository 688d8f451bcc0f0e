"""Estimates of what interventions do to the image, without their runs."""
