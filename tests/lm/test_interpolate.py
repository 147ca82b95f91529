import numpy as np
import pytest
from tests.lm.texts import zipf_lines

from sonorant.core.errors import ConfigError, DataError
from sonorant.lm.interpolate import Mixture, interpolate, mix_weights
from sonorant.lm.ngram import NGram, train_ngram

GENERAL = zipf_lines(200, num_words=60)
SPECIAL = [f"please {line}" for line in zipf_lines(60, num_words=20, seed=4)]
HELD_OUT = [f"please {line}" for line in zipf_lines(40, num_words=20, seed=5)] + zipf_lines(30, 60, 7)


@pytest.fixture(scope="module")
def models() -> list[NGram]:
    return [train_ngram(GENERAL, order=2), train_ngram(SPECIAL, order=3)]


def test_the_mixture_is_the_weighted_sum(models: list[NGram]) -> None:
    mixture = Mixture(models, [0.25, 0.75])
    line = "w1 w2 w0"
    each = [np.exp(model.token_log_probs(line)) for model in models]
    assert np.exp(mixture.token_log_probs(line)) == pytest.approx(0.25 * each[0] + 0.75 * each[1])
    # only the second model knows "please", neither knows "zzz"
    assert mixture.each("please")[0, 0] == 0
    assert (mixture.each("zzz")[:, 0] > 0).all()
    assert mixture.evaluate([*HELD_OUT, "zzz"]).num_unknown == 1


def test_the_merged_model_gives_stored_ngrams_the_mixtures_probability(models: list[NGram]) -> None:
    merged, mixture = interpolate(models, [0.4, 0.6]), Mixture(models, [0.4, 0.6])
    assert merged.order == 3
    assert set(merged.words) == set(models[0].words) | set(models[1].words)
    for line in SPECIAL[:20]:
        assert merged.token_log_probs(line) == pytest.approx(mixture.token_log_probs(line), abs=1e-9)
    for history in ([], ["w1"], ["please", "w0"], ["w3", "w2"], ["zzz"]):
        assert merged.distribution(history).sum() == pytest.approx(1, abs=1e-9)
    assert merged.perplexity(HELD_OUT) == pytest.approx(mixture.perplexity(HELD_OUT), rel=0.05)


def test_mixing_a_model_with_itself_changes_nothing(models: list[NGram]) -> None:
    same = interpolate([models[1], models[1]], [0.3, 0.7])
    assert same.sizes == models[1].sizes
    assert same.perplexity(HELD_OUT) == pytest.approx(models[1].perplexity(HELD_OUT), rel=1e-6)
    alone = interpolate(models, [1.0, 0.0])
    assert alone.score("w1 w2") == pytest.approx(models[0].score("w1 w2"))


def test_fitted_weights_are_the_best_ones(models: list[NGram]) -> None:
    weights = mix_weights(models, HELD_OUT)
    assert weights.sum() == pytest.approx(1)
    best = Mixture(models, weights).perplexity(HELD_OUT)
    assert 0.2 < weights[1] < 0.8
    for share in np.linspace(0.05, 0.95, 19):
        assert best <= Mixture(models, [share, 1 - share]).perplexity(HELD_OUT) * (1 + 1e-5)


def test_refusals(models: list[NGram]) -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        Mixture(models, [0.5, 0.6])
    with pytest.raises(ConfigError, match="at least one"):
        Mixture([])
    with pytest.raises(DataError, match="blank"):
        mix_weights(models, [""])
    with pytest.raises(DataError, match="blank"):
        Mixture(models).perplexity([])
