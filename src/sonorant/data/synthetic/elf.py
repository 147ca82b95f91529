"""Where a loaded library keeps its variables: enough of ELF to put a library's state back between two calls.

Only 64-bit little-endian ELF files with a symbol table are understood; for anything else the answer is None, and the
caller has to do without.
"""

import ctypes
import os
import struct
from collections.abc import Collection
from functools import lru_cache

__all__ = ["writable_spans"]

_LOAD, _RELRO, _WRITABLE, _SYMBOLS = 1, 0x6474E552, 2, 2


class _Loaded(ctypes.Structure):
    """`Dl_info` of dladdr(3)."""

    _fields_ = [
        ("file", ctypes.c_char_p), ("base", ctypes.c_void_p), ("symbol", ctypes.c_char_p), ("address", ctypes.c_void_p),
    ]  # fmt: skip


def writable_spans(
    library: ctypes.CDLL, function: str, path: str, keep: Collection[str], image: str = ""
) -> tuple[tuple[int, int], ...] | None:
    """Address and size of each stretch of a library's `.data` and `.bss`, the variables in `keep` left out.

    Args:
        library: the loaded library.
        function: one of its functions, by which the loader is asked where the library lies.
        path: its file.
        keep: names of variables that must not be touched, such as owners of memory on the heap.
        image: another path to the same bytes, under which what is read from the file is remembered.

    Returns:
        The spans, or None where they cannot be known, also when a name of `keep` is not in the symbol table.
    """
    try:
        found, info = ctypes.CDLL(None).dladdr, _Loaded()
    except (AttributeError, OSError, TypeError):
        return None
    address = ctypes.cast(getattr(library, function), ctypes.c_void_p)
    if not found(address, ctypes.byref(info)) or not info.base:
        return None
    offsets = _offsets(image or path, tuple(sorted(keep)))
    return None if offsets is None else tuple((info.base + start, size) for start, size in offsets)


@lru_cache(maxsize=8)
def _offsets(path: str, keep: tuple[str, ...]) -> tuple[tuple[int, int], ...] | None:
    """The spans relative to where the library is loaded."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
        return None
    segment = _writable_segment(data)
    variables = _variables(data, keep)
    if segment is None or variables is None:
        return None
    start, end = segment
    spans = []
    for low, size in sorted(variables):
        if low > start:
            spans.append((start, low - start))
        start = max(start, low + size)
    return tuple([*spans, (start, end - start)] if end > start else spans)


def _writable_segment(data: bytes) -> tuple[int, int] | None:
    """The writable segment less the part that the loader makes read-only after relocation."""
    (offset,), (size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", data, offset + size * i) for i in range(count)]
    spans = [(h[3], h[3] + h[6]) for h in headers if h[0] == _LOAD and h[1] & _WRITABLE]
    if not spans:
        return None
    start, end = spans[-1]
    page = os.sysconf("SC_PAGE_SIZE")
    # The loader protects whole pages; a page that is only partly RELRO stays writable in none of its bytes we touch.
    protected = [-(-(h[3] + h[6]) // page) * page for h in headers if h[0] == _RELRO and start <= h[3] < end]
    return max([start, *protected]), end


def _variables(data: bytes, names: tuple[str, ...]) -> list[tuple[int, int]] | None:
    """Address and size of the named variables, or None where one of them is not in the symbol table."""
    (offset,), (size, count) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, offset + size * i) for i in range(count)]
    table = next((s for s in sections if s[1] == _SYMBOLS), None)
    if table is None:
        return None
    strings = sections[table[6]]
    wanted = {name.encode(): name for name in names}
    found: dict[str, tuple[int, int]] = {}
    for name, _, _, _, value, length in struct.iter_unpack("<IBBHQQ", data[table[4] : table[4] + table[5]]):
        start = strings[4] + name
        key = data[start : data.index(b"\0", start)]
        if key in wanted and length:
            found[wanted[key]] = (value, length)
    return list(found.values()) if len(found) == len(wanted) else None
