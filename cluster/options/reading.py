"""How a command's options are read: by tyro into its dataclass, with --config and the help before it."""

import contextlib
import dataclasses
import functools
import os
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NoReturn, TypeVar

import tyro

from cluster.options.fields import Option, options_of, paths_in
from cluster.options.help import full_text, help_text
from pipelines.settings.locations import Location
from pipelines.storage.buckets import s3_client
from pipelines.storage.uris import read_bytes
from sr3core import strict_json
from sr3core.config import from_dict, to_dict
from sr3core.errors import ConfigError, StorageError

T = TypeVar("T")
HELP = {"-h", "--help"}
HELP_ALL = "--help-all"


@dataclass(frozen=True, kw_only=True)
class CommandLine(Generic[T]):
    """The command line of one command: its options, and what its help shows of them."""

    name: str
    """Words after `sr3`: search, study new, train small-16-64."""
    options: type[T]
    """Dataclass of all options; its docstring is the summary of the command."""
    essential: tuple[str, ...]
    """Names of the options that `--help` shows, in this order."""
    examples: tuple[str, ...]
    """Complete commands for the end of the help."""
    notes: tuple[str, ...] = ()
    """Paragraphs that the help shows below the options."""
    stages: tuple[str, ...] = ()
    """Stages whose options are shown once, as --STAGE.NAME; their names are the options' prefixes."""

    def read(self, arguments: Sequence[str]) -> T:
        """Read the options; help and mistakes print and exit, as command lines do (status 0 and 2).

        `~` stays in them: it is another folder where a job runs. What runs here expands it (fields.home_expanded).

        Raises:
            ConfigError: the --config file is missing or invalid, or a number is not finite.
        """
        self.offer_help(arguments)
        cls = self.options
        if _has_option(cls, "config_file"):
            path, _ = split_config(arguments)
            content, arguments = take_config(arguments)
            with naming_file(path):
                cls = cls if content is None else with_defaults(cls, content)
            cls = without_places(cls) if "--print-config" in arguments else cls
        options = self._parse(cls, arguments)
        refuse_not_finite(options)
        refuse_empty_places(options)
        return options

    def offer_help(self, arguments: Sequence[str]) -> None:
        """Print the help and exit if the arguments ask for it."""
        if HELP & set(arguments):
            print(self.help())
            raise SystemExit(0)
        if HELP_ALL in arguments:
            print(full_text(self._usage(), self._summary(), options_of(self.options)))
            raise SystemExit(0)

    def help(self) -> str:
        """What `--help` prints: at most 40 lines at 80 columns."""
        every = options_of(self.options)
        return help_text(self._usage(), self._summary(), self.shown(every), len(every), self.examples, self.notes)

    def _usage(self) -> str:
        required = [option.usage for option in self.shown(options_of(self.options)) if option.default is None]
        return " ".join(["sr3", self.name, *required, "[OPTIONS]"])

    def _summary(self) -> str:
        return " ".join((self.options.__doc__ or "").split())

    def shown(self, every: Sequence[Option]) -> list[Option]:
        """The essential options, in their order; those of stages stand for all stages."""
        known = {option.name: option for option in every}
        return [known[name] if name in known else self._of_stages(name, known) for name in self.essential]

    def _of_stages(self, name: str, known: dict[str, Option]) -> Option:
        bare = name.removeprefix("--STAGE.")
        options = [known[f"--{stage}.{bare}"] for stage in self.stages]
        defaults = {option.default for option in options}
        default = defaults.pop() if len(defaults) == 1 else "depends on the stage"
        return dataclasses.replace(options[0], name=name, default=default)

    def parser_help(self) -> NoReturn:
        """Print the parser's own help, of which `--help-all` is the readable form, and exit."""
        self._parse(self.options, ["--help"])
        raise AssertionError("the parser's help exits")

    def _parse(self, cls: type[T], arguments: Sequence[str]) -> T:
        return tyro.cli(
            cls,
            prog=f"sr3 {self.name}",
            description=self.options.__doc__,
            args=arguments,
            config=(tyro.conf.OmitSubcommandPrefixes,),
        )


def refuse_not_finite(options: Any) -> None:
    """Refuse `--optimizer.learning-rate inf`, which Python reads as a number.

    Raises:
        ConfigError: names each such option.
    """
    found = [
        text
        for option in options_of(type(options))
        for text in strict_json.not_finite({option.name: functools.reduce(getattr, option.attributes, options)})
    ]
    if found:
        raise ConfigError("; ".join(found))


def refuse_empty_places(options: Any) -> None:
    """Refuse `--out "$OUT"` whose variable is not set: an empty path would be the working folder.

    Raises:
        ConfigError: names the option.
    """
    if getattr(options, "print_config", False):  # which needs no places
        return
    for option, path in paths_in(options):
        if not path:
            raise ConfigError(f"{option.name}: its value is empty; name a path (an unset variable gives an empty one)")


def take_config(arguments: Sequence[str]) -> tuple[dict[str, Any] | None, list[str]]:
    """Take `--config FILE` out of the arguments: its JSON, and the arguments that are left.

    Raises:
        ConfigError: the file is missing or no JSON object.
    """
    path, rest = split_config(arguments)
    if path is None:
        return None, rest
    content = read_config(path)
    content = content.get("config", content)  # a run's own config.json wraps it with provenance
    if not isinstance(content, dict):
        raise ConfigError(f"config: {path} must hold a JSON object, such as --print-config writes")
    return content, rest


@contextlib.contextmanager
def naming_file(path: str | None) -> Iterator[None]:
    """Name the --config file in an error about what it holds."""
    try:
        yield
    except ConfigError as error:
        raise error if path is None else ConfigError(f"{path}: {error}; correct it there") from error


def split_config(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Take `--config FILE` out of the arguments: the file's path, and the arguments that are left.

    Raises:
        ConfigError: the file is not named.
    """
    arguments = list(arguments)
    for index, argument in enumerate(arguments):
        name, equals, path = argument.partition("=")
        if name != "--config":
            continue
        end = index + (1 if equals else 2)
        if not equals:
            path = "".join(arguments[index + 1 : end])
        if not path or (path.startswith("-") and not equals):
            raise ConfigError("--config: needs a value, the JSON file; write --config FILE")
        return path, arguments[:index] + arguments[end:]
    return None, arguments


def read_config(path: str) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ConfigError: the file is missing or no JSON object.
    """
    try:
        if path.startswith("s3://"):
            s3_client.probe(path)
        content = strict_json.loads(read_bytes(os.path.expanduser(path)))  # of bytes, JSON may have a byte-order mark
    except StorageError as error:
        remedy = "; correct its name" if isinstance(error.__cause__, FileNotFoundError) else ""
        raise ConfigError(f"config: cannot read the file: {error}{remedy}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"config: cannot read {path} as JSON: {error}; correct it, or name another file") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config: {path} must hold a JSON object, such as --print-config writes")
    return content


def with_defaults(cls: type[T], content: dict[str, Any]) -> type[T]:
    """The dataclass, with what a file holds as the defaults of its configurations.

    Raises:
        ConfigError: a key is unknown, or a value is invalid.
    """
    configs = _configs(cls)
    parts = {name: {key: content[key] for key in _names(config) & content.keys()} for name, config in configs.items()}
    unknown = content.keys() - {key for part in parts.values() for key in part}
    next(iter(parts.values())).update({key: content[key] for key in unknown})  # refused, with the nearest known key
    fields = [
        (
            name,
            typing.get_type_hints(cls, include_extras=True)[name],
            dataclasses.field(default=from_dict(config, parts[name])),
        )
        for name, config in configs.items()
    ]
    return dataclasses.make_dataclass(cls.__name__, fields, bases=(cls,), frozen=True, kw_only=True)


def without_places(cls: type[T]) -> type[T]:
    """The dataclass, with places that need not be named: no configuration depends on them."""
    hints, configs = typing.get_type_hints(cls, include_extras=True), _configs(cls)
    required = [
        field
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    fields = [
        (field.name, hints[field.name], dataclasses.field(default=() if "tuple" in str(hints[field.name]) else ""))
        for field in required
        if field.name not in configs
    ]
    placed = [
        (name, Annotated[_config_without_places(config), *_marks(hints[name])])
        for name, config in configs.items()
        if name in {field.name for field in required} and _required_places(config)
    ]
    return dataclasses.make_dataclass(
        cls.__name__, [*fields, *placed], bases=(cls,), namespace={"__doc__": cls.__doc__}, frozen=True, kw_only=True
    )


def _required_places(config: type) -> dict[str, Any]:
    """The fields of a configuration that are places without a default: what `sr3 prepare` reads and writes."""
    hints = typing.get_type_hints(config, include_extras=True)
    found = dataclasses.fields(config)  # type: ignore[arg-type]
    return {f.name: hints[f.name] for f in found if f.default is dataclasses.MISSING and hints[f.name] == Location}


def _config_without_places(config: type) -> type:
    """A configuration whose places stand as SOURCE and OUT unless they are named: to be filled in, or named later."""
    fields = [(name, hint, dataclasses.field(default=name.upper())) for name, hint in _required_places(config).items()]
    return dataclasses.make_dataclass(
        config.__name__, fields, bases=(config,), namespace={"__doc__": config.__doc__}, frozen=True, kw_only=True
    )


def print_configuration(options: Any) -> None:
    """Print a command's configuration as --config reads it."""
    configs = [to_dict(getattr(options, name)) for name in _configs(type(options))]
    print(as_json({key: value for config in configs for key, value in config.items()}))


def as_json(config: Any) -> str:
    """A configuration as --config reads it."""
    return strict_json.dumps(config if isinstance(config, dict) else to_dict(config), indent=1)


def _configs(cls: type) -> dict[str, type]:
    """The fields of a command's options that are configurations without a prefix."""
    hints = typing.get_type_hints(cls, include_extras=True)
    nested = {name: hint for name, hint in hints.items() if "" in (getattr(m, "name", None) for m in _marks(hint))}
    return {field.name: nested[field.name].__origin__ for field in dataclasses.fields(cls) if field.name in nested}  # type: ignore[arg-type]


def _marks(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())


def _names(config: type) -> set[str]:
    return {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]


def _has_option(cls: type, name: str) -> bool:
    return name in _names(cls)
