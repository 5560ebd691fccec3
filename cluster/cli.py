"""The `sr3` command. This file imports nothing heavy, so that `sr3 --help` answers at once."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cluster.catalog import COMMANDS, ON_A_CLUSTER, groups, split_command
from cluster.exits import DONE, FAILURE, OVER_BUDGET, PIPE_CLOSED, USAGE_ERROR
from cluster.notify import run_and_notify
from cluster.own_packages import PACKAGES
from cluster.remote.addresses import Target, take_target
from cluster.stopping import exit_status, is_by_sigterm, stoppable
from cluster.streams import drop_unwritten, open_streams, reader_has_left
from sr3core.config import did_you_mean
from sr3core.errors import ConfigError, OverBudgetError, Sr3Error

if TYPE_CHECKING:
    from cluster.commands import LoadedCommand

HELP = ("-h", "--help", "--help-all")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (cluster.exits).

    A command for a job server runs there, and its exit status is the job's.
    """
    with stoppable():
        try:
            open_streams()
            return _main(list(sys.argv[1:] if arguments is None else arguments))
        except BrokenPipeError:
            return PIPE_CLOSED
        finally:
            drop_unwritten()


def _main(arguments: list[str]) -> int:
    name, words = "sr3", ""
    try:
        target, arguments = take_target(arguments)
        words, rest = split_command(arguments) if arguments else ("", [])
        name = f"sr3 {words}"
        status = _run(words, rest, target)
        sys.stdout.flush()
        return status
    except ConfigError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return USAGE_ERROR
    except Sr3Error as error:
        print(f"{name}: {error}", file=sys.stderr)
        return OVER_BUDGET if isinstance(error, OverBudgetError) else FAILURE
    except KeyboardInterrupt as stop:
        cause = "stopped by SIGTERM" if is_by_sigterm(stop) else "interrupted"
        kept = COMMANDS[words].kept if words in COMMANDS else ""
        again = f"{kept} are kept; run the same command again to resume" if kept else "run the same command again"
        print(f"\n{name}: {cause}; {again}", file=sys.stderr)
        return exit_status(stop)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and reader_has_left():
            raise
        if (problem := _outside(error)) is None:
            error.add_note(
                f"{name}: this is a fault of sr3 itself. Please report it, with the lines above, the command line and"
                " what `sr3 doctor` prints."
            )
            raise
        print(f"{name}: {problem}", file=sys.stderr)
        return FAILURE


def _outside(error: Exception) -> str | None:
    """What is wrong with the machine or the environment, if it caused an error that nothing else has explained."""
    error = getattr(error, "cause", error)  # Ray's wrapper of what a worker raised
    if isinstance(error, OSError):
        from pipelines.storage.local_files import describe_error

        place = f"{error.filename}: " if error.filename else ""
        return place + describe_error(error)
    if isinstance(error, MemoryError):
        return "the memory of this machine is used up; free some, or take smaller batches, and run it again"
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] not in PACKAGES:
        return f"{error}; `sr3 doctor` compares the installed packages with those that sr3 needs"
    return None


def _run(name: str, arguments: list[str], target: Target) -> int:
    if not name or name in HELP:
        print(_help())
        return DONE
    if name == "--version":
        from importlib.metadata import version

        print(version("sr3-on-ray"))
        return DONE
    if name in groups():
        return _run_group(name, arguments)
    from cluster.commands import load
    from cluster.options.fields import home_expanded

    loaded, command = load(name), COMMANDS[name]
    if command.runs_as_job and target.is_job_server:
        return _run_as_job(loaded, name, arguments, target)
    options = home_expanded(loaded.read([*arguments, *(target.as_option() if command.takes_address else ())]))
    target.refuse_job_options()
    if not (command.is_quick or getattr(options, "print_config", False)):
        print(f"sr3 {name}: loading …", file=sys.stderr, flush=True)  # also in a log, where silence reads as a hang
    _probe_buckets(options)
    return run_and_notify(getattr(options, "notify", None), name, lambda: loaded.run(options))


def _probe_buckets(options: Any) -> None:
    """Miss a server of buckets that is not there at once, not after the retries of every request."""
    from cluster.options.fields import paths_in
    from pipelines.storage.buckets import s3_client

    for _, path in paths_in(options):
        if path.startswith("s3://"):
            s3_client.probe(path)


def _run_as_job(loaded: "LoadedCommand", name: str, arguments: list[str], target: Target) -> int:
    from cluster.remote.job_rules import check_paths, check_secrets
    from cluster.remote.submit import submit

    check_secrets(arguments)  # first, since an error message may repeat an argument
    options = loaded.read(arguments)
    if getattr(options, "print_config", False):
        return loaded.run(options)
    check_paths(options)
    return submit(target, name, arguments)


def _run_group(group: str, arguments: list[str]) -> int:
    """`sr3 study`: there is nothing to run but its verbs."""
    verbs = groups()[group]
    if arguments[:1] and arguments[0] in HELP:
        print(_group_help(group))
        return DONE
    if not arguments:
        raise ConfigError(f"name one of {', '.join(verbs)}; `sr3 {group} --help` explains them")
    raise ConfigError(f"unknown verb {arguments[0]!r}, {did_you_mean(arguments[0], verbs)}")


def _help() -> str:
    lines = [
        "usage: sr3 [--address URL [--working-dir DIR] [--detach]] COMMAND [OPTIONS]",
        "",
        "SR3 super-resolution on Ray, from images to a report.",
        "",
        "commands:",
        *_listed([name for name in COMMANDS if name not in ON_A_CLUSTER]),
        "",
        "on a cluster:",
        *_listed(ON_A_CLUSTER),
        "",
        "  --address http://HOST:8265   run COMMAND as a job there and follow it; Ctrl-C",
        "                               stops it. RAY_ADDRESS has the same effect.",
        "  --working-dir DIR            upload the files that git tracks in DIR; by",
        "                               default the nodes' own sr3 runs",
        "  --detach                     submit the job and return",
        "",
        "`sr3 COMMAND --help` shows a command's options. Start with `sr3 demo`.",
    ]
    return "\n".join(lines)


def _group_help(group: str) -> str:
    names = [f"{group} {verb}" for verb in groups()[group]]
    return "\n".join(
        [
            f"usage: sr3 {group} {'|'.join(groups()[group])} [OPTIONS]",
            "",
            *_listed(names),
            "",
            f"`sr3 {names[0]} --help` shows its options.",
        ]
    )


def _listed(names: Sequence[str]) -> list[str]:
    return [f"  {name:<13} {COMMANDS[name].summary}" for name in names]
