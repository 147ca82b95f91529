from pathlib import Path

import pytest
import torch
from tests.lm.texts import zipf_lines

from sonorant.core.errors import ConfigError, DataError
from sonorant.lm.neural import NeuralLm, NeuralLmConfig
from sonorant.lm.text_batches import TextBatches
from sonorant.text.alphabet import Alphabet

SEQUENCES = [[1 + (item + step) % 9 for step in range(1 + item % 17)] for item in range(300)]


def _ids(batches: TextBatches) -> list[tuple[str, ...]]:
    return [batch.ids for batch in batches]


def test_a_pass_takes_everything_once_within_the_budget() -> None:
    batches = list(TextBatches(SEQUENCES, 120, seed=1))
    assert sorted(int(name) for batch in batches for name in batch.ids) == list(range(300))
    for batch in batches:
        assert batch.labels["tokens"].shape[0] * (batch.labels["tokens"].shape[1] + 1) <= 120
        for row, length, name in zip(batch.labels["tokens"], batch.labels["tokens_lengths"], batch.ids, strict=True):
            assert row[:length].tolist() == SEQUENCES[int(name)]
            assert not row[length:].any()
    padded = sum(batch.labels["tokens"].numel() for batch in batches)
    assert padded < 1.15 * sum(map(len, SEQUENCES))


def test_passes_differ_and_repeat_with_their_seed() -> None:
    one, other = TextBatches(SEQUENCES, 120, seed=1), TextBatches(SEQUENCES, 120, seed=1)
    first, second = _ids(one), _ids(one)
    assert first != second
    assert [_ids(other), _ids(other)] == [first, second]
    assert _ids(TextBatches(SEQUENCES, 120, seed=2)) != first
    assert [name for ids in _ids(TextBatches(SEQUENCES, 120, shuffle=False)) for name in ids] == [
        str(index) for index in range(300)
    ]


@pytest.mark.parametrize("taken", [0, 1, 7, 10_000])
def test_it_goes_on_where_it_was(taken: int) -> None:
    whole = TextBatches(SEQUENCES, 120, seed=1)
    every = _ids(whole) + _ids(whole)
    source = TextBatches(SEQUENCES, 120, seed=1)
    before = [batch.ids for _, batch in zip(range(taken), source, strict=False)]
    resumed = TextBatches(SEQUENCES, 120, seed=1)
    resumed.load_state_dict(source.state_dict())
    after = _ids(resumed)
    assert (before + after)[: len(every)] == every[: len(before + after)]


def test_refusals() -> None:
    with pytest.raises(DataError, match="no text"):
        TextBatches([])
    with pytest.raises(ConfigError, match="300 sequences"):
        TextBatches(SEQUENCES[:10]).load_state_dict(TextBatches(SEQUENCES).state_dict())


def test_the_loop_trains_a_language_model(tmp_path: Path) -> None:
    loop = pytest.importorskip("sonorant.train.loop")
    lines = zipf_lines(60, num_words=10)
    words = Alphabet.build(lines, "word")
    model = NeuralLm.build(words, NeuralLmConfig(dim=16, num_layers=1, dropout=0.0))
    before = model.perplexity(lines)
    batches = TextBatches([words.encode(line) for line in lines], 200)
    optimizers = {"lm": torch.optim.Adam(model.parameters(), 0.02)}
    loop.fit(model, batches, optimizers, steps=30, folder=tmp_path / "run")
    assert model.perplexity(lines) < 0.8 * before
