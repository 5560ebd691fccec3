"""Submitting a command as a Ray job: what is uploaded, what is refused, what is told."""

import contextlib
import io
import json
import logging
import os
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.cli import command_of
from cluster.options import take_config
from cluster.remote.addresses import Target, check_job_server
from pipelines.runtime.provenance import git_commit
from sr3core.errors import ConfigError, StorageError

MAX_UPLOAD_BYTES = 50_000_000
"""Of a working directory. It passes through the head's memory, and each node unpacks it for each job."""
STOP_SECONDS = 30
"""That a stopped job has to finish its write before it is killed."""
CONFIG_NAME = "sr3-config.json"
"""What --config FILE is called in the job's working directory."""

PATH_OPTIONS = ("--source", "--data", "--out", "--run", "--outputs", "--references", "--inputs")
PATH_POSITIONALS = ("upscale", "report", "status", "verify", "retrain", "models")
"""Commands whose arguments before the first option are paths."""
CHECKED_LOCALLY = ("prepare", "train", "ablate", "search", "evaluate", "sample", "upscale")
"""Commands whose --print-config reads and checks all options without touching data."""
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
SHORTEST_SECRET = 8
log = logging.getLogger(__name__)


def submit(target: Target, name: str, arguments: list[str]) -> int:
    """Run `sr3 NAME ARGUMENTS` as a job, follow its log, and return its exit status.

    Raises:
        ConfigError: an option is wrong, holds a secret or names a path that no node can see; no job is started.
        StorageError: the job server cannot be reached, or does not take the job.
    """
    address = check_job_server(target.job_server)
    check_paths(name, arguments)
    content, rest = take_config(arguments)  # read here and uploaded: this path is the one that is this machine's
    check_secrets([*arguments, json.dumps(content)])
    if name in CHECKED_LOCALLY:
        with contextlib.redirect_stdout(io.StringIO()):
            command_of(name)([*arguments, "--print-config"])
    config = ["--config", CONFIG_NAME] if content is not None else []
    entrypoint = shlex.join(["python", "-m", "cluster", name, *config, *rest])
    from cluster.remote.jobs import connect, follow_or_stop

    client = connect(address)
    with staged(target.working_dir, content) as folder:
        environment = runtime_env(folder, target.working_dir)
        try:
            job = client.submit_job(entrypoint=entrypoint, submission_id=job_name(name), runtime_env=environment)
        except RuntimeError as error:  # Ray's client raises nothing finer
            text = str(error).strip().rstrip(".")
            raise StorageError(
                f"{address} did not take the job: {text}; a head that has just started is ready some seconds later"
            ) from error
    reattach = f"sr3 logs {job} --follow --address {address}"
    print(f"submitted {job} to {address}", flush=True)
    if target.detach:
        print(f"follow it with `{reattach}`, stop it with `sr3 stop {job} --address {address}`")
        return 0
    return follow_or_stop(client, job, reattach)


def job_name(command: str) -> str:
    """A name that tells the command and the time, and is never taken."""
    return f"sr3-{command}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def runtime_env(folder: Path | None, working_dir: str | None) -> dict[str, Any]:
    """The job's runtime environment. Its variables are public on the cluster: no secret is ever put here."""
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), "PYTHONUNBUFFERED": "1"}
    if working_dir:
        variables["SR3_GIT_COMMIT"] = git_commit()  # what is uploaded has no .git
    return {"env_vars": variables, **({"working_dir": str(folder)} if folder else {})}


def check_paths(name: str, arguments: list[str]) -> None:
    """Refuse relative paths, and say that absolute ones are the cluster's.

    Raises:
        ConfigError: a path is relative: a job's working directory is a temporary folder on some node.
    """
    paths = list(_paths(name, arguments))
    if name == "demo" and not paths:
        raise ConfigError("--out: name an absolute folder on a file system that all nodes share")
    for option, path in paths:
        scheme = path.partition("://")[0] if "://" in path else "file"
        local = path.removeprefix("file://")
        if scheme != "file":
            continue
        if not os.path.isabs(local):
            raise ConfigError(
                f"{option}: {path} is relative, and a job starts in a temporary folder on the cluster; name an absolute"
                " path on a file system that all nodes share, or s3://bucket/prefix"
            )
        if os.path.exists(local):
            log.info(
                "note: %s %s is read on the cluster's nodes, not on this machine; it is not uploaded", option, path
            )


def _paths(name: str, arguments: list[str]) -> Iterator[tuple[str, str]]:
    if name in PATH_POSITIONALS:
        for argument in arguments:
            if argument.startswith("-"):
                break
            yield name, argument
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in PATH_OPTIONS:
            yield option, value if equals else "".join(arguments[index + 1 : index + 2])


def check_secrets(texts: list[str]) -> None:
    """Refuse what would publish a secret: everyone who sees the cluster sees a job's command line and files.

    Raises:
        ConfigError: a text holds the value of a variable such as AWS_SECRET_ACCESS_KEY, or a URL with a password.
    """
    for variable, value in os.environ.items():
        if SECRET_NAME.search(variable) and len(value) >= SHORTEST_SECRET and any(value in text for text in texts):
            raise ConfigError(
                f"the command holds the value of {variable}, and a job's command line is public on its cluster; give"
                " the nodes that variable (a Kubernetes secret, an instance role) and leave it out here"
            )
    for word in " ".join(texts).split():
        if "://" in word and "@" in word and urlsplit(word.strip("\"',")).password:
            raise ConfigError(
                "the command holds a URL with a password, and a job's command line is public on its cluster"
            )


@contextlib.contextmanager
def staged(working_dir: str | None, config: dict[str, Any] | None) -> Iterator[Path | None]:
    """A temporary folder with exactly what is uploaded: the tracked files of a checkout, and the --config file."""
    if working_dir is None and config is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="sr3-job-") as temporary:
        folder = Path(temporary)
        if working_dir is not None:
            copy_tracked(Path(working_dir), folder)
        if config is not None:
            (folder / CONFIG_NAME).write_text(json.dumps(config))
        yield folder


def copy_tracked(source: Path, folder: Path) -> None:
    """Copy the files that git tracks, as they are now: code, and never data, runs, .git or an environment.

    Raises:
        ConfigError: source is no git checkout, or what it tracks is too large.
    """
    names = [name for name in _git(source, "ls-files", "-z", "--cached") if (source / name).is_file()]
    sizes = {name: (source / name).stat().st_size for name in names}
    if sum(sizes.values()) > MAX_UPLOAD_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        listed = ", ".join(f"{name} ({sizes[name] / 1e6:.1f} MB)" for name in largest)
        raise ConfigError(
            f"--working-dir: git tracks {sum(sizes.values()) / 1e6:.0f} MB in {source}, at most"
            f" {MAX_UPLOAD_BYTES / 1e6:.0f} MB are uploaded; largest: {listed}. Images and runs belong on storage that"
            " the nodes see"
        )
    new = [name for name in _git(source, "ls-files", "-z", "--others", "--exclude-standard") if name.endswith(".py")]
    if new:
        log.warning("note: not uploaded, since git does not track them: %s", ", ".join(new[:5]))
    for name in names:
        if Path(name).name in (".gitignore", ".rayignore"):  # Ray would leave out what they name, though it is tracked
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)


def _git(folder: Path, *arguments: str) -> list[str]:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"--working-dir: {folder} is no git checkout, so what is code in it cannot be told from data; leave the"
            " option out where the nodes have sr3 installed"
        ) from error
    return [name for name in done.stdout.split("\0") if name]
