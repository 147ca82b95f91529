"""Encoders from folders, names and original files; what is not safe, not known or not there is refused."""

import json
import os
import sys
import types
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from sonorant.core.errors import CheckpointError, ConfigError, MissingPackage
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.checkpoint import save_trained_encoder
from sonorant.encoders.conformer import conformer_tiny
from sonorant.encoders.keys.fairseq import TABLE as FAIRSEQ
from sonorant.encoders.keys.fairseq import conv_layers
from sonorant.encoders.load import load_encoder, read_encoder, read_hugging_face, save_pretrained
from sonorant.encoders.pickled import plain, read_pickled
from sonorant.encoders.spectral import OnSpectrum, on_spectrum

CONVS = "[(16, 10, 5)] + [(16, 3, 2)] * 2"
FAIRSEQ_MODEL: dict[str, Any] = {
    "_name": "hubert", "conv_feature_layers": CONVS, "encoder_embed_dim": 24, "encoder_layers": 2,
    "encoder_attention_heads": 2, "encoder_ffn_embed_dim": 32, "conv_pos": 8, "conv_pos_groups": 2,
    "activation_fn": "gelu", "layer_norm_first": False, "extractor_mode": "default",
}  # fmt: skip


def tiny(name: str = "wav2vec2_tiny", **changes: Any) -> Any:
    torch.manual_seed(0)
    convs = ((16, 10, 5), (16, 3, 2), (16, 3, 2))
    size = {"conv_layers": convs, "dim": 24, "ffn_dim": 32, "position_kernel": 8, "position_groups": 2}
    encoder = build_encoder(name, **{**size, "dropout": 0.1, "attention_dropout": 0.1, **changes}).eval()
    for parameter in encoder.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.2)
    return encoder


def same(one: Any, other: Any) -> bool:
    state = other.state_dict()
    return one.config == other.config and all(torch.equal(state[n], t) for n, t in one.state_dict().items())


# --- our folders ------------------------------------------------------------------------------------------------------


def test_ours_there_and_back(tmp_path: Path) -> None:
    encoder = tiny()
    save_pretrained(encoder, tmp_path / "a")
    loaded: Any = load_encoder(tmp_path / "a", layer_drop=0.5)
    assert loaded.config.layer_drop == 0.5
    assert not loaded.training
    assert same(load_encoder(tmp_path / "a"), encoder)
    with pytest.raises(ConfigError, match="layerdrop"):
        load_encoder(tmp_path / "a", layerdrop=0.5)


def test_only_the_first_layers(tmp_path: Path) -> None:
    encoder = tiny(num_layers=3)
    save_pretrained(encoder, tmp_path / "a")
    loaded: Any = load_encoder(tmp_path / "a", layers=2)
    waveform, lengths = torch.randn(1, 3000), torch.tensor([3000])
    with torch.no_grad():
        expected = encoder(waveform, lengths, layers=True)[2].values
        torch.testing.assert_close(loaded(waveform, lengths).values, expected)
    assert loaded.num_layers == loaded.config.num_layers == 2
    with pytest.raises(ConfigError, match="layers must be at most 3"):
        load_encoder(tmp_path / "a", layers=4)
    with_front = OnSpectrum(on_spectrum(conformer_tiny()))
    save_trained_encoder(with_front, tmp_path / "b")
    assert load_encoder(tmp_path / "b", layers=1).num_layers == 1
    save_pretrained(build_encoder("pase_tiny"), tmp_path / "c")
    with pytest.raises(ConfigError, match="a pase cannot be shortened"):
        load_encoder(tmp_path / "c", layers=1)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="an architecture without weights: build_encoder"):
        load_encoder("hubert_base")
    with pytest.raises(CheckpointError, match="no folder or file .*nowhere.* owner/model"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"expected checkpoint.json \(ours\) or config.json \(transformers\)"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("part, value, message", [
    ("config", [1], "'config' must be a dict, got"), ("config", {"family": "wav2vec2"}, "has no configuration 'None'"),
    ("weights", None, "is damaged: 'weights' must be an object"), ("extra", [1], "'extra' must be a dict"),
    ("kind", ["encoder"], "'kind' must be a str"), ("options", [1], "wav2vec2 must be a mapping of fields"),
    ("options", {"dim": "x"}, "wav2vec2.dim must be int, got 'x'"),
])  # fmt: skip
def test_our_own_description_of_anything_is_named(part: str, value: Any, message: str, tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path / "a")
    file = tmp_path / "a" / "checkpoint.json"
    told = json.loads(file.read_text())
    (told["config"] if part == "options" else told)[part] = value
    file.write_text(json.dumps(told))
    with pytest.raises((CheckpointError, ConfigError), match=rf"checkpoint\.json.*{message}"):
        load_encoder(tmp_path / "a")


# --- transformers' folders --------------------------------------------------------------------------------------------


def test_weights_in_several_files_and_pickled_ones(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    encoder = tiny()
    save_pretrained(encoder, tmp_path / "whole", "huggingface")
    model = transformers.Wav2Vec2Model.from_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    assert same(load_encoder(tmp_path / "sharded"), encoder)
    old = {n.replace("parametrizations.weight.original0", "weight_g"): t for n, t in model.state_dict().items()}
    old = {n.replace("parametrizations.weight.original1", "weight_v"): t for n, t in old.items()}
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "config.json").write_text((tmp_path / "whole" / "config.json").read_text())
    torch.save(
        {f"wav2vec2.{n}": t for n, t in old.items()} | {"lm_head.bias": torch.zeros(3)}, bare / "pytorch_model.bin"
    )
    loaded = read_encoder(bare)
    assert same(loaded.encoder, encoder)
    assert loaded.dropped == {"CTC head: see load_recogniser": ["lm_head.bias"]}
    next((tmp_path / "sharded").glob("model-*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="the index in .* names model-"):
        load_encoder(tmp_path / "sharded")


def test_an_index_names_files_of_its_own_folder_alone(tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path / "a", "huggingface")
    (tmp_path / "a" / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = tmp_path / "a" / "model.safetensors.index.json"
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "..\\outside.safetensors", "..", 1):
        index.write_text(json.dumps({"weight_map": {"x": "model-1.safetensors", "y": name}}))
        with pytest.raises(CheckpointError, match=r"index.json must name files beside it, got .*fetch the folder anew"):
            load_encoder(tmp_path / "a")
    for content, message in ((["x"], "must hold an object"), ({"weight_map": ["x"]}, "'weight_map' must be an object")):
        index.write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=rf"index.json:? {message}"):
            load_encoder(tmp_path / "a")
    # In the hub's cache the files beside the index are links to elsewhere.
    (tmp_path / "a" / "model-1.safetensors").symlink_to(tmp_path / "outside.safetensors")
    index.write_text(json.dumps({"weight_map": {"x": "model-1.safetensors"}}))
    assert same(load_encoder(tmp_path / "a"), tiny())


@pytest.mark.parametrize("content", [b"", b"hello\n", b"root:x:0", b"\x80\x02]q\x00.", b"PK\x03\x04nothing", b"[" * 9])
def test_a_pickled_file_of_anything_is_named(content: bytes, tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path, "huggingface")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match="pytorch_model.bin"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("content", [[torch.zeros(1)], torch.zeros(1), {1: torch.zeros(1)}])
def test_a_pickled_file_must_hold_tensors_by_name(content: Any, tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path, "huggingface")
    (tmp_path / "model.safetensors").unlink()
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=r"must hold tensors by name, got (list|Tensor)|no rule for 1 keys, such as 1"
    ):
        load_encoder(tmp_path)


def test_models_that_we_lack_are_refused_by_name(tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path / "a", "huggingface")
    config = tmp_path / "a" / "config.json"
    text = config.read_text()
    for old, new, message in (
        ('"model_type": "wav2vec2"', '"model_type": "wav2vec3"', "did you mean 'wav2vec2'"),
        ('"model_type"', '"hidden_act": "relu", "model_type"', "hidden_act='relu' is not known here, only 'gelu'"),
        ('"model_type"', '"adapter_attn_dim": 16, "model_type"', "adapter_attn_dim=16"),
        ("24,", "25,", "num_heads must divide dim"),
    ):
        assert old in text
        config.write_text(text.replace(old, new, 1))
        with pytest.raises(ConfigError, match=message):
            load_encoder(tmp_path / "a")
    config.write_text(text.replace('"num_hidden_layers": 2', '"num_hidden_layers": 1'))
    with pytest.raises(
        CheckpointError, match=r"(?s)stack.blocks.1.* not in the model.*fetch both anew, from one place$"
    ):
        load_encoder(tmp_path / "a")
    with pytest.raises(ConfigError, match="transformers has no class for NpcConfig"):
        save_pretrained(build_encoder("npc_tiny"), tmp_path / "b", "huggingface")
    with pytest.raises(ConfigError, match="conv_norm='group' or 'layer' only"):
        save_pretrained(tiny(conv_norm="none"), tmp_path / "b", "huggingface")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds files that are no checkpoint"):
        save_pretrained(tiny(), tmp_path / "c", "huggingface")


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("hidden_size", "big", "Type"),
        ("hidden_size", None, "Type"),
        ("hidden_size", 24.5, "(dim|TypeCheckError)"),
        ("hidden_dropout", "x", "could not convert string to float"),
        ("conv_dim", 5, "TypeError: .*has no len"),
        ("conv_dim", [16, 16], "must be equally long"),
        ("conv_stride", [0, 2, 2], "conv_stride's smallest must be at least 1, got 0"),
        ("feat_extract_norm", "batch", "conv_norm: unknown value 'batch'"),
        ("model_type", 7, "unknown model_type of an encoder '7'"),
    ],
)
def test_a_configuration_of_anything_is_named(name: str, value: Any, message: str, tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path, "huggingface")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), name: value}))
    with pytest.raises((CheckpointError, ConfigError), match=rf"config\.json.*{message}"):
        load_encoder(tmp_path)


def test_objects_of_json_that_are_none(tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path, "huggingface")
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"config.json is damaged"):
        load_encoder(tmp_path)
    save_pretrained(tiny(), tmp_path, "huggingface")
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text('{"feature_extractor": [1]}')
    with pytest.raises(
        CheckpointError, match=r"processor_config.json: 'feature_extractor' must be an object, got \[1\]"
    ):
        load_encoder(tmp_path)


def test_features_come_from_the_folder(tmp_path: Path) -> None:
    sounds: Any = build_encoder("ast_base", dim=24, num_layers=1, num_heads=2, ffn_dim=32)
    save_pretrained(sounds, tmp_path / "ast", "huggingface")
    told = tmp_path / "ast" / "preprocessor_config.json"
    for values, mean, std in (
        ({}, -4.2677393, 2 * 4.5689974),
        ({"mean": -6.85, "std": 5.5}, -6.85, 11.0),
        ({"mean": -6.85, "std": 5.5, "do_normalize": False}, 0.0, 1.0),
    ):
        told.write_text(json.dumps(values))
        front = read_hugging_face(tmp_path / "ast").front
        assert front is not None
        assert (front.mean, front.std) == (mean, std)
    told.write_text('{"sampling_rate": 8000}')
    with pytest.raises(ConfigError, match=r"AST encoder with sampling_rate=8000 is not known here, only 16000"):
        load_encoder(tmp_path / "ast")
    bert: Any = build_encoder("w2v_bert_tiny", input_dim=24, input_frame_rate=25.0)
    save_pretrained(bert, tmp_path / "bert", "huggingface")
    front = read_hugging_face(tmp_path / "bert").front
    assert front is not None
    assert (front.dim, front.stack) == (6, 4)
    whole: Any = load_encoder(tmp_path / "bert", front=True)
    assert whole.front.frame_rate == 25.0


def test_the_right_class_is_found(tmp_path: Path) -> None:
    for changes, kind in (
        ({}, "wav2vec2"),
        ({"local_norm": False}, "hubert"),
        ({"attention": "gated"}, "wavlm"),
        ({"position": "conv_stack", "position_kernel": 5, "conv_norm": "layer"}, "data2vec-audio"),
    ):
        encoder = tiny(**changes)
        save_pretrained(encoder, tmp_path / kind, "huggingface")
        assert f'"model_type": "{kind}"' in (tmp_path / kind / "config.json").read_text()
        assert same(load_encoder(tmp_path / kind), encoder)
    save_pretrained(tiny(), tmp_path / "named", "huggingface", model_type="unispeech-sat")
    assert '"UniSpeechSatModel"' in (tmp_path / "named" / "config.json").read_text()


# --- names on the hub -------------------------------------------------------------------------------------------------


def test_a_name_is_looked_for_in_the_cache_and_without_a_network_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    constants, errors = (pytest.importorskip(f"huggingface_hub.{name}") for name in ("constants", "errors"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    place = tmp_path / "models--someone--tiny"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    encoder = tiny()
    save_pretrained(encoder, place / "snapshots" / commit, "huggingface")
    assert same(load_encoder("someone/tiny"), encoder)
    assert same(load_encoder("someone/tiny", revision=commit), encoder)

    def unreachable(*args: Any, **options: Any) -> Any:
        if options.get("local_files_only"):
            raise errors.LocalEntryNotFoundError("nothing in the cache")
        raise OSError("no route to the hub")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    with pytest.raises(
        CheckpointError, match=r"neither a folder here nor in the hub's cache.*no route.*copy the model"
    ):
        load_encoder("someone/other")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackage, match=r"sonorant\[hub\]"):
        load_encoder("someone/other")


# --- original files ---------------------------------------------------------------------------------------------------


def under_fairseq_names(encoder: Any, layer_norm: bool = False) -> dict[str, torch.Tensor]:
    weights = FAIRSEQ.to_theirs(encoder.state_dict(), {"mask": torch.ones(24)})
    if layer_norm:
        for part in ("weight", "bias"):
            for index in range(3):
                name = f"feature_extractor.conv_layers.{index}.2"
                weights[f"{name}.1.{part}"] = weights.pop(f"{name}.{part}")
    return weights


def test_fairseq_files_of_two_ages(tmp_path: Path) -> None:
    encoder = tiny(normalise=True, inner_dropout=0.0)
    weights = under_fairseq_names(encoder) | {
        "final_proj.weight": torch.zeros(2, 2),
        "label_embs_concat": torch.zeros(2),
    }
    cfg = {"model": FAIRSEQ_MODEL, "task": {"_name": "hubert_pretraining", "normalize": True, "sample_rate": 16000}}
    torch.save({"args": None, "cfg": cfg, "model": weights}, tmp_path / "new.pt")
    loaded = read_encoder(tmp_path / "new.pt")
    assert same(loaded.encoder, encoder)
    assert loaded.kept["mask"].sum() == 24
    assert set(loaded.dropped) == {"projection of pre-training", "units of pre-training"}
    args = Namespace(**FAIRSEQ_MODEL, normalize=True)
    torch.save({"args": args, "model": weights}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert same(load_encoder(tmp_path / "old.pt"), encoder)
    # Fine-tuned by CTC: the options of pre-training stand inside, the weights under a prefix.
    tuned = {f"w2v_encoder.w2v_model.{name}": tensor for name, tensor in weights.items()}
    model = {"_name": "wav2vec_ctc", "w2v_args": cfg}
    torch.save(
        {"cfg": {"model": model}, "model": {**tuned, "w2v_encoder.proj.weight": torch.zeros(3, 24)}},
        tmp_path / "ctc.pt",
    )
    loaded = read_encoder(tmp_path / "ctc.pt")
    assert same(loaded.encoder, encoder)
    assert loaded.dropped["head of fine-tuning"] == ["proj.weight"]


def test_wavlm_and_data2vec_files(tmp_path: Path) -> None:
    wavlm = tiny("wavlm_tiny", conv_norm="layer", norm_first=True, inner_dropout=0.0)
    flat = {
        **FAIRSEQ_MODEL, "extractor_mode": "layer_norm", "layer_norm_first": True, "normalize": False,
        "relative_position_embedding": True, "num_buckets": 32, "max_distance": 80, "gru_rel_pos": True,
    }  # fmt: skip
    torch.save({"cfg": flat, "model": under_fairseq_names(wavlm, layer_norm=True)}, tmp_path / "WavLM-Tiny.pt")
    assert same(load_encoder(tmp_path / "WavLM-Tiny.pt"), wavlm)
    data2vec = tiny(
        "data2vec_audio_base", num_layers=2, num_heads=2, position_kernel=5, position_depth=3, layer_drop=0.0
    )
    model = {**FAIRSEQ_MODEL, "extractor_mode": "layer_norm", "conv_pos": 15, "pos_conv_depth": 3}
    weights = under_fairseq_names(data2vec, layer_norm=True) | {
        "_ema.x": torch.zeros(1),
        "final_proj.bias": torch.zeros(1),
    }
    torch.save({"cfg": {"model": model, "task": {"normalize": True}}, "model": weights}, tmp_path / "data2vec.pt")
    loaded = read_encoder(tmp_path / "data2vec.pt")
    assert same(loaded.encoder, data2vec)
    assert loaded.dropped["the teacher's moving average"] == ["_ema.x"]


def test_wav2vec_whisper_and_cpc_files(tmp_path: Path) -> None:
    from sonorant.encoders.keys.cpc import CPC_AUDIO, WAV2VEC
    from sonorant.encoders.keys.whisper import to_openai, write_openai_dims
    from sonorant.encoders.whisper import build_whisper, whisper_micro

    wav2vec: Any = build_encoder("vq_wav2vec", dim=8)
    told = {
        "conv_feature_layers": str([(8, k, s) for k, s in zip(wav2vec.config.kernels, wav2vec.config.strides)]),
        "conv_aggregator_layers": str([(8, kernel, 1) for kernel in wav2vec.config.context_kernels]),
        "activation": "gelu", "skip_connections_agg": True, "residual_scale": 0.5, "log_compression": True,
    }  # fmt: skip
    content = {"args": Namespace(**told), "model": WAV2VEC.to_theirs(wav2vec.state_dict())}
    torch.save(content, tmp_path / "vq.pt")
    assert same(load_encoder(tmp_path / "vq.pt"), wav2vec)

    config = whisper_micro(ffn_dim=256)
    torch.manual_seed(0)
    whisper = build_whisper(config)
    torch.save(
        {"dims": write_openai_dims(config), "model_state_dict": to_openai(whisper.state_dict())}, tmp_path / "tiny.pt"
    )
    loaded: Any = load_encoder(tmp_path / "tiny.pt")
    torch.testing.assert_close(loaded.convs[0].weight, whisper.encoder.convs[0].weight)
    assert loaded.config == config

    small: Any = build_encoder("cpc_small", local_dim=8, dim=6)
    torch.save({"weights": CPC_AUDIO.to_theirs(small.state_dict())}, tmp_path / "cpc.pt")
    assert load_encoder(tmp_path / "cpc.pt").config == small.config
    torch.save({"weights": {"a": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no toolkit that is known here .* it holds weights"):
        load_encoder(tmp_path / "other.pt")


def test_files_of_encoders_over_patches(tmp_path: Path) -> None:
    from sonorant.encoders.keys.beats import beats_table, with_shared_bias, write_beats
    from sonorant.encoders.keys.dasheng import dasheng_table

    beats: Any = build_encoder("beats_tiny", num_layers=2)
    weights = with_shared_bias(beats_table(beats.config).to_theirs(beats.state_dict()), beats.config)
    torch.save({"cfg": write_beats(beats.config), "model": weights}, tmp_path / "BEATs.pt")
    loaded = read_encoder(tmp_path / "BEATs.pt")
    assert all(torch.equal(loaded.encoder.state_dict()[name], tensor) for name, tensor in beats.state_dict().items())
    size = {
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 2,
        "target_length": 40,
        "patch_size": [64, 4],
        "patch_stride": [64, 4],
    }
    dasheng: Any = build_encoder("dasheng_base", dim=16, num_layers=1, num_heads=2, ffn_dim=64, max_columns=10)
    weights = dasheng_table(dasheng.config).to_theirs(dasheng.state_dict())
    torch.save({"model": weights, "config": size}, tmp_path / "dasheng.pt")
    assert same(load_encoder(tmp_path / "dasheng.pt"), dasheng)
    whole: Any = load_encoder(tmp_path / "dasheng.pt", front=True)
    assert whole.input == "waveform"
    assert whole(torch.randn(1, 16000), torch.tensor([16000])).values.shape[2] == 16


def test_s3prls_files_and_features_that_are_not_known(tmp_path: Path) -> None:
    from sonorant.encoders.keys.tera import S3PRL

    tera: Any = build_encoder("tera_tiny")
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    told = {"transformer": {**size, "hidden_dropout_prob": 0.0}}
    torch.save({"Transformer": S3PRL.to_theirs(tera.state_dict()), "Upstream_Config": told}, tmp_path / "states.ckpt")
    assert same(load_encoder(tmp_path / "states.ckpt"), tera)
    with pytest.raises(ConfigError, match="the features that this encoder was trained on are not known here"):
        load_encoder(tmp_path / "states.ckpt", front=True)


@pytest.mark.parametrize("content", [
    {"weights": {"gEncoder.conv0.weight": torch.zeros(2, 1, 10)}},
    {"Transformer": {"a": torch.zeros(1)}, "Upstream_Config": {"transformer": {"hidden_size": 4}}},
    {"model": {"time_pos_embed": torch.zeros(1)}, "config": {"patch_size": 3}},
    {"model": {"patch_embedding.weight": torch.zeros(1)}, "cfg": "none"},
    {"model": {"feature_extractor.conv_layers.0.0.weight": torch.zeros(1)}, "cfg": {"model": {"conv_feature_layers": "x"}}},
    {"model": {"feature_extractor.conv_layers.0.0.weight": torch.zeros(1)}, "cfg": {"model": {"dropout": "much"}}},
    {"model": {"feature_extractor.conv_layers.0.0.weight": torch.zeros(1)}, "cfg": {"model": {"a": 1}, "task": [1]}},
    {"model": {"middle_encoder.layers.0.fc1.weight": torch.zeros(1)}, "cfg": {"model": {"label_rate_ratios": 5}}},
    {"dims": {"n_audio_ctx": 1500}, "model_state_dict": {}},
])  # fmt: skip
def test_an_original_file_that_lacks_something_is_named(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises((CheckpointError, ConfigError), match=r"odd\.pt"):
        load_encoder(tmp_path / "odd.pt")


def test_fairseqs_names_as_its_files_have_them() -> None:
    """Written out, not made from the table."""
    convs = [f"feature_extractor.conv_layers.{i}.0.weight" for i in range(3)]
    layer = [f"self_attn.{part}_proj" for part in "qkv"] + ["self_attn.out_proj", "self_attn_layer_norm", "fc1", "fc2"]
    linear = [
        "feature_extractor.conv_layers.0.2", "layer_norm", "post_extract_proj", "encoder.layer_norm",
        *(f"encoder.layers.0.{name}" for name in [*layer, "final_layer_norm"]),
    ]  # fmt: skip
    names = {
        *convs,
        "mask_emb",
        "encoder.pos_conv.0.weight_g",
        "encoder.pos_conv.0.weight_v",
        "encoder.pos_conv.0.bias",
    }
    names |= {f"{name}.{part}" for name in linear for part in ("weight", "bias")}
    assert set(under_fairseq_names(tiny(num_layers=1))) == names
    more = {"relative_attention_bias.weight", "grep_a", "grep_linear.weight", "grep_linear.bias"}
    gated = set(under_fairseq_names(tiny("wavlm_tiny", num_layers=1)))
    assert gated == names | {f"encoder.layers.0.self_attn.{name}" for name in more}
    stacked = set(under_fairseq_names(tiny("data2vec_audio_base", num_layers=1, num_heads=2, position_kernel=5)))
    assert {f"encoder.pos_conv.{i}.0.{part}" for i in range(5) for part in ("weight", "bias")} <= stacked


def test_options_are_needed_and_read_without_running_them() -> None:
    assert conv_layers([[4, 3, 2]]) == ((4, 3, 2),)
    nested = "[(1, 2, 3)]" + " * 999" * 9
    deep = "(" * 9999 + ")" * 9999
    for bad in ("__import__('os').getcwd()", "[(512, 10)]", "[(1, 2, 3)] * 99999999", nested, deep, "nonsense ("):
        with pytest.raises(CheckpointError, match="conv_feature_layers must list"):
            conv_layers(bad)


# --- safety -----------------------------------------------------------------------------------------------------------


class _Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["EVIL_PLACE"],)


def test_nothing_in_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL_PLACE", str(tmp_path / "was-run"))
    for zipped in (True, False):
        torch.save({"model": {}, "cfg": _Evil()}, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match="cannot be read without running code from it: .*mkdir"):
            load_encoder(tmp_path / "evil.pt")
    assert not (tmp_path / "was-run").exists()
    (tmp_path / "noise.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="noise.pt"):
        load_encoder(tmp_path / "noise.pt")


def test_stand_ins_for_fairseqs_own_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dictionary:
        def __init__(self) -> None:
            self.symbols = ["<s>", "a"]

        def __setstate__(self, state: Any) -> None:
            raise AssertionError("code of the file's class ran")

    for name in ("fairseq", "fairseq.data", "fairseq.data.dictionary"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    Dictionary.__module__, Dictionary.__qualname__ = "fairseq.data.dictionary", "Dictionary"
    sys.modules["fairseq.data.dictionary"].Dictionary = Dictionary  # type: ignore[attr-defined]
    content = {"task_state": {"dictionaries": [Dictionary()]}, "args": Namespace(a=1, b=[Namespace(c=2)])}
    torch.save(content, tmp_path / "x.pt")
    monkeypatch.undo()
    found = plain(read_pickled(tmp_path / "x.pt"))
    assert found == {"task_state": {"dictionaries": [{"symbols": ["<s>", "a"]}]}, "args": {"a": 1, "b": [{"c": 2}]}}
