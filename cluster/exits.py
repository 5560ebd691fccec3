"""The exit statuses of `sr3`."""

DONE = 0
FAILURE = 1
"""The command failed, wholly or in part."""
USAGE_ERROR = 2
"""An option, a value or a configuration is wrong; nothing was started."""
OVER_BUDGET = 3
"""A training has cost --max-dollars; it has saved a checkpoint."""
INTERRUPTED = 130
"""Ctrl-C, or a job that was stopped."""
TERMINATED = 143
"""SIGTERM stopped the command; a shell reports the same status for a program that a SIGTERM killed."""
PIPE_CLOSED = 141
"""The reader closed the pipe, as in `sr3 prepare --help-all | head`; a shell reports the same status."""
