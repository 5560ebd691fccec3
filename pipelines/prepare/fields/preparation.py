"""`sr3 prepare` of stores of arrays: open and check them, plan, write the shards in Ray tasks, then the manifest."""

import pickle
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from pipelines.prepare.fields.measured import Measured, check_splits_agree, measured_spec
from pipelines.prepare.fields.plan import FieldPlan, FieldShard, begin_plan, plan_fields
from pipelines.prepare.fields.shard_task import write_field_shard
from pipelines.prepare.fields.source import FieldSource, open_fields
from pipelines.runtime.progress_display import Counted, print_progress
from pipelines.runtime.provenance import provenance
from pipelines.runtime.row_tasks import map_rows
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import SPLITS
from pipelines.shards.manifest import FIELDS_VERSION, Manifest, ShardIndex, count_rejects, load_index, save_manifest
from pipelines.storage.leases.folder_lease import refuse_if_busy, working_in
from pipelines.storage.uris import absolute, exists, join, list_files
from sr3core import strict_json
from sr3core.config import fingerprint_of, from_dict, to_dict
from sr3core.errors import DataError, Sr3Error, StorageError
from sr3core.samples.spec import Channel, SampleSpec

MAX_ATTEMPTS = 3
"""Times that a shard is begun whose processes die."""
_PROCESS_BYTES = 400 << 20


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """What a preparation holds after a run."""

    out: str
    stage: str
    num_samples: dict[str, int]
    """Split -> samples in the shards."""
    num_left_out: int
    """Training samples within the gap of a held-out block."""
    num_rejects: dict[str, int]
    """Reason -> samples of the source that are in no shard."""
    num_shards_written: int
    """Shards that this run wrote."""
    spec: SampleSpec


def located(config: PrepareConfig) -> PrepareConfig:
    """The configuration with absolute places: Ray's workers run in other folders."""
    low = None if config.low is None else absolute(config.low)
    return replace(config, source=absolute(config.source), out=absolute(config.out), low=low)


def prepare_fields(config: PrepareConfig) -> FieldSummary:
    """Turn stores into shards, in tasks of Ray where it runs. A repeated call writes only what is missing.

    Raises:
        ConfigError: options do not fit the stores, or config.out was begun with others.
        DataError: the stores are damaged, do not fit together, or hold what is refused.
        StorageError: shards could not be written; those that were finished are kept.
    """
    config = located(config)
    with working_in(config.out, "preparing"):
        source = open_fields(config)
        plan = plan_fields(source)
        begin_plan(config, plan)
        (stage,) = config.stage_specs
        directory = join(config.out, stage.name)
        missing = _missing(directory, plan)
        _write(config, plan, missing)
        indices = [load_index(directory, shard.name) for shard in plan.shards]
        manifest = _manifest(source, plan, indices)
        save_manifest(directory, manifest)
    assert manifest.sample is not None, "fields have one"
    return FieldSummary(
        out=config.out,
        stage=stage.name,
        num_samples={split: manifest.num_samples(split) for split in SPLITS},
        num_left_out=plan.num_left_out,
        num_rejects=manifest.num_rejects,
        num_shards_written=len(missing),
        spec=manifest.sample,
    )


def describe_field_plan(config: PrepareConfig) -> str:
    """What prepare_fields would do; writes nothing, needs no Ray.

    Raises:
        ConfigError, DataError: as prepare_fields does before its first shard.
    """
    config = located(config)
    refuse_if_busy(config.out, "preparing")
    source = open_fields(config)
    plan = plan_fields(source)
    counts = ", ".join(f"{plan.num_planned(split)} {split}" for split in SPLITS)
    left_out = f", {plan.num_left_out} within the gap left out" if plan.num_left_out else ""
    low = source.channels("low")
    return "\n".join(
        [
            f"would prepare {config.stages[0]} from {plan.num_samples} samples of {source.size[0]}x{source.size[1]}"
            f" cells in {config.out}: {len(plan.shards)} shards; {counts}{left_out}",
            f"makes {_listed(source.channels('high'))} from {_listed(low)}"
            + (f" and {_listed(source.channels('static'))}" if source.static_names else ""),
        ]
    )


def describe_fields(summary: FieldSummary) -> str:
    """Lines on a preparation: samples by split, and the statistics of each channel."""
    counts = ", ".join(f"{count} {split}" for split, count in summary.num_samples.items())
    rejects = ", ".join(f"{count} {reason}" for reason, count in summary.num_rejects.items()) or "none"
    left_out = f"; {summary.num_left_out} training samples within the gap left out" if summary.num_left_out else ""
    lines = [f"{summary.stage}: {counts}; rejected: {rejects}{left_out}"]
    for part in ("high", "low", "static"):
        lines += [f"{part} {_statistics(channel)}" for channel in getattr(summary.spec, part)]
    if summary.spec.has_mask:
        lines.append(f"{summary.spec.valid_share:.1%} of the training values are known")
    return "\n".join([*lines, f"in {summary.out}"])


def _listed(channels: Sequence[Channel]) -> str:
    return ", ".join(f"{c.name} ({c.units})" if c.units else c.name for c in channels)


def _statistics(channel: Channel) -> str:
    units = f" {channel.units}" if channel.units else ""
    kind = "" if channel.transform == "none" else f", {channel.transform}"
    spread = "" if channel.transform != "none" else f", mean {channel.mean:.5g}, standard deviation {channel.std:.4g}"
    return f"{channel.name}: {channel.minimum:.5g} to {channel.maximum:.5g}{units}{spread}{kind}"


def _missing(directory: str, plan: FieldPlan) -> list[FieldShard]:
    """Shards that are not written yet, or by another plan, or whose tar is missing."""
    sizes = dict(list_files(directory)) if exists(directory) else {}
    missing = []
    for shard in plan.shards:
        try:
            index = load_index(directory, shard.name)
        except (DataError, StorageError):
            missing.append(shard)
            continue
        whole = not index.keys or sizes.get(shard.name) in (index.num_bytes, -1)
        if not (whole and index.plan == plan.identity and index.statistics is not None):
            missing.append(shard)
    return missing


def _write(config: PrepareConfig, plan: FieldPlan, shards: Sequence[FieldShard]) -> None:
    """Write shards in tasks of Ray Data; those whose process dies are begun again."""
    progress, display, waiting = Counted("preparing", len(shards), "shards"), print_progress(), list(shards)
    run = partial(_run_task, config=to_dict(config), plan=plan.identity)
    for _ in range(MAX_ATTEMPTS):
        ended = set()
        if not waiting:
            return
        rows = [{"task": strict_json.dumps(asdict(shard))} for shard in waiting]
        for row in _mapped(run, rows, config):
            ended.add(row["shard"])
            if row["error"]:
                raise pickle.loads(row["error"])
            if row["bug"]:
                raise RuntimeError(f"{row['shard']}: {row['bug']}")
            progress.done += 1
            display(progress)
        waiting = [shard for shard in waiting if shard.name not in ended]
    if waiting:
        raise StorageError(
            f"{waiting[0].name}: the process that writes it died {MAX_ATTEMPTS} times, perhaps for lack of memory;"
            " finished shards are kept, and the same command resumes"
        )


def _mapped(run: Callable[[dict[str, Any]], dict[str, Any]], rows: list[dict[str, Any]], config: PrepareConfig) -> Any:
    """What a function makes of rows: in tasks where Ray runs, here where it does not."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return map(run, rows)
    return map_rows(run, rows, _reserved_bytes(), config.num_workers)


def _reserved_bytes() -> int:
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return min(_PROCESS_BYTES, int(max((node.get("memory", 0) for node in nodes), default=0)))


def _run_task(row: dict[str, Any], config: dict[str, Any], plan: str) -> dict[str, Any]:
    """One task; what it raises is returned, since Ray Data would begin it again."""
    data = strict_json.loads(row["task"])
    shard = FieldShard(data["name"], data["split"], tuple((start, stop) for start, stop in data["ranges"]))
    answer = {"shard": shard.name, "error": b"", "bug": ""}
    try:
        write_field_shard(from_dict(PrepareConfig, config), shard, plan)
    except Sr3Error as error:
        return answer | {"error": pickle.dumps(error)}
    except Exception:  # noqa: BLE001  # Ray Data would take it for a process that died
        return answer | {"bug": traceback.format_exc()}
    return answer


def _manifest(source: FieldSource, plan: FieldPlan, indices: Sequence[ShardIndex]) -> Manifest:
    config, (stage,) = source.config, source.config.stage_specs
    measured = {index.shard: Measured.from_json(index.statistics or {}) for index in indices}
    of_splits = {s: [measured[shard.name] for shard in plan.shards if shard.split == s] for s in SPLITS}
    spec = measured_spec(
        source.channels("high"),
        source.channels("low"),
        source.channels("static"),
        source.static(),
        of_splits["train"],
        config.missing == "mask",
    )
    for split in ("validation", "test"):
        check_splits_agree(of_splits["train"], of_splits[split], split)
    rejects = tuple(reject for index in indices for reject in index.rejects)
    entries = {
        split: tuple(i.entry for i, s in zip(indices, plan.shards, strict=True) if s.split == split and i.keys)
        for split in SPLITS
    }
    return Manifest(
        format_version=FIELDS_VERSION,
        stage=stage,
        splits=entries,
        provenance=provenance(config, {"source": plan.source_fingerprint}),
        fingerprint=fingerprint_of([plan.identity, [index.sha256 for index in indices]]),
        num_rejects=count_rejects(rejects),
        rejects=rejects[:1000],
        operator="area" if config.coarsen else None,
        sample=spec,
    )
