"""`sr3 demo`: the whole chain on bundled photos."""

from dataclasses import dataclass
from pathlib import Path

from cluster.exits import DONE
from cluster.loading import loading
from cluster.options.declared import DryRun, OnRay, Writing
from cluster.options.reading import CommandLine
from cluster.session import ray_session
from pipelines.settings.locations import Location


@dataclass(frozen=True, kw_only=True)
class Options(DryRun, Writing, OnRay):
    """Run the whole chain on bundled photos in minutes: prepare, train, search, upscale, evaluate, report."""

    out: Location = "runs/demo"
    """Run folder; steps whose results it already holds are not repeated."""


COMMAND_LINE = CommandLine(
    name="demo",
    options=Options,
    essential=("--out", "--dry-run", "--address"),
    examples=("sr3 demo", "sr3 --address http://127.0.0.1:8265 demo --out /shared/runs/demo"),
)


def run(options: Options) -> int:
    """`sr3 demo`."""
    with loading():
        from pipelines.storage.leases.folder_lease import refuse_if_busy, working_in

    if options.dry_run:
        refuse_if_busy(options.out, "demo")
        print(f"would run the demo in {options.out}")
        return DONE
    with working_in(options.out, "demo", wait=options.wait), ray_session(options.address):
        with loading():
            from cluster.demo import run_demo

        report_path = run_demo(Path(options.out))
    print(f"\nOpen the report: {report_path}")
    return DONE
