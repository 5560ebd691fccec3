"""`sr3 train`: stages side by side on Ray Train, a worker loop, checkpoints, validation, metrics."""
