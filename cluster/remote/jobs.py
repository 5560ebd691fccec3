"""Jobs on a Ray cluster: reach the server, follow a log to its end, stop, list."""

import asyncio
import contextlib
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cluster import stopping
from cluster.before_ray import probe_job_server
from cluster.exits import FAILURE, INTERRUPTED
from pipelines.runtime.text_table import text_table
from sr3core.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

RECONNECT_SECONDS = 2.0
"""Pause between two attempts to reach a job server that does not answer."""
GIVE_UP_SECONDS = 120.0
"""Time without an answer after which following ends; the job keeps running."""
STOP_POLL_SECONDS = 0.5
OTHER_PYTHON = (
    "the head runs another Python than the one that sr3 is installed in: start it from that environment, as in"
    " `.venv/bin/ray start --head`, or send the code along with `--working-dir DIR`"
)
"""Remedy where a job's Python has no `cluster` package."""
log = logging.getLogger(__name__)


def connect(address: str) -> "JobSubmissionClient":
    """A client of the job server at an address, with the token of RAY_AUTH_TOKEN or ~/.ray/auth_token.

    Raises:
        StorageError: nothing answers, or the token is missing or wrong; says how to fix it.
    """
    print(f"asking {address} …", file=sys.stderr, flush=True)
    probe_job_server(address)
    os.environ.setdefault("RAY_AUTH_MODE", "token" if _has_token() else "disabled")
    import requests
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard.modules", "_private.runtime_env"):  # their notices about packages and sockets
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    try:
        with _overruling(address):
            return JobSubmissionClient(address)
    except (ConnectionError, requests.RequestException, RuntimeError) as error:
        text = str(error)
        if "401" in text or "403" in text or "nauthorized" in text:
            raise StorageError(
                f"{address} refuses the token, or requires one: put the cluster's token into RAY_AUTH_TOKEN or"
                " ~/.ray/auth_token"
            ) from error
        raise StorageError(f"the job server at {address} cannot be used: {text}") from error


@contextlib.contextmanager
def _overruling(address: str) -> Iterator[None]:
    """Ray's client prefers RAY_ADDRESS to the address that it is given; this variable takes precedence over both."""
    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAY_API_SERVER_ADDRESS"]
        else:
            os.environ["RAY_API_SERVER_ADDRESS"] = before


def _has_token() -> bool:
    path = os.environ.get("RAY_AUTH_TOKEN_PATH", os.path.expanduser("~/.ray/auth_token"))
    return "RAY_AUTH_TOKEN" in os.environ or os.path.isfile(path)


def details_of(client: "JobSubmissionClient", job: str) -> "JobDetails":
    """What the server knows about a job.

    Raises:
        ConfigError: there is no job of that name.
    """
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        if "404" in str(error):
            raise ConfigError(f"{job}: no such job; `sr3 jobs` lists them") from error
        raise StorageError(f"{job}: {error}") from error


class Follower:
    """Prints a job's log as it grows, each character once, across lost connections."""

    def __init__(self, client: "JobSubmissionClient", job: str) -> None:
        self._client, self._job, self._printed = client, job, 0

    def to_end(self) -> "JobDetails":
        """Follow until the job ends, and return its final state.

        Raises:
            StorageError: the server did not answer for too long; the job keeps running.
        """
        import aiohttp

        lost: float | None = None
        while True:
            try:
                asyncio.run(self._tail())
                details = details_of(self._client, self._job)
                lost = None
                if details.status.is_terminal():
                    self._print(self._client.get_job_logs(self._job), start=0)
                    return details
            except (RuntimeError, OSError, aiohttp.ClientError) as error:  # requests' errors are OSErrors
                lost = lost or time.monotonic()
                log.warning("the job server does not answer (%s); trying again", type(error).__name__)
                if time.monotonic() - lost > GIVE_UP_SECONDS:
                    raise StorageError(
                        f"{self._job}: the job server has not answered for {GIVE_UP_SECONDS:.0f} s ({error}); the job"
                        f" keeps running, follow it again with `sr3 logs {self._job} --follow`"
                    ) from error
            time.sleep(RECONNECT_SECONDS)

    async def _tail(self) -> None:
        start = 0  # every connection starts at the first line
        async for text in self._client.tail_job_logs(self._job):
            self._print(text, start)
            start += len(text)

    def _print(self, text: str, start: int) -> None:
        new = text[max(self._printed - start, 0) :]
        print(new, end="", flush=True)
        self._printed = max(self._printed, start + len(text))


def exit_status(details: "JobDetails") -> int:
    """The exit status of a job that has ended, as a shell would see it: 128 + n for a driver killed by signal n."""
    status = str(details.status.value)
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        return INTERRUPTED
    code = details.driver_exit_code
    if code == FAILURE and re.search(r"No module named '?cluster\b", details.message or ""):
        print(OTHER_PYTHON, file=sys.stderr)
    if code is None:  # no driver ever ran: the working folder could not be set up, or the node was lost
        print(f"{details.submission_id} failed: {details.message}", file=sys.stderr)
        return FAILURE
    return code if code >= 0 else 128 - code


def follow_or_stop(client: "JobSubmissionClient", job: str, reattach: str) -> int:
    """Follow a job and return its exit status. Ctrl-C stops the job; a second one returns without waiting for that.

    SIGTERM has the same effect as Ctrl-C, but for the exit status.
    """
    follower = Follower(client, job)
    try:
        return exit_status(follower.to_end())
    except KeyboardInterrupt as stop:
        stopped = stopping.exit_status(stop)
    try:  # around the message too: the second Ctrl-C may come as soon as it is read
        stopping.listen()
        print(f"\nstopping {job}; Ctrl-C again returns without waiting", file=sys.stderr, flush=True)
        client.stop_job(job)
        ended = follower.to_end()
    except KeyboardInterrupt as stop:
        print(f"\nnot waiting for {job} to stop, which it will; follow it again with `{reattach}`", file=sys.stderr)
        return stopping.exit_status(stop)
    print(f"{job} is stopped; run the same command again to resume", file=sys.stderr)
    return stopped if ended.status.value == "STOPPED" else exit_status(ended)


def stop_job(client: "JobSubmissionClient", job: str) -> "JobDetails":
    """Stop a job that has not ended, and wait until it has."""
    details = details_of(client, job)
    if not details.status.is_terminal():
        client.stop_job(job)
    while not (details := details_of(client, job)).status.is_terminal():
        time.sleep(STOP_POLL_SECONDS)
    return details


def describe_jobs(jobs: list["JobDetails"]) -> str:
    """One line per job, newest first: name, state, start, duration, command."""
    rows = [("JOB", "STATE", "STARTED", "MINUTES", "COMMAND")]
    submitted = [job for job in jobs if job.submission_id]  # a driver that joined the cluster directly has no log here
    for job in sorted(submitted, key=lambda job: job.start_time or 0, reverse=True):
        rows.append(
            (str(job.submission_id), job.status.value, *_times(job), job.entrypoint.removeprefix("python -m cluster "))
        )
    if not submitted:
        return "no jobs"
    return "\n".join(map(_within_the_terminal, text_table(rows)))


def _within_the_terminal(line: str) -> str:
    """A line cut to the terminal's width; whole in a file or a pipe."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else len(line)
    return line if len(line) <= width else f"{line[: width - 2]}.."


def _times(job: Any) -> tuple[str, str]:
    if not job.start_time:
        return "-", "-"
    end = job.end_time / 1000 if job.end_time else time.time()
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.start_time / 1000))
    return started, f"{(end - job.start_time / 1000) / 60:.1f}"
