"""Configurations: frozen keyword-only dataclasses ↔ plain YAML or JSON, with overrides from the command line.

A file holds plain values and nothing else: no tags, no objects, no references, so it can be read by any tool and cannot run
code. Every value is checked against the field's type; an unknown key is an error that names the nearest known one. Read
`from_plain` first; `override` is the same with dotted names; `describe` lists a configuration's fields for `--help`.
"""

import ast
import hashlib
import inspect
import json
import math
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.files import atomic_write

__all__ = [
    "Dotted", "FieldInfo", "at_least", "content_hash", "describe", "differences", "from_plain", "load_config", "one_of",
    "override", "read_plain", "save_config", "to_plain", "within",
]  # fmt: skip

C = TypeVar("C")
Dotted = Mapping[str, str | Sequence[str]]


# --- checks for __post_init__ ---------------------------------------------------------------------------------------


def at_least(name: str, value: float, low: float) -> None:
    """Refuses a value below `low`, by name."""
    if not value >= low:
        raise ConfigError(f"{name} must be at least {low}, got {value}")


def within(name: str, value: float, low: float, high: float) -> None:
    """Refuses a value outside [low, high], by name.

    >>> within("dropout", 1.5, 0, 1)
    Traceback (most recent call last):
    sonorant.core.errors.ConfigError: dropout must lie in [0, 1], got 1.5
    """
    if not low <= value <= high:
        raise ConfigError(f"{name} must lie in [{low}, {high}], got {value}")


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Refuses a name that is not in the list, by name."""
    if value not in known:
        raise ConfigError(f"{name}: {unknown_name('value', value, known)}")


# --- dataclass → plain ----------------------------------------------------------------------------------------------


def to_plain(value: Any) -> Any:
    """A configuration as dictionaries, lists, strings, numbers, booleans and None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(to_plain(item) for item in value)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"a configuration holds plain values only, got {type(value).__name__}: {value!r}")


def content_hash(*values: Any) -> str:
    """Sixteen hexadecimal digits that are the same for the same content, in every process.

    >>> content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    True
    """
    text = json.dumps([to_plain(value) for value in values], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- plain → dataclass ----------------------------------------------------------------------------------------------


def from_plain(cls: type[C], values: Any, where: str = "") -> C:
    """Builds a configuration from plain values; fields that are not given keep their defaults.

    Args:
        cls: a dataclass.
        values: name → plain value; nested dataclasses are nested mappings.
        where: dotted name of this part, for messages.

    Raises:
        ConfigError: unknown key (with the nearest name and the list), missing field, wrong type, value out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or cls.__name__} must be a mapping of fields, got {values!r}")
    hints = _hints(cls)  # type: ignore[arg-type]
    for key in values:
        if key not in hints:
            place = f" in '{where}'" if where else ""
            raise ConfigError(unknown_name("option", str(key), hints) + place)
    given = {key: _convert(hints[key], value, _join(where, key)) for key, value in values.items()}
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    absent = [name for name in needed if name not in given]
    if absent:
        raise ConfigError(f"{where or cls.__name__} needs {', '.join(absent)}, which has no default and was not given")
    try:
        return cls(**given)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}" if where and not str(error).startswith(where) else str(error)) from None


def override(config: C, values: Dotted) -> C:
    """A configuration with some fields replaced; names are dotted, values are text as typed on a command line.

    A field that holds several values takes them as a list of texts, or as one text with commas between.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Optim:
    ...     lr: float = 1e-3
    >>> override(Optim(), {"lr": "2e-4"}).lr
    0.0002
    """
    tree: dict[str, Any] = {}
    for dotted, text in values.items():
        names = dotted.replace("-", "_").split(".")
        cls: Any = _owner(type(config), names, dotted)
        node = tree
        for name in names[:-1]:
            node = node.setdefault(name, {})
        node[names[-1]] = _from_text(_hints(cls)[names[-1]], text, dotted)
    return from_plain(type(config), _merged(to_plain(config), tree))


def differences(left: Any, right: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """Fields in which two plain configurations differ: dotted name, left value, right value."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        names = [*left, *(name for name in right if name not in left)]
        rows = (differences(left.get(n, "absent"), right.get(n, "absent"), _join(where, n)) for n in names)
        return [row for found in rows for row in found]
    return [] if left == right else [(where, left, right)]


# --- files ----------------------------------------------------------------------------------------------------------


class _UniqueKeys(yaml.SafeLoader):
    """Plain YAML in which a key given twice is an error, not a silent loss of the first."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = [key for index, key in enumerate(seen) if key in seen[:index]]
    if twice:
        raise ConfigError(f"line {node.start_mark.line + 1}: '{twice[0]}' is given twice")
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(seen, node.value)}


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_plain(path: str | Path) -> Any:
    """The plain values of a .yaml, .yml or .json file.

    Raises:
        ConfigError: no such file, a key given twice, or not plain YAML (tags build objects and are refused).
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not plain YAML or JSON: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return {} if values is None else values


def load_config(cls: type[C], path: str | Path, base: C | None = None) -> C:
    """Reads a configuration from a file; what it leaves out comes from `base`, or from the defaults.

    Raises:
        ConfigError: the file cannot be read, or is not a valid configuration.
    """
    values = read_plain(path)
    try:
        return from_plain(cls, values if base is None else _merged(to_plain(base), values))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def save_config(config: Any, path: str | Path) -> None:
    """Writes a configuration as YAML, or as JSON where the name ends in .json; atomically."""
    path = Path(path)
    plain = to_plain(config)
    if path.suffix == ".json":
        text = json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
    else:
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    with atomic_write(path) as file:
        file.write(text.encode())


# --- what a configuration holds, for help -----------------------------------------------------------------------------


@dataclass(frozen=True)
class FieldInfo:
    """One option as the command line shows it."""

    name: str
    """Dotted."""
    type: str
    default: Any
    """Plain; in a preset, the preset's value."""
    doc: str


def describe(config: Any, where: str = "") -> Iterator[FieldInfo]:
    """Every option of a configuration, nested ones too, with its present value and the line written under the field."""
    cls: Any = type(config)
    docs = _field_docs(cls)
    for f in fields(cls):
        value, name = getattr(config, f.name), _join(where, f.name)
        if is_dataclass(value):
            yield from describe(value, name)
        else:
            yield FieldInfo(name, _type_name(_hints(cls)[f.name]), to_plain(value), docs.get(f.name, ""))


# --- inside -----------------------------------------------------------------------------------------------------------


@cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


@cache
def _field_docs(cls: Any) -> dict[str, str]:
    """The string written under each field; inherited fields too."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_dataclass(base):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(cast(type, base))))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body  # type: ignore[attr-defined]
        for node, after in zip(body, body[1:]):
            is_doc = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_doc:
                docs[node.target.id] = inspect.cleandoc(str(after.value.value)).replace("\n", " ")
    return docs


def _join(where: str, name: Any) -> str:
    return f"{where}.{name}" if where else str(name)


def _merged(base: Any, changes: Any) -> Any:
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return changes
    return {**base, **{key: _merged(base.get(key), value) for key, value in changes.items()}}


def _owner(cls: type, names: Sequence[str], dotted: str) -> type:
    """The dataclass that holds the last of `names`."""
    for index, name in enumerate(names):
        hints = _hints(cls)
        if name not in hints:
            known = [".".join([*names[:index], key]) for key in hints]
            raise ConfigError(unknown_name("option", ".".join(names[: index + 1]), known))
        if index == len(names) - 1:
            return cls
        inner = _dataclass_in(hints[name])
        if inner is None:
            raise ConfigError(f"'{dotted}': {'.'.join(names[: index + 1])} holds a plain value and has no fields")
        cls = inner
    raise ConfigError("an option's name is empty")


def _dataclass_in(hint: Any) -> type | None:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return next((option for option in options if is_dataclass(option)), None)  # type: ignore[return-value]


def _from_text(hint: Any, text: Any, where: str) -> Any:
    """Text of the command line as a plain value; a field of type `str` takes it as it stands."""
    if not isinstance(text, str | list | tuple):
        return text
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    several = next((option for option in options if get_origin(option) in (tuple, list)), None)
    if several is not None and not (isinstance(text, str) and text.lstrip().startswith("[")):
        parts = text.split(",") if isinstance(text, str) else text
        inner = get_args(several)
        return [
            _from_text(inner[0] if inner[-1] is Ellipsis else inner[min(i, len(inner) - 1)], part.strip(), where)
            for i, part in enumerate(parts)
            if part.strip()
        ]
    if not isinstance(text, str):
        raise ConfigError(
            f"{where} takes one value of type {_type_name(hint)}, got {len(text)}: {', '.join(map(str, text))}"
        )
    if type(None) in options and text.lower() in ("none", "null"):
        return None
    if str in options or Path in options or any(get_origin(option) is Literal for option in options):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{where}: cannot read {text!r}; expected {_type_name(hint)}") from None


def _number(text: str) -> Any:
    """YAML 1.1 reads `1e-3` (no dot) as text; a reader of logs means a number."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that `hint` asks for, or a ConfigError."""
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(hint, value, where)
    if origin is Literal:
        return _convert_literal(hint, value, where)
    if is_dataclass(hint):
        return value if isinstance(value, hint) else from_plain(hint, value, where)  # type: ignore[arg-type]
    if origin in (tuple, list) or hint in (tuple, list):
        return _convert_sequence(hint, value, where)
    if origin in (dict, Mapping) or hint is dict or (inspect.isclass(origin) and issubclass(origin, Mapping)):
        return _convert_mapping(hint, value, where)
    return _convert_scalar(hint, value, where)


def _convert_union(hint: Any, value: Any, where: str) -> Any:
    options = get_args(hint)
    if value is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    if len(options) == 1:
        return _convert(options[0], value, where)
    # An exact type wins over a conversion: 3 stays an int where the field is `int | float`.
    ranked = sorted(options, key=lambda option: option is not type(value))
    for option in ranked:
        try:
            return _convert(option, value, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where} must be {_type_name(hint)}, got {value!r}")


def _convert_literal(hint: Any, value: Any, where: str) -> Any:
    known = get_args(hint)
    for option in known:
        if value == option or str(value) == str(option):
            return option
    raise ConfigError(f"{where}: {unknown_name('value', str(value), [str(option) for option in known])}")


def _convert_sequence(hint: Any, value: Any, where: str) -> Any:
    kind = get_origin(hint) or hint
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} must be {_type_name(hint)}, got {value!r}")
    inner = get_args(hint)
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        if len(inner) != len(value):
            raise ConfigError(f"{where} must hold {len(inner)} values, got {len(value)}: {value!r}")
        return tuple(_convert(t, v, f"{where}[{i}]") for i, (t, v) in enumerate(zip(inner, value)))
    item = inner[0] if inner else Any
    return kind(_convert(item, v, f"{where}[{i}]") for i, v in enumerate(value))


def _convert_mapping(hint: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must be a mapping, got {value!r}")
    inner = get_args(hint) or (str, Any)
    return {_convert(inner[0], k, where): _convert(inner[1], v, _join(where, k)) for k, v in value.items()}


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, str):
        value = _number(value)
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isnan(value):
            raise ConfigError(f"{where} must be a number, got nan")
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where} must be {_type_name(hint)}, got {value!r} ({type(value).__name__})")


def _type_name(hint: Any) -> str:
    if hint is type(None):
        return "none"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_type_name(option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return " | ".join(str(option) for option in get_args(hint))
    if get_origin(hint) is not None:
        inner = ", ".join("…" if option is Ellipsis else _type_name(option) for option in get_args(hint))
        return f"{get_origin(hint).__name__}[{inner}]"
    return getattr(hint, "__name__", str(hint))
