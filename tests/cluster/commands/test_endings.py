"""Commands end with what they found and the next command."""

from pathlib import Path

from cluster.commands import evaluate, retrain, upscale
from cluster.commands.search import describe_search
from cluster.training import describe_training
from pipelines.images.file_names import IgnoredFiles
from pipelines.registry.model_folder import export_model
from pipelines.report.next_commands import after_preparation
from pipelines.runs.run_folder import create_run, open_run
from pipelines.sampling.upscale import UpscalePlan
from pipelines.settings.export import ExportConfig
from pipelines.settings.presets import preset
from pipelines.settings.upscale import UpscaleConfig
from sr3core import strict_json
from sr3core.diffusion.schedules import default_schedule
from tests.reporting import make_run, measured
from tune.retraining.retrain import Outcome
from tune.search.records.search_report import SearchReport
from tune.search.results.publication import SearchResult
from tune.search.settings import SearchConfig


def test_prepared_data_name_a_preset_that_they_fit() -> None:
    assert after_preparation(["16-64"], "data") == "next: sr3 train small-16-64 --data data --out RUN"
    assert after_preparation(["20-40"], "data") == "next: sr3 train PRESET --data data --out RUN"


def test_a_training_ends_with_its_verdict_and_the_search(tmp_path: Path) -> None:
    run = create_run(tmp_path, measured(preset("small-16-64")), "data", {}, fresh=False)
    (stage,) = run.stages
    stage.path.mkdir()
    losses = [(step, 1.0 - step / 200) for step in range(0, 101, 10)]
    lines = [strict_json.dumps({"kind": "validation", "step": step, "loss": loss}) for step, loss in losses]
    stage.metrics.write_text("\n".join(lines) + "\n")
    verdict, search, upscale = describe_training(open_run(tmp_path))
    assert verdict == "Held-out loss was still falling: longer training is likely to help."
    assert search == f"next: sr3 search --run {tmp_path} --stage 16-64"
    assert upscale == f"  or: sr3 upscale PHOTOS --run {tmp_path} --out DIR"


def test_a_cascade_from_noise_ends_with_sampling(tmp_path: Path) -> None:
    run = create_run(tmp_path, measured(preset("small-cascade")), "data", {}, fresh=False)
    assert list(describe_training(run)) == [f"next: sr3 sample --run {tmp_path} --out DIR"]


def test_a_retraining_ends_with_what_became_of_the_model() -> None:
    better, worse = (Outcome(Path("r"), "v0002", promoted, "FID 80 against 90") for promoted in (True, False))
    assert list(retrain.describe_retraining(better, "models")) == [
        "v0002 is promoted: FID 80 against 90",
        "next: sr3 models models",
    ]
    assert next(retrain.describe_retraining(worse, "models")) == "v0002 is NOT promoted: FID 80 against 90"
    nothing = Outcome(None, None, False, "nothing is new")
    assert list(retrain.describe_retraining(nothing, "models")) == ["nothing is new"]


def test_an_evaluation_ends_with_its_verdict_and_the_report(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 8)
    result = strict_json.loads((run.path / "evaluation.json").read_bytes())
    lines = list(evaluate.describe_evaluation(evaluate.COMMAND_LINE.read(["--run", str(run.path)]), result))
    assert any(line.startswith("SR3 is behind") for line in lines)
    assert "8 images are too few for distances between sets; even these intervals are rough." in lines
    assert lines[-1] == f"next: sr3 report {run.path}"
    folders = evaluate.COMMAND_LINE.read(["--outputs", "a", "--references", "b", "--out", "numbers.json"])
    assert list(evaluate.describe_evaluation(folders, result))[-1] == "all numbers: numbers.json"


def test_a_search_ends_with_its_verdict_and_upscaling(tmp_path: Path) -> None:
    """The verdict on other searches is tested with the verdicts."""
    report = SearchReport(
        **{"stage": "16-64", "num_steps": 25, "label": "FID", "is_fid": True, "feature_network": "inception"},
        **{"split": "validation", "num_images": 64, "best": "respaced", "default": "respaced", "seconds": 1.0},
        **{
            "front": (),
            "trials": (),
            "published": ("respaced",),
            "confirmation": None,
            "config": SearchConfig(stage="16-64"),
            "provenance": {},
        },
    )
    schedule = default_schedule(preset("small-16-64").stages[0].model.noise_schedule, 25)
    run = str(tmp_path / "mine")
    create_run(run, measured(preset("small-16-64")), "data", {}, fresh=False)
    assert list(describe_search(SearchResult(report, Path("search.json"), schedule, Path("best-25.json")), run)) == [
        "respaced is best on the 64 validation images searched. No others confirm it: it may be chance. It is published"
        " all the same.",
        f"published: {schedule.name}, in best-25.json; all trials: search.json",
        f"next: sr3 upscale PHOTOS --run {run} --out DIR    (takes this schedule)",
    ]


def test_upscaling_ends_with_the_search_or_the_evaluation(tmp_path: Path) -> None:
    run = create_run(tmp_path, measured(preset("small-16-64")), "data", {}, fresh=False)
    plan = UpscalePlan(run, {}, IgnoredFiles(), "out", UpscaleConfig())
    assert upscale.next_command(plan).startswith(f"next: sr3 search --run {tmp_path} --stage 16-64 ")
    (stage,) = run.stages
    stage.schedules.mkdir(parents=True)
    (stage.schedules / "best-25.json").write_text("{}")
    assert upscale.next_command(plan).startswith(f"next: sr3 evaluate --run {tmp_path} ")


def test_upscaling_with_the_model_in_the_box_ends_with_a_command_that_works_with_it() -> None:
    plan = UpscalePlan(open_run("builtin://photos-4x"), {}, IgnoredFiles(), "out", UpscaleConfig())
    assert upscale.next_command(plan).startswith("next: sr3 prepare --source PHOTOS --out DATA --stages 16-64 ")


def test_upscaling_with_an_exported_model_ends_with_an_evaluation_that_is_given_data(tmp_path: Path) -> None:
    export_model(open_run("builtin://photos-4x"), str(tmp_path / "a copy"), ExportConfig())
    plan = UpscalePlan(open_run(tmp_path / "a copy"), {}, IgnoredFiles(), "out", UpscaleConfig(schedule="4"))
    assert upscale.next_command(plan).startswith(f"next: sr3 evaluate --run '{tmp_path}/a copy' --data DATA ")
