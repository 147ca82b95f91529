"""A language model from wherever it is stored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from sonorant.core.errors import DataError
from sonorant.lm.ngram import NGram

__all__ = ["LanguageModel", "load_lm"]


@runtime_checkable
class LanguageModel(Protocol):
    """What rescoring asks: n-gram, mixture and neural models have it."""

    def score_sentences(self, sentences: Sequence[str]) -> Float[np.ndarray, " sentence"]:
        """Natural log-probability of each sentence with its end."""
        ...

    def perplexity(self, lines: Sequence[str]) -> float:
        """Per word, sentence ends counted."""
        ...


def load_lm(path: str | Path) -> LanguageModel:
    """An ARPA file (`.arpa`, `.arpa.gz`, `.lm`) as `NGram`, a checkpoint folder as `NeuralLm`.

    Raises `DataError` where there is neither, `CheckpointError` for a folder that holds something else.
    """
    path = Path(path)
    if path.is_dir():
        # here, because torch is not needed for n-grams
        from sonorant.lm.neural import NeuralLm

        return NeuralLm.load(path)
    if not path.exists():
        raise DataError(f"no language model at {path}: give an ARPA file or a checkpoint folder")
    if not path.name.removesuffix(".gz").endswith((".arpa", ".lm")):
        raise DataError(f"{path} is no language model by its name: an ARPA file ends in .arpa, .lm, .arpa.gz or .lm.gz")
    return NGram.load_arpa(path)
