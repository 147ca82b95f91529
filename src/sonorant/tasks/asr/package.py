"""A recogniser with all it needs in one folder, which transcribes with no flags.

    export/
      model/            weights, configuration, vocabulary
      lm.arpa           language model, where there is one
      decoder.json      how to search with it

`open_transcriber` also takes a bare checkpoint, the folder of a run (whose `export/` it finds), and CTC models of
transformers.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sonorant.core.checkpoint import META_FILE
from sonorant.core.errors import CheckpointError, ConfigError, unknown_name
from sonorant.core.files import atomic_folder
from sonorant.decoding.arpa import arpa_words
from sonorant.decoding.ctc_beam import BeamOptions, CtcBeam
from sonorant.tasks.asr.foreign import is_foreign, load_foreign_recogniser
from sonorant.tasks.asr.model import load_recogniser
from sonorant.tasks.asr.pronunciation import knowing
from sonorant.tasks.asr.transcriber import Transcriber, Windows
from sonorant.text.pronounced import Pronounced
from sonorant.text.tokenizer import Tokenizer, decoder_symbols

__all__ = [
    "DECODER", "LM", "MODEL", "build_beam", "can_be_closed", "checkpoint_in", "export_recogniser", "find_recogniser",
    "open_transcriber", "stored_search",
]  # fmt: skip

MODEL, LM, DECODER = "model", "lm.arpa", "decoder.json"
_STORED = ("lm_weight", "word_bonus", "beam_size", "closed")


def export_recogniser(
    model: str | Path, out: str | Path, *, lm: str | Path | None = None, search: Mapping[str, Any] | None = None
) -> Path:
    """Copies a checkpoint and its language model into one folder; it appears whole or keeps what it had.

    Args:
        model: checkpoint folder; it is opened once, so that a damaged one is not passed on.
        out: the folder.
        lm: ARPA file.
        search: `lm_weight`, `word_bonus`, `beam_size`, as tuned on development data.

    Raises:
        CheckpointError: the checkpoint is damaged, or `out` holds something else.
    """
    load_recogniser(model)
    out = Path(out)
    if out.is_dir() and any(out.iterdir()) and not (out / MODEL / META_FILE).exists():
        raise CheckpointError(f"{out} holds files that are no export; give a new or empty folder")
    with atomic_folder(out) as part:
        shutil.copytree(model, part / MODEL)
        if lm is not None:
            shutil.copyfile(lm, part / LM)
            kept = {name: value for name, value in (search or {}).items() if name in _STORED}
            (part / DECODER).write_text(json.dumps(kept, indent=1) + "\n")
    return out


def can_be_closed(tokenizer: Tokenizer) -> bool:
    """Whether a search along the spellings of known words is possible: phones or letters, with a symbol between words."""
    if isinstance(tokenizer, Pronounced):
        return True
    return tokenizer.word_boundary in tokenizer.symbols and all(len(symbol) == 1 for symbol in tokenizer.symbols[1:])


def build_beam(tokenizer: Tokenizer, lm: str | Path | None, *, closed: bool = False, **options: Any) -> CtcBeam:
    """A beam search over a tokeniser's symbols.

    Args:
        tokenizer: of the recogniser.
        lm: ARPA file.
        closed: answer only words that the language model lists.
        options: fields of `BeamOptions`.

    Raises:
        ConfigError: closed, and the vocabulary cannot spell words letter by letter.
    """
    lexicon: Any = None
    if closed and lm is not None:
        if not can_be_closed(tokenizer):
            raise ConfigError(
                "a closed search needs a vocabulary of letters with a symbol between words: set closed=False"
            )
        lexicon = _spellings(tokenizer, [word for word in arpa_words(lm) if word not in ("<s>", "</s>", "<unk>")])
    return CtcBeam(decoder_symbols(tokenizer), lm=lm, lexicon=lexicon, **options)


def _spellings(tokenizer: Tokenizer, words: list[str]) -> Any:
    """What a search goes along: pronunciations, or the words themselves where each letter is a symbol."""
    if isinstance(tokenizer, Pronounced):
        full = knowing(tokenizer, words)
        assert isinstance(full, Pronounced)
        return full.spellings(words)
    return [word for word in words if spelled(word, tokenizer)]


def spelled(word: str, tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has every letter of a word."""
    return not tokenizer.uncovered([word])


def open_transcriber(
    folder: str | Path,
    *,
    lm: str | Path | None = None,
    greedy: bool = False,
    hot_words: Mapping[str, float] | None = None,
    windows: Windows | None = None,
    **options: Any,
) -> Transcriber:
    """A transcriber from an export, a checkpoint, the folder of a run, or a CTC model of transformers.

    Args:
        folder: where; or a name on the hub.
        lm: ARPA file that takes the place of the export's own.
        greedy: no search, no language model.
        hot_words: word or phrase → bonus.
        windows: for long recordings.
        options: fields of `BeamOptions` that take the place of the export's.

    Raises:
        CheckpointError: no recogniser there.
    """
    if is_foreign(folder):
        place, model = Path(folder), load_foreign_recogniser(folder)
    else:
        place = find_recogniser(folder)
        model = load_recogniser(checkpoint_in(place))
    if greedy:
        return Transcriber(model, None, windows)
    own = place / LM
    lm = lm or (own if own.is_file() else None)
    if lm is None and not hot_words and not options:
        return Transcriber(model, None, windows)
    stored = stored_search(place / DECODER)
    search = {**stored, **options, **({"hot_words": dict(hot_words)} if hot_words else {})}
    if lm is None:
        search.setdefault("lm_weight", 0.0)
    return Transcriber(model, build_beam(model.tokenizer, lm, **search), windows)


def find_recogniser(folder: str | Path) -> Path:
    """The folder itself, or the one inside a run that holds a recogniser: its export, or the newest that was trained.

    Raises:
        CheckpointError: there is none.
    """
    folder = Path(folder)
    trained = sorted(folder.glob("stages/train-main-*"), key=lambda place: place.stat().st_mtime_ns, reverse=True)
    for place in (folder, folder / "export", *trained):
        if (place / META_FILE).is_file() or (place / MODEL / META_FILE).is_file():
            return place
    if not folder.is_dir():
        raise CheckpointError(
            f"no folder {folder}{' (it is a file)' if folder.exists() else ''}: --model takes an export, a checkpoint, the "
            "folder of a run, or owner/model of the hub"
        )
    raise CheckpointError(
        f"no recogniser in {folder}: expected {META_FILE}, {MODEL}/ or export/ there; {_listing(folder)}"
    )


def checkpoint_in(place: str | Path) -> Path:
    """The checkpoint's own folder in a place that `find_recogniser` found."""
    place = Path(place)
    return place / MODEL if (place / MODEL).is_dir() else place


def _listing(folder: Path) -> str:
    names: Iterable[str] = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
    shown = ", ".join(list(names)[:8])
    return f"it holds {shown}" if shown else "it is empty"


def stored_search(file: Path) -> dict[str, Any]:
    """The search options beside an export; empty where there are none."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} must hold search options by name, got {str(found)[:80]}")
    known = [*BeamOptions.__dataclass_fields__, "closed"]
    for name in found:
        if name not in known:
            raise CheckpointError(f"{file}: {unknown_name('search option', name, known)}")
    return dict(found)
