"""The options that a dataclass declares, one by one: names, types, defaults, help texts, paths."""

import ast
import dataclasses
import functools
import inspect
import itertools
import os
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import tyro

from pipelines.settings.locations import Paths
from sr3core.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command line."""

    name: str
    """`--optimizer.learning-rate`, or `IMAGES` for a positional argument."""
    is_positional: bool
    is_many: bool
    """Whether it takes several values."""
    values: str
    """What it takes: INT, PATH, {png,webp}; empty for a switch."""
    default: str | None
    """As it would be typed; empty if there is none, None if the option is required."""
    help: str
    attributes: tuple[str, ...]
    """Where its value is in the dataclass: ("optimizer", "learning_rate")."""
    paths: Paths | None
    """How paths are found in its text; None if it holds none."""
    is_text: bool
    """Whether it takes any text at all."""

    @property
    def usage(self) -> str:
        """The option with its value: `--num-steps INT`."""
        if self.is_positional:
            return f"{self.name} …" if self.is_many else self.name
        return f"{self.name} {self.values}".rstrip()


def options_of(cls: type) -> list[Option]:
    """The options of a dataclass in the order of their declaration, nested ones with their prefix."""
    return list(_options(cls, dataclasses.MISSING, "", ()))


def paths_in(options: Any) -> Iterator[tuple[Option, str]]:
    """Every path that a command's options hold, defaults included, with the option that holds it."""
    for option in options_of(type(options)):
        if option.paths is None:
            continue
        value = functools.reduce(getattr, option.attributes, options)
        for text in (value,) if isinstance(value, str) else value or ():
            for path in option.paths.find(text):
                yield option, path


def home_expanded(options: T, is_stored: bool = False) -> T:
    """The options with `~` as the home folder wherever their types say that a text holds paths.

    A shell leaves `--out=~/runs` as it is, and nothing but this reads a configuration file's `"~/runs"`.

    Args:
        options: the options, or a configuration.
        is_stored: whether it is a configuration, which is stored as JSON.

    Raises:
        ConfigError: a text is no path.
    """
    hints = typing.get_type_hints(type(options), include_extras=True)
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        value = getattr(options, field.name)
        paths = next((mark for mark in _all_marks(hints[field.name]) if isinstance(mark, Paths)), None)
        if (expanded := _expanded(value, paths, is_stored)) != value:
            changes[field.name] = expanded
    return dataclasses.replace(options, **changes) if changes else options  # type: ignore[type-var]


def _expanded(value: Any, paths: Paths | None, is_stored: bool) -> Any:
    if dataclasses.is_dataclass(value):
        return home_expanded(value, is_stored=True)
    if isinstance(value, tuple):
        return tuple(_expanded(item, paths, is_stored) for item in value)
    if isinstance(value, str) and paths is not None:
        _refuse_no_path(value, is_stored)
        for path in paths.find(value):
            value = value.replace(path, os.path.expanduser(path), 1) if path.startswith("~") else value
    return value


def _refuse_no_path(text: str, is_stored: bool) -> None:
    """Refuse what no file can be called, as JSON's "\\u0000", and in configurations names that JSON cannot hold."""
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:
        data = b"\0"
    if b"\0" in data:
        raise ConfigError(f"{text!r} is no path: files cannot have such names; write another one")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        if is_stored:
            raise ConfigError(
                f"{text!r}: this name is not UTF-8, and the configuration, which is stored with the results, cannot"
                " hold it; rename the folder, or give a link to it (`ln -s`)"
            ) from error


def _options(cls: type, instance: Any, prefix: str, above: tuple[str, ...]) -> Iterator[Option]:
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        annotation, marks = _unwrap(hints[field.name])
        default = _default_of(field) if instance is dataclasses.MISSING else getattr(instance, field.name)
        renamed = [mark.name for mark in marks if getattr(mark, "name", None) is not None]
        name = renamed[0] if renamed else field.name.replace("_", "-")
        attributes = (*above, field.name)
        if dataclasses.is_dataclass(annotation):
            yield from _options(
                typing.cast(type, annotation), default, f"{prefix}{name}." if name else prefix, attributes
            )
            continue
        texts = [mark.help for mark in marks if getattr(mark, "help", None) is not None]
        is_positional = tyro.conf.Positional in marks
        yield Option(
            name=name.upper() if is_positional else f"--{prefix}{name}",
            is_positional=is_positional,
            is_many=typing.get_origin(annotation) in (tuple, dict),
            values="" if is_positional or annotation is bool else _values(annotation, marks),
            default=_typed(default),
            help=texts[0] if texts else docstrings(cls).get(field.name, ""),
            attributes=attributes,
            paths=next((mark for mark in _all_marks(hints[field.name]) if isinstance(mark, Paths)), None),
            is_text=str in _leaves(hints[field.name]),
        )


def _default_of(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """The type without its marks and without None, and the marks."""
    marks: list[Any] = []
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            marks += annotation.__metadata__
            annotation = annotation.__origin__
        elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
            inner = [argument for argument in typing.get_args(annotation) if argument is not types.NoneType]
            if len(inner) != 1:
                return annotation, marks
            (annotation,) = inner
        else:
            return annotation, marks


def _all_marks(annotation: Any) -> Iterator[Any]:
    yield from getattr(annotation, "__metadata__", ())
    for argument in typing.get_args(annotation):
        yield from _all_marks(argument)


def _leaves(annotation: Any) -> Iterator[Any]:
    """The plain types that an annotation is made of; a Literal has none."""
    if typing.get_origin(annotation) is typing.Literal:
        return
    arguments = typing.get_args(annotation)[:1] if hasattr(annotation, "__metadata__") else typing.get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _leaves(argument)


_METAVARS = {str: "TEXT", int: "INT", float: "FLOAT"}


def _values(annotation: Any, marks: list[Any]) -> str:
    annotation, more = _unwrap(annotation)
    found = [mark.metavar for mark in (*marks, *more) if getattr(mark, "metavar", None) is not None]
    if found:
        return found[0]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if origin is tuple and arguments[-1] is Ellipsis:
        one = _values(arguments[0], [])
        return one if tyro.conf.UseAppendAction in marks else f"{one} …"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_values(argument, []) for argument in arguments if argument is not type(None))
    if origin in (tuple, dict):
        return " ".join(_values(argument, []) for argument in arguments) + (" …" if origin is dict else "")
    return _METAVARS[annotation]


def _typed(default: Any) -> str | None:
    """A default as it would be typed on the command line."""
    if default is dataclasses.MISSING:
        return None
    if default is None or default is False:
        return ""
    if isinstance(default, dict):
        return " ".join(f"{key} {value}" for key, value in default.items())
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


@functools.cache
def docstrings(cls: type) -> dict[str, str]:
    """The texts below the fields of a dataclass and of its bases, each on one line."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):  # built in, or made at run time
            continue
        (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
        for field, below in itertools.pairwise(body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found
