"""The paper's numbers are the paper's, and each table is filled from the run of its task."""

import re

import pytest

from pipelines.report.paper_tables import ORDERINGS, TABLES
from pipelines.report.tables import RunResults, paper_tables


def test_every_number_is_in_the_papers_text(shared_data):
    path = shared_data.parent / "paper" / "sr3_paper.txt"
    if not path.is_file():
        pytest.skip("the paper's text is not beside this checkout")
    text = path.read_text()
    for table in TABLES:
        lines = list(table.rows.values())
        if table.number == 1:  # printed a metric a line
            lines = [tuple(column) for column in zip(*lines, strict=True)]
        for numbers in lines:
            printed = "\t".join(re.escape(number.replace("–", "-")) for number in numbers)
            assert re.search(rf"\t{printed}$", text, re.MULTILINE), numbers


def test_the_orderings_are_those_of_the_tables():
    for metric, _, words in ORDERINGS:
        for table in (table for table in TABLES[:2] if metric in table.metrics):
            column = list(table.metrics).index(metric)
            numbers = [table.rows[name][column] for name in ("Regression", "SR3")]
            assert all(number in words for number in numbers)


def results(name: str, ends: tuple[int, int], psnr: float) -> RunResults:
    evaluation = {"num_images": 9, "split": "test", "distance": {"is_fid": True, "label": "FID"}, "schedules": {}}
    return RunResults(
        name=name,
        preset="mine",
        data="data",
        ends=ends,
        stages=[],
        evaluation=evaluation,
        methods={"SR3": {"psnr": {"mean": psnr}}, "Bicubic": {"psnr": {"mean": 1.0}}},
        table_3=None,
        table_4=None,
        ablation=None,
    )


def test_a_table_is_filled_from_the_run_of_its_sizes():
    first, second, *_ = paper_tables([results("small", (16, 64), 20.0), results("natural", (64, 256), 26.0)])
    assert (first["run"], first["same_task"]) == ("small", False)
    assert (second["run"], second["same_task"]) == ("natural", True)
    assert first["differences"][0].startswith("Another task: 4× to 64×64 here, 8× to 128×128 there.")
    rows = {row["method"]: row for row in second["groups"][2]["rows"]}
    assert (rows["SR3"]["paper"], rows["SR3"]["ours"]) == ("26.4", {"mean": 26.0})
    assert (rows["Bicubic"]["paper"], rows["Bicubic"]["ours"]) == ("–", {"mean": 1.0})
    assert rows["Regression"]["absent"] == "not run"


def test_a_table_that_nothing_fills_says_how():
    *_, third, fourth, fifth = paper_tables([results("small", (16, 64), 20.0)])
    assert [table["run"] for table in (third, fourth, fifth)] == [None, None, None]
    assert fifth["how"].startswith("sr3 ablate")
    assert all(row["ours"] is None for group in third["groups"] for row in group["rows"])
