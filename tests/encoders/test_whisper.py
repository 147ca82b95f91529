"""Whisper keeps the contract, is transformers' Whisper, and says one by one what it says at once."""

from typing import Any

import pytest
import torch
from tests.contracts.encoders import check_encoder

from sonorant.core.errors import CheckpointError, ConfigError, DataError
from sonorant.core.types import Features
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.keys.whisper import (
    WHISPER_ENCODER,
    from_openai,
    from_whisper,
    read_openai_dims,
    read_whisper,
    to_openai,
    to_whisper,
    write_openai_dims,
    write_whisper,
)
from sonorant.encoders.whisper import (
    Whisper,
    WhisperConfig,
    build_whisper,
    whisper_base,
    whisper_large_v3_turbo,
    whisper_micro,
    whisper_tiny,
)

NARROW: dict[str, Any] = {"input_dim": 20, "dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 24}
CASES: dict[str, dict[str, Any]] = {
    "whisper_micro": {"input_dim": 20},
    "whisper_tiny": NARROW,
    "whisper_base": NARROW,
    "whisper_small": {**NARROW, "num_layers": 3},
    "whisper_medium": {**NARROW, "num_heads": 1},
    "whisper_large": {**NARROW, "window": 90},
    "whisper_large_v3": NARROW,
    "whisper_large_v3_turbo": NARROW,
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    # Sizes that differ in numbers alone trace to the same program.
    export = name in ("whisper_micro", "whisper_large")
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=20, export=export)


@pytest.mark.parametrize(
    "preset, published", [(whisper_tiny, 37_760_640), (whisper_base, 72_593_920), (whisper_large_v3_turbo, 808_878_080)]
)
def test_published_sizes(preset: Any, published: int) -> None:
    """Parameters of the released models, but for the sinusoids that are stored there and the biases of keys that are here."""
    config = preset()
    with torch.device("meta"):
        own = sum(p.numel() for p in build_whisper(config).parameters())
    keys = config.num_layers + 2 * config.decoder_layers
    assert own == published - 1500 * config.dim + keys * config.dim


# --- against transformers -------------------------------------------------------------------------------------------------

SETTINGS = {
    "vocab_size": 60, "num_mel_bins": 20, "d_model": 32, "encoder_layers": 3, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "max_target_positions": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3,
    "init_std": 0.2,
}  # fmt: skip


def reference() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.WhisperModel(transformers.WhisperConfig(**SETTINGS)).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.2)
    return model


def ours(theirs: Any) -> Whisper:
    model = build_whisper(read_whisper(theirs.config.to_dict())).eval()
    model.load_state_dict(from_whisper(theirs.state_dict()))
    return model


def test_hidden_states_logits_and_gradients_are_theirs() -> None:
    theirs = reference()
    own = ours(theirs)
    values, tokens = torch.randn(2, 3000, 20), torch.randint(0, 60, (2, 9))
    left, right = values.clone().requires_grad_(), values.clone().requires_grad_()
    expected = theirs(left.mT, decoder_input_ids=tokens, output_hidden_states=True)
    outputs = own.encoder(right, torch.tensor([3000, 3000]), layers=True)
    assert len(outputs) == len(expected.encoder_hidden_states) == 4
    for mine, other in zip(outputs, expected.encoder_hidden_states, strict=True):
        torch.testing.assert_close(mine.values, other, atol=1e-4, rtol=0)
    logits = own.decoder(tokens, outputs[-1])
    other_logits = expected.last_hidden_state @ theirs.decoder.embed_tokens.weight.t()
    torch.testing.assert_close(logits, other_logits, atol=1e-4, rtol=1e-4)
    weights = torch.randn_like(logits)
    (logits * weights).sum().backward()
    (other_logits * weights).sum().backward()
    assert left.grad is not None
    assert float(left.grad.abs().max()) > 1e-4
    torch.testing.assert_close(right.grad, left.grad, atol=1e-4, rtol=1e-4)


def test_silence_behind_an_item_is_that_of_their_features() -> None:
    """What `window` puts behind an item is what their features hold there, but for the windows that reach over the end."""
    from sonorant.audio.features.mel import WhisperMel

    waveform = torch.randn(1, 16000 + 80) * torch.linspace(0.01, 1, 16080)
    short, whole = WhisperMel(20)(waveform), WhisperMel(20, seconds=30)(waveform)
    encoder = build_encoder("whisper_micro", input_dim=20, window=3000).eval()
    filled, lengths = encoder._filled(short.values, short.lengths)
    assert lengths.tolist() == [3000]
    assert short.lengths.tolist() == [100]
    torch.testing.assert_close(filled[:, :100], whole.values[:, :100], atol=1e-5, rtol=0)
    torch.testing.assert_close(filled[:, 102:], whole.values[:, 102:], atol=1e-5, rtol=0)
    silent, _ = encoder._filled(torch.zeros(1, 4, 20), torch.tensor([0]))
    assert (silent == -1.5).all()
    with pytest.raises(DataError, match="3001 frames and the window holds 3000"):
        encoder(torch.zeros(1, 3001, 20), torch.tensor([3001]))


def test_there_and_back() -> None:
    theirs = reference()
    config = read_whisper(theirs.config.to_dict())
    state = theirs.state_dict()
    back = to_whisper(from_whisper(state))
    assert set(back) == set(state)
    for name, tensor in state.items():
        torch.testing.assert_close(back[name], tensor, atol=1e-4 if "encoder.embed_positions" in name else 0, rtol=0)
    again = type(theirs)(type(theirs.config)(**{**SETTINGS, **write_whisper(config)}))
    again.load_state_dict(back)
    assert read_whisper(again.config.to_dict()) == config
    topped = {f"model.{name}": tensor for name, tensor in state.items()} | {
        "proj_out.weight": state["decoder.embed_tokens.weight"]
    }
    assert set(from_whisper(topped)) == set(from_whisper(state))
    encoder = build_whisper(config).encoder
    encoder.load_state_dict(WHISPER_ENCODER.to_ours(theirs.encoder.state_dict()).weights)


def test_openai_names() -> None:
    """Our weights under OpenAI's names and back; the names are written out from their model's definition."""
    model = build_whisper(whisper_micro(ffn_dim=256))
    state = model.state_dict()
    for name, tensor in state.items():
        if name.endswith("query_key_value.bias"):
            tensor[64:128] = 0
        if name.endswith("key_value.bias") and "cross" in name:
            tensor[:64] = 0
    theirs = to_openai(state)
    parts = [f"{part}.{kind}" for part in ("query", "value", "out") for kind in ("weight", "bias")] + ["key.weight"]
    block = [f"attn.{part}" for part in parts] + [
        f"{part}.{kind}" for part in ("attn_ln", "mlp.0", "mlp.2", "mlp_ln") for kind in ("weight", "bias")
    ]
    cross = [f"cross_attn.{part}" for part in parts] + ["cross_attn_ln.weight", "cross_attn_ln.bias"]
    expected = {f"encoder.blocks.{i}.{name}" for i in range(2) for name in block}
    expected |= {f"decoder.blocks.{i}.{name}" for i in range(2) for name in block + cross}
    expected |= {f"encoder.{part}.{kind}" for part in ("conv1", "conv2", "ln_post") for kind in ("weight", "bias")}
    expected |= {"encoder.positional_embedding", "decoder.positional_embedding", "decoder.token_embedding.weight"}
    expected |= {"decoder.ln.weight", "decoder.ln.bias"}
    assert set(theirs) == expected
    back = from_openai(theirs)
    assert set(back) == set(state)
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name
    dims = write_openai_dims(model.config)
    assert read_openai_dims(dims) == model.config
    theirs["encoder.positional_embedding"] = theirs["encoder.positional_embedding"].flip(0)
    with pytest.raises(CheckpointError, match="positions differ"):
        from_openai(theirs)
    with pytest.raises(ConfigError, match="encoder_ffn_dim=1 and decoder_ffn_dim=2"):
        read_whisper({"encoder_ffn_dim": 1, "decoder_ffn_dim": 2})


# --- the decoder ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def model() -> Whisper:
    torch.manual_seed(0)
    model = build_whisper(whisper_micro(input_dim=20)).eval()
    for parameter in model.decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_one_by_one_is_at_once(model: Whisper) -> None:
    lengths = torch.tensor([61, 30, 44])
    encoded = model.encoder(torch.randn(3, 61, 20), lengths)
    tokens = torch.randint(0, 100, (3, 12))
    with torch.no_grad():
        whole = model.decoder(tokens, encoded)
        for pieces in ([1] * 12, [4, 1, 1, 3, 3], [12]):
            state, logits = model.decoder.start(encoded), []
            for piece in tokens.split(pieces, dim=1):
                part, state = model.decoder.step(piece, state)
                logits.append(part)
            torch.testing.assert_close(torch.cat(logits, 1), whole, atol=1e-5, rtol=0)
        assert state.num_tokens == 12


def test_rows_of_a_state_are_those_items(model: Whisper) -> None:
    """Of three items the last and twice the first, as a beam search keeps them."""
    encoded = model.encoder(torch.randn(3, 61, 20), torch.tensor([61, 30, 44]))
    tokens, rows = torch.randint(0, 100, (3, 5)), torch.tensor([2, 0, 0])
    with torch.no_grad():
        _, state = model.decoder.step(tokens, model.decoder.start(encoded))
        following = torch.randint(0, 100, (3, 1))
        chosen, _ = model.decoder.step(following, state.select(rows))
        whole = model.decoder(
            torch.cat([tokens[rows], following], 1), Features(encoded.values[rows], encoded.lengths[rows], 50.0)
        )
    torch.testing.assert_close(chosen[:, 0], whole[:, -1], atol=1e-5, rtol=0)


def test_items_and_texts_alone_are_as_in_a_batch(model: Whisper) -> None:
    lengths, counts = [61, 30, 44], [5, 9, 7]
    values, tokens = torch.randn(3, 70, 20), torch.randint(0, 100, (3, 9))
    for item, length in enumerate(lengths):
        values[item, length:] = float("nan")
    with torch.no_grad():
        whole = model(values, torch.tensor(lengths), tokens)
        for item, (length, count) in enumerate(zip(lengths, counts, strict=True)):
            alone = model(values[item : item + 1, :length], torch.tensor([length]), tokens[item : item + 1, :count])
            torch.testing.assert_close(whole[item, :count], alone[0], atol=1e-5, rtol=0)


def test_a_token_sees_none_that_follow_and_gradients_reach_everything(model: Whisper) -> None:
    tokens = torch.arange(8)[None]
    encoded = model.encoder(torch.randn(1, 20, 20), torch.tensor([20]))
    changed = tokens.clone()
    changed[0, 5] = 77
    left, right = model.decoder(tokens, encoded), model.decoder(changed, encoded)
    torch.testing.assert_close(left[:, :5], right[:, :5], atol=1e-6, rtol=0)
    assert (left[:, 5:] - right[:, 5:]).abs().amax(-1).min() > 1e-3
    (left * torch.randn_like(left)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_nonsense_is_refused(model: Whisper) -> None:
    encoded = model.encoder(torch.zeros(1, 8, 20), torch.tensor([8]))
    with pytest.raises(DataError, match="65 tokens is longer than the decoder's 64"):
        model.decoder(torch.zeros(1, 65, dtype=torch.long), encoded)
    with pytest.raises(ConfigError, match="num_heads must divide dim"):
        WhisperConfig(num_heads=7)
