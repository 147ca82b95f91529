"""Decoder layers against torch's own, in steps of any size, in low precision."""

import pytest
import torch
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.nn.decoder import CrossAttention, DecoderLayer
from sonorant.nn.masking import attention_mask, causal_mask


def layer(**options: int) -> DecoderLayer:
    torch.manual_seed(0)
    made = DecoderLayer(16, 4, 24, **options).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, float(parameter.dim() == 1), 0.3)
    return made


def torchs(own: DecoderLayer) -> nn.TransformerDecoderLayer:
    """torch's layer with the weights of ours."""
    theirs = nn.TransformerDecoderLayer(16, 4, 24, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    cross = own.cross_attention
    pairs = {
        "self_attn.in_proj_": own.attention.query_key_value, "self_attn.out_proj.": own.attention.output,
        "multihead_attn.out_proj.": cross.output, "linear1.": own.ffn[0], "linear2.": own.ffn[3],
        "norm1.": own.attention_norm, "norm2.": own.cross_norm, "norm3.": own.ffn_norm,
    }  # fmt: skip
    state = {f"{name}{kind}": getattr(part, kind) for name, part in pairs.items() for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        joined = torch.cat([getattr(cross.query, kind), getattr(cross.key_value, kind)])
        state[f"multihead_attn.in_proj_{kind}"] = joined
    theirs.load_state_dict(state)
    return theirs


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    lengths = torch.tensor([9, 4])
    return torch.randn(2, 7, 16), torch.randn(2, 9, 16), attention_mask(lengths, 9)


def test_it_is_torchs_layer() -> None:
    own = layer()
    values, frames, mask = inputs()
    out, _ = own.step(values, own.start(frames), causal_mask(7, 0), mask)
    expected = torchs(own)(values, frames, ~causal_mask(7, 0)[0, 0], memory_key_padding_mask=~mask[:, 0, 0])
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pieces", [[1] * 7, [3, 1, 3], [6, 1]])
def test_steps_are_the_whole(pieces: list[int]) -> None:
    own = layer()
    values, frames, mask = inputs()
    whole, _ = own.step(values, own.start(frames), causal_mask(7, 0), mask)
    cache, parts = own.start(frames), []
    for part in values.split(pieces, dim=1):
        out, cache = own.step(part, cache, causal_mask(part.shape[1], cache.key.shape[2]), mask)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


def test_the_map_looks_at_signal_only() -> None:
    cross = CrossAttention(16, 4, frame_dim=10)
    frames, mask = torch.randn(2, 9, 10), attention_mask(torch.tensor([9, 4]), 9)
    key, value = cross.keys(frames)
    weights = cross.weights(torch.randn(2, 5, 16), key, mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5))
    assert not weights[1, :, :, 4:].any()
    assert cross(torch.randn(2, 5, 16), key, value, mask).shape == (2, 5, 16)


def test_low_precision() -> None:
    own = layer(frame_dim=16)
    values, frames, mask = inputs()
    exact, _ = own.step(values, own.start(frames), causal_mask(7, 0), mask)
    own, small = own.to(torch.bfloat16), torch.bfloat16
    out, _ = own.step(values.to(small), own.start(frames.to(small)), causal_mask(7, 0), mask)
    assert out.dtype == small
    assert (out.float() - exact).abs().mean() < 0.02 * exact.abs().max()


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_heads must divide dim"):
        CrossAttention(16, 5)
