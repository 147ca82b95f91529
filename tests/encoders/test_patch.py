"""Encoders over patches keep the contract, are transformers' AST, and look at what they say they look at."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contracts.encoders import check_encoder

from sonorant.core.errors import CheckpointError, ConfigError, DataError
from sonorant.core.types import Features
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.keys.patch import ast_table, audio_mae_table, check_mae_positions, read_ast, write_ast
from sonorant.encoders.load import load_encoder
from sonorant.encoders.patch import PatchConfig, PatchEncoder, ast_base, patch_tiny
from sonorant.nn.patches import PatchGrid, patch_sinusoids

NARROW: dict[str, Any] = {"input_dim": 20, "dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 24, "max_columns": 30}
CASES: dict[str, dict[str, Any]] = {
    "patch_tiny": {"input_dim": 20, "dim": 16, "patch": (8, 8), "stride": (8, 8)},
    "ast_base": {**NARROW, "patch": (6, 8), "stride": (4, 5)},
    "ssast_base": {**NARROW, "patch": (8, 8), "stride": (8, 8)},
    "ssast_small": {**NARROW, "patch": (5, 4), "stride": (5, 4), "position": "separate"},
    "ssast_tiny": {**NARROW, "patch": (8, 8), "stride": (8, 8), "join": "mean"},
    "ssast_frame_base": {**NARROW, "patch": (20, 2), "stride": (20, 2), "max_columns": 50},
    "audio_mae_base": {**NARROW, "patch": (10, 6), "stride": (10, 6)},
    "msm_mae_base": {**NARROW, "patch": (4, 5), "stride": (4, 5), "join": "mean"},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    export = name in ("patch_tiny", "ast_base", "ssast_small")
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=20, export=export)


def test_published_sizes() -> None:
    """AST: 86.2 M in the layers and the embedding; a column of Audio-MAE is 160 ms."""
    with torch.device("meta"):
        ast = build_encoder("ast_base")
        mae = build_encoder("audio_mae_base")
    layers = 12 * (4 * 768 * 769 + 768 * 3073 + 3072 * 769 + 4 * 768) + 2 * 768
    patches = 256 * 768 + 768
    assert sum(p.numel() for p in ast.parameters()) == layers + patches + (1212 + 2 + 2) * 768
    assert sum(p.numel() for p in mae.parameters()) == layers + patches + 768
    assert (mae.frame_rate, mae.dim, mae.output_lengths(1024)) == (6.25, 8 * 768, 64)


def test_patches_are_those_of_a_convolution() -> None:
    grid = PatchGrid(20, (6, 8), (4, 5))
    values, kernel = torch.randn(2, 43, 20), torch.randn(3, 1, 6, 8)
    expected = torch.nn.functional.conv2d(values.mT[:, None], kernel, stride=(4, 5))  # (batch, dim, row, column)
    patches, lengths = grid.cut(values, torch.tensor([43, 27]))
    assert lengths.tolist() == [8, 4]
    own = patches.unflatten(-1, (grid.num_rows, -1)) @ kernel.flatten(1).t()
    torch.testing.assert_close(own[0], expected[0].permute(2, 1, 0))
    torch.testing.assert_close(own[1, :4], expected[1].permute(2, 1, 0)[:4])


def test_positions_of_masked_autoencoders() -> None:
    """MAE's table: for each place sines and cosines of the row, then of the column."""
    table = patch_sinusoids(5, 3, 16)
    rates = 1 / 10000 ** (torch.arange(4) / 4)
    torch.testing.assert_close(table[2, 1, :4], (1 * rates).sin())
    torch.testing.assert_close(table[2, 1, 4:8], (1 * rates).cos())
    torch.testing.assert_close(table[2, 1, 8:12], (2 * rates).sin())
    torch.testing.assert_close(table[2, 1, 12:], (2 * rates).cos())


def test_long_items_are_refused_or_cut() -> None:
    refused = PatchEncoder(patch_tiny(position="learned", max_columns=3)).eval()
    refused(torch.zeros(2, 80, 80), torch.tensor([63, 16]))  # longer is the padding alone
    with pytest.raises(DataError, match="4 columns of patches and there are positions for 3"):
        refused(torch.zeros(1, 64, 80), torch.tensor([64]))
    torch.manual_seed(0)
    cut = PatchEncoder(patch_tiny(position="learned", max_columns=3, cut_long=True, num_extra=0)).eval()
    values, lengths = torch.randn(3, 150, 80), torch.tensor([130, 47, 10])
    whole = cut(values, lengths, layers=True)
    assert whole[-1].lengths.tolist() == [8, 2, 0]
    for index in range(3):
        parts = [
            cut(values[:1, start : start + 48], torch.tensor([min(48, 130 - start)]), layers=True)
            for start in (0, 48, 96)
        ]
        joined = torch.cat([part[index].values for part in parts], dim=1)
        torch.testing.assert_close(whole[index].values[:1, :8], joined[:, :8], atol=1e-5, rtol=0)
    pooled = cut.pooled(values, lengths)
    expected = whole[-1].values[0, :8].unflatten(-1, (5, 64)).mean(dim=(0, 1))
    torch.testing.assert_close(pooled[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"join": "mean"}, {"num_extra": 0, "max_columns": 2, "cut_long": True}])
def test_what_stands_between_blocks_sees_columns(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    encoder = PatchEncoder(patch_tiny(**changes)).eval()
    values, lengths = torch.randn(2, 100, 80), torch.tensor([100, 60])
    embedded = encoder.embed(encoder.local(values, lengths))
    seen = []

    def look(index: int, features: Features) -> Features:
        seen.append((index, features.values.shape, features.lengths.tolist()))
        return features

    plain = encoder.context(embedded)
    torch.testing.assert_close(encoder.context(embedded, between=look).values, plain.values, atol=1e-6, rtol=0)
    assert seen == [(0, (2, 6, 5 * 64), [6, 3]), (1, (2, 6, 5 * 64), [6, 3])]

    def erase(index: int, features: Features) -> Features:
        return Features(features.values * (index != 1), features.lengths, features.frame_rate)

    assert (encoder.context(embedded, between=erase).values - plain.values).abs().max() > 1e-2


def test_some_tokens_alone() -> None:
    """All tokens through `encode_tokens` are the whole; the order in which they come does not matter."""
    torch.manual_seed(0)
    encoder = PatchEncoder(patch_tiny()).eval()
    values, lengths = torch.randn(2, 100, 80), torch.tensor([100, 60])
    embedded = encoder.embed(encoder.local(values, lengths))
    tokens = encoder.tokens(embedded)
    assert tokens.lengths.tolist() == [30, 15]
    through = encoder.encode_tokens(tokens)
    torch.testing.assert_close(
        through.values.unflatten(1, (6, 5)).flatten(2), encoder.context(embedded).values, atol=1e-6, rtol=0
    )
    turned = Features(tokens.values[:1].flip(1), tokens.lengths[:1], tokens.frame_rate)
    torch.testing.assert_close(encoder.encode_tokens(turned).values.flip(1), through.values[:1], atol=1e-5, rtol=0)


# --- against transformers -------------------------------------------------------------------------------------------------

SETTINGS = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "patch_size": 6,
    "frequency_stride": 4, "time_stride": 5, "max_length": 61, "num_mel_bins": 20, "initializer_range": 0.2,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def reference() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.ASTModel(transformers.ASTConfig(**SETTINGS)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, float(parameter.dim() == 1), 0.2)
    return model


def test_hidden_states_pooling_and_gradients_are_theirs() -> None:
    theirs = reference()
    config = read_ast(theirs.config.to_dict())
    own = PatchEncoder(config).eval()
    own.load_state_dict(ast_table(config).to_ours(theirs.state_dict()).weights)
    values, lengths = torch.randn(2, 61, 20), torch.tensor([61, 61])
    left, right = values.clone().requires_grad_(), values.clone().requires_grad_()
    expected = theirs(left, output_hidden_states=True)
    outputs = own(right, lengths, layers=True)
    rows, columns = own.grid.num_rows, int(outputs[-1].lengths[0])
    for index, mine in enumerate(outputs):
        last = index == len(outputs) - 1
        other = expected.last_hidden_state if last else expected.hidden_states[index]
        other = other[:, 2:].unflatten(1, (rows, columns)).transpose(1, 2).flatten(2)  # row by row there
        torch.testing.assert_close(mine.values, other, atol=1e-4, rtol=0)
    torch.testing.assert_close(own.pooled(values, lengths), expected.pooler_output, atol=1e-4, rtol=0)
    weights = torch.randn(2, 32)
    (own.pooled(right, lengths) * weights).sum().backward()
    (expected.pooler_output * weights).sum().backward()
    assert left.grad is not None
    assert float(left.grad.abs().max()) > 1e-3
    torch.testing.assert_close(right.grad, left.grad, atol=1e-4, rtol=1e-4)


def test_there_and_back() -> None:
    theirs = reference()
    config = read_ast(theirs.config.to_dict())
    state = theirs.state_dict()
    ours = ast_table(config).to_ours(state).weights
    back = ast_table(config).to_theirs(ours)
    assert set(back) == set(state)
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name
    again = type(theirs.config)(**write_ast(config))
    assert read_ast(again.to_dict()) == config
    # As files are that were written before version 5.
    older = {_older(name): tensor for name, tensor in state.items()}
    assert "encoder.layer.0.attention.attention.query.weight" in older
    assert set(older).isdisjoint(name for name in state if name.startswith("layers."))
    again = ast_table(config).to_ours(older).weights
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.items())


def _older(name: str) -> str:
    for new, old in {
        "layers.": "encoder.layer.", "attention.q_proj": "attention.attention.query", "mlp.fc1": "intermediate.dense",
        "attention.k_proj": "attention.attention.key", "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense", "mlp.fc2": "output.dense",
    }.items():  # fmt: skip
        name = name.replace(new, old)
    return name


def test_audio_mae_names() -> None:
    """A masked autoencoder's weights under its authors' names, image upright in time, and its stored positions."""
    config = patch_tiny(input_dim=20, patch=(4, 5), stride=(4, 5))
    encoder = PatchEncoder(config).eval()
    table = audio_mae_table(config)
    state = encoder.state_dict()
    theirs = table.to_theirs(state)
    block = [
        f"{part}.{kind}"
        for part in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    ]
    expected = {f"blocks.{i}.{name}" for i in range(2) for name in block}
    assert set(theirs) == expected | {
        "cls_token",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
        "norm.weight",
        "norm.bias",
    }
    values = torch.randn(1, 60, 20)
    upright = torch.nn.functional.conv2d(
        values[:, None], theirs["patch_embed.proj.weight"], theirs["patch_embed.proj.bias"], (5, 4)
    )
    own = encoder.embed(encoder.local(values, torch.tensor([60])))
    torch.testing.assert_close(own.values.unflatten(-1, (5, 64)), upright.permute(0, 2, 3, 1), atol=1e-5, rtol=0)
    stored = {"pos_embed": torch.cat([torch.zeros(1, 64), patch_sinusoids(12, 5, 64).flatten(0, 1)])[None]}
    found = table.to_ours(theirs | stored | {"decoder_pred.weight": torch.zeros(2), "mask_token": torch.zeros(1)})
    assert set(found.weights) == set(state)
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in state.items())
    check_mae_positions(found, config)
    with pytest.raises(CheckpointError, match="positions differ"):
        check_mae_positions(table.to_ours(theirs | {"pos_embed": stored["pos_embed"].flip(1)}), config)


def test_a_file_of_audio_mae(tmp_path: Path) -> None:
    """Sizes come from the weights; the decoder of pre-training is left out."""
    torch.manual_seed(0)
    config = patch_tiny(input_dim=128, dim=128, norm_eps=1e-6)
    encoder = PatchEncoder(config)
    theirs = audio_mae_table(config).to_theirs(encoder.state_dict())
    positions = torch.cat([torch.zeros(1, 128), patch_sinusoids(4, 8, 128).flatten(0, 1)])[None]
    content = {"model": {**theirs, "pos_embed": positions, "decoder_embed.weight": torch.zeros(1)}, "epoch": 3}
    torch.save(content, tmp_path / "pretrained.pth")
    loaded = load_encoder(tmp_path / "pretrained.pth")
    assert loaded.config == config
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in encoder.state_dict().items())


def test_configuration_is_checked() -> None:
    with pytest.raises(ConfigError, match="num_heads must divide dim"):
        ast_base(num_heads=5)
    with pytest.raises(ConfigError, match="num_extra=0"):
        PatchConfig(cut_long=True)
    with pytest.raises(ConfigError, match="16 bands is higher than the 8"):
        PatchEncoder(patch_tiny(input_dim=8))
