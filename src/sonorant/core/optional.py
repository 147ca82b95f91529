"""Optional packages: imported in the function that needs them, with a one-line hint when they are absent."""

import importlib
from types import ModuleType

from sonorant.core.errors import MissingPackage

__all__ = ["require"]


def require(module: str, *, extra: str, purpose: str = "") -> ModuleType:
    """Imports `module`, or says in one line which extra of Sonorant brings it.

    Args:
        module: dotted name of the module, such as `"flashlight.lib.text"`.
        extra: the extra of this package that installs it.
        purpose: what it is needed for, as the end of the sentence "… is needed".

    Raises:
        MissingPackage: the module is not installed. An import error *inside* an installed module is passed on as it is,
            for that is another fault with another cure.

    >>> require("json", extra="none").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != root:
            raise
        need = f"{root} is needed {purpose}".rstrip()
        raise MissingPackage(f"{need} and not installed: pip install 'sonorant[{extra}]'", name=error.name) from error
