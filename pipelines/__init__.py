"""The pipelines: prepare, train, sample, evaluate, report. Knows Ray, storage and ranks."""
