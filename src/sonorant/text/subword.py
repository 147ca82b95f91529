"""Subwords by SentencePiece: unigram or BPE, trained in memory, the model's bytes carried with the checkpoint."""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from sonorant.core.config import at_least, one_of
from sonorant.core.errors import ConfigError, DataError
from sonorant.text.tokenizer import BLANK, shown

__all__ = ["Subword"]

_BOUNDARY = "\u2581"


class Subword:
    """A SentencePiece model whose id 0, its unknown piece, is our blank: text is never encoded to it.

    `model` holds the bytes of a `.model` file whose unknown piece has id 0 (SentencePiece's default).

    >>> texts = ["the cat sat on the mat", "the hat that sat", "a cat at the hat"] * 4
    >>> subword = Subword.train(texts, vocab_size=16)
    >>> subword.decode(subword.encode("the cat at the mat"))
    'the cat at the mat'
    """

    kind = "subword"

    def __init__(self, model: bytes) -> None:
        import sentencepiece

        self.model = model
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise DataError(f"these {len(model)} bytes are no SentencePiece model: {error}") from error
        if self._pieces.unk_id() != 0:
            raise DataError(
                f"the SentencePiece model must have its unknown piece at id 0, which becomes the blank, got "
                f"{self._pieces.unk_id()}; train it with unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1"
            )

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        method: Literal["unigram", "bpe"] = "unigram",
        character_coverage: float = 1.0,
        required: Sequence[str] = (),
        byte_fallback: bool = False,
    ) -> "Subword":
        """Trains on `texts` (already normalised; SentencePiece only folds white space), one thread, repeatable.

        `vocab_size` counts the blank. `required` are pieces that are always there and never split; `byte_fallback`
        spells unseen characters in bytes, so that nothing is uncovered. A unigram vocabulary that the texts cannot
        fill comes out smaller. Raises `ConfigError` where SentencePiece refuses the size, `DataError` for empty texts.
        """
        import sentencepiece

        one_of("method", method, ("unigram", "bpe"))
        at_least("vocab_size", vocab_size, 2)
        lines = [line for line in (" ".join(text.split()) for text in texts) if line]
        if not lines:
            raise DataError("no text to train subwords on: every line is empty")
        written = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=written,
                vocab_size=vocab_size,
                model_type=method,
                character_coverage=character_coverage,
                byte_fallback=byte_fallback,
                user_defined_symbols=list(required),
                normalization_rule_name="identity",
                hard_vocab_limit=False,
                max_sentence_length=max(4192, 4 * max(map(len, lines))),  # in bytes; longer lines would be dropped
                unk_id=0,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ConfigError(
                f"SentencePiece cannot make {vocab_size} {method} pieces of {len(lines)} lines: {error}; "
                "choose a vocab_size above the number of characters and within what the texts can fill"
            ) from error
        return cls(written.getvalue())

    @property
    def vocab_size(self) -> int:
        return int(self._pieces.vocab_size())

    @property
    def blank_id(self) -> int:
        return 0

    @property
    def word_boundary(self) -> str:
        return _BOUNDARY

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return (BLANK, *(self._pieces.id_to_piece(index) for index in range(1, self.vocab_size)))

    def encode(self, text: str, *, item: str = "", skipped: Counter[str] | None = None) -> list[int]:
        ids = list(self._pieces.encode(text))
        if 0 not in ids:
            return ids
        missing = self.uncovered([text])
        if skipped is None:
            where = f" of item '{item}'" if item else ""
            raise DataError(
                f"the subwords do not cover {', '.join(map(shown, missing))} in the text{where}: {text[:80]!r}; "
                "normalise the text, train on it, use byte_fallback=True, or pass skipped=Counter() to leave them out"
            )
        skipped.update(missing)
        # Re-encoded without them, so that the pieces are those of the text that is left.
        return [index for index in self._pieces.encode("".join(char for char in text if char not in missing)) if index]

    def decode(self, ids: Sequence[int]) -> str:
        wrong = [index for index in ids if not 0 <= index < self.vocab_size]
        if wrong:
            raise DataError(f"token ids must lie in [0, {self.vocab_size}), got {wrong[0]}")
        return str(self._pieces.decode([int(index) for index in ids if index]))

    def to_symbols(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id, blanks left out; a word's first piece starts with "▁"."""
        return [self.symbols[index] for index in ids if index]

    def uncovered(self, texts: Iterable[str]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update("".join(text.split()))
        return Counter({char: count for char, count in counts.items() if not self._covers(char)})

    def to_plain(self) -> dict[str, Any]:
        return {"kind": self.kind, "model": base64.b64encode(self.model).decode("ascii")}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Subword":
        return cls(base64.b64decode(plain["model"], validate=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subword) and self.model == other.model

    def __hash__(self) -> int:
        return hash(self.model)

    def __repr__(self) -> str:
        return f"Subword({self.vocab_size} pieces with blank)"

    def __reduce__(self) -> tuple[type, tuple[bytes]]:
        # worker processes get the bytes; the C++ object stays behind
        return Subword, (self.model,)

    def _covers(self, char: str) -> bool:
        known = self.__dict__.setdefault("_covered", {})
        if char not in known:
            known[char] = 0 not in self._pieces.encode(char)
        return bool(known[char])
