"""NeMo's log mel against transformers' extractor for its models."""

import pytest
import torch
from tests.contracts.features import check_batch_equals_single, check_declarations, check_lengths

from sonorant.audio.features.nemo import NemoMel


def test_features_are_theirs() -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("librosa")
    extractor = transformers.ParakeetFeatureExtractor(feature_size=80)
    torch.manual_seed(0)
    lengths = torch.tensor([16000, 12345, 4160])
    items = [0.1 * torch.randn(length) * torch.linspace(0.1, 1, length) for length in lengths.tolist()]
    expected = extractor([item.numpy() for item in items], sampling_rate=16000, return_tensors="pt")
    found = NemoMel()(torch.nn.utils.rnn.pad_sequence(items, batch_first=True), lengths)
    assert found.lengths.tolist() == expected.attention_mask.sum(-1).tolist() == [100, 77, 26]
    size = found.values.shape[1]
    torch.testing.assert_close(found.values, expected.input_features[:, :size], atol=2e-4, rtol=1e-4)


def test_contract() -> None:
    """But for what a normalisation over the item cannot keep: frames of a stretch are not those of the whole."""
    check_declarations(NemoMel(), 4800)
    check_lengths(NemoMel(), 4800)
    check_batch_equals_single(NemoMel(), 4800)


def test_an_item_is_itself_in_any_batch_and_silence_is_finite() -> None:
    torch.manual_seed(0)
    waveform, lengths = torch.randn(2, 8000), torch.tensor([8000, 5000])
    waveform[1, 5000:] = float("nan")
    together = NemoMel(40)(waveform, lengths)
    alone = NemoMel(40)(waveform[1:, :5000], lengths[1:])
    torch.testing.assert_close(together.values[1, :31], alone.values[0], atol=1e-5, rtol=0)
    assert not together.values[1, 31:].any()
    for samples in (0, 100, 160, 400):
        found = NemoMel(40)(torch.zeros(1, samples))
        assert found.values.shape == (1, samples // 160, 40)
        assert found.values.isfinite().all()
