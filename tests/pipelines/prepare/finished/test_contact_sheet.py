"""The contact sheet shows random records."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.prepare.finished.contact_sheet import contact_sheet
from pipelines.prepare.preparation import PrepareSummary


def test_contact_sheet_is_a_picture_of_records(prepared: tuple[Path, PrepareSummary], tmp_path: Path) -> None:
    for number in (1, 5, 24):
        path = tmp_path / f"{number}.png"
        contact_sheet(str(prepared[0] / "16-32"), str(path), num_records=number)
        pixels = np.asarray(Image.open(path))
        assert pixels.shape[0] > 150
        assert pixels.std() > 20
    assert (tmp_path / "5.png").read_bytes() != (tmp_path / "24.png").read_bytes()
