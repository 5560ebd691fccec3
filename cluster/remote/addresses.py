"""Which cluster a command runs on: `--address`, else RAY_ADDRESS. Nothing heavy here.

An http(s):// address is a job server: the command is submitted to it. Anything else that Ray knows ("auto", HOST:PORT,
ray://HOST:PORT) is a cluster that this process joins as a driver.
"""

import os
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from sr3core.errors import ConfigError

DEFAULT_JOB_SERVER = "http://127.0.0.1:8265"
"""A head on this machine, or one behind `ray dashboard` or `kubectl port-forward`."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a command runs, and how it gets there."""

    address: str | None = None
    """The value of --address; None falls back to RAY_ADDRESS, then to a local Ray."""
    working_dir: str | None = None
    """Checkout whose tracked files are uploaded with a job."""
    detach: bool = False
    """Return as soon as the job is submitted."""

    @property
    def is_job_server(self) -> bool:
        """Whether the command is submitted as a job."""
        return is_job_server(self.job_server)

    @property
    def job_server(self) -> str:
        """The address in effect, or nothing."""
        return self.address or os.environ.get("RAY_ADDRESS", "")

    def as_option(self) -> list[str]:
        """The address as a command's own option."""
        return ["--address", self.address] if self.address else []

    def refuse_job_options(self) -> None:
        """Refuse options that only a job has.

        Raises:
            ConfigError: --working-dir or --detach without a job server.
        """
        if (self.working_dir or self.detach) and not self.is_job_server:
            option = "--working-dir" if self.working_dir else "--detach"
            raise ConfigError(f"{option}: applies to jobs only; name a job server too, --address http://HOST:8265")


def is_job_server(address: str) -> bool:
    """Whether an address is that of a job server."""
    return address.startswith(("http://", "https://"))


def check_job_server(address: str | None) -> str:
    """The job server's URL: the given one, else RAY_ADDRESS, else this machine's.

    Raises:
        ConfigError: it is not a job server's, or contains a password.
    """
    url = address or os.environ.get("RAY_ADDRESS") or DEFAULT_JOB_SERVER
    if not is_job_server(url):
        raise ConfigError(f"--address: {url} is not a job server; give it as http://HOST:8265")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"--address: {url} is not a URL ({error}); give it as http://HOST:8265") from error
    if parts.username or parts.password:
        raise ConfigError(
            "--address: contains a user or password, which process lists and logs show; put the token into"
            " RAY_AUTH_TOKEN or ~/.ray/auth_token"
        )
    return url.rstrip("/")


def take_target(arguments: list[str]) -> tuple[Target, list[str]]:
    """Take --address, --working-dir and --detach from before the command, and --address after it.

    Raises:
        ConfigError: an option lacks its value.
    """
    target, rest = Target(), list(arguments)
    while rest and rest[0].startswith("--"):
        name, equals, value = rest[0].partition("=")
        if name == "--detach" and not equals:
            target, rest = replace(target, detach=True), rest[1:]
        elif name in ("--address", "--working-dir"):
            if not equals:
                value = rest[1] if len(rest) > 1 else ""
            if not value or value.startswith("-"):
                raise ConfigError(f"{name}: needs a value")
            target = replace(target, **{name.removeprefix("--").replace("-", "_"): value})
            rest = rest[1:] if equals else rest[2:]
        else:
            break
    for index, argument in enumerate(rest):
        if argument == "--":  # what follows belongs to another command: `sr3 schedule … -- COMMAND …`
            break
        name, equals, value = argument.partition("=")
        if name == "--address":
            value = value if equals else "".join(rest[index + 1 : index + 2])
            if not value or value.startswith("-"):
                raise ConfigError("--address: needs a value, such as http://HOST:8265")
            return replace(target, address=value), rest[:index] + rest[index + (1 if equals else 2) :]
    return target, rest
