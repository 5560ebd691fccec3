"""No-reference metrics of programs of the user's own: one process a metric, a line of JSON for each image.

The program reads {"image": PATH} from its standard input, a line at a time, and answers each by a line
{"value": NUMBER} or {"error": TEXT} on its standard output. It ends when its input does.
"""

import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np

from pipelines.evaluation.image_sets import ImageSet, read_image
from pipelines.settings.evaluate import MeasureConfig
from pipelines.storage.local_files import replacing
from sr3core import strict_json
from sr3core.config import fingerprint_of
from sr3core.errors import DataError


def external_values(
    images: ImageSet, names: Sequence[str], config: MeasureConfig, cache: Path
) -> dict[str, np.ndarray]:
    """Metric -> float64 (n,), in the order of the names; what was measured before is read from the cache.

    Raises:
        DataError: a program cannot be started, ends early, or does not answer as it must.
    """
    found: dict[str, np.ndarray] = {}
    for metric, command in config.commands.items():
        path = cache / "external" / f"{fingerprint_of([command, images.hashes(names)])}.npy"
        if path.is_file():
            found[metric] = np.load(path, allow_pickle=False)
            continue
        found[metric] = np.array(list(_ask(metric, command, images, names)), np.float64)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, found[metric], allow_pickle=False)
    return found


def external_words(config: MeasureConfig) -> dict[str, str]:
    """Each metric's variant in words."""
    return {metric: f"{metric} (by `{command}`, mean over images)" for metric, command in config.commands.items()}


def _ask(metric: str, command: str, images: ImageSet, names: Sequence[str]) -> Iterator[float]:
    """Yield the program's value for each image."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        try:
            program = subprocess.Popen(
                shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        except (OSError, ValueError) as error:
            raise DataError(f"metric: {metric}: `{command}` cannot be started: {error}") from error
        with program:
            for name in names:
                path = _local(images.files[name], Path(folder))
                try:
                    yield _answer(program, path)
                except (OSError, ValueError, KeyError, TypeError) as error:
                    program.kill()
                    program.wait()
                    raise DataError(_describe(metric, command, images.files[name], error, errors)) from error


def _local(file: str, folder: Path) -> Path:
    """A path of the image that any program can open: the file itself, or a copy of what lies elsewhere."""
    if Path(file).is_file():
        return Path(file).absolute()
    copy = folder / "image.png"
    copy.write_bytes(read_image(file))
    return copy


def _answer(program: "subprocess.Popen[str]", path: Path) -> float:
    asked, answered = cast("IO[str]", program.stdin), cast("IO[str]", program.stdout)
    asked.write(strict_json.dumps({"image": str(path)}) + "\n")
    asked.flush()
    line = answered.readline()
    if not line:
        raise ValueError("it ended without an answer")
    answer = strict_json.loads(line)
    if "error" in answer:
        raise ValueError(str(answer["error"]))
    value = float(answer["value"])
    if not np.isfinite(value):
        raise ValueError(f"its value is {value}")
    return value


def _describe(metric: str, command: str, file: str, error: Exception, errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    said = f"; it said: {lines[-1]}" if lines else ""
    return (
        f"metric: {metric}: `{command}` gave no value for {file}: {error}{said}. It must answer each line"
        ' {"image": PATH} by a line {"value": NUMBER}'
    )
