import math
from pathlib import Path

import numpy as np
import pytest
from tests.lm.test_arpa import _kenlm_scores
from tests.lm.texts import zipf_lines

from sonorant.core.errors import ConfigError
from sonorant.lm.ngram import NGram, train_ngram
from sonorant.lm.prune import prune
from sonorant.lm.renormalise import renormalise

LINES = zipf_lines(400, num_words=60)
HELD_OUT = zipf_lines(60, num_words=60, seed=1)


@pytest.fixture(scope="module")
def model() -> NGram:
    return train_ngram(LINES, order=3)


def _histories(model: NGram) -> list[list[str]]:
    found = [[], *([word] for word in model.words[3:20])]
    for node in range(0, len(model.levels[1]), 37):
        first, second = divmod(int(model.levels[1].keys[node]), len(model.words))
        if first > 2 and second > 2:
            found.append([model.words[first], model.words[second]])
    return found


def test_new_weights_are_the_old_ones_where_nothing_was_dropped(model: NGram) -> None:
    for ours, theirs in zip(renormalise(model.words, model.levels), model.levels, strict=True):
        # after </s> and after a history that has seen every word the weight is free
        free = np.abs(ours.backoffs - theirs.backoffs) > 1e-6
        assert free.sum() <= 1
    same = prune(model, 0.0)
    assert same.sizes == model.sizes
    assert same.perplexity(HELD_OUT) == pytest.approx(model.perplexity(HELD_OUT), rel=1e-6)


@pytest.mark.parametrize("threshold", [1e-7, 1e-5, 1e-3])
def test_a_pruned_model_sums_to_one(model: NGram, threshold: float) -> None:
    small = prune(model, threshold)
    for history in _histories(model):
        for begin in (True, False):
            assert small.distribution(history, begin=begin).sum() == pytest.approx(1.0, abs=1e-9)


def test_stronger_pruning_leaves_less_and_costs_more(model: NGram) -> None:
    small = [prune(model, threshold) for threshold in (0.0, 1e-5, 1e-4, 1e-3)]
    sizes = [sum(size.num_ngrams for size in each.sizes) for each in small]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 3
    perplexities = [each.perplexity(LINES) for each in small]
    assert perplexities == sorted(perplexities)
    assert len(prune(model, 10.0).levels[1]) == 0  # all that is left are words


def test_the_loss_is_the_relative_entropy_of_a_bigram_model() -> None:
    bigram = train_ngram(zipf_lines(60, num_words=8), order=2)
    words = bigram.words
    threshold = 2e-3
    small = prune(bigram, threshold)
    kept = {int(key) for key in small.levels[1].keys}
    unigram = np.exp(bigram.levels[0].log_probs)
    unigram[1] = unigram[2]
    for key in bigram.levels[1].keys:
        history = int(key) // len(words)
        begin = history == 1
        before = bigram.distribution([] if begin else [words[history]], begin=begin)
        # the same history without this one n-gram, by the definition of a back-off model
        seen = [int(k) % len(words) for k in bigram.levels[1].keys if int(k) // len(words) == history and k != key]
        lower = np.exp(bigram.levels[0].log_probs)
        lower[1] = 0
        alpha = (1 - before[seen].sum()) / (1 - lower[seen].sum())
        after = alpha * lower
        after[seen] = before[seen]
        present = before > 0
        entropy = (before[present] * np.log(before[present] / after[present])).sum()
        loss = math.expm1(unigram[history] * entropy)
        if abs(loss - threshold) > 1e-9:
            assert (int(key) in kept) == (loss > threshold)


def test_kenlm_scores_a_pruned_model_the_same(model: NGram, tmp_path: Path) -> None:
    small = prune(model, 3e-5)
    small.save_arpa(tmp_path / "small.arpa")
    sentences = [line.split() for line in HELD_OUT]
    vocabulary = sorted({word for sentence in sentences for word in sentence})
    theirs = _kenlm_scores(tmp_path / "small.arpa", vocabulary, sentences)
    assert small.score_sentences(sentences) / math.log(10) == pytest.approx(theirs, rel=2e-6, abs=1e-4)


def test_refusals(model: NGram) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        prune(model, -1.0)
