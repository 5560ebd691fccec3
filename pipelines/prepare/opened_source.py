"""The images that a configuration names, listed: those of its source, or its pairs."""

from pipelines.prepare.sources.archives import ARCHIVES
from pipelines.prepare.sources.class_labels import NO_LABELS
from pipelines.prepare.sources.items import Source
from pipelines.prepare.sources.listing import open_source
from pipelines.prepare.sources.pairing import pair_sources
from pipelines.prepare.sources.parquet_files import Columns
from pipelines.settings.prepare import PrepareConfig
from pipelines.storage.uris import is_below, join
from sr3core.errors import ConfigError, DataError


def open_configured(config: PrepareConfig) -> Source:
    """List what is to be prepared.

    Raises:
        ConfigError: the extra for alignment is missing, or what is written would be read as images.
        DataError, StorageError: see open_source and pair_sources.
    """
    if config.align_faces:
        from pipelines.images.face_alignment import check_installed

        check_installed()
    source = open_source(
        config.source,
        config.layout,
        will_align=config.align_faces,
        outputs=_outputs(config),
        columns=Columns(config.image_column, config.label_column),
    )
    if source.container == "tar" and is_below(config.out, config.source):
        raise ConfigError(
            f"out: {config.out} is inside the source, whose tars are read: a repeated command would read its own shards"
            " as images; choose an --out outside the source"
        )
    if config.low is not None:
        return pair_sources(source, _open_low(config, config.low), config.high_suffix, config.low_suffix)
    if config.low_column and source.container != "parquet":
        raise ConfigError(f"low_column: {config.source} is no parquet; name the place of the other images by --low")
    return source


def _open_low(config: PrepareConfig, place: str) -> Source:
    layout = config.layout if config.layout in ARCHIVES.values() else "folder"  # all images, wherever they are
    columns = Columns(config.low_column, NO_LABELS)
    try:
        return open_source(place, layout, outputs=_outputs(config), columns=columns)
    except DataError as error:
        raise DataError(str(error).replace("source:", "low:", 1)) from error


def _outputs(config: PrepareConfig) -> list[str]:
    return [join(config.out, stage) for stage in config.stages]
