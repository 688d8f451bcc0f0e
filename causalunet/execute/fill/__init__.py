"""Filling a store with what a plan asks for."""
