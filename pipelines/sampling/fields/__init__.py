"""Upscaling stores of fields: ensembles, with the coordinates of their input."""
