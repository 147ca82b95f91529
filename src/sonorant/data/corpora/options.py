"""Options of importers as they come from a command line: text made into what the signature asks for."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sonorant.core.config import one_of
from sonorant.core.errors import ConfigError, unknown_name

__all__ = ["checked_options", "from_text"]

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def checked_options(
    what: str, function: Callable[..., Any], options: Mapping[str, Any], filled: Sequence[str]
) -> dict[str, Any]:
    """Options for a function's keyword arguments, each known and of the right type.

    Args:
        what: what the options belong to, for messages.
        function: what will be called.
        options: name → value or text.
        filled: arguments that the caller fills in itself.

    Raises:
        ConfigError: an unknown option (with the nearest name) or a value of the wrong type.
    """
    parameters = inspect.signature(function).parameters
    known = {name: item.default for name, item in parameters.items() if name not in filled}
    for name in options:
        if name not in known:
            raise ConfigError(f"{what}: {unknown_name('option', name, known)}")
    hints = get_type_hints(function)
    return {name: from_text(name, value, hints.get(name, Any), known[name]) for name, value in options.items()}


def from_text(name: str, value: Any, hint: Any, default: Any = None) -> Any:
    """Text from a command line as an argument with that hint; values other than text as they are.

    >>> from_text("keep", "no", bool), from_text("parts", "dev,test", list[str]), from_text("limit", "80", int)
    (False, ['dev', 'test'], 80)
    """
    if get_origin(hint) is Literal:
        one_of(name, str(value), [str(item) for item in get_args(hint)])
        return value
    if not isinstance(value, str):
        return value
    kinds = set(_plain_types(hint)) | ({type(default)} if default is not inspect.Parameter.empty else set())
    if bool in kinds:
        if value.lower() not in _TRUTH:
            raise ConfigError(f"{name} must be true or false, got '{value}'")
        return _TRUTH[value.lower()]
    for number in (int, float):
        if number in kinds:
            try:
                return number(value)
            except ValueError:
                if str not in kinds:
                    raise ConfigError(f"{name} must be a number, got '{value}'") from None
    is_list = kinds & {list, tuple, Sequence}
    if is_list and ("," in value or str not in kinds):
        return tuple(value.split(",")) if tuple in kinds else value.split(",")
    return Path(value) if Path in kinds else value


def _plain_types(hint: Any) -> Iterator[type]:
    origin = get_origin(hint)
    if origin in (list, tuple) or origin is Sequence:
        yield origin
    elif origin is not None:
        for part in get_args(hint):
            yield from _plain_types(part)
    elif isinstance(hint, type):
        yield hint
