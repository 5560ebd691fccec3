"""What is said and refused before the first shard is written."""

import tarfile

import pytest

from pipelines.prepare.preparation import describe_plan, prepare
from pipelines.prepare.shard_plan import plan_shards, write_plan
from pipelines.prepare.sources.listing import open_source
from pipelines.settings.prepare import PrepareConfig
from sr3core.config import override
from sr3core.errors import ConfigError, DataError


@pytest.fixture
def config(photos, tmp_path):
    """Twelve photos, four a shard."""
    (tmp_path / "photos").mkdir()
    for path in sorted(photos.glob("*.jpg"))[:12]:
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes())
    return PrepareConfig(
        source=str(tmp_path / "photos"),
        out=str(tmp_path / "out"),
        stages=("8-16",),
        validation_fraction=0.0,
        samples_per_shard=4,
    )


def test_a_dry_run_looks_at_the_source_and_at_what_is_done_and_writes_nothing(config, tmp_path):
    said = describe_plan(config)
    assert said == f"would prepare 8-16 from 12 images (layout folder) in {config.out}: 3 of 3 shards"
    assert not (tmp_path / "out").exists()
    write_plan(config, *plan_shards(config, open_source(config.source)))
    assert describe_plan(config) == said
    with pytest.raises(ConfigError, match=r"started with a different configuration.*seed"):
        describe_plan(override(config, seed=1))
    (tmp_path / "photos" / "more.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="12 images then, 13 now"):
        describe_plan(config)
    with pytest.raises(DataError, match="nowhere does not exist"):
        describe_plan(override(config, source=str(tmp_path / "nowhere")))


def test_shards_among_the_tars_that_are_read_are_refused(config, tmp_path, photos):
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "a.tar", "w") as archive:
        archive.add(sorted(photos.glob("*.jpg"))[0], "a.jpg")
    for out in ("tars", "tars/out"):
        inside = override(config, source=str(tmp_path / "tars"), out=str(tmp_path / out))
        with pytest.raises(ConfigError, match=r"is inside the source.*choose an --out outside the source"):
            prepare(inside)
    assert describe_plan(override(inside, out=str(tmp_path / "tars-out"))).endswith("1 of 1 shards")
    assert describe_plan(override(config, out=str(tmp_path / "photos" / "out"))).endswith("3 of 3 shards")
