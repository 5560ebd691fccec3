"""The command line: quick help, typed options, and one clear message for each mistake."""

import json
import subprocess
import sys

import pytest

from cluster.catalog import COMMANDS
from cluster.cli import main
from cluster.exits import PIPE_CLOSED, USAGE_ERROR
from pipelines.settings.presets import PRESETS, preset
from pipelines.settings.train import RunConfig
from sr3core.config import from_dict


def modules_after(code: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has imported after running code."""
    program = f"import sys\n{code}\nprint('|'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {"torch", "ray", "numpy", "PIL", "matplotlib", "pyarrow"} & set(done.stderr.strip().split("|"))


def test_help_imports_nothing_heavy(capsys):
    assert modules_after("from cluster.cli import main; main(['--help'])") == set()
    main(["--help"])
    output = capsys.readouterr().out
    assert all(name in output for name in COMMANDS)


COUNT_CLI = """
import runpy, sys
executed = []
def hook(event, arguments):
    if event == "exec" and getattr(arguments[0], "co_name", "") == "<module>":
        executed.append(arguments[0].co_filename)
sys.addaudithook(hook)
sys.argv = ["sr3", *sys.argv[2:]]
try:
    runpy.run_module("cluster", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
print("cli.py ran", sum(name.endswith("cluster/cli.py") for name in executed), "time(s)")
"""


def test_a_job_loads_the_command_line_once(tmp_path):
    """`python -m cluster`, as a job starts it, on a command that uses the exit statuses."""
    command = [sys.executable, "-c", COUNT_CLI, "-", "verify", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "nothing was prepared there" in done.stderr
    assert done.stdout.strip() == "cli.py ran 1 time(s)"


NO_RAY = [name for name, command in COMMANDS.items() if command.runs_as_job and not command.takes_address]


def test_the_commands_that_do_without_ray():
    studies = ["study new", "study serve", "study results"]
    assert ["report", *studies, "models", "export", "import", "status", "verify"] == NO_RAY


@pytest.mark.parametrize("command", ["report", "study serve", "study results", "models", "status", "verify"])
def test_a_command_without_ray_runs_here_whatever_cluster_is_named(command, tmp_path, capsys):
    """Before or behind it: the address is that of a cluster to join, and there is nothing to do there."""
    words, address = [*command.split(), str(tmp_path)], ["--address", "auto"]
    ends = [(main(arguments), capsys.readouterr()) for arguments in (words, [*address, *words], [*words, *address])]
    assert ends[0] == ends[1] == ends[2], "the same status, output and message"


@pytest.mark.parametrize("command", ["train", "ablate", "sweep"])
def test_a_cluster_to_join_may_be_named_before_a_command_that_begins_with_a_preset(command, capsys):
    words = [command, "small-16-64", "--data", "x", "--out", "y", "--print-config"]
    words += ["--vary", "batch-size=8,16"] if command == "sweep" else []
    address = ["--address", "127.0.0.1:6379"]
    ends = [(main(arguments), capsys.readouterr()) for arguments in (words, [*address, *words], [*words, *address])]
    assert ends[0][0] == 0
    assert ends[0] == ends[1] == ends[2], "the same configuration"


@pytest.mark.parametrize(
    "command",
    [
        *(c for c in COMMANDS if c not in ("train", "ablate", "sweep")),
        *("train demo", "ablate small-16-64", "sweep small-16-64"),
    ],
)
def test_every_commands_help_does_without_torch_and_ray(command):
    code = (
        "from cluster.cli import main\n"
        f"try:\n    main({[*command.split(), '--help']!r})\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code"
    )
    assert not modules_after(code) & {"torch", "ray", "matplotlib"}


def test_output_that_nobody_reads_to_its_end_is_no_error():
    command = [sys.executable, "-m", "cluster", "study", "new", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == PIPE_CLOSED


def test_an_unknown_command_or_preset_suggests_the_nearest(capsys):
    assert main(["prepair"]) == 2
    assert "did you mean 'prepare'?" in capsys.readouterr().err
    assert main(["train", "dmo", "--data", "x", "--out", "y"]) == 2
    assert "unknown preset 'dmo', did you mean 'demo'?" in capsys.readouterr().err
    assert main(["train"]) == 2
    assert "faces-16-128" in capsys.readouterr().err


def test_an_unknown_option_suggests_the_nearest(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "small-16-64", "--data", "x", "--out", "y", "--optimizer.learning-rat", "1"])
    assert end.value.code == 2
    assert "--optimizer.learning-rate" in capsys.readouterr().err


def test_a_value_out_of_range_is_named(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "small-16-64", "--data", "x", "--out", "y", "--optimizer.learning-rate", "-1"])
    assert end.value.code == 2
    assert "learning_rate: -1.0 is not positive" in capsys.readouterr().err


def test_a_printed_config_is_read_back(tmp_path, capsys):
    arguments = ["--data", "x", "--out", "y", "--print-config"]
    assert main(["train", "small-16-64", *arguments, "--optimizer.learning-rate", "3e-5"]) == 0
    printed = capsys.readouterr().out
    assert from_dict(RunConfig, json.loads(printed)).stages[0].optimizer.learning_rate == 3e-5
    (tmp_path / "run.json").write_text(printed)
    assert main(["train", "--config", str(tmp_path / "run.json"), *arguments]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_printed_and_read_back(name, tmp_path, capsys):
    arguments = ["--data", "x", "--out", "y", "--print-config"]
    assert main(["train", name, *arguments]) == 0
    printed = capsys.readouterr().out
    assert from_dict(RunConfig, json.loads(printed)) == preset(name)
    (tmp_path / "run.json").write_text(printed)
    assert main(["train", "--config", str(tmp_path / "run.json"), *arguments]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("command", "changed"),
    [
        ("prepare --source s --out o --stages 8-16", "--seed 7"),
        ("search --run r --stage 8-16", "--num-trials 99"),
        ("sample --run r --out o", "--inference.precision float32"),
        ("upscale photo.jpg --run r --out o", "--tile 96"),
        ("evaluate --run r", "--limit 9 --crop-border 4"),
    ],
)
def test_a_printed_configuration_is_read_back_by_every_command_that_prints_one(command, changed, tmp_path, capsys):
    assert main([*command.split(), *changed.split(), "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert main([*command.split(), "--print-config"]) == 0
    assert capsys.readouterr().out != printed
    (tmp_path / "mine.json").write_text(printed)
    assert main([*command.split(), "--config", str(tmp_path / "mine.json"), "--print-config"]) == 0
    assert capsys.readouterr().out == printed
    (tmp_path / "mine.json").write_text(json.dumps(json.loads(printed) | {"sede": 1}))
    assert main([*command.split(), "--config", str(tmp_path / "mine.json")]) == 2
    assert "unknown key 'sede'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        *("train small-16-64", "ablate small-16-64", "upscale", "evaluate", "sample", "search --stage 16-64"),
        *("prepare --stages 16-64", "study new --task 1"),
    ],
)
def test_a_configuration_is_printed_without_places(command, capsys):
    """No configuration depends on them, and a newcomer has none yet."""
    assert main([*command.split(), "--print-config"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_a_config_file_with_a_typo_is_refused_with_a_suggestion(tmp_path, capsys):
    main(["train", "small-16-64", "--data", "x", "--out", "y", "--print-config"])
    content = capsys.readouterr().out.replace('"learning_rate"', '"learning_rat"')
    (tmp_path / "run.json").write_text(content)
    assert main(["train", "--config", str(tmp_path / "run.json"), "--data", "x", "--out", "y"]) == 2
    message = capsys.readouterr().err
    assert "unknown key 'stages[0].optimizer.learning_rat', did you mean 'learning_rate'?" in message


def test_a_stage_that_a_preset_does_not_have_is_refused_before_anything_is_written(tmp_path, capsys):
    place = ["--data", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main(["train", "faces-cascade", *place, "--only", "64-265"]) == 2
    assert "only: faces-cascade has no stage '64-265', did you mean '64-256'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_data_that_was_not_prepared_is_named(tmp_path, capsys):
    assert main(["train", "small-16-64", "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 1
    assert "run `sr3 prepare`" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_source_that_does_not_exist_or_holds_no_image(tmp_path, capsys, ray_session):
    out = ["--out", str(tmp_path / "out"), "--stages", "8-16"]
    assert main(["prepare", "--source", str(tmp_path / "nowhere"), *out]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert main(["prepare", "--source", str(tmp_path / "nowhere"), *out, "--dry-run"]) == 1
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    assert main(["prepare", "--source", str(tmp_path / "empty"), *out]) == 1
    assert "no image" in capsys.readouterr().err


def test_a_run_of_another_format_version(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"format": "sr3-run", "format_version": 99}))
    assert main(["report", str(tmp_path)]) == 2
    assert "run format version 99, this program reads 1" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{")
    assert main(["report", str(tmp_path)]) == 1
    assert "config.json is damaged" in capsys.readouterr().err


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert main(["upscale", str(tmp_path), "--run", str(tmp_path), "--out", str(tmp_path / "out"), "--dry-run"]) == 1
    assert "no image found" in capsys.readouterr().err
    assert main(["search", "--run", str(tmp_path), "--stage", "8-16"]) == 1
    assert "is not a run" in capsys.readouterr().err


def test_a_checkpoint_that_does_not_fit_the_model(tmp_path, capsys, ray_session):
    """Weights of a wider network put into a run: refused before anything is computed, with the keys."""
    from PIL import Image

    from pipelines.runs.run_folder import create_run
    from pipelines.settings.presets import small_16_64
    from sr3core.checkpoint import save_checkpoint, take_snapshot
    from sr3core.config import override
    from sr3core.networks.architectures import unet_tiny
    from sr3core.training import create_state
    from tests.reporting import measured

    run = create_run(tmp_path / "run", measured(small_16_64()), str(tmp_path), {"16-64": "x"}, fresh=False)
    (stage,) = run.stages
    wider = override(stage.config.model, unet=unet_tiny(64, 24))
    save_checkpoint(stage.checkpoints, take_snapshot(create_state(wider, stage.config.optimizer, 0)), {})
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    arguments = [str(tmp_path / "photo.png"), "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    assert main(["upscale", *arguments]) == 1
    assert "does not fit the model" in capsys.readouterr().err


def test_evaluate_needs_a_run_or_folders(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate"])
    assert "name either --run RUN, or --outputs DIR" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["inf", "nan"])
@pytest.mark.parametrize(
    "command",
    [
        "train small-16-64 --data d --out o --optimizer.learning-rate",
        "train small-16-64 --data d --out o --placement.wait-seconds",
        "train small-cascade --data d --out o --16-64.optimizer.learning-rate",
        "prepare --source s --out o --stages 16-64 --blur-sigma-max",
        "upscale x.png --run r --out o --max-megapixels",
        "search --run r --stage 16-64 --cpus-per-trial",
        "evaluate --run r --level",
    ],
)
def test_a_number_that_is_not_finite_is_refused_wherever_a_number_is_taken(command, number, capsys):
    try:
        status = main([*command.split(), number, "--print-config"])
    except SystemExit as end:  # a range check refuses some of them while the options are read
        status = end.code
    assert status == USAGE_ERROR
    told = capsys.readouterr().err
    assert number in told
    assert command.rpartition("-")[2] in told
