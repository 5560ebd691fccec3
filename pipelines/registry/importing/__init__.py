"""Weights of other programs, as model folders."""
