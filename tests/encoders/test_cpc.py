"""CPC and wav2vec keep the contract, stream where nothing looks ahead, and equal plain stacks of torch's layers."""

import math
from typing import Any

import pytest
import torch
from tests.contracts.encoders import check_encoder
from torch import Tensor, nn

from sonorant.core.checkpoint import load_weights
from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.encoders.catalogue import build_encoder, encoder_preset
from sonorant.encoders.cpc import Cpc
from sonorant.encoders.keys.cpc import CPC_AUDIO, WAV2VEC
from sonorant.encoders.keys.cpc import read as read_cpc_audio

CASES: dict[str, dict[str, Any]] = {
    "cpc": {"local_dim": 20, "dim": 16},
    "cpc_small": {"local_dim": 20, "dim": 16},
    "cpc_big": {"local_dim": 20, "dim": 24, "norm": "group"},
    "cpc_tiny": {},
    "wav2vec": {"dim": 20, "norm": "layer", "context_kernels": (3, 3)},
    "wav2vec_large": {"dim": 20, "context_kernels": (2, 3, 4)},
    "vq_wav2vec": {"dim": 20, "norm": "layer", "context_kernels": (2, 5)},
    "wav2vec_tiny": {"kernels": (10, 8), "strides": (5, 4)},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    # torch.export unrolls a recurrence over the frames it saw, so such a program keeps its length; one of the others is
    # tried with other lengths, since a tower of strides takes the tracer long.
    config = encoder_preset(name, **CASES[name])
    check_encoder(
        lambda: build_encoder(name, **CASES[name]),
        input_dim=0,
        dynamic=name == "wav2vec_tiny",
        lengths=(4100, 5333, 2900, 3700),
        streaming=config.norm != "group",
        tried=(1, 2, 300, 464, 465, 466, 624, 625, 1000, 2222),
    )


@pytest.mark.parametrize(
    "name, milliseconds",
    # The wav2vec paper says 30 ms for the encoder network, about 210 and 810 with context.
    [("wav2vec", 29 + 180), ("wav2vec_large", 29 + 780), ("vq_wav2vec", 29 + 780), ("cpc", 29)],
)
def test_published_geometry(name: str, milliseconds: int) -> None:
    encoder = build_encoder(name, **({"dim": 8, "local_dim": 8} if name == "cpc" else {"dim": 8}))
    assert encoder.frame_rate == 100
    assert round(encoder.receptive_field / 16) == milliseconds


def test_group_norm_cannot_stream() -> None:
    with pytest.raises(ConfigError, match="train with norm='layer'"):
        build_encoder("wav2vec_tiny").stream()
    block = build_encoder("wav2vec_tiny").blocks[0]
    with pytest.raises(ConfigError, match="train with norm='layer'"):
        block.step(torch.zeros(1, 3, 32))


def test_looks_back_only() -> None:
    torch.manual_seed(0)
    for name in ("cpc_small", "wav2vec_tiny"):
        encoder = build_encoder(name, norm="layer").eval()
        waveform, lengths = torch.randn(1, 8000), torch.tensor([8000])
        changed = waveform.clone()
        changed[:, 4000:] += 1
        before, after = encoder(waveform, lengths).values, encoder(changed, lengths).values
        first = int((before != after).any(-1)[0].nonzero()[0])
        # A frame begins at its first sample (less the padding) and ends 464 later.
        assert (4000 - 465) / 160 < first < 4000 / 160


class _Fairseq(nn.Module):
    """The architecture of fairseq's wav2vec under its names, from its description, on one item without padding."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        dim, act = config.dim, nn.GELU() if config.activation == "gelu" else nn.ReLU()
        widths = [1] + [dim] * (len(config.kernels) - 1)
        extractor, aggregator = nn.Module(), nn.Module()
        extractor.conv_layers = nn.ModuleList(
            nn.Sequential(nn.Conv1d(width, dim, k, s, bias=False), nn.Identity(), nn.GroupNorm(1, dim), act)
            for width, k, s in zip(widths, config.kernels, config.strides)
        )
        aggregator.conv_layers = nn.ModuleList(
            nn.Sequential(
                nn.ReplicationPad1d((k - 1, 0)), nn.Conv1d(dim, dim, k), nn.Identity(), nn.GroupNorm(1, dim), act
            )
            for k in config.context_kernels
        )
        self.feature_extractor, self.feature_aggregator = extractor, aggregator
        self.wav2vec_predictions = nn.Linear(2, 2)
        self.skip = config.skip

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        values = waveform[:, None]
        for layer in self.feature_extractor.conv_layers:
            values = layer(values)
        local = values = (values.abs() + 1).log()
        for layer in self.feature_aggregator.conv_layers:
            values = (layer(values) + values) * math.sqrt(0.5) if self.skip else layer(values)
        return local.transpose(1, 2), values.transpose(1, 2)


@pytest.mark.parametrize("name", ["wav2vec", "wav2vec_large", "vq_wav2vec"])
def test_fairseq_checkpoints(name: str) -> None:
    torch.manual_seed(0)
    config = encoder_preset(name, dim=12)
    reference, encoder = _Fairseq(config).eval(), Cpc(config).eval()
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.5)
    load_weights(encoder, WAV2VEC.to_ours(reference.state_dict()).weights)
    waveform = torch.randn(1, 5000, requires_grad=True)
    local, context = reference(waveform)
    lengths = torch.tensor([5000])
    torch.testing.assert_close(encoder.local(waveform, lengths).values, local, atol=1e-4, rtol=1e-4)
    ours = encoder(waveform, lengths).values
    torch.testing.assert_close(ours, context, atol=1e-4, rtol=1e-4)
    weights = torch.randn_like(ours)
    expected = torch.autograd.grad((context * weights).sum(), waveform)[0]
    torch.testing.assert_close(torch.autograd.grad((ours * weights).sum(), waveform)[0], expected, atol=1e-3, rtol=1e-3)
    # The same item in a padded batch; theirs would take the padding into its statistics.
    padded = torch.cat([waveform.detach(), torch.full((1, 900), 9.0)], dim=1)
    batch = encoder(padded, lengths)
    torch.testing.assert_close(batch.values[:, : context.shape[1]], context, atol=1e-4, rtol=1e-4)
    with pytest.raises(CheckpointError, match="no rule for 1 keys, such as bogus.weight"):
        WAV2VEC.to_ours({"bogus.weight": torch.zeros(1)})


class _CpcAudio(nn.Module):
    """The architecture of CPC_audio under its names, on one item."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gEncoder, self.gAR = nn.Module(), nn.Module()
        sizes = zip((1, dim, dim, dim, dim), (10, 8, 4, 4, 4), (5, 4, 2, 2, 2), (3, 2, 1, 1, 1))
        for index, (width, kernel, stride, padding) in enumerate(sizes):
            setattr(self.gEncoder, f"conv{index}", nn.Conv1d(width, dim, kernel, stride, padding))
            norm = nn.Module()
            norm.weight, norm.bias = nn.Parameter(torch.rand(1, dim, 1)), nn.Parameter(torch.randn(1, dim, 1))
            setattr(self.gEncoder, f"batchNorm{index}", norm)
        self.gAR.baseNet = nn.LSTM(dim, hidden, 2, batch_first=True)

    def forward(self, waveform: Tensor) -> Tensor:
        values = waveform[:, None]
        for index in range(5):
            values = getattr(self.gEncoder, f"conv{index}")(values)
            mean, var = values.mean(1, keepdim=True), values.var(1, keepdim=True)
            norm = getattr(self.gEncoder, f"batchNorm{index}")
            values = torch.relu((values - mean) * torch.rsqrt(var + 1e-5) * norm.weight + norm.bias)
        return self.gAR.baseNet(values.transpose(1, 2))[0]


def test_cpc_audio_checkpoints() -> None:
    torch.manual_seed(0)
    reference = _CpcAudio(16, 12).eval()
    encoder = build_encoder("cpc_small", local_dim=16, dim=12).eval()
    found = read_cpc_audio({"config": {}, "weights": reference.state_dict()}, "reference")
    assert found is not None
    assert found[0] == encoder.config
    load_weights(encoder, found[1].weights)
    for name, tensor in CPC_AUDIO.to_theirs(encoder.state_dict()).items():
        torch.testing.assert_close(tensor, reference.state_dict()[name])
    waveform = torch.randn(1, 4321)
    ours = encoder(waveform, torch.tensor([4321]))
    expected = reference(waveform)
    assert ours.values.shape == expected.shape
    torch.testing.assert_close(ours.values, expected, atol=1e-4, rtol=1e-4)


def test_levels_live_through_the_convolutions_without_norm() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("cpc", local_dim=64)
    quiet = encoder.local(0.1 * torch.randn(1, 8000), torch.tensor([8000])).values
    assert 0.02 < float(quiet.detach().square().mean().sqrt()) < 0.5


def test_configuration_is_checked() -> None:
    with pytest.raises(ConfigError, match="equally many"):
        build_encoder("cpc_tiny", strides=(5, 4))
    with pytest.raises(ConfigError, match="context_kernels"):
        build_encoder("wav2vec", context_kernels=())
