"""Metrics of runs and of folders of images, the paper's tables, ablations."""
