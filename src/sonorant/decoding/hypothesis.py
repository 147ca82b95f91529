"""What a search returns, the words in it, and the checks on what it is given."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.core.errors import DataError

__all__ = ["Hypothesis", "Word", "check_scores", "is_separator", "spelled_out", "words_of"]

WORD_START = "▁"
_SEPARATORS = frozenset({" ", "|", WORD_START})


@dataclass(frozen=True)
class Word:
    """A word and where it was found."""

    text: str
    start: int
    """First frame."""
    end: int
    """The frame after the last."""
    score: float = 1.0
    """Confidence in [0, 1]: mean over its tokens."""


@dataclass(frozen=True)
class Hypothesis:
    """One answer of a decoder."""

    tokens: tuple[int, ...]
    frames: tuple[tuple[int, int], ...]
    """For each token its first frame and the frame after its last."""
    score: float
    """Logarithm; the higher the better: acoustic, language model and bonuses together."""
    confidences: tuple[float, ...] = ()
    """For each token the mean probability over its frames."""
    text: str = ""
    words: tuple[Word, ...] = ()
    acoustic_score: float = 0.0
    """Log-likelihood of the frames alone."""
    lm_score: float = 0.0
    """Everything else: weighted language model, word and hot-word bonuses."""
    parts: dict[str, float] = field(default_factory=dict, compare=False)
    """Scores that rescoring added, by name."""


def is_separator(symbol: str) -> bool:
    """Whether a symbol stands for the space between words and nothing else."""
    return symbol in _SEPARATORS


def spelled_out(tokens: Sequence[int], symbols: Sequence[str]) -> str:
    """Tokens as text, words parted by single spaces.

    >>> spelled_out([1, 2, 3, 1], ["", "a", "|", "b"]), spelled_out([1, 2, 1], ["", "▁a", "b"])
    ('a ba', 'ab a')
    """
    joined = "".join(" " if is_separator(symbols[token]) else symbols[token] for token in tokens)
    return " ".join(joined.replace(WORD_START, " ").split())


def words_of(
    tokens: Sequence[int],
    frames: Sequence[tuple[int, int]],
    symbols: Sequence[str],
    confidences: Sequence[float] = (),
) -> tuple[Word, ...]:
    """Tokens gathered into words with their frames; separators belong to no word.

    >>> words_of([1, 2, 3], [(0, 2), (2, 3), (5, 6)], ["", "a", "|", "b"])
    (Word(text='a', start=0, end=2, score=1.0), Word(text='b', start=5, end=6, score=1.0))
    """
    groups: list[list[int]] = []
    starting = True
    for position, token in enumerate(tokens):
        symbol = symbols[token]
        if is_separator(symbol):
            starting = True
            continue
        if starting or symbol.startswith(WORD_START):
            groups.append([])
        groups[-1].append(position)
        starting = False
    scores = confidences or [1.0] * len(tokens)
    return tuple(
        Word(
            "".join(symbols[tokens[position]] for position in group).replace(WORD_START, ""),
            frames[group[0]][0],
            frames[group[-1]][1],
            sum(scores[position] for position in group) / len(group),
        )
        for group in groups
    )


def check_scores(
    log_probs: Float[Tensor, "batch frame vocab"], lengths: Int[Tensor, " batch"], vocab_size: int | None = None
) -> None:
    """Refuses scores that no search can use.

    Raises:
        DataError: another vocabulary, a length beyond the tensor, NaN among the valid frames, or positive logarithms.
    """
    if vocab_size is not None and log_probs.shape[2] != vocab_size:
        raise DataError(
            f"log_probs have {log_probs.shape[2]} entries and the vocabulary {vocab_size}; was the model trained with "
            f"another vocabulary?"
        )
    if bool(((lengths < 0) | (lengths > log_probs.shape[1])).any()):
        raise DataError(f"lengths must lie in [0, {log_probs.shape[1]}] (frames of log_probs), got {lengths.tolist()}")
    steps = torch.arange(log_probs.shape[1], device=log_probs.device)
    valid = steps[None, :] < lengths[:, None]
    peaks = log_probs.amax(-1)  # NaN wins every comparison here
    wrong = (valid & ~(peaks <= 1e-3)).any(1)
    if bool(wrong.any()):
        item = int(wrong.nonzero()[0])
        nan = bool(log_probs[item, : int(lengths[item])].isnan().any())
        what = "NaN" if nan else "values above 0, which are no logarithms of probabilities (log_softmax is missing)"
        raise DataError(f"log_probs of item {item} hold {what}")
