"""A web hook that is told how a command ended: a JSON object by POST, of which chats such as Slack show the `text`."""

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from cluster.exits import DONE
from cluster.stopping import exit_status
from sr3core.errors import ConfigError, Sr3Error

VARIABLE = "SR3_NOTIFY"
"""Names the hook where an option would publish it: a hook's address is a secret, and a job's command line is not."""
SECONDS = 10.0
"""Time that the hook has to answer."""
ATTEMPTS = 2
log = logging.getLogger(__name__)


def run_and_notify(url: str | None, command: str, run: Callable[[], int]) -> int:
    """Run a command, tell the hook how it ended, and pass its exit status or its error on.

    A hook that does not answer is a warning, and changes nothing.

    Args:
        url: of the hook; None takes the environment's, and without one nobody is told.
        command: the command's name.
        run: does the work; returns the exit status.

    Raises:
        ConfigError: the address is not one of HTTP.
    """
    url = url or os.environ.get(VARIABLE)
    if not url:
        return run()
    if not url.startswith(("http://", "https://")):
        raise ConfigError("notify: give the address of a web hook, http://… or https://…")
    started = time.monotonic()
    try:
        status = run()
    except BaseException as error:
        tell(url, message(command, _state_of(error), time.monotonic() - started, error))
        raise
    tell(url, message(command, "done" if status == DONE else "failed", time.monotonic() - started, status=status))
    return status


def _state_of(error: BaseException) -> str:
    return "stopped" if isinstance(error, KeyboardInterrupt) else "failed"


def message(
    command: str, state: str, seconds: float, error: BaseException | None = None, status: int | None = None
) -> dict[str, Any]:
    """What the hook gets: text, command, state (done, failed or stopped), seconds, host, job, error."""
    from pipelines.runtime.progress_display import duration

    host, job = socket.gethostname(), os.environ.get("RAY_JOB_SUBMISSION_ID")
    why = _reason(error) if error is not None else (f"exit status {status}" if status else None)
    if isinstance(error, KeyboardInterrupt):
        status, why = exit_status(error), "interrupted"
    text = f"sr3 {command}: {state} after {duration(seconds)} on {host}" + (f": {why}" if why else "")
    return {
        "text": text,
        "command": command,
        "state": state,
        "seconds": round(seconds, 1),
        "host": host,
        "job": job,
        "error": why,
    }


def _reason(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "")
    return first if isinstance(error, Sr3Error) else f"{type(error).__name__}: {first}"


def tell(url: str, content: dict[str, Any]) -> None:
    """Send it, once more if that fails; its address is not logged."""
    import requests

    for attempt in range(1, ATTEMPTS + 1):
        try:
            answer = requests.post(url, json=content, timeout=SECONDS)
            answer.raise_for_status()
        except requests.RequestException as error:
            if attempt == ATTEMPTS:
                status = getattr(error.response, "status_code", None)
                reason = f"status {status}" if status else type(error).__name__
                log.warning("the web hook of --notify was not told how the command ended (%s)", reason)
        else:
            return
