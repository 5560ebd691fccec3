"""The status of finished and unfinished preparations, read from their folders alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.prepare.finished.status import prepare_status
from pipelines.prepare.finished.verify import verify
from pipelines.prepare.preparation import PrepareSummary
from pipelines.shards.manifest import load_manifest
from sr3core.errors import DataError
from tests.pipelines.prepare.preparations import copy_of


def test_status_of_a_finished_and_of_an_unfinished_preparation(
    source: Path, prepared: tuple[Path, PrepareSummary], tmp_path: Path
) -> None:
    status = prepare_status(str(prepared[0]))
    assert status.complete
    assert status.num_images == 26
    assert status.layout == "imagenet"
    assert [stage.num_samples for stage in status.stages] == [24, 22, 24]
    out = copy_of(prepared[0], tmp_path / "copy")
    (out / "8-16" / "manifest.json").unlink()
    (out / "8-16" / "train-000000.index.json").unlink()
    status = prepare_status(str(out))
    assert not status.complete
    assert status.stages[0].shards_done == status.stages[0].num_shards - 1
    assert "images/s" in "\n".join(status.lines())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (load_manifest, r"holds no manifest.json: run `sr3 prepare` until it has finished"),
        (prepare_status, r"holds no prepare.json: nothing has been prepared there; run `sr3 prepare --out"),
        (verify, r"holds neither prepare.json nor manifest.json: nothing was prepared there"),
    ],
)
def test_an_empty_folder_is_not_a_preparation(tmp_path: Path, call: Callable[[str], object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        call(str(tmp_path))
