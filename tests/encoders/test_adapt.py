"""Adapters: nothing at first, little to train, folded in exactly, stored alone."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from sonorant.core.checkpoint import save_checkpoint
from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.encoders.adapt import (
    AdapterBiasConfig,
    BitFitConfig,
    HoulsbyConfig,
    LnaConfig,
    LoraConfig,
    PrefixConfig,
    adapt,
    adapter_weights,
    load_adapter,
    merge,
    save_adapter,
    trainable_share,
    unmerge,
)
from sonorant.encoders.catalogue import build_encoder

CONFIGS: dict[str, tuple[Any, ...]] = {
    "lora": (LoraConfig(rank=2),),
    "lora_all": (LoraConfig(rank=3, alpha=6.0, parts=("query", "key", "value", "output")),),
    "houlsby": (HoulsbyConfig(dim=4),),
    "houlsby_ffn": (HoulsbyConfig(dim=4, places=("ffn",)),),
    "adapter_bias": (AdapterBiasConfig(),),
    "prefix": (PrefixConfig(length=3),),
    "bitfit": (BitFitConfig(),),
    "lna": (LnaConfig(),),
    "several": (LoraConfig(rank=2), HoulsbyConfig(dim=4), AdapterBiasConfig(), BitFitConfig()),
    "prefix_and_lora": (PrefixConfig(), LoraConfig(rank=2, parts=("query", "output")), HoulsbyConfig(dim=4)),
}
ENCODERS = ("wav2vec2_tiny", "wavlm_tiny", "conformer_tiny")


def given(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    if name == "conformer_tiny":
        return torch.randn(2, 60, 80, generator=generator), torch.tensor([60, 41])
    return torch.randn(2, 3000, generator=generator), torch.tensor([3000, 2100])


def built(name: str) -> Any:
    torch.manual_seed(0)
    return build_encoder(name).eval()


def trained(encoder: Any, name: str, steps: int = 2) -> None:
    """A few steps towards other frames, so that no adapter is nothing any more."""
    parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    target = torch.randn(encoder.dim, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        (encoder(*given(name)).values - target).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("kind", CONFIGS)
def test_an_adapter_begins_as_nothing_and_is_all_that_trains(name: str, kind: str) -> None:
    encoder = built(name)
    before = encoder(*given(name)).values.detach()
    frozen = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    names = adapt(encoder, *CONFIGS[kind])
    torch.testing.assert_close(encoder(*given(name)).values, before, atol=1e-5, rtol=0)
    share = trainable_share(encoder)
    assert 0 < share.share < (0.5 if kind == "lna" else 0.25)
    trained(encoder, name)
    own = dict(encoder.named_parameters())
    assert {key for key, parameter in own.items() if parameter.requires_grad} == set(names)
    for key in names:
        gradient = own[key].grad
        assert gradient is not None, f"no gradient reaches {key}"
        if not key.endswith("attention.query_key_value.bias"):  # a shift of all keys changes no softmax
            assert gradient.abs().max() > 0, f"the gradient of {key} is zero"
    for key, tensor in frozen.items():
        if key not in names and key in own:
            assert torch.equal(own[key], tensor), f"{key} was to stay as it was"
    assert (encoder(*given(name)).values - before).abs().max() > 1e-3


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("kind", ["lora", "lora_all", "several", "prefix_and_lora"])
def test_merging_changes_nothing_and_can_be_undone(name: str, kind: str) -> None:
    encoder = built(name)
    adapt(encoder, *CONFIGS[kind])
    trained(encoder, name)
    plain = encoder(*given(name)).values.detach()
    weights = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    assert merge(encoder) > 0
    assert merge(encoder) == 0
    torch.testing.assert_close(encoder(*given(name)).values, plain, atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="unmerge"):
        adapter_weights(encoder)
    unmerge(encoder)
    for key, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, weights[key], atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_adapter_is_stored_alone(kind: str, tmp_path: Path) -> None:
    name = "wav2vec2_tiny"
    base = built(name)
    encoder = copy.deepcopy(base)
    adapt(encoder, *CONFIGS[kind])
    trained(encoder, name)
    folder = save_adapter(encoder, tmp_path / "adapter")
    size = sum(file.stat().st_size for file in folder.iterdir())
    whole = sum(parameter.numel() * 4 for parameter in base.parameters())
    assert size < whole / 2
    loaded = copy.deepcopy(base)
    load_adapter(loaded, folder)
    torch.testing.assert_close(loaded(*given(name)).values, encoder(*given(name)).values)
    other = build_encoder(name, dim=32)
    with pytest.raises(CheckpointError, match="another encoder"):
        load_adapter(other, folder)


@pytest.mark.parametrize("name", ["wav2vec2_conformer_tiny", "mr_hubert_tiny", "sew_toy", "w2v_bert_tiny"])
def test_other_families_are_adapted_too(name: str) -> None:
    torch.manual_seed(0)
    encoder: Any = build_encoder(name, **({"position": "rotary"} if "conformer" in name else {})).eval()
    values = torch.randn(2, 3000) if encoder.input == "waveform" else torch.randn(2, 40, 160)
    lengths = torch.tensor([values.shape[1], values.shape[1] * 2 // 3])
    before = encoder(values, lengths).values.detach()
    names = adapt(encoder, LoraConfig(rank=2), HoulsbyConfig(dim=2), AdapterBiasConfig(), PrefixConfig(length=2))
    torch.testing.assert_close(encoder(values, lengths).values, before, atol=1e-5, rtol=0)
    with torch.no_grad():
        for key, parameter in encoder.named_parameters():
            if key in names:
                parameter.add_(0.1 * torch.randn_like(parameter))
    changed = encoder(values, lengths).values.detach()
    assert (changed - before).abs().max() > 0.01
    merge(encoder)
    torch.testing.assert_close(encoder(values, lengths).values, changed, atol=1e-4, rtol=1e-4)


def test_chosen_blocks_alone_are_adapted() -> None:
    encoder = built("wav2vec2_tiny")
    names = adapt(encoder, HoulsbyConfig(dim=4, layers=(1,)))
    assert names
    assert all(name.startswith("stack.blocks.1.") for name in names)
    with pytest.raises(ConfigError, match="blocks 0 to 1, got 5"):
        adapt(built("wav2vec2_tiny"), LoraConfig(layers=(5,)))


def test_low_rank_leaves_the_other_thirds_alone() -> None:
    encoder = built("wav2vec2_tiny")
    adapt(encoder, LoraConfig(rank=2, parts=("value",)))
    trained(encoder, "wav2vec2_tiny")
    linear = encoder.blocks[0].attention.query_key_value
    change = linear.parts["lora"].change()
    assert not change[: 2 * encoder.dim].any()
    assert torch.linalg.matrix_rank(change[2 * encoder.dim :]) == 2


def test_what_cannot_be_adapted_is_said() -> None:
    with pytest.raises(ConfigError, match=r"holds no attention .* it holds "):
        adapt(build_encoder("apc_tiny"), LoraConfig())
    encoder = built("wav2vec2_tiny")
    with pytest.raises(ConfigError, match="at least one"):
        adapt(encoder)
    adapt(encoder, LoraConfig())
    with pytest.raises(ConfigError, match=r"adapted by \['lora'\]"):
        adapt(encoder, LoraConfig())
    with pytest.raises(ConfigError, match="parts"):
        LoraConfig(parts=("querry",))


def test_a_stored_adapter_of_an_unknown_kind_is_said(tmp_path: Path) -> None:
    encoder = built("wav2vec2_tiny")
    for told in ([{"kind": "lorra", "options": {}}], ["lora"]):
        folder = save_checkpoint(tmp_path / "adapter", kind="adapter", weights={}, config={"adapters": told})
        with pytest.raises(CheckpointError, match="unknown kind of adapter"):
            load_adapter(encoder, folder)
    assert all(parameter.requires_grad for parameter in encoder.parameters())  # nothing was done


def test_the_share_is_counted() -> None:
    encoder = built("wav2vec2_tiny")
    total = sum(parameter.numel() for parameter in encoder.parameters())
    adapt(encoder, LoraConfig(rank=2))
    added = encoder.num_layers * 2 * (2 * encoder.dim + 2 * encoder.dim)
    share = trainable_share(encoder)
    assert (share.trained, share.total) == (added, total + added)
