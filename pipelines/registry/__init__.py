"""Versions of a model, the promoted one, and the way back."""
