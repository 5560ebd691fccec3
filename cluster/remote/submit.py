"""Submitting a command as a Ray job: what is uploaded, under which name, in which environment."""

import contextlib
import logging
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.options.reading import take_config
from cluster.remote.addresses import Target, check_job_server
from cluster.remote.job_rules import check_secrets
from pipelines.runtime.provenance import git_commit
from sr3core import strict_json
from sr3core.errors import ConfigError, StorageError

MAX_UPLOAD_BYTES = 50_000_000
"""Largest working directory: it passes through the head's memory, and every node unpacks it for every job."""
STOP_SECONDS = 120
"""Time that a stopped job has to finish what it is writing before it is killed."""
CONFIG_NAME = "sr3-config.json"
"""Name of the --config file in the job's working directory."""
log = logging.getLogger(__name__)


def submit(target: Target, name: str, arguments: list[str]) -> int:
    """Run `sr3 NAME ARGUMENTS` as a job, follow its log, and return its exit status.

    Args:
        target: the job server, and what goes with the job.
        name: the command, of one or two words.
        arguments: its arguments, whose options have been read and checked.

    Raises:
        ConfigError: the --config file holds a secret; no job is started.
        StorageError: the job server cannot be reached, or refuses the job.
    """
    address = check_job_server(target.job_server)
    content, rest = take_config(arguments)  # read here and uploaded: the only path that is this machine's
    check_secrets([strict_json.dumps(content)])
    config = ["--config", CONFIG_NAME] if content is not None else []
    entrypoint = shlex.join(["python", "-m", "cluster", *name.split(), *config, *rest])
    from cluster.remote.jobs import connect, follow_or_stop

    client = connect(address)
    with staged(target.working_dir, content) as folder:
        environment = runtime_env(folder, target.working_dir)
        try:
            job = client.submit_job(entrypoint=entrypoint, submission_id=job_name(name), runtime_env=environment)
        except RuntimeError as error:  # Ray's client raises nothing finer
            text = str(error).strip().rstrip(".")
            raise StorageError(
                f"{address} refused the job: {text}; if the head has just started, try again in some seconds"
            ) from error
    reattach = f"sr3 logs {job} --follow --address {address}"
    print(f"submitted {job} to {address}", flush=True)
    if target.detach:
        print(f"follow it with `{reattach}`, stop it with `sr3 stop {job} --address {address}`")
        return 0
    return follow_or_stop(client, job, reattach)


def job_name(command: str) -> str:
    """A unique name that shows the command and the time."""
    return f"sr3-{command.replace(' ', '-')}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def runtime_env(folder: Path | None, working_dir: str | None) -> dict[str, Any]:
    """The job's runtime environment. Its variables are public on the cluster, so it holds no secret."""
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), "PYTHONUNBUFFERED": "1"}
    if working_dir:
        variables["SR3_GIT_COMMIT"] = git_commit()  # what is uploaded has no .git
    return {"env_vars": variables, **({"working_dir": str(folder)} if folder else {})}


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
            (folder / CONFIG_NAME).write_text(strict_json.dumps(config), encoding="utf-8")
        yield folder


def copy_tracked(source: Path, folder: Path) -> None:
    """Copy the files that git tracks, as they are now: code, but no data, runs, .git or environments.

    Raises:
        ConfigError: source is not a git checkout, or the tracked files are too large.
    """
    names = [name for name in _git(source, "ls-files", "-z", "--cached") if (source / name).is_file()]
    sizes = {name: (source / name).stat().st_size for name in names}
    if sum(sizes.values()) > MAX_UPLOAD_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        listed = ", ".join(f"{name} ({sizes[name] / 1e6:.1f} MB)" for name in largest)
        raise ConfigError(
            f"--working-dir: git tracks {sum(sizes.values()) / 1e6:.0f} MB in {source}, and at most"
            f" {MAX_UPLOAD_BYTES / 1e6:.0f} MB can be uploaded; largest: {listed}. Keep images and runs on storage that"
            " the nodes can reach"
        )
    new = [name for name in _git(source, "ls-files", "-z", "--others", "--exclude-standard") if name.endswith(".py")]
    if new:
        log.warning("note: not uploaded, since git does not track them: %s", ", ".join(new[:5]))
    for name in names:
        if Path(name).name in (".gitignore", ".rayignore"):  # Ray would leave out what they match, tracked or not
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)


def _git(folder: Path, *arguments: str) -> list[str]:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"--working-dir: {folder} is not a git checkout, so code and data in it cannot be told apart; leave out the"
            " option if sr3 is installed on the nodes"
        ) from error
    return [name for name in done.stdout.split("\0") if name]
