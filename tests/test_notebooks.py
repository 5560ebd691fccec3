"""The tutorials that are notebooks: executed as a reader would, and shown on the site."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from docs.hooks import notebooks

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "work").mkdir()
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path / "work"}}).execute()
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", ()))
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert "4 times larger: (192, 192)" in printed
    assert len(pictures) == 2
    assert len(list((tmp_path / "work" / "large").glob("*.png"))) == 3
    with Image.open(tmp_path / "work" / "large.png") as large:
        assert large.size == (192, 192)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


def test_a_notebook_becomes_a_page():
    page = notebooks.page_of(ROOT / "docs" / "tutorials" / "own-photos.ipynb")
    assert page.startswith("# Own photos, in Python\n\n[Download the notebook](own-photos.ipynb)\n\nThe model in the ")
    assert "```python\nfrom pathlib import Path\n" in page
    assert page.count("```") % 2 == 0
