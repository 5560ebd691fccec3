"""The scheduled chain: new images -> shards -> warm start -> train -> search -> compare -> promote or keep.

    WORK/retraining-0001/state.json    its configuration, data and outcome; written first
    WORK/retraining-0001/run/          its run folder; checkpoints are deleted at the end, the registry has the weights
    WORK/retraining-0001/against-*/    held-out images of the new and the promoted model, and the comparison

Each step finds what it has already done, so a retraining that was killed anywhere resumes with the same command.
"""

import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.prepare.preparation import add_new
from pipelines.registry.registry import Registry, find_model
from pipelines.runs.run_folder import Run, create_run, data_fingerprints, local_path, open_run, write_atomic
from pipelines.runtime.provenance import provenance
from pipelines.shards.manifest import load_manifest
from pipelines.storage.leases.lease import Lease
from pipelines.storage.uris import absolute, join
from pipelines.training.parallel_stages import train_run
from sr3core import strict_json
from sr3core.checkpoint import list_checkpoints, sampling_weights, verify, warm_start
from sr3core.config import fingerprint_of, scientific
from sr3core.errors import Sr3Error
from tune.retraining.compare import Comparison, Question, compare
from tune.retraining.rehearsal import needed_images, refuse_too_few
from tune.retraining.settings import RetrainConfig
from tune.retraining.spending import turn_of
from tune.retraining.state import FORMAT, State, check_config, read_states, unfinished
from tune.search.schedule_search import print_line, search

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a retraining ended."""

    folder: Path | None
    """Its own folder; None if there was nothing to do."""
    version: str | None
    """The version that it published."""
    promoted: bool
    """Whether that version is promoted now."""
    why: str
    """The reason, in words and numbers."""


def retrain(
    config: RetrainConfig, lease: Lease, always: bool = False, fresh: bool = False, report: Report = print_line
) -> Outcome:
    """Run or resume one retraining. Needs a running Ray.

    Args:
        config: the chain.
        lease: from `retraining_lease`.
        always: train even if the source has no new images.
        fresh: abandon an unfinished retraining and start another.
        report: receives lines of progress.

    Raises:
        StorageError: this retraining lost its lease.
        ConfigError: the unfinished retraining was started with a different configuration.
        Sr3Error: a stage failed to train, or the data or the promoted model do not fit.
    """
    session = _Session(config, Registry(absolute(config.registry)), local_path(config.work), lease, report)
    state = session.unfinished()
    if state is not None and fresh:
        session.end(state, Outcome(state.folder, None, False, "abandoned by --fresh"))
        state = None
    if state is not None:
        check_config(state, config)
        report(f"retrain: resuming {state.folder}")
    else:
        state = session.begin(always)
    if state is None:
        return Outcome(None, None, False, f"{config.prepare.source} holds no new images; nothing was trained")
    return session.run(state)


class _Session:
    """One call of retrain(): what its steps share."""

    def __init__(self, config: RetrainConfig, registry: Registry, work: Path, lease: Lease, report: Report) -> None:
        self.config, self.registry, self.work, self.lease, self.report = config, registry, work, lease, report
        self.data = absolute(config.prepare.out)

    def unfinished(self) -> State | None:
        """The unfinished retraining, if there is one."""
        return unfinished(read_states(self.work))

    def begin(self, always: bool) -> State | None:
        """Prepare new images and start a retraining; None if there is nothing new to train on."""
        summary = add_new(self.config.prepare)
        self._check_held_out()
        identity = self._training_data()
        counts = ", ".join(f"{stage}: {n['train']} for training" for stage, n in summary.num_samples.items())
        self.report(f"retrain: {summary.num_images} images so far; {counts}")
        states = read_states(self.work)
        for ended in states:
            _delete_checkpoints(ended)  # left by a retraining that was killed just before deleting them
        known = [state.content["data"] for state in states if state.content["end"]["version"] is not None]
        known += [version.content["provenance"]["data"] for version in self.registry.versions()]
        if identity in known and not always:
            return None
        promoted, _ = self.registry.promoted()
        number = int(states[-1].folder.name.rpartition("-")[2]) + 1 if states else 1
        state = State(
            self.work / f"retraining-{number:04d}",
            {
                **FORMAT.header,
                "name": f"retraining-{number:04d}-{secrets.token_hex(4)}",
                "config": strict_json.plain(scientific(self.config)),
                "data": identity,
                "start": promoted.name if promoted is not None and self.config.warm_start else None,
                "end": None,
            },
        )
        self._write(state)
        start = f"from the weights of {state.start}" if state.start else "from random weights"
        self.report(f"retrain: starting {state.folder} {start}")
        return state

    def run(self, state: State) -> Outcome:
        """Carry out the remaining steps of a retraining."""
        run = self.trained(state)
        for wanted in self.config.searches:
            self.lease.check()
            search(str(run.path), wanted, self.report)
        while True:
            self.lease.check()
            current, entry = self.registry.promoted()
            if current is not None and current.retraining == state.name:  # killed just after the promotion
                return self.end(state, Outcome(state.folder, current.name, True, entry.content["why"]))
            against = current.name if current else None
            found = self.compared(state, run, against)
            words = found.describe(self.config.promotion.objective)
            self.lease.check()
            version = self.registry.publish(run, state.name, self._metrics(found), self._provenance(state))
            if not found.is_better:
                refuted = "the sealed images say the opposite" if (found.low or 0) > 0 else "which does not lie above 0"
                why = f"{against} stays: {words}, {refuted}"
                return self.end(state, Outcome(state.folder, version.name, False, why))
            if self.registry.promote(version.name, words, entry):
                return self.end(state, Outcome(state.folder, version.name, True, words))
            self.report("retrain: another version was promoted meanwhile; comparing with that one")

    def trained(self, state: State) -> Run:
        """The retraining's run, trained to its end.

        Raises:
            Sr3Error: a stage failed; names each.
        """
        self.lease.check()
        config = self.config.warm_run_config if state.start else self.config.run_config
        fingerprints = data_fingerprints(self.data, config)
        run = create_run(state.folder / "run", config, self.data, fingerprints, fresh=False)
        if state.start is not None:
            self._start_warm(run, state.start)
        failed = [f"{result.stage}: {result.error}" for result in train_run(run) if result.error]
        if failed:
            raise Sr3Error(
                f"{state.folder}: training failed: {'; '.join(failed)}. The same command resumes from the newest"
                " checkpoints; --fresh abandons this retraining"
            )
        return run

    def _start_warm(self, run: Run, version: str) -> None:
        """Initialise stages without checkpoints from the weights of the same stages of a version."""
        model = open_run(find_model(self.registry.version(version).uri))
        there = {stage.name: stage for stage in model.stages}
        for stage in run.stages:
            if list_checkpoints(stage.checkpoints):
                continue
            if stage.name not in there:
                self.report(f"retrain: {version} has no stage {stage.name}, which starts from random weights")
                continue
            info = there[stage.name].weights.fetch(there[stage.name].weights.newest())
            verify(info)
            settings = stage.config
            warm_start(stage.checkpoints, settings.model, settings.optimizer, settings.seed, sampling_weights(info))
            self.report(f"retrain: {stage.name} starts from {version}, {settings.num_steps} steps")

    def compared(self, state: State, run: Run, against: str | None) -> Comparison:
        """Compare the run with a version, or measure it alone if there is none."""
        place = find_model(self.registry.version(against).uri) if against else None
        return compare(
            Question(
                candidate=str(run.path),
                promoted=place,
                against=against,
                turn=turn_of(self.registry.versions(), against, state.name),
                data=self.data,
                stage=self.config.judged_stage,
                evaluate=self.config.evaluate,
                promotion=self.config.promotion,
                folder=state.folder / f"against-{against or 'nothing'}",
            )
        )

    def end(self, state: State, outcome: Outcome) -> Outcome:
        """Record the outcome and delete the training's own checkpoints: a published version is in the registry."""
        ended = {"version": outcome.version, "promoted": outcome.promoted, "why": outcome.why}
        self._write(State(state.folder, {**state.content, "end": ended}))
        _delete_checkpoints(state)
        return outcome

    def _check_held_out(self) -> None:
        """Refuse too few held-out images before the training, not days later."""
        manifests = {stage: load_manifest(join(self.data, stage)) for stage in self.config.data_stages}
        for stage, split, least in needed_images(self.config):
            refuse_too_few(f"{self.data}/{stage}", split, manifests[stage].num_samples(split), least)

    def _training_data(self) -> str:
        """Identity of the training images that the run reads."""
        stages = {stage.data_stage for stage in self.config.run_config.stages}
        splits = {stage: load_manifest(join(self.data, stage)).splits["train"] for stage in stages}
        return fingerprint_of({stage: [shard.sha256 for shard in shards] for stage, shards in splits.items()})

    def _metrics(self, found: Comparison) -> dict[str, Any]:
        return {"values": found.candidate, "label": found.label, "comparison": asdict(found)}

    def _provenance(self, state: State) -> dict[str, Any]:
        parents = {"data": state.content["data"], "start": state.start or "nothing"}
        return {**provenance(self.config, parents), "data": state.content["data"], "start": state.start}

    def _write(self, state: State) -> None:
        write_atomic(state.folder / "state.json", strict_json.dumps(state.content, indent=1))


def _delete_checkpoints(state: State) -> None:
    for checkpoints in (state.folder / "run").glob("*/checkpoints"):
        shutil.rmtree(checkpoints)
