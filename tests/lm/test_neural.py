import math
from pathlib import Path

import pytest
import torch
from tests.lm.texts import zipf_lines

from sonorant.core.errors import CheckpointError, ConfigError, DataError
from sonorant.core.seed import seed_everything
from sonorant.lm.load import load_lm
from sonorant.lm.neural import NeuralLm, NeuralLmConfig
from sonorant.lm.ngram import train_ngram
from sonorant.lm.text_batches import TextBatches, token_batch
from sonorant.text.alphabet import Alphabet
from sonorant.text.subword import Subword

LINES = zipf_lines(120, num_words=20)
WORDS = Alphabet.build(LINES, "word", unknown="<unk>")
NETWORKS = ["lstm", "transformer"]


def _model(network: str, dropout: float = 0.2) -> NeuralLm:
    seed_everything(1)
    config = NeuralLmConfig(network=network, dim=32, num_layers=2, num_heads=4, ffn_dim=64, dropout=dropout)
    return NeuralLm.build(WORDS, config)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_batch_scores_like_single_sentences(network: str) -> None:
    model = _model(network)
    sequences = [WORDS.encode(line) for line in LINES[:20]] + [[]]
    together = model.score(sequences)
    alone = torch.cat([model.score([sequence]) for sequence in sequences])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.score(sequences, max_tokens=40), together, rtol=1e-5, atol=1e-5)
    assert model.training  # scoring leaves the mode as it was


@pytest.mark.parametrize("network", NETWORKS)
def test_probabilities_of_all_continuations_sum_to_one_and_the_future_is_not_seen(network: str) -> None:
    model = _model(network).eval().requires_grad_(False)
    lengths = torch.tensor([3])
    base = model.token_log_probs(torch.tensor([[2, 5, 3]]), lengths)
    vocab = WORDS.vocab_size
    every = torch.tensor([[2, 5, last] for last in range(1, vocab)])
    last = model.token_log_probs(every, torch.full((vocab - 1,), 3))
    end = model.token_log_probs(torch.tensor([[2, 5]]), torch.tensor([2]))[0, 2]
    assert float(last[:, 2].exp().sum() + end.exp()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(last[:, :2], base[:, :2].expand(vocab - 1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_padding_never_leaks_and_losses_are_sums(network: str) -> None:
    model = _model(network, dropout=0.0)
    batch = token_batch([[2, 3, 4], [5]])
    dirty = batch.labels["tokens"].clone()
    dirty[1, 1:] = 7
    loss = model.losses(batch)["lm"]
    total = loss.total.item()
    other = model.token_log_probs(dirty, batch.labels["tokens_lengths"])
    assert total == pytest.approx(-other.sum().item(), rel=1e-6)
    assert total == pytest.approx(-model.score([[2, 3, 4], [5]]).sum().item(), rel=1e-5)
    assert int(loss.count) == 4 + 2
    loss.mean.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def _train(model: NeuralLm, steps: int, rate: float = 0.01) -> list[float]:
    batches = TextBatches([WORDS.encode(line) for line in LINES], 240, seed=3)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    losses = []
    while len(losses) < steps:
        for batch in batches:
            loss = model.losses(batch)["lm"].mean
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("network", NETWORKS)
def test_training_beats_unigrams_on_unseen_text(network: str) -> None:
    model = _model(network, dropout=0.1)
    held_out = zipf_lines(40, num_words=20, seed=1)
    assert model.perplexity(held_out) > 0.7 * WORDS.vocab_size
    losses = _train(model, 60)
    assert math.isfinite(losses[-1])
    assert model.perplexity(held_out) < train_ngram(LINES, order=1).perplexity(held_out)
    good, bad = model.score_sentences([held_out[0], " ".join(sorted(held_out[0].split()))])
    assert good > bad


@pytest.mark.parametrize("network", NETWORKS)
def test_checkpoints_load_with_no_flags(network: str, tmp_path: Path) -> None:
    model = _model(network)
    model.save(tmp_path / "lm")
    again = load_lm(tmp_path / "lm")
    assert again.score_sentences(LINES[:5]) == pytest.approx(model.score_sentences(LINES[:5]))
    assert again.perplexity(LINES[:5]) == pytest.approx(model.perplexity(LINES[:5]))


def test_load_lm_tells_files_apart(tmp_path: Path) -> None:
    ngram = train_ngram(LINES, 2)
    ngram.save_arpa(tmp_path / "lm.arpa.gz")
    assert load_lm(tmp_path / "lm.arpa.gz").perplexity(LINES) == pytest.approx(ngram.perplexity(LINES), rel=1e-6)
    with pytest.raises(DataError, match="no language model at"):
        load_lm(tmp_path / "absent.arpa")
    (tmp_path / "lm.txt").write_text("")
    with pytest.raises(DataError, match="by its name"):
        load_lm(tmp_path / "lm.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError):
        load_lm(tmp_path / "empty")


def test_subwords_and_words_share_a_scale() -> None:
    subword = Subword.train(LINES, 30)
    model = NeuralLm.build(subword, NeuralLmConfig(dim=16, num_layers=1))
    tokens = sum(len(subword.encode(line)) + 1 for line in LINES)
    words = sum(len(line.split()) + 1 for line in LINES)
    per_word, per_token = model.perplexity(LINES), model.perplexity(LINES, per="token")
    assert math.log(per_word) * words == pytest.approx(math.log(per_token) * tokens)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="num_heads"):
        NeuralLmConfig(network="transformer", dim=30, num_heads=4)
    with pytest.raises(ConfigError, match="at least 2"):
        NeuralLm(NeuralLmConfig(), WORDS) if WORDS.vocab_size == 0 else _build_empty()
    with pytest.raises(ConfigError, match="tokeniser has"):
        NeuralLm(NeuralLmConfig(vocab_size=7), WORDS)
    with pytest.raises(DataError, match="token 0"):
        _model("lstm").losses(token_batch([[1, 0, 2]]))
    with pytest.raises(DataError, match="blank"):
        _model("lstm").perplexity([""])


def _build_empty() -> None:
    from sonorant.lm.neural import build_network

    build_network(NeuralLmConfig())
