"""A hook of mkdocs: puts the pages that `make_pages.py` wrote, and the decisions, into the navigation."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Extends the sections "Reference" and "Decisions" by the files that are there."""
    docs = Path(config.docs_dir)
    reference = sorted(docs.glob("reference/*.md"), key=lambda page: page.stem)
    found = {
        "Reference": [page for page in reference if page.stem != "index"],
        "Decisions": sorted(docs.glob("decisions/*.md")),
    }
    for section in config.nav:
        for title, entries in section.items():
            if title in found:
                for page in found[title]:
                    name = page.relative_to(docs).as_posix()
                    entries.append({page.stem: name} if title == "Reference" else name)
    return config
