"""Execute cluster/docker/Dockerfile without Docker, in an unpacked Debian, as far as that goes.

    python .ci/image.py ROOT [FOLDER …]      # as root, with debootstrap

RUN is a chroot, COPY a copy, ENV and USER hold from there on. Both stages go into one root, where COPY --from finds its
files there already. The base is Debian's Python 3.11 with its headers; the official image has to come from a registry.
FOLDERs of this machine are mounted in it, such as a mirror of packages that pip's settings name. Prints what each step
adds, and what `sr3 doctor` says inside.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
BASE = "apt-get -qq update && apt-get -qq install --yes --no-install-recommends python3.11-venv python3.11-dev"
MOUNTED = ("/proc", "/dev", "/etc/ssl")
"""What programs need of a machine, and its certificates."""


def main(root: Path, folders: list[str]) -> None:
    """Build, and leave the root file system for a look inside."""
    if not (root / "usr").exists():
        unpack = ["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root)]
        subprocess.run(unpack, stdout=subprocess.DEVNULL, check=True)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3.11")
    (root / "etc/resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
    mounted = [*MOUNTED, *folders]
    for name in mounted:
        (root / name[1:]).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--rbind", "--make-rslave", name, str(root / name[1:])], check=True)
    try:
        execute(root)
    finally:
        for name in reversed(mounted):
            # Slaves: from a shared mount, what is unmounted below it would vanish from the machine as well.
            subprocess.run(["umount", "--recursive", "--lazy", str(root / name[1:])], check=True)


def execute(root: Path) -> None:
    """The instructions in their order."""
    text = (PROJECT / "cluster/docker/Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    passed = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_proxy")}
    environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **passed}
    subprocess.run(["chroot", str(root), "sh", "-ec", BASE], env=environment, check=True)
    folder, user, before = "/", "0:0", size(root)
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, words = line.strip().partition(" ")
        if name in ("ARG", "ENV"):
            for key, value in re.findall(r'(\w+)=("[^"]*"|\S*)', words):
                environment[key] = os.path.expandvars(value.strip('"').replace("$PATH", environment["PATH"]))
        elif name == "WORKDIR":
            folder = words
            (root / folder[1:]).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            user = words
        elif name == "COPY" and "--from" not in words:
            copy(words.split(), root / folder[1:])
        elif name == "RUN":
            step = ["chroot", f"--userspec={user}", str(root), "sh", "-ec", f"cd {folder}; {words}"]
            subprocess.run(step, env=environment, check=True)
            now = size(root)
            print(f"{(now - before) / 1e6:8.0f} MB  {words[:90]}", flush=True)
            before = now
    check = ["chroot", f"--userspec={user}", str(root), "sh", "-c", "id; touch /opt/sr3/x; python -m cluster doctor"]
    subprocess.run(check, env={**environment, "HOME": "/home/ray"}, check=False)


def copy(words: list[str], folder: Path) -> None:
    """COPY of files or of one folder."""
    *sources, target = words
    for source in sources:
        if (PROJECT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(PROJECT / source, folder / target, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(PROJECT / source, folder / target)


def size(root: Path) -> int:
    """Bytes of a root file system, without what is mounted."""
    done = subprocess.run(["du", "-sxb", str(root)], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
