"""Scoring the ensembles of fields that a run makes of held-out samples."""
