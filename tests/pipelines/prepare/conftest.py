"""One source and its preparation, which all tests of this folder look at and none changes."""

from pathlib import Path

import pytest

from pipelines.prepare.preparation import PrepareSummary, prepare
from tests.pipelines.prepare.preparations import config_for, picture, quiet


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four images in two classes, two of them too small, one that is none, and one twice under two names."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(24):
        path = folder / ("n01440764" if number % 2 else "n01443537") / f"{number:02d} ü\n.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(
            picture(number, (20, 90) if number in (3, 8) else (40 + 32 * (number == 5), 36 + 50 * (number == 5)))
        )
    (folder / "n01440764" / "broken.jpg").write_bytes(b"<html>404</html>")
    (folder / "n01440764" / "zz again.png").write_bytes(picture(7))
    return folder


@pytest.fixture(scope="session")
def prepared(source: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Path, PrepareSummary]:
    out = tmp_path_factory.mktemp("prepared") / "out"
    return out, prepare(config_for(source, out), quiet)
