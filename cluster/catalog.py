"""Every `sr3` command: what it does, where its code is, where it runs. Imports nothing, so `sr3 --help` is instant."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """One command, as `sr3 --help` lists it."""

    summary: str
    """What it does, in one line."""
    module: str
    """Module of cluster.commands that holds its Options, its COMMAND_LINE and its run()."""
    takes_address: bool = True
    """Whether it connects to Ray or to a job server, and so has an --address option."""
    runs_as_job: bool = True
    """Whether `--address http://HOST:8265` submits it; otherwise it runs on this machine."""
    is_quick: bool = False
    """Whether it answers at once; another one says first that it is loading torch or Ray, which takes seconds."""
    kept: str = ""
    """What it has kept when it is stopped, and goes on from; empty if it begins again."""


COMMANDS: dict[str, Command] = {
    "prepare": Command(summary="turn images into WebDataset shards", module="prepare", kept="finished shards"),
    "train": Command(summary="train all stages of a preset in parallel", module="train", kept="checkpoints"),
    "search": Command(
        summary="search for the best inference schedule of a trained stage", module="search", kept="finished trials"
    ),
    "sample": Command(
        summary="generate images from noise with a trained cascade", module="sample", kept="finished images"
    ),
    "upscale": Command(summary="upscale photos with a trained run", module="upscale", kept="finished photos"),
    "try": Command(
        summary="serve a web page to try a model on", module="try_page", takes_address=False, runs_as_job=False
    ),
    "evaluate": Command(
        summary="compute the paper's metrics for a run or any image folders", module="evaluate", kept="finished parts"
    ),
    "ablate": Command(summary="train and compare Table 5's ablations of a preset", module="ablate", kept="checkpoints"),
    "sweep": Command(summary="train a preset with different settings", module="sweep", kept="checkpoints"),
    "report": Command(summary="write a run's report as one HTML file", module="report", takes_address=False),
    "study new": Command(
        summary="freeze a human study (two-alternative forced choice)", module="study_new", takes_address=False
    ),
    "study serve": Command(
        summary="serve a study to participants",
        module="study_serve",
        takes_address=False,
        is_quick=True,
        kept="answers",
    ),
    "study results": Command(
        summary="compute a study's fool rates, intervals and tests", module="study_results", takes_address=False
    ),
    "retrain": Command(
        summary="train on new images and promote the model if it is better",
        module="retrain",
        kept="finished steps and checkpoints",
    ),
    "models": Command(
        summary="list the model versions of a registry, or roll back",
        module="models",
        takes_address=False,
        is_quick=True,
    ),
    "export": Command(
        summary="write a trained run as a model folder, for others", module="export", takes_address=False
    ),
    "import": Command(
        summary="take over weights of another program as a model folder", module="import_model", takes_address=False
    ),
    "status": Command(summary="show the progress of a run or a preparation", module="status", takes_address=False),
    "verify": Command(
        summary="check prepared shards, or draw a contact sheet of them", module="verify", takes_address=False
    ),
    "demo": Command(summary="run the whole chain on bundled photos, in minutes", module="demo", kept="finished steps"),
    "jobs": Command(summary="list the jobs of a cluster", module="jobs", runs_as_job=False, is_quick=True),
    "logs": Command(summary="print or follow a job's log", module="logs", runs_as_job=False, is_quick=True),
    "stop": Command(summary="stop a job", module="stop", runs_as_job=False, is_quick=True),
    "doctor": Command(summary="check this machine or every node of a cluster, with remedies", module="doctor"),
    "schedule": Command(
        summary="write the Kubernetes manifest that runs a command on a timer",
        module="schedule",
        takes_address=False,
        runs_as_job=False,
        is_quick=True,
    ),
}
"""Name -> command. A name of two words is one verb of a group: `sr3 study --help` lists the verbs."""

ON_A_CLUSTER = ("jobs", "logs", "stop", "doctor", "schedule")
"""Listed apart: commands about a cluster rather than about images."""


def groups() -> dict[str, list[str]]:
    """First word of every command of two words -> its verbs: study -> new, serve, results."""
    found: dict[str, list[str]] = {}
    for name in COMMANDS:
        group, _, verb = name.partition(" ")
        if verb:
            found.setdefault(group, []).append(verb)
    return found


def split_command(words: list[str]) -> tuple[str, list[str]]:
    """Split a command line into the command's name, of one or two words, and its arguments.

    A name that is not in the catalog is returned as it is.
    """
    name, rest = words[0], words[1:]
    if rest and f"{name} {rest[0]}" in COMMANDS:
        return f"{name} {rest[0]}", rest[1:]
    return name, rest
