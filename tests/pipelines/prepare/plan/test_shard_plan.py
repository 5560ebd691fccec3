"""What is said and refused before the first shard is written."""

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.prepare.plan.dealing import plan_shards
from pipelines.prepare.plan.shard_plan import write_plan
from pipelines.prepare.preparation import begin, describe_plan, prepare
from pipelines.prepare.sources.items import Parts, Source, SourceItem
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
    wanted = f"would prepare 8-16 from 12 images (layout folder) in {config.out}: 3 of 3 shards"
    assert said == f"{wanted}; 12 train, 0 validation, 0 test"
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
    assert describe_plan(override(inside, out=str(tmp_path / "tars-out"))).endswith(
        "1 of 1 shards; 1 train, 0 validation, 0 test"
    )
    assert describe_plan(override(config, out=str(tmp_path / "photos" / "out"))).endswith(
        "3 of 3 shards; 12 train, 0 validation, 0 test"
    )


def counts(config, num_images, **changes):
    """Images planned for training, validation and test."""
    items = [SourceItem(f"{number}.png", f"{number}.png") for number in range(num_images)]
    plan, _ = plan_shards(override(config, **changes), Source("", "files", "folder", Parts.of(items)))
    return tuple(plan.num_planned(split) for split in ("train", "validation", "test"))


def test_no_held_out_split_is_empty_but_one_that_is_not_wanted(config):
    """With the default fraction of 0.02 a few dozen images gave none, and training failed on that a minute later."""
    few = {"validation_fraction": 0.001, "test_fraction": 0.001}
    assert counts(config, 30, **few) == (28, 1, 1)
    assert counts(config, 30, validation_fraction=0.0, test_fraction=0.0) == (30, 0, 0)
    assert counts(config, 1, **few) == (1, 0, 0), "training keeps the last one"
    assert counts(config, 2, **few) == (1, 1, 0)


@given(st.integers(0, 60), st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 9))
def test_filling_empty_splits_changes_no_other_plan(num_images, validation, test, seed):
    config = PrepareConfig(
        source="s", out="o", stages=("8-16",), validation_fraction=validation, test_fraction=test, seed=seed
    )
    source = Source("", "files", "folder", Parts.of(SourceItem(f"{n}.png", f"{n}.png") for n in range(num_images)))
    filled, lines = plan_shards(config, source)
    before, lines_before = plan_shards(config, source, fill_splits=False)
    empty = [s for s, f in (("validation", validation), ("test", test)) if f > 0 and not before.num_planned(s)]
    if not empty or before.num_planned("train") < 2:
        assert (filled, bytes(lines)) == (before, bytes(lines_before))
    else:
        assert filled.num_images == before.num_images
        assert filled.num_planned(empty[0]) == 1
        assert filled.num_planned("train") >= 1


def test_a_preparation_whose_split_an_earlier_version_left_empty_is_resumed(config):
    config = override(config, validation_fraction=1e-9)
    source = open_source(config.source)
    write_plan(config, *plan_shards(config, source, fill_splits=False))
    assert describe_plan(config).endswith("12 train, 0 validation, 0 test")


def test_a_preparation_that_was_begun_before_shards_had_a_bound_in_bytes_goes_on_as_it_was_planned(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(300):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(b"")
    new, old = (
        PrepareConfig(
            source=str(tmp_path / "photos"), out=str(tmp_path / name), stages=("256-1024",), validation_fraction=0.001
        )
        for name in ("new", "old")
    )
    assert [shard.num_images for shard in begin(new).plan.shards] == [138, 138, 23, 1]
    for fill_splits, sizes in ((True, [299, 1]), (False, [300])):
        write_plan(old, *plan_shards(old, open_source(old.source), 1000, fill_splits))
        assert [shard.num_images for shard in begin(old).plan.shards] == sizes
    (tmp_path / "photos" / "300.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="300 images then, 301 now"):
        begin(old)
    assert [shard.num_images for shard in begin(old, add_new=True).plan.shards] == [300, 1]
