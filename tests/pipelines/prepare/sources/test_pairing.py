"""Pairs of two sources, joined by name: folders, archives, tables, buckets; what has no pair is named."""

import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.images.file_names import IgnoreReason
from pipelines.prepare.opened_source import open_configured
from pipelines.prepare.sources.items import Parts, Source, SourceItem, decode_items, from_row, to_row
from pipelines.prepare.sources.listing import open_source, read_item
from pipelines.prepare.sources.pairing import of_low, pair_sources
from pipelines.settings.prepare import PrepareConfig
from sr3core import strict_json
from sr3core.errors import ConfigError, DataError
from tests.pipelines.prepare.source_files import picture, tar, write
from tests.s3_server import S3Server


def pairs_of(source: Source) -> dict[str, str]:
    return {item.name: item.low.name for item in source.items if item.low is not None}


def paired(high: Path | str, low: Path | str, **suffixes: str) -> Source:
    return pair_sources(open_source(str(high)), open_source(str(low), "folder"), **suffixes)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_names_are_the_same_but_for_the_extension_and_the_rest_is_named(tmp_path: Path) -> None:
    high = write(tmp_path / "HR", {"a/1.png": picture(1), "a/2.png": picture(2), "b/1.png": picture(3), "x.txt": b""})
    low = write(tmp_path / "LR", {"a/1.jpg": picture(4), "b/1.webp": picture(5), "c.png": picture(6), ".z.png": b""})
    found = paired(high, low)
    assert pairs_of(found) == {"a/1.png": "a/1.jpg", "b/1.png": "b/1.webp"}
    assert dict(found.ignored) == {
        "a/2.png": IgnoreReason.UNPAIRED,
        of_low("c.png"): IgnoreReason.UNPAIRED,
        of_low(".z.png"): IgnoreReason.HIDDEN,
        "x.txt": IgnoreReason.NOT_AN_IMAGE_NAME,
    }


def test_suffixes_as_in_div2k_and_realsr(tmp_path: Path) -> None:
    """DIV2K's archives have folders of different names; RealSR's pairs lie in one folder."""
    high = write(tmp_path, {"HR.zip": zipped({f"DIV2K_train_HR/{n:04d}.png": picture(n) for n in range(1, 4)})})
    names = {f"DIV2K_train_LR_bicubic/X4/{n:04d}x4.png": picture(n + 9) for n in range(1, 4)}
    write(tmp_path, {"LR.zip": zipped(names | {"DIV2K_train_LR_bicubic/X2/0001x2.png": picture(7)})})
    write(tmp_path, {"LR4.zip": zipped(names)})
    assert len(pairs_of(paired(high / "HR.zip", tmp_path / "LR4.zip", low_suffix="x4"))) == 3
    with pytest.raises(DataError, match=r"4 images such as 'DIV2K_train_LR_bicubic/X2/0001x2.png' \(3 end in 'x4'\)"):
        paired(high / "HR.zip", tmp_path / "LR.zip", low_suffix="x4")
    one = write(tmp_path / "Canon", {"001_HR.png": picture(1), "001_LR4.png": picture(2), "002_HR.png": picture(3)})
    found = paired(one, one, high_suffix="_HR", low_suffix="_LR4")
    assert pairs_of(found) == {"001_HR.png": "001_LR4.png"}


def test_names_that_several_images_have_are_ambiguous(tmp_path: Path) -> None:
    high = write(tmp_path / "HR", {"1.png": picture(1), "1.jpg": picture(2), "2.png": picture(3), "3.png": picture(4)})
    low = write(tmp_path / "LR", {name: picture(5) for name in ("1.png", "2.png", "2.jpg", "3.png")})
    found = paired(high, low)
    assert pairs_of(found) == {"3.png": "3.png"}
    assert {name for name, reason in found.ignored if reason == IgnoreReason.AMBIGUOUS} == {
        *("1.png", "1.jpg", "2.png"),
        *map(of_low, ("1.png", "2.png", "2.jpg")),
    }


def test_no_pairs_at_all_is_one_message_that_shows_both_sides(tmp_path: Path) -> None:
    high = write(tmp_path / "HR", {"a.png": picture(1)})
    low = write(tmp_path / "LR", {"ax4.png": picture(2)})
    with pytest.raises(DataError, match=r"1 images such as 'a.png' and 1 images such as 'ax4.png'.*--low-suffix x4"):
        paired(high, low)


def test_damaged_archives_lose_no_place_without_a_word(tmp_path: Path) -> None:
    good = tar({"1.png": picture(1), "2.png": picture(2)})
    write(tmp_path / "HR", {"a.tar": good})
    low = write(tmp_path / "LR", {"a.tar": good[:1300]})
    found = paired(tmp_path / "HR", low)
    assert pairs_of(found) == {"a.tar/1.png": "a.tar/1.png"}
    rejected = [item for item in found.items if item.how == "damaged"]
    assert [item.name for item in rejected] == [of_low("a.tar/(rest)")]
    assert dict(found.ignored) == {"a.tar/2.png": IgnoreReason.UNPAIRED}


@pytest.mark.parametrize("named", [True, False])
def test_tables_of_images_pair_by_file_name_or_row(tmp_path: Path, named: bool) -> None:
    for name in ("hr", "lr"):
        struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = [{"bytes": picture(n), "path": f"{n}.png" if named else None} for n in range(3)]
        write(tmp_path / name, {})
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"image": pa.array(rows, struct)}), tmp_path / name / "p.parquet")
    assert len(pairs_of(paired(tmp_path / "hr", tmp_path / "lr"))) == 3


def test_pairs_in_a_bucket(tmp_path: Path, s3_server: S3Server) -> None:
    s3_server.create_bucket("pairs")
    client = s3_server.client()
    for side in ("HR", "LR"):
        for number in range(2):
            client.put_object(Bucket="pairs", Key=f"{side}/deep er/{number}.png", Body=picture(number))
    high, low = (f"s3://pairs/{side}?endpoint_override={s3_server.endpoint}" for side in ("HR", "LR"))
    config = PrepareConfig(source=high, low=low, out=str(tmp_path), stages=("2-8",))
    found = open_configured(config)
    assert pairs_of(found) == {f"deep er/{number}.png": f"deep er/{number}.png" for number in range(2)}
    for number, item in enumerate(found.items):
        assert item.low is not None
        assert read_item(low, item.low) == picture(number)


def test_places_that_are_missing_or_of_the_wrong_kind(tmp_path: Path) -> None:
    high = write(tmp_path / "HR", {"1.png": picture(1)})
    common = {"source": str(high), "out": str(tmp_path / "out"), "stages": ("2-8",)}
    with pytest.raises(DataError, match=r"low: .*nowhere does not exist"):
        open_configured(PrepareConfig(low=str(tmp_path / "nowhere"), **common))
    with pytest.raises(ConfigError, match=r"low_column: .* is no parquet; name the place of the other images by --low"):
        open_configured(PrepareConfig(low_column="lr", **common))


def test_rows_of_pairs_nest_and_others_are_as_before() -> None:
    low = SourceItem("l.png", "z.zip", "stored", 3, 4, 5)
    alone = SourceItem("h.png", "h.png")
    assert len(to_row(alone)) == 9
    for item in (alone, alone._replace(low=low)):
        assert from_row(strict_json.loads(strict_json.row_encoder()(to_row(item)))) == item
        assert next(decode_items(next(iter(Parts.of([item]))))) == item


NAMES = st.sets(
    st.sampled_from([f"{folder}{n}{end}" for folder in ("", "a/") for n in "123" for end in (".png", ".jpg")])
)


@given(NAMES, NAMES)
def test_every_image_is_in_one_pair_or_named(highs: set[str], lows: set[str]) -> None:
    sources = [
        Source("s", "files", "folder", Parts.of(SourceItem(name, name) for name in sorted(names)))
        for names in (highs, lows)
    ]
    try:
        found = pair_sources(sources[0], sources[1])
    except DataError:
        return
    pairs = pairs_of(found)
    named = dict(found.ignored)
    assert sorted([*pairs, *(name for name in named if "(of" not in name)]) == sorted(highs)
    assert sorted([*map(of_low, pairs.values()), *(name for name in named if "(of" in name)]) == sorted(
        map(of_low, lows)
    )
