"""An extension of griffe: doctests become blocks of code, arXiv ids links, and arguments described together one each."""

import re
from typing import Any

from griffe import Extension, Object

TOGETHER = re.compile(r"^(\s+)(\w+(?:, \w+)+): (.+)$")
ARXIV = re.compile(r"(?<![\[\w`/])arXiv:(\d{4}\.\d{4,5})")


def prettier(text: str) -> str:
    """A docstring in Markdown.

    >>> print(prettier("One.\\n\\n>>> 1 + 1\\n2"))
    One.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    """
    lines, inside, section = [], False, ""
    for line in text.split("\n"):
        if re.fullmatch(r"\s*\w+:", line):
            section = line.strip()
        together = TOGETHER.match(line) if section == "Args:" else None
        starts = line.lstrip().startswith(">>>")
        if starts and not inside:
            margin = line[: len(line) - len(line.lstrip())]
            lines += [f"{margin}```pycon", line]
            inside = True
        elif inside and not line.strip():
            lines += [f"{margin}```", line]
            inside = False
        elif together:
            margin, names, what = together.groups()
            lines += [f"{margin}{name}: {what}" for name in names.split(", ")]
        else:
            lines.append(line if inside else ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", line))
    if inside:
        lines.append(f"{margin}```")
    return "\n".join(lines)


class Docstrings(Extension):
    """Rewrites each docstring as it is read."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """After griffe has built an object."""
        if obj.docstring is not None:
            obj.docstring.value = prettier(obj.docstring.value)
