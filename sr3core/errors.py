"""Errors that a user can cause. Each message names the key, the value and the remedy."""


class Sr3Error(Exception):
    """Base of all errors that the user can fix; the command line prints them without a traceback."""


class ConfigError(Sr3Error, ValueError):
    """A configuration value is unknown, of the wrong type or out of range."""


class DataError(Sr3Error):
    """Images, shards or manifests are missing, damaged or do not fit together."""


class CheckpointError(Sr3Error):
    """A checkpoint, schedule or weight file is missing, damaged, or does not fit the model."""


class StorageError(Sr3Error):
    """A path cannot be read, written or committed; perhaps only at the moment."""


class MissingError(StorageError):
    """A file or object does not exist, or ends before the bytes that were asked for: a repetition cannot help."""


class TrainingError(Sr3Error):
    """Training cannot continue: a step's gradient was not finite or was a spike."""


class WorkerLostError(Sr3Error):
    """A worker of a training does not answer the others; a restart may help."""


class OverBudgetError(Sr3Error):
    """The work has cost as much as it may; what is done is saved."""
