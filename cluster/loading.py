"""The seconds in which a command imports torch and Ray, and has nothing else to tell."""

from contextlib import AbstractContextManager

from pipelines.runtime.waiting import waiting_for


def loading() -> AbstractContextManager[None]:
    """Say, around the imports of a command, how long they have been going on; nothing may be printed inside."""
    return waiting_for("loading")
