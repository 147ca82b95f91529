"""The encoder of thinned-out attention keeps the contract; its attention is the masked whole one at less cost."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contracts.encoders import check_encoder

from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import build_encoder, encoder_preset
from sonorant.encoders.sparseformer import Sparseformer
from sonorant.nn.cost import measure_cost
from sonorant.nn.masking import attention_mask
from sonorant.nn.sparse_attention import SparseAttention, sparse_window

SMALL = {"dim": 24, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, "dropout": 0.1, "input_dim": 40}
CASES = {
    "sparseformer_tiny": {**SMALL, "num_layers": 1, "window": 3, "stride": 5},  # one: its export is slow
    "sparseformer_deep": {**SMALL, "window": 4, "stride": 4, "subsampling": "conv1d", "factor": 4},
    "sparseformer_wide": {**SMALL, "window": 100, "stride": 7, "layer_drop": 0.1},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=40, export=name == "sparseformer_tiny")


@settings(max_examples=40, deadline=None)
@given(num_frames=st.integers(1, 40), window=st.integers(1, 12), stride=st.integers(1, 15), padding=st.integers(0, 7))
def test_equals_the_masked_whole(num_frames: int, window: int, stride: int, padding: int) -> None:
    torch.manual_seed(num_frames)
    attention = SparseAttention(16, 2, window, stride)
    values = torch.randn(2, num_frames + padding, 16)
    mask = attention_mask(torch.tensor([num_frames, max(1, num_frames // 2)]), num_frames + padding)
    weights = attention.weights(values, mask)
    value = attention.query_key_value(values)[..., 32:].unflatten(-1, (2, 8)).transpose(1, 2)
    expected = attention.output((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(values, mask), expected, atol=1e-5, rtol=1e-4)
    seen = sparse_window(num_frames + padding, window, stride) & mask
    assert torch.equal((weights > 0).any(1, keepdim=True), seen)


def test_two_layers_reach_everywhere_and_one_does_not() -> None:
    torch.manual_seed(0)
    values, lengths = torch.randn(1, 120, 40), torch.tensor([120])

    def moved(num_layers: int) -> torch.Tensor:
        options = {**SMALL, "num_layers": num_layers, "window": 3, "stride": 10}
        encoder = build_encoder("sparseformer_tiny", **options).eval()
        changed = values.clone()
        changed[:, 110:112] += 1  # frame 55: no global one
        with torch.no_grad():
            return (encoder(values, lengths).values - encoder(changed, lengths).values).abs().amax(-1)[0]

    one, two = moved(1), moved(2)
    assert not one[:52].any()
    assert not one[59:].any()
    assert bool((one[52:59] > 0).all())
    options = {**SMALL, "num_layers": 2, "window": 5, "stride": 10}
    encoder = build_encoder("sparseformer_tiny", **options).eval()
    changed = values.clone()
    changed[:, 110:112] += 1  # near the global frame 50
    with torch.no_grad():
        reach = (encoder(values, lengths).values - encoder(changed, lengths).values).abs().amax(-1)[0]
    assert bool((reach > 0).all())
    assert not two[:40].any()  # nothing global within reach of frame 55 ± 3


def test_costs_grow_with_the_length_and_not_with_its_square() -> None:
    attention = SparseAttention(32, 2, 8, 64)
    costs = [measure_cost(attention, torch.zeros(1, frames, 32)).multiply_adds for frames in (256, 512, 1024)]
    assert costs[2] - costs[1] < 2.3 * (costs[1] - costs[0])


def test_both_shapes_have_one_size() -> None:
    sizes = []
    for name in ("sparseformer_deep", "sparseformer_wide"):
        with torch.device("meta"):
            encoder = Sparseformer(encoder_preset(name))
        sizes.append(sum(parameter.numel() for parameter in encoder.blocks.parameters()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="into even parts, got 8 and 24"):
        build_encoder("sparseformer_tiny", dim=24, num_heads=8)
    with pytest.raises(ConfigError, match="window must be at least 1"):
        build_encoder("sparseformer_tiny", window=0)
