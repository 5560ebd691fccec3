"""The paper's tables beside ours: the paper's number, ours, and how the settings differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.report.paper_tables import TABLES, PaperTable
from pipelines.settings.mixtures import describe_data
from sr3core.sizes import Size, ratio, rows_by_columns

HOW = {
    1: "sr3 evaluate --run RUN",
    2: "sr3 evaluate --run RUN",
    3: "sr3 evaluate --run RUN --photos DIR --labels CSV",
    4: "sr3 evaluate --run RUN --from-noise 50000 --split train",
    5: "sr3 ablate PRESET --data DIR --out RUN",
}
"""The command that produces our numbers for each table."""

Row = Mapping[str, Any]
"""Metric -> a method's numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResults:
    """A run's measurements, as far as they exist."""

    name: str
    preset: str
    data: str
    ends: tuple[Size, Size] | None
    """Sizes of the SR3 stages' inputs and outputs, in pixels."""
    stages: Sequence[Mapping[str, Any]]
    """From `stages.stage_facts`."""
    evaluation: Mapping[str, Any] | None
    methods: Mapping[str, Row]
    """Title -> numbers, from the evaluation."""
    table_3: Mapping[str, Any] | None
    table_4: Mapping[str, Any] | None
    ablation: Mapping[str, Any] | None

    def rows(self, number: int) -> dict[str, Row]:
        """Our numbers for a table, under the paper's names for the methods that it also has."""
        if number in (1, 2) and self.evaluation and self.ablation is None:
            references = self.evaluation.get("references") or {}
            return {**self.methods, **({"Reference": references} if references and number == 2 else {})}
        if number == 3 and self.table_3:
            named = {_method(row["name"]): row for row in self.table_3["methods"]}
            return {"Baseline": self.table_3["references"], **named}
        if number == 4 and self.table_4:
            return {"SR3 (two stages)": self.table_4["methods"][0]}
        if number == 5 and self.ablation:
            return dict(_arms(self.ablation["arms"]))
        return {}

    def measured(self, number: int) -> Mapping[str, Any] | None:
        """The file that a table's numbers come from."""
        return {3: self.table_3, 4: self.table_4, 5: self.ablation}.get(number, self.evaluation)


def paper_tables(runs: Sequence[RunResults]) -> list[dict[str, Any]]:
    """Tables 1-5 for the page; each is filled from the first run of its sizes, else from the first suitable run."""
    found = []
    for table in TABLES:
        able = [run for run in runs if run.rows(table.number)]
        run = next((run for run in able if run.ends == table.sizes), next(iter(able), None))
        rows = run.rows(table.number) if run else {}
        found.append(
            {
                "number": table.number,
                "section": table.section,
                "what": table.what,
                "sizes": table.sizes,
                "same_task": run is not None and run.ends == table.sizes,
                "run": run.name if run else None,
                "how": HOW[table.number],
                "groups": [_group(table, index, name, run, rows) for index, name in enumerate(table.metrics)],
                "differences": _differences(table, run) if run else [],
            }
        )
    return found


def _group(
    table: PaperTable, index: int, metric: str, run: RunResults | None, ours: Mapping[str, Row]
) -> dict[str, Any]:
    """One metric of a table: the paper's methods, then our additional ones."""
    theirs = {method: numbers[index] for method, numbers in table.rows.items()}
    more = [method for method, row in ours.items() if method not in theirs and metric in row]
    measured = run.measured(table.number) if run else None
    hidden = metric == "distance" and measured is not None and not measured["distance"]["is_fid"]
    rows = []
    for method in [*theirs, *more]:
        value = ours.get(method, {}).get(metric)
        absent = "not measured" if method in ours or (run and method == "Reference") else "not run"
        rows.append(
            {
                "method": method,
                "paper": theirs.get(method, "–"),
                "ours": None if hidden else value,
                "absent": "" if theirs.get(method) == "–" and value is None else absent,
            }
        )
    name = table.metrics[metric]
    return {"metric": metric, "name": name, "rows": rows, "setting": _setting(metric, measured, hidden)}


def _setting(metric: str, measured: Mapping[str, Any] | None, hidden: bool) -> str:
    """The variant of our number in words, which shows how it differs."""
    if measured is None:
        return "not run"
    if hidden:
        return "the paper's FID has no counterpart here: our distance uses another network"
    words = measured.get("variants", {}).get(metric)
    if words is None and metric == "inception_score":
        return "not measured: these Inception weights have no logits"
    if words is None:
        return measured["distance"]["label"] if metric == "distance" else f"n={measured['num_images']}"
    return words if metric == "distance" else f"{words}; n={measured['num_images']}"


def times(low: Size, high: Size) -> str:
    """How many times larger the outputs are than the inputs."""
    found = ratio(high, low)
    assert found is not None, "a cascade keeps proportions"
    return f"{float(found):g}"


def _pixels(size: Size) -> str:
    return rows_by_columns(size).replace("x", "×")


def _differences(table: PaperTable, run: RunResults) -> list[str]:
    """How the setting of the whole table differs."""
    measured = run.measured(table.number)
    assert measured is not None
    lines = []
    if run.ends and run.ends != table.sizes:
        lines.append(
            f"Another task: {times(*run.ends)}× to {_pixels(run.ends[1])} here, {times(*table.sizes)}× to"
            f" {_pixels(table.sizes[1])} there. The values are not comparable, only their order is."
        )
    photos = (
        "photos bundled with this repository"
        if run.preset == "demo"
        else f"the prepared folder {describe_data(run.data)}"
    )
    images = {3: "the labelled photos of its command", 4: "the references of its command"}.get(table.number, photos)
    split = measured.get("split")
    lines.append(
        f"Images: {images}, {measured['num_images']}{f' ({split})' if split else ''}; the paper: {table.data}."
    )
    steps = ", ".join(_unique(f"{stage['steps_done']:,}" for stage in run.stages))
    batches = ", ".join(_unique(str(stage["config"].batch_size) for stage in run.stages))
    lines.append(f"Training: {steps} steps of {batches}; the paper: 1,000,000 of 256.")
    sizes = ", ".join(_unique(_count(stage["num_parameters"]) for stage in run.stages))
    lines.append(f"Parameters: {sizes}; the paper: {table.parameters}.")
    targets = [stage["config"].model.objective.target for stage in run.stages if not _is_regression(stage)]
    if others := _unique(target for target in targets if target != "epsilon"):
        lines.append(f"The networks predict {', '.join(others)}, the paper's ε.")
    if schedules := measured.get("schedules") or (run.evaluation or {}).get("schedules"):
        counts = [str(one.get("num_evaluations", one["num_steps"])) for one in schedules.values()]
        counts = _unique(counts) if table.number == 5 else counts
        lines.append(f"Sampling: {' + '.join(counts)} network evaluations; the paper: at most 100.")
    if table.number == 5:
        lines.append("Upscaled held-out images against their originals; the paper: images of a class from noise.")
    return lines


def _arms(arms: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, Row]]:
    """Table 5's rows: the arm with blur and L1 fills two of them; numbers of several seeds are averaged."""
    for arm in arms:
        changed = " ".join(arm["changes"])
        names = ["SR3 with Gaussian blur", "SR3, L1"] if not changed else []
        names += ["SR3, no augmentation"] if "blur_probability" in changed else []
        names += ["SR3, L2"] if "objective.norm" in changed else []
        yield from ((name, arm["numbers"]) for name in names)


def _method(name: str) -> str:
    return "Regression" if name.endswith("-regression") else {"sr3": "SR3"}.get(name, name.capitalize())


def _is_regression(stage: Mapping[str, Any]) -> bool:
    return stage["config"].model.kind == "regression"


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _count(number: int) -> str:
    return f"{number / 1e6:.3g}M" if number >= 999_500 else f"{number / 1e3:.3g}k"
