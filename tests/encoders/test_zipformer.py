"""The Zipformer keeps the contract, small; its layers, rates, bypasses and sizes are what they should be."""

import pytest
import torch
from tests.contracts.encoders import check_encoder

from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.encoders.catalogue import build_encoder, encoder_preset
from sonorant.encoders.zipformer import Zipformer, zipformer_tiny

NARROW = {
    "input_dim": 40, "channels": (2, 3, 4), "query_dim": 8, "value_dim": 4, "position_head_dim": 2, "position_dim": 8,
}  # fmt: skip
SIX = {
    **NARROW, "num_blocks": (1,) * 6, "dims": (16, 24, 32, 40, 32, 24), "ffn_dims": (24,) * 6, "num_heads": (2,) * 6,
    "kernel_sizes": (5, 5, 3, 3, 3, 5),
}  # fmt: skip
CASES = {
    "zipformer_tiny": {
        **NARROW,
        "factors": (1, 2),
        "num_blocks": (1, 1),
        "dims": (24, 16),
        "ffn_dims": (24, 32),
        "num_heads": (2, 2),
        "kernel_sizes": (5, 3),
        "dropout": 0.1,
    },
    "zipformer_small": {**SIX, "num_blocks": (2, 1, 1, 1, 1, 1), "output_factor": 4},
    "zipformer_medium": SIX,
    "zipformer_large": {**SIX, "limit_activations": True, "dims": (16, 24, 32, 40, 44, 48)},
    "zipformer_base": {**SIX, "bypass_steps": 1},
    "zipformer_streaming": {**SIX, "chunk_size": 8, "left_chunks": 1},
}


def trained_for_long(name: str) -> Zipformer:
    """Bypasses are open: at the start hardly anything but the slower stacks comes through, and their frames are repeated."""
    encoder = build_encoder(name, **CASES[name])
    encoder.updates += encoder.config.bypass_steps
    return encoder


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    check_encoder(
        lambda: trained_for_long(name),
        input_dim=40,
        streaming=name == "zipformer_streaming",
        export=name == "zipformer_tiny",  # half a second an operation with sizes left open; all parts are in it
    )


@pytest.mark.parametrize("left_chunks", [0, 2, None])
def test_chunks_equal_the_whole(left_chunks: int | None) -> None:
    torch.manual_seed(0)
    options = {"causal": True, "chunk_size": 4, "left_chunks": left_chunks, **CASES["zipformer_tiny"]}
    encoder = build_encoder("zipformer_tiny", **options).eval()
    values = torch.randn(2, 77, 40)
    stream = encoder.stream(2)
    with torch.no_grad():
        whole = encoder(values, torch.tensor([77, 77])).values
    for _ in range(2):  # a stream that was finished serves again
        parts = [stream.push(values[:, start : start + 11]).values for start in range(0, 77, 11)]
        joined = torch.cat([*parts, stream.finish().values], dim=1)
        torch.testing.assert_close(joined, whole, atol=1e-5, rtol=0)


def test_chunks_do_not_see_ahead() -> None:
    torch.manual_seed(0)
    options = {"causal": True, "chunk_size": 4, **CASES["zipformer_tiny"]}
    encoder = build_encoder("zipformer_tiny", **options).eval()
    values, lengths = torch.randn(1, 100, 40), torch.tensor([100])
    changed = values.clone()
    changed[:, 48:] += 1  # frame 20 of the front end (input 40…48) is the first that sees it; its chunk is 20…23
    before, after = encoder(values, lengths).values, encoder(changed, lengths).values
    torch.testing.assert_close(before[:, :10], after[:, :10], atol=1e-6, rtol=0)
    assert not torch.allclose(before[:, 10:12], after[:, 10:12], atol=1e-4)


def test_a_layer_is_what_the_encoder_gives_when_cut_there() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("zipformer_medium", **SIX).eval()
    values, lengths = torch.randn(2, 90, 40), torch.tensor([90, 71])
    with torch.no_grad():
        outputs = encoder(values, lengths, layers=True)
        for keep in (5, 3, 1, 0):
            encoder.blocks = encoder.blocks[:keep]
            assert torch.equal(encoder(values, lengths).values, outputs[keep].values)
    assert {output.values.shape for output in outputs} == {outputs[-1].values.shape}


def test_between_sees_each_block_at_its_own_rate() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("zipformer_medium", **SIX).eval()
    embedded = encoder.embed(encoder.local(torch.randn(1, 107, 40), torch.tensor([107])))
    seen: list[tuple[int, float, int, int]] = []

    def note(index: int, features: Features) -> Features:
        seen.append((index, features.frame_rate, int(features.lengths[0]), features.values.shape[-1]))
        return features

    with torch.no_grad():
        same = encoder.context(embedded, between=note)
        assert torch.equal(same.values, encoder.context(embedded).values)
    rates = [
        (0, 50.0, 50, 16),
        (1, 50.0, 50, 16),
        (2, 25.0, 25, 24),
        (3, 12.5, 13, 32),
        (4, 6.25, 7, 40),
        (5, 12.5, 13, 32),
    ]
    assert seen == rates

    def blank(index: int, features: Features) -> Features:
        return Features(features.values * float(index != 3), features.lengths, features.frame_rate)

    assert not torch.allclose(encoder.context(embedded, between=blank).values, same.values, atol=1e-4)


def test_bypasses_open_with_training() -> None:
    encoder = Zipformer(zipformer_tiny(bypass_steps=4, **CASES["zipformer_tiny"]))
    values, lengths = torch.randn(1, 60, 40), torch.tensor([60])
    floors = []
    for _ in range(6):
        floors.append(float(encoder.floor()))
        encoder(values, lengths)
    assert floors == pytest.approx([0.9, 0.725, 0.55, 0.375, 0.2, 0.2])
    encoder.eval()(values, lengths)
    assert int(encoder.updates) == 6
    assert int(encoder.state_dict()["updates"]) == 6


@pytest.mark.parametrize(
    "name, millions", [("zipformer_small", 22.1), ("zipformer_medium", 64.3), ("zipformer_large", 147.1)]
)
def test_published_sizes(name: str, millions: float) -> None:
    """Table 5 gives the encoder with its transducer; the encoder alone is about 1 M smaller."""
    with torch.device("meta"):
        encoder = Zipformer(encoder_preset(name))
    assert sum(parameter.numel() for parameter in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


def test_learns_with_its_limits_on() -> None:
    """Balancer and Whitener change gradients and nothing else; a few steps of ScaledAdam still fit a target."""
    from sonorant.train.scaled_adam import ScaledAdam

    torch.manual_seed(0)
    encoder = build_encoder("zipformer_tiny", **{**CASES["zipformer_tiny"], "limit_activations": True, "dropout": 0.0})
    head = torch.nn.Linear(24, 2)
    values, lengths = torch.randn(4, 80, 40), torch.tensor([80, 70, 60, 50])
    optimizer = ScaledAdam([*encoder.parameters(), *head.parameters()], lr=0.06)
    losses = []
    for _ in range(36):
        pooled = encoder(values, lengths).values.mean(1)
        loss = torch.nn.functional.cross_entropy(head(pooled), torch.tensor([0, 1, 0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_heads": (4, 4)}, "num_heads and dims must have one entry for each stack, got 2 and 6"),
        ({"chunk_size": 8}, "chunk_size needs causal=True"),
        ({"chunk_size": 12, "causal": True}, "multiple of every factor, got 12 and 8"),
        ({"left_chunks": 2}, "left_chunks is counted in chunks"),
        ({"input_dim": 5}, "input_dim=5 is too small"),
    ],
)
def test_nonsense_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_encoder("zipformer_medium", **changes)


def test_a_model_that_sees_everything_cannot_stream() -> None:
    with pytest.raises(ConfigError, match="sees the whole item"):
        Zipformer(zipformer_tiny()).stream()
