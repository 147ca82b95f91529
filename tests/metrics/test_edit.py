import math
import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contracts.metrics import check_metric

from sonorant.core.errors import DataError
from sonorant.metrics import edit
from sonorant.metrics.edit import (
    EditCounts,
    ErrorRate,
    align,
    confusions,
    edit_counts,
    error_rate,
    format_alignment,
)

SYMBOLS = st.lists(st.sampled_from("abc"), max_size=12)
PAIRS = [("a b c", "a x c"), ("d e", "d e"), ("f", "f g"), ("h i j k", "h j k"), ("", "noise"), ("l m", "")]


@pytest.mark.parametrize("unit", ["word", "char"])
def test_contract(unit: str) -> None:
    check_metric(lambda: ErrorRate(unit), PAIRS, perfect=[("a b", "a b"), ("", "")], best=0.0)


def test_contract_on_tokens() -> None:
    tokens = [([1, 2, 3], [1, 3]), (np.array([4]), np.array([4])), ((5, 6), (6, 5))]
    check_metric(lambda: ErrorRate("token", "per"), tokens, perfect=[([1, 2], [1, 2])], best=0.0)


def _distance(reference: list, hypothesis: list) -> int:
    """Levenshtein distance straight from its recursion."""
    table = np.zeros((len(reference) + 1, len(hypothesis) + 1), dtype=int)
    table[:, 0], table[0] = range(len(reference) + 1), range(len(hypothesis) + 1)
    for i, left in enumerate(reference, 1):
        for j, right in enumerate(hypothesis, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (left != right))
    return int(table[-1, -1])


@settings(max_examples=300, deadline=None)
@given(SYMBOLS, SYMBOLS)
def test_an_alignment_is_shortest_complete_and_agrees_with_the_counts(reference: list, hypothesis: list) -> None:
    pairs = align(reference, hypothesis)
    assert [pair.reference for pair in pairs if pair.reference is not None] == list(range(len(reference)))
    assert [pair.hypothesis for pair in pairs if pair.hypothesis is not None] == list(range(len(hypothesis)))
    for left, right, kind in pairs:
        assert (left is None) == (kind == "insertion")
        assert (right is None) == (kind == "deletion")
        if left is not None and right is not None:
            assert (reference[left] == hypothesis[right]) == (kind == "hit")
    kinds = [pair.kind for pair in pairs]
    counts = EditCounts(*(kinds.count(kind) for kind in ("hit", "substitution", "deletion", "insertion")))
    assert counts == edit_counts(reference, hypothesis)
    assert counts.edits == _distance(reference, hypothesis)


@settings(max_examples=200, deadline=None)
@given(SYMBOLS, SYMBOLS)
def test_turning_the_pair_round_keeps_the_edits(reference: list, hypothesis: list) -> None:
    assert edit_counts(reference, hypothesis).edits == edit_counts(hypothesis, reference).edits
    assert edit_counts(reference, reference).edits == 0


def _noisy(generator: random.Random, words: list[str], vocabulary: list[str]) -> list[str]:
    result = []
    for word in words:
        draw = generator.random()
        result += [] if draw < 0.1 else [word] if draw < 0.7 else [generator.choice(vocabulary)] * (1 + (draw > 0.9))
    return result


def _random_pairs(count: int, seed: int) -> tuple[list[str], list[str]]:
    generator = random.Random(seed)
    vocabulary = ["été", "the", "a", "cat", "sat", "日本", "on", "mat", "hat", "it's"]
    references = [generator.choices(vocabulary, k=generator.randint(1, 40)) for _ in range(count)]
    hypotheses = [_noisy(generator, reference, vocabulary) for reference in references]
    return [" ".join(words) for words in references], [" ".join(words) for words in hypotheses]


def test_counts_equal_jiwers() -> None:
    jiwer = pytest.importorskip("jiwer")
    references, hypotheses = _random_pairs(400, seed=1)
    for unit, process in (("word", jiwer.process_words), ("char", jiwer.process_characters)):
        metric = ErrorRate(unit)
        for reference, hypothesis in zip(references, hypotheses, strict=True):
            metric.update(reference, hypothesis)
            theirs = process(reference, hypothesis)
            ours = metric.counts[-1]
            assert ours == (theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions)
        theirs = process(references, hypotheses)
        assert metric.total == (theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions)
        assert metric.score().value == pytest.approx(theirs.wer if unit == "word" else theirs.cer, rel=1e-12)


def test_alignments_equal_jiwers() -> None:
    jiwer = pytest.importorskip("jiwer")
    references, hypotheses = _random_pairs(200, seed=2)
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        kinds = []
        for chunk in jiwer.process_words(reference, hypothesis).alignments[0]:
            length = max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            name = {"equal": "hit", "substitute": "substitution", "delete": "deletion", "insert": "insertion"}
            kinds += [name[chunk.type]] * length
        assert [pair.kind for pair in align(reference.split(), hypothesis.split())] == kinds


def test_very_long_pairs_take_the_other_road_with_the_same_length(monkeypatch: pytest.MonkeyPatch) -> None:
    references, hypotheses = _random_pairs(30, seed=3)
    ours = [align(a.split(), b.split()) for a, b in zip(references, hypotheses, strict=True)]
    monkeypatch.setattr(edit, "_LARGEST_TABLE", 0)
    assert [align(a.split(), b.split()) for a, b in zip(references, hypotheses, strict=True)] == ours


def test_the_rate_is_of_totals_never_the_mean_of_utterances() -> None:
    references, hypotheses = ["a b c d e f g h i", "j"], ["a b c d e f g h i", "k"]
    assert error_rate(references, hypotheses) == pytest.approx(0.1)
    metric = ErrorRate()
    metric.update_many(references, hypotheses)
    assert metric.score().value == pytest.approx(0.1)
    with pytest.raises(ValueError, match="shorter"):
        metric.update_many(["a"], [])


def test_empty_references() -> None:
    metric = ErrorRate()
    metric.update("", "")
    assert metric.score().value == 0
    metric.update("", "two words")
    assert metric.score().value == math.inf
    metric.update("a b c d", "a b c d")
    assert metric.total == EditCounts(4, 0, 0, 2)
    assert metric.score().value == 0.5


def test_speakers_are_resampled_as_a_whole() -> None:
    generator = np.random.default_rng(0)
    alone, together = ErrorRate(), ErrorRate()
    for speaker in range(12):
        hard = generator.random() < 0.5
        for _ in range(20):
            hypothesis = "x x x d" if hard else "a b c d"
            alone.update("a b c d", hypothesis)
            together.update("a b c d", hypothesis, group=f"speaker {speaker}")
    one, other = alone.score(), together.score()
    assert one.value == other.value
    # all the variance lies between speakers, so the interval widens by about √20
    assert other.high - other.low > 3 * (one.high - one.low)


def test_merging_units_that_differ_is_refused() -> None:
    with pytest.raises(ValueError, match="word and char"):
        ErrorRate("word").merge(ErrorRate("char"))
    with pytest.raises(TypeError, match="unit 'word'"):
        ErrorRate("token").update("a b", "a b")
    with pytest.raises(DataError, match="empty"):
        ErrorRate().score()


def _width(line: str) -> int:
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line
    )


def test_the_print_out_stays_in_columns() -> None:
    reference = "日本 語 e\u0301te\u0301 word"
    text = format_alignment(reference.split(), ["日", "語", "été", "extra", "word"])
    rows = text.split("\n")
    assert [row[:5] for row in rows] == ["REF: ", "HYP: ", "OPS: "]
    at_word = [_width(row[: row.index("word")]) for row in rows[:2]]
    assert at_word[0] == at_word[1]
    assert rows[2].split() == ["OPS:", "S", "I", "S"]  # decomposed and composed é differ: normalise before scoring


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab日", min_size=1, max_size=4), max_size=20), st.lists(st.sampled_from("ab"), max_size=20))
def test_the_print_out_wraps(reference: list[str], hypothesis: list[str]) -> None:
    text = format_alignment(reference, hypothesis, width=24)
    assert all(_width(line) <= 24 for line in text.split("\n"))
    words = [word for line in text.split("\n") if line.startswith("REF:") for word in line[5:].split()]
    assert [word for word in words if not set(word) <= {"*"}] == reference


def test_confusions() -> None:
    counts = confusions([(["a", "b"], ["a", "c"]), (["d"], ["d", "d"]), (["b"], ["c"]), (["e"], [])])
    assert counts == {("b", "c"): 2, ("", "d"): 1, ("e", ""): 1}
    assert sum(counts.values()) == 4


def test_one_speaker_alone_still_leaves_an_interval() -> None:
    metric = ErrorRate()
    for index in range(40):
        metric.update("one two three", "one two three" if index % 3 else "one too", group="her")
    score = metric.score()
    assert score.low is not None
    assert score.high is not None
    assert score.low < score.value < score.high
