import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lm.reference import Reference, discounts_by_formula
from tests.lm.texts import zipf_lines

from sonorant.core.errors import ConfigError, DataError
from sonorant.lm.kneser_ney import FALLBACK, modified_discounts
from sonorant.lm.ngram import NGram, train_ngram

LINES = zipf_lines(250)
HELD_OUT = zipf_lines(40, seed=1)


@pytest.fixture(scope="module")
def trigram() -> NGram:
    return train_ngram(LINES, order=3)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_and_perplexity_equal_the_formula(order: int) -> None:
    lines = LINES[:80]
    model = train_ngram(lines, order=order)
    assert model.discounts is not None
    reference = Reference(lines, order, model.discounts)
    total, tokens = 0.0, 0
    for line in HELD_OUT[:12]:
        history: tuple[str, ...] = ("<s>",)
        expected = []
        for word in [*line.split(), "</s>"]:
            known = word if word in reference.vocabulary else "<unk>"
            expected.append(math.log(reference.prob(known, history)))
            history = (*history, known)
        assert model.token_log_probs(line) == pytest.approx(expected, rel=1e-9)
        total, tokens = total + sum(expected), tokens + len(expected)
    assert model.perplexity(HELD_OUT[:12]) == pytest.approx(math.exp(-total / tokens), rel=1e-9)


def test_discounts_equal_the_formula(trigram: NGram) -> None:
    assert trigram.discounts is not None
    reference = Reference(LINES, 3, trigram.discounts)
    for found, counts in zip(trigram.discounts, reference.counts, strict=True):
        assert found == pytest.approx(discounts_by_formula(list(counts.values())))


@pytest.mark.parametrize("cutoffs", [(), (0, 1), (1, 2)])
def test_probabilities_sum_to_one_after_every_history(cutoffs: tuple[int, ...]) -> None:
    model = train_ngram(LINES, order=3, cutoffs=cutoffs, max_words=120)
    generator = random.Random(0)
    words = [*model.words[3:], "<unk>", "never-seen"]
    seen = [line.split() for line in LINES]
    histories = [[], *[generator.choices(words, k=2) for _ in range(30)], *[s[:2] for s in seen[:40]]]
    for history in histories:
        for begin in (True, False):
            probs = model.distribution(history, begin=begin)
            assert probs.sum() == pytest.approx(1.0, abs=1e-12)
            assert (np.delete(probs, 1) > 0).all()
            assert probs[1] == 0


def test_every_stored_history_sums_to_one(trigram: NGram) -> None:
    for order in (1, 2):
        for node in range(len(trigram.levels[order - 1])):
            level = trigram.levels[order - 1]
            words = [node]
            if order == 2:
                words = list(divmod(int(level.keys[node]), len(trigram.words)))
            if 2 in words or words[-1] == 1:  # nothing follows </s>
                continue
            history = [trigram.words[word] for word in words]
            begin = history[0] == "<s>"
            probs = trigram.distribution(history[1:] if begin else history, begin=begin)
            assert probs.sum() == pytest.approx(1.0, abs=1e-12)


def test_batches_steps_and_single_sentences_agree(trigram: NGram) -> None:
    lines = [*HELD_OUT, "unheard-of words here", "w0"]
    batched = trigram.score_sentences(lines)
    for line, score in zip(lines, batched, strict=True):
        assert trigram.score(line) == pytest.approx(score, rel=1e-12)
        assert trigram.score(line.split(), eos=False) == pytest.approx(trigram.token_log_probs(line)[:-1].sum())
        state, total = trigram.start(), 0.0
        for word in [*line.split(), "</s>"]:
            probs = trigram.distribution([], begin=False) if not state else None
            assert probs is None
            state, log_prob = trigram.step(state, word)
            total += log_prob
        assert total == pytest.approx(score, rel=1e-12)


def test_longer_contexts_and_more_text_help() -> None:
    perplexities = [train_ngram(LINES, order=order).perplexity(HELD_OUT) for order in (1, 2)]
    assert perplexities[1] < perplexities[0]
    assert train_ngram(zipf_lines(2_000), order=2).perplexity(HELD_OUT) < perplexities[1]


@pytest.mark.parametrize("block", [50, 997])
def test_counting_in_blocks_changes_nothing(trigram: NGram, block: int) -> None:
    small = train_ngram(iter(LINES), order=3, block=block)
    for ours, theirs in zip(small.levels, trigram.levels, strict=True):
        assert np.array_equal(ours.keys, theirs.keys)
        assert np.array_equal(ours.log_probs, theirs.log_probs)
        assert np.array_equal(ours.backoffs, theirs.backoffs)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=8),
    st.integers(1, 4),
)
def test_tiny_texts_fall_back_and_still_sum_to_one(lines: list[str], order: int) -> None:
    model = train_ngram(lines, order=order)
    assert model.discounts is not None
    reference = Reference(lines, order, model.discounts)
    for history in ((), ("a",), ("b", "a"), ("c", "d", "a")):
        probs = model.distribution(history)
        assert probs.sum() == pytest.approx(1.0, abs=1e-9)
        for word in ("a", "</s>", "<unk>"):
            if word in reference.vocabulary:
                assert probs[model.ids[word]] == pytest.approx(reference.prob(word, ("<s>", *history)))


def test_the_fallback_is_as_documented() -> None:
    assert modified_discounts(np.array([1, 1, 1])) == FALLBACK
    assert modified_discounts(np.array([2, 2])) == FALLBACK
    assert modified_discounts(np.array([1, 1, 2])) == (0.5, 0.5, 0.5)
    # n2 so small that D1 would be fine and D2 negative
    assert modified_discounts(np.repeat([1, 2, 3, 4], [90, 1, 50, 1])) == (90 / 92,) * 3
    given_ = train_ngram(LINES[:20], order=2, discounts=[None, (0.1, 0.2, 0.3)])
    assert given_.discounts is not None
    assert given_.discounts[1] == (0.1, 0.2, 0.3)


def test_vocabulary_limits() -> None:
    lines = ["a a a b b c", "a b d"]
    assert train_ngram(lines, 2, max_words=2).words == ("<unk>", "<s>", "</s>", "a", "b")
    assert train_ngram(lines, 2, min_count=2).words[3:] == ("a", "b")
    given_ = train_ngram(lines, 2, vocabulary=["b", "never", "a"])
    assert given_.words[3:] == ("a", "b", "never")
    assert given_.evaluate(["a d z", ""]).num_unknown == 2
    probs = given_.distribution([])
    assert probs.sum() == pytest.approx(1)
    assert 0 < probs[given_.ids["never"]] < probs[given_.ids["<unk>"]]


def test_cutoffs_drop_what_is_rare(trigram: NGram) -> None:
    cut = train_ngram(LINES, order=3, cutoffs=(0, 1))
    assert [size.num_ngrams for size in cut.sizes[:2]] == [size.num_ngrams for size in trigram.sizes[:2]]
    assert cut.sizes[2].num_ngrams < trigram.sizes[2].num_ngrams
    with pytest.raises(ConfigError, match="fall"):
        train_ngram(LINES, order=3, cutoffs=(2, 1))


@pytest.mark.parametrize("lines, match", [([], "blank"), (["", "  "], "blank"), (["a <s> b"], "<s>")])
def test_refusals(lines: list[str], match: str) -> None:
    with pytest.raises(DataError, match=match):
        train_ngram(lines, 2)


def test_sentence_marks_inside_a_text_are_unknown_words(trigram: NGram) -> None:
    assert trigram.score("w0 <s> w1 </s> w2") == trigram.score("w0 zzz w1 zzz w2")
    assert len(trigram.score_sentences(["w0 <s> w1", "w2"])) == 2


def test_evaluating_nothing_is_refused(trigram: NGram) -> None:
    with pytest.raises(DataError, match="blank"):
        trigram.perplexity([" "])
    assert len(trigram.score_sentences([])) == 0
