"""Which cluster a command is for: `--address`, else RAY_ADDRESS. Nothing heavy here.

An http(s):// address is a job server: the command is submitted to it. Anything else that Ray knows ("auto", HOST:PORT,
ray://HOST:PORT) is a cluster that this process joins as a driver.
"""

import os
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from sr3core.errors import ConfigError

DEFAULT_JOB_SERVER = "http://127.0.0.1:8265"
"""Of a head on this machine, or of one behind `ray dashboard` or `kubectl port-forward`."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a command is to run, and how it gets there."""

    address: str | None = None
    """As --address says; None leaves it to RAY_ADDRESS and then to a local Ray."""
    working_dir: str | None = None
    """Checkout whose tracked files are uploaded with a job."""
    detach: bool = False
    """Return as soon as the job is submitted."""

    @property
    def is_job_server(self) -> bool:
        """Whether the command is to be submitted as a job."""
        return is_job_server(self.job_server)

    @property
    def job_server(self) -> str:
        """The address that counts, or nothing."""
        return self.address or os.environ.get("RAY_ADDRESS", "")

    def as_option(self) -> list[str]:
        """The address as a command's own option."""
        return ["--address", self.address] if self.address else []

    def refuse_job_options(self) -> None:
        """Refuse what only a job has.

        Raises:
            ConfigError: --working-dir or --detach without a job server.
        """
        if (self.working_dir or self.detach) and not self.is_job_server:
            option = "--working-dir" if self.working_dir else "--detach"
            raise ConfigError(f"{option}: is for jobs; name a job server too, --address http://HOST:8265")


def is_job_server(address: str) -> bool:
    """Whether an address is that of a job server."""
    return address.startswith(("http://", "https://"))


def check_job_server(address: str | None) -> str:
    """The job server's URL: the given one, else RAY_ADDRESS, else this machine's.

    Raises:
        ConfigError: it is none, or holds a password.
    """
    url = address or os.environ.get("RAY_ADDRESS") or DEFAULT_JOB_SERVER
    if not is_job_server(url):
        raise ConfigError(f"--address: {url} is no job server; name it as http://HOST:8265")
    if urlsplit(url).username or urlsplit(url).password:
        raise ConfigError(
            "--address: holds a user or password, which process lists and logs show; put the token into"
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
            if not value:
                raise ConfigError(f"{name}: needs a value")
            target = replace(target, **{name.removeprefix("--").replace("-", "_"): value})
            rest = rest[1:] if equals else rest[2:]
        else:
            break
    for index, argument in enumerate(rest):
        name, equals, value = argument.partition("=")
        value = value if equals else "".join(rest[index + 1 : index + 2])
        if name == "--address" and value:
            return replace(target, address=value), rest[:index] + rest[index + (1 if equals else 2) :]
    return target, rest
