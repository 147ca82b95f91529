"""CTC beam search with a language model and hot words, on flashlight-text (C++, Kahn et al., 2022, arXiv:2201.12465).

Three ways lead to the same kind of answer, and the constructor picks one:

- `lexicon` given: words of the lexicon only, word model in C++ along a trie; the vocabulary needs a separator symbol.
- `lm_unit="token"`: any string of tokens, token model in C++.
- otherwise: any string of tokens; with a word model, word bonus or hot words the search runs in Python
  (`ctc_beam_reference`, several times slower), with none of them in C++.

A `CtcBeam` never changes after construction: options are given to each call, so threads and tasks may share one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.core.config import at_least, one_of
from sonorant.core.errors import ConfigError
from sonorant.core.optional import require
from sonorant.decoding.align import ctc_align
from sonorant.decoding.arpa import LN10, arpa_words, check_arpa
from sonorant.decoding.ctc_beam_reference import ctc_beam_search
from sonorant.decoding.flashlight import KenLmModel, load_kenlm, scored_words
from sonorant.decoding.hypothesis import Hypothesis, check_scores, is_separator, spelled_out, words_of
from sonorant.decoding.scorers import Scorer, WordScorer

__all__ = ["BeamOptions", "CtcBeam"]

_NEVER = -1e30  # flashlight adds such scores up: −∞ would breed NaN


@dataclass(frozen=True, kw_only=True)
class BeamOptions:
    """How to search; every call may replace some."""

    beam_size: int = 50
    """Hypotheses kept after each frame."""
    tokens_per_frame: int | None = None
    """Likeliest tokens of a frame that are tried; None: `token_threshold` decides."""
    token_threshold: float = 7.0
    """Tokens of a frame less likely than exp(−this) are not tried (in C++ all frames try equally
    many: as many as suffice for 95 % of the item's frames)."""
    beam_threshold: float = 25.0
    """Hypotheses further than this below the best are dropped (natural logarithm)."""
    lm_weight: float = 0.5
    """What the language model's natural logarithms are multiplied by."""
    word_bonus: float = 0.0
    """Added for each word."""
    hot_words: Mapping[str, float] = field(default_factory=dict)
    """Word or phrase → bonus (natural logarithm) for each occurrence."""
    num_best: int = 1
    """Answers for each item, best first."""

    def __post_init__(self) -> None:
        for name in ("beam_size", "num_best"):
            at_least(name, getattr(self, name), 1)
        for name in ("token_threshold", "beam_threshold", "lm_weight"):
            at_least(name, getattr(self, name), 0)
        if self.tokens_per_frame is not None:
            at_least("tokens_per_frame", self.tokens_per_frame, 1)


class CtcBeam:
    """Beam search over the scores of a CTC model.

    Args:
        symbols: of the vocabulary, the blank among them; words are parted by " ", "|" or "▁", or begin with "▁".
        blank_id: index of the blank.
        lm: ARPA file (or KenLM binary) of order 2 or more; none where None.
        lm_unit: whether the model scores words or tokens (spelled as `symbols`).
        lexicon: the words that may be answered; with spellings `{word: [token ids without separator, …]}` or, for a
            vocabulary of single characters, as plain words. None: any string of tokens.
        scorer: any `Scorer` in place of language model, bonus and hot words (a neural model, say).
        options: fields of `BeamOptions` that hold for every call unless it replaces them.

    Raises:
        ConfigError: parts that do not go together, or a word that the vocabulary cannot spell.
        MissingPackage: flashlight-text is not installed.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        blank_id: int = 0,
        lm: str | Path | None = None,
        lm_unit: str = "word",
        lexicon: Iterable[str] | Mapping[str, Sequence[Sequence[int]]] | None = None,
        scorer: Scorer | None = None,
        **options: Any,
    ) -> None:
        self.symbols, self.blank_id, self.scorer = tuple(symbols), blank_id, scorer
        self.options = BeamOptions(**options)
        self.lm_unit = lm_unit
        one_of("lm_unit", lm_unit, ("word", "token"))
        if not 0 <= blank_id < len(self.symbols):
            raise ConfigError(f"blank_id must lie in [0, {len(self.symbols)}), got {blank_id}")
        if scorer is not None and (lm is not None or lexicon is not None):
            raise ConfigError("a scorer takes the place of lm and lexicon; give either")
        if lexicon is not None and lm_unit == "token":
            raise ConfigError("a lexicon needs a model of words: lm_unit='word'")
        self._library = require("flashlight.lib.text.decoder", extra="decode", purpose="for beam search")
        separators = [i for i, symbol in enumerate(self.symbols) if is_separator(symbol) and i != blank_id]
        self._separator = separators[0] if separators else None
        spellings = {} if lexicon is None else self._spellings(lexicon)
        self._words = sorted(spellings)
        self._kenlm = None if lm is None else self._load(lm)
        self._trie = self._build_trie(spellings) if spellings else None

    def __call__(
        self, log_probs: Float[Tensor, "batch frame vocab"], lengths: Int[Tensor, " batch"], **changes: Any
    ) -> list[list[Hypothesis]]:
        """The best answers for each item, best first.

        Args:
            log_probs: logarithms of probabilities.
            lengths: frames of each item.
            changes: fields of `BeamOptions` for this call alone.
        """
        options = replace(self.options, **changes)
        check_scores(log_probs, lengths, len(self.symbols))
        scorer = self._python_scorer(options)
        if scorer is not None:
            return [
                self._decode_in_python(item[:size], scorer, options)
                for item, size in zip(log_probs.detach().float().cpu(), lengths.tolist(), strict=True)
            ]
        scores = log_probs.detach().float().cpu().numpy()
        return [self._decode(item[:size], options) for item, size in zip(scores, lengths.tolist(), strict=True)]

    @property
    def closed(self) -> bool:
        """Whether it answers words of a lexicon only."""
        return self._trie is not None

    # --- construction -----------------------------------------------------------------------------------------------

    def _load(self, lm: str | Path) -> Any:
        if Path(lm).suffix != ".bin" and check_arpa(lm) < 2:
            raise ConfigError(f"{lm} is a unigram model, which KenLM cannot read; train one of order 2 or more")
        if self._words:
            self._lm_words: Sequence[str] = self._words
        else:
            self._lm_words = self.symbols if self.lm_unit == "token" else arpa_words(lm)
        return load_kenlm(lm, self._lm_words)

    def _spellings(self, lexicon: Iterable[str] | Mapping[str, Sequence[Sequence[int]]]) -> dict[str, list[list[int]]]:
        """Word → spellings, each ended by the separator: only that tells a repeated last letter from the next word."""
        if self._separator is None:
            raise ConfigError(
                "a lexicon needs a separator (' ' or '|') among the symbols; leave lexicon out for this vocabulary, a word "
                "model works without"
            )
        if isinstance(lexicon, Mapping):
            given = {word: [list(spelling) for spelling in spellings] for word, spellings in lexicon.items()}
        else:
            known = {symbol: index for index, symbol in enumerate(self.symbols) if index != self.blank_id}
            given = {}
            for word in lexicon:
                foreign = [letter for letter in word if letter not in known]
                if foreign or not word:
                    raise ConfigError(
                        f"the vocabulary cannot spell '{word}' of the lexicon: no symbol '{''.join(foreign)}'"
                    )
                given[word] = [[known[letter] for letter in word]]
        if not given:
            raise ConfigError("the lexicon holds no word")
        return {word: [[*spelling, self._separator] for spelling in spellings] for word, spellings in given.items()}

    def _build_trie(self, spellings: Mapping[str, Sequence[Sequence[int]]]) -> Any:
        trie = self._library.Trie(len(self.symbols), self._separator)
        start = None if self._kenlm is None else self._kenlm.start(False)
        for position, word in enumerate(self._words):
            # The unigram score, spread over the word's letters, is only a look-ahead: it is taken back with the word.
            score = 0.0 if self._kenlm is None else self._kenlm.score(start, position)[1]
            for spelling in spellings[word]:
                trie.insert(list(spelling), position, score)
        trie.smear(self._library.SmearingMode.MAX)
        return trie

    # --- search -----------------------------------------------------------------------------------------------------

    def _decode(self, scores: np.ndarray, options: BeamOptions) -> list[Hypothesis]:
        scores = np.maximum(scores, _NEVER)
        if self._trie is not None:
            # One more frame that can only be the separator ends the last word, and each path in exactly one way.
            closing = np.full((1, scores.shape[1]), _NEVER, dtype=scores.dtype)
            closing[0, self._separator] = 0
            padded = np.concatenate([scores, closing])
        else:
            padded = scores
        padded = np.ascontiguousarray(padded, dtype=np.float32)
        # A model written in Python answers only as long as its Python side lives, so the name is held until the end.
        model, weight = self._model(options)
        decoder = self._searcher(scores, model, weight, options)
        answers = decoder.decode(padded.ctypes.data, *padded.shape) if len(padded) else []
        merged: dict[tuple[int, ...], Hypothesis] = {}
        for answer in answers:
            if answer.score < _NEVER / 10:
                continue
            hypothesis = self._hypothesis(answer, scores, weight, options)
            twin = merged.get(hypothesis.tokens)
            if twin is None:
                merged[hypothesis.tokens] = hypothesis
            else:
                merged[hypothesis.tokens] = replace(twin, score=float(np.logaddexp(twin.score, hypothesis.score)))
        best = sorted(merged.values(), key=lambda hypothesis: hypothesis.score, reverse=True)[: options.num_best]
        return best or [Hypothesis((), (), 0.0 if len(scores) == 0 else -math.inf)]

    def _searcher(self, scores: np.ndarray, model: Any, weight: float, options: BeamOptions) -> Any:
        """flashlight's decoder for one item."""
        library, vocab_size = self._library, len(self.symbols)
        tried = options.tokens_per_frame
        if tried is None:
            likely = np.quantile((scores > -options.token_threshold).sum(axis=1), 0.95) if len(scores) else 1
            tried = max(2, math.ceil(likely))
        common = {
            "beam_size": options.beam_size,
            "beam_size_token": min(tried, vocab_size),
            "beam_threshold": options.beam_threshold,
            "sil_score": 0.0,
            "log_add": True,
            "criterion_type": library.CriterionType.CTC,
        }
        if self._trie is None:
            settings = library.LexiconFreeDecoderOptions(lm_weight=weight, **common)
            # The blank as "silence": the search starts behind it, so that a first separator counts as a token.
            return library.LexiconFreeDecoder(settings, model, self.blank_id, self.blank_id, [])
        settings = library.LexiconDecoderOptions(
            lm_weight=weight, word_score=options.word_bonus, unk_score=-math.inf, **common
        )
        unknown, separator = len(self._words), self._separator
        return library.LexiconDecoder(settings, self._trie, model, separator, self.blank_id, unknown, [], False)

    def _model(self, options: BeamOptions) -> tuple[Any, float]:
        """flashlight's language model for one search, and the weight that it needs there."""
        inner = self._library.ZeroLM() if self._kenlm is None else self._kenlm
        native = 1.0 if self._kenlm is None else options.lm_weight * LN10  # KenLM answers in log10
        if self._trie is not None and options.hot_words:
            self._check_hot_words(options.hot_words)
            return scored_words(inner, self._words, native, options.hot_words), 1.0
        return inner, native

    def _python_scorer(self, options: BeamOptions) -> Scorer | None:
        """What only the search in Python can ask, or None where the one in C++ will do."""
        if self.scorer is not None or self._trie is not None:
            return self.scorer
        if self.lm_unit == "token" and self._kenlm is not None:
            if options.hot_words or options.word_bonus:
                raise ConfigError("hot_words and word_bonus need lm_unit='word', a lexicon, or no language model")
            return None
        if self._kenlm is None and not options.hot_words and options.word_bonus == 0:
            return None
        model = None if self._kenlm is None else KenLmModel(self._kenlm, self._lm_words)
        return WordScorer(self.symbols, model, options.lm_weight, options.word_bonus, options.hot_words)

    def _decode_in_python(self, scores: Tensor, scorer: Scorer, options: BeamOptions) -> list[Hypothesis]:
        answers = ctc_beam_search(
            scores,
            scorer,
            blank_id=self.blank_id,
            beam_size=options.beam_size,
            beam_threshold=options.beam_threshold,
            token_threshold=options.token_threshold if options.tokens_per_frame is None else math.inf,
            tokens_per_frame=options.tokens_per_frame,
            num_best=options.num_best,
            symbols=self.symbols,
        )
        if not len(scores):
            return answers
        # The search sums over alignments; the best one gives each token its frames.
        sizes = torch.tensor([len(answer.tokens) for answer in answers])
        tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(answer.tokens).long() for answer in answers], True)
        copies = scores.expand(len(answers), -1, -1)
        found = ctc_align(copies, torch.full_like(sizes, len(scores)), tokens, sizes, self.blank_id)
        timed = []
        for item, answer in enumerate(answers):
            frames = tuple(found.spans(item))
            confidences = tuple(found.scores[item, : len(answer.tokens)].tolist())
            words = words_of(answer.tokens, frames, self.symbols, confidences)
            timed.append(replace(answer, frames=frames, confidences=confidences, words=words))
        return timed

    def _check_hot_words(self, hot_words: Mapping[str, float]) -> None:
        missing = sorted({word for phrase in hot_words for word in phrase.split()} - set(self._words))
        if missing:
            raise ConfigError(
                f"hot words must be in the lexicon, else they can never be found; missing: {', '.join(missing)}"
            )

    def _hypothesis(self, answer: Any, scores: np.ndarray, weight: float, options: BeamOptions) -> Hypothesis:
        path = np.asarray(answer.tokens[1 : len(scores) + 1])
        changes = np.flatnonzero(np.diff(path)) + 1 if len(path) else np.zeros(0, dtype=int)
        starts, ends = np.concatenate([[0], changes]), np.concatenate([changes, [len(path)]])
        runs = [(int(path[a]), int(a), int(b)) for a, b in zip(starts, ends, strict=True) if b > a]
        runs = [run for run in runs if run[0] != self.blank_id]
        tokens, frames = tuple(run[0] for run in runs), tuple((run[1], run[2]) for run in runs)
        confidences = tuple(float(np.exp(scores[a:b, token]).mean()) for token, a, b in runs)
        words = words_of(tokens, frames, self.symbols, confidences)
        text = spelled_out(tokens, self.symbols)
        gain = weight * answer.lmScore
        if self._trie is not None:
            found = [self._words[position] for position in answer.words if 0 <= position < len(self._words)]
            gain += options.word_bonus * len(found)
            text = " ".join(found)
            # The tokens may be phones: a word's name is the lexicon's.
            words = tuple(replace(word, text=name) for word, name in zip(words, found, strict=True))
        return Hypothesis(tokens, frames, answer.score, confidences, text, words, answer.score - gain, gain)
