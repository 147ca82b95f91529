"""Beam search: the reference against brute force, the C++ search against the reference, hot words, options, refusals."""

import itertools
import math
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sonorant.core.errors import ConfigError, DataError
from sonorant.decoding.arpa import ArpaModel
from sonorant.decoding.ctc_beam import CtcBeam
from sonorant.decoding.ctc_beam_reference import ctc_beam_search
from sonorant.decoding.hypothesis import Hypothesis, spelled_out
from sonorant.decoding.scorers import HotWords, NoScorer, Scorer, TokenScorer, WordScorer

CHARS = ("", "|", "a", "b")
PIECES = ("", "▁a", "b", "▁")
EVERYTHING = {"beam_size": 200_000, "tokens_per_frame": 4, "beam_threshold": 1e9, "num_best": 6}
HOT = {"ab": 1.7, "a b": 0.9, "b": -0.4}

ARPA = """
\\data\\
ngram 1=7
ngram 2=6
ngram 3=2

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.3
-1.2\t</s>
-0.7\tab\t-0.2
-0.9\ta\t-0.1
-1.1\tb\t-0.25
-1.3\t|\t-0.15

\\2-grams:
-0.3\t<s> ab\t-0.11
-0.4\tab a\t-0.05
-0.5\ta </s>
-0.6\tb a
-0.8\ta |
-0.45\t| b

\\3-grams:
-0.2\t<s> ab a
-0.15\tab a </s>

\\end\\
"""


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "toy.arpa"
    path.write_text(ARPA)
    return path


def frames(num_frames: int = 5, batch: int = 1, seed: int = 0) -> Tensor:
    return (2 * torch.randn(batch, num_frames, 4, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)


def added(scorer: Scorer, tokens: tuple[int, ...]) -> float:
    state, total = scorer.start(), 0.0
    for token in tokens:
        state, gain = scorer.extend(state, token)
        total += gain
    return total + scorer.finish(state)


def brute_force(log_probs: Tensor, scorer: Scorer) -> list[tuple[tuple[int, ...], float]]:
    sums: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        tokens = tuple(label for label, _ in itertools.groupby(path) if label)
        sums[tokens] = sums.get(tokens, 0.0) + math.exp(sum(float(log_probs[t, v]) for t, v in enumerate(path)))
    scored = [(tokens, math.log(total) + added(scorer, tokens)) for tokens, total in sums.items()]
    return sorted(scored, key=lambda entry: entry[1], reverse=True)


def same(answers: list[Hypothesis], expected: list[tuple[tuple[int, ...], float]]) -> None:
    assert [answer.tokens for answer in answers] == [tokens for tokens, _ in expected[: len(answers)]]
    assert [answer.score for answer in answers] == pytest.approx(
        [score for _, score in expected[: len(answers)]], abs=1e-4
    )


def scorers(arpa: Path, symbols: tuple[str, ...]) -> dict[str, Scorer]:
    model = ArpaModel.load(arpa)
    return {
        "nothing": NoScorer(),
        "tokens": TokenScorer(symbols, model, 0.7),
        "words": WordScorer(symbols, model, 0.6, 0.2),
        "words and hot words": WordScorer(symbols, model, 0.6, 0.2, HOT),
        "hot words": WordScorer(symbols, None, hot_words=HOT),
    }


@pytest.mark.parametrize("symbols", [CHARS, PIECES])
@pytest.mark.parametrize("name", ["nothing", "tokens", "words", "words and hot words", "hot words"])
def test_reference_without_pruning_is_brute_force(name: str, symbols: tuple[str, ...], arpa: Path) -> None:
    scorer = scorers(arpa, symbols)[name]
    log_probs = frames(seed=len(name))
    expected = brute_force(log_probs[0].double(), scorer)
    same(ctc_beam_search(log_probs[0], scorer, beam_size=None, num_best=10_000), expected)


@pytest.mark.parametrize("symbols", [CHARS, PIECES])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_search_without_pruning_is_the_reference(symbols: tuple[str, ...], seed: int, arpa: Path) -> None:
    known = scorers(arpa, symbols)
    ways = {
        "nothing": CtcBeam(symbols),
        "tokens": CtcBeam(symbols, lm=arpa, lm_unit="token", lm_weight=0.7),
        "words": CtcBeam(symbols, lm=arpa, lm_weight=0.6, word_bonus=0.2),
        "words and hot words": CtcBeam(symbols, lm=arpa, lm_weight=0.6, word_bonus=0.2, hot_words=HOT),
        "hot words": CtcBeam(symbols, hot_words=HOT),
    }
    log_probs, lengths = frames(6, batch=3, seed=seed), torch.tensor([6, 4, 0])
    for name, beam in ways.items():
        for item, answers in enumerate(beam(log_probs, lengths, **EVERYTHING)):
            expected = ctc_beam_search(
                log_probs[item, : int(lengths[item])], known[name], beam_size=None, num_best=6, symbols=symbols
            )
            if int(lengths[item]) == 0:
                assert answers[0].tokens == ()
                continue
            same(answers, [(answer.tokens, answer.score) for answer in expected])
            assert [answer.text for answer in answers] == [answer.text for answer in expected]


@pytest.mark.parametrize("hot_words", [{}, HOT])
@pytest.mark.parametrize("with_lm", [False, True])
def test_lexicon_search_is_brute_force_over_its_words(with_lm: bool, hot_words: dict[str, float], arpa: Path) -> None:
    log_probs = frames(6, seed=4)
    model = ArpaModel.load(arpa) if with_lm else None
    scorer = WordScorer(CHARS, model, 0.6, 0.2, hot_words)
    words = {"a", "b", "ab"}
    sums: dict[str, float] = {}
    for tokens, score in brute_force(log_probs[0].double(), NoScorer()):
        text = spelled_out(tokens, CHARS)
        if set(text.split()) <= words:
            sums[text] = sums.get(text, 0.0) + math.exp(score)
    spelled = {text: tuple(CHARS.index("|" if letter == " " else letter) for letter in text) for text in sums}
    expected = sorted(
        ((math.log(total) + added(scorer, spelled[text]), text) for text, total in sums.items()), reverse=True
    )
    beam = CtcBeam(CHARS, lm=arpa if with_lm else None, lexicon=words, lm_weight=0.6, word_bonus=0.2)
    (answers,) = beam(log_probs, torch.tensor([6]), hot_words=hot_words, **EVERYTHING)
    assert [answer.text for answer in answers] == [text for _, text in expected[:6]]
    assert [answer.score for answer in answers] == pytest.approx([score for score, _ in expected[:6]], abs=1e-4)
    for answer in answers:
        assert answer.acoustic_score + answer.lm_score == pytest.approx(answer.score, abs=1e-5)


def test_hot_words_pay_exactly_once_for_each_occurrence() -> None:
    hot = HotWords({"new york": 3.0, "york": 1.0, "new": -0.5, "yo": 9.0})
    for text, expected in [
        ("new york", 3.0 + 1.0 - 0.5),
        ("york york", 2.0),
        ("newyork", 0.0),
        ("new yorks", -0.5),
        ("", 0.0),
        ("yo", 9.0),
        ("yoyo a yo", 9.0),
        ("new new york", 3.0 + 1.0 - 1.0),
    ]:
        state, total = hot.start(), 0.0
        for letter in text:
            state, gain = hot.advance(state, letter)
            total += gain
        assert total + hot.finish(state) == pytest.approx(expected), text


def test_hot_words_turn_a_close_call(arpa: Path) -> None:
    """One word a little likelier than another; the bonus turns it, in every kind of search, for that call alone."""
    spoken = torch.tensor([[0.02, 0.02, 0.94, 0.02], [0.3, 0.05, 0.05, 0.6], [0.94, 0.02, 0.02, 0.02]]).log()[None]
    lengths = torch.tensor([3])
    for beam in (CtcBeam(CHARS), CtcBeam(CHARS, lexicon=["a", "ab"]), CtcBeam(CHARS, lm=arpa, lm_weight=0.0)):
        assert beam(spoken, lengths)[0][0].text == "ab"
        assert beam(spoken, lengths, hot_words={"a": 2.0})[0][0].text == "a"
        assert beam(spoken, lengths)[0][0].text == "ab"


def test_times_and_confidences() -> None:
    labels = [0, 2, 2, 0, 3, 1, 0, 2, 0]
    log_probs = torch.nn.functional.one_hot(torch.tensor([labels]), 4).float().mul(9).log_softmax(-1)
    for beam in (CtcBeam(CHARS), CtcBeam(CHARS, lexicon=["ab", "a"])):
        (best,) = beam(log_probs, torch.tensor([9]))[0]
        assert best.text == "ab a"
        assert [(word.text, word.start, word.end) for word in best.words] == [("ab", 1, 5), ("a", 7, 8)]
        assert min(best.confidences) > 0.99


def test_one_beam_serves_many_threads_with_their_own_options(arpa: Path) -> None:
    beam = CtcBeam(CHARS, lm=arpa, lexicon=["a", "b", "ab"])
    log_probs, lengths = frames(40, batch=4), torch.tensor([40, 33, 21, 40])
    options = [{"lm_weight": weight, "hot_words": {"ab": bonus}} for weight in (0.0, 0.5) for bonus in (0.0, 2.0)]
    alone = [beam(log_probs, lengths, **option) for option in options]
    results: dict[int, object] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.__setitem__(i, beam(log_probs, lengths, **options[i])))
        for i in range(len(options))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[i] for i in range(len(options))] == alone


def test_pruning_changes_little() -> None:
    log_probs = (3 * torch.randn(1, 60, 4, generator=torch.Generator().manual_seed(3))).log_softmax(-1)
    wide = CtcBeam(CHARS, beam_size=500, beam_threshold=1e9)(log_probs, torch.tensor([60]))[0][0]
    narrow = CtcBeam(CHARS, beam_size=20)(log_probs, torch.tensor([60]))[0][0]
    assert narrow.score <= wide.score + 1e-6
    assert narrow.score >= wide.score - 3


def test_a_scorer_of_the_callers_own() -> None:
    class NoB(NoScorer):
        def extend(self, state: None, token: int) -> tuple[None, float]:
            return None, -50.0 if CHARS[token] == "b" else 0.0

    (answers,) = CtcBeam(CHARS, scorer=NoB())(frames(9), torch.tensor([9]))
    assert "b" not in answers[0].text


def test_refusals(arpa: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a separator"):
        CtcBeam(("", "a", "b"), lexicon=["a"])
    with pytest.raises(ConfigError, match="cannot spell 'ac'"):
        CtcBeam(CHARS, lexicon=["ac"])
    with pytest.raises(ConfigError, match="missing: bb"):
        CtcBeam(CHARS, lexicon=["a"])(frames(), torch.tensor([5]), hot_words={"bb": 1.0})
    with pytest.raises(ConfigError, match="lm_unit"):
        CtcBeam(CHARS, lm=arpa, lm_unit="phone")
    with pytest.raises(DataError, match="no language model at"):
        CtcBeam(CHARS, lm=tmp_path / "none.arpa")
    with pytest.raises(DataError, match="vocabulary 4"):
        CtcBeam(CHARS)(torch.zeros(1, 2, 3), torch.tensor([2]))
    unigram = tmp_path / "one.arpa"
    unigram.write_text("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\ta\n\n\\end\\\n")
    with pytest.raises(ConfigError, match="unigram"):
        CtcBeam(CHARS, lm=unigram)
    broken = tmp_path / "broken.arpa"
    broken.write_text("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\ta b c d\n\n\\end\\\n")
    with pytest.raises(DataError, match="line 5"):
        ArpaModel.load(broken)
    broken.write_text(arpa.read_text()[:-40])
    with pytest.raises(DataError, match=r"broken.arpa cannot be read"):
        CtcBeam(CHARS, lm=broken, lm_unit="token")
