"""fairseq's names of MR-HuBERT: every weight of ours has one, there and back, and a file is read with its options."""

from typing import Any

import pytest
import torch

from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.encoders.keys.mr_hubert import mr_hubert_table, read
from sonorant.encoders.mr_hubert import MrHubert, MrHubertConfig

MODEL: dict[str, Any] = {
    "_name": "multires_hubert", "label_rate_ratios": [1, 2], "conv_feature_layers": "[(8, 10, 5)] + [(16, 3, 2)] * 2",
    "encoder_layers": 2, "encoder_embed_dim": 24, "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2,
    "conv_adapator_kernal": 1, "conv_pos": 8, "conv_pos_groups": 2, "layer_norm_first": True, "dropout": 0.0,
}  # fmt: skip


def content(**changes: Any) -> tuple[dict[str, Any], MrHubert]:
    """A file as fairseq writes it, from a random model of ours."""
    torch.manual_seed(0)
    model = {**MODEL, **changes}
    config = MrHubertConfig(
        conv_layers=((8, 10, 5), (16, 3, 2), (16, 3, 2)), dim=24, layers=changes.get("layers", (2, 2, 2)),
        factors=tuple(model["label_rate_ratios"][1::2]), num_heads=2, ffn_dim=32, position_kernel=8, position_groups=2,
        norm_first=True, dropout=0.0, layer_drop=0.0, plain_sampling=model.get("use_plain_updownsample", False),
    )  # fmt: skip
    model.pop("layers", None)
    encoder = MrHubert(config).eval()
    weights = mr_hubert_table(config).to_theirs(encoder.state_dict(), {"mask": torch.ones(24)})
    heads = {"final_projs.0.weight": torch.zeros(1), "label_embs_concat.1": torch.zeros(1)}
    return {"model": {**weights, **heads}, "cfg": {"model": model, "task": {"normalize": False}}}, encoder


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"label_rate_ratios": [1, 2, 1, 2], "override_encoder_layers": "[1, 2, 1, 3, 1]", "layers": (1, 2, 1, 1, 3)},
        {"use_plain_updownsample": True},
    ],
)
def test_a_file_gives_the_model_that_it_was_written_from(changes: dict[str, Any]) -> None:
    file, encoder = content(**changes)
    assert {"middle_encoder.layers.0.fc1.weight", "decoders.0.layer_norm.bias", "post_extract_proj.weight"} <= set(
        file["model"]
    )
    found = read(file, "their.pt")
    assert found is not None
    config, converted = found
    assert config == encoder.config
    loaded = MrHubert(config)
    loaded.load_state_dict(converted.weights)
    assert all(torch.equal(tensor, encoder.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert converted.kept["mask"].tolist() == [1.0] * 24
    assert sum(map(len, converted.dropped.values())) == 2


def test_other_models_are_left_to_others_and_unknown_ones_refused() -> None:
    file, _ = content()
    assert read({"model": {"encoder.layers.0.fc1.weight": torch.zeros(1)}}, "hubert.pt") is None
    assert read([], "x") is None
    with pytest.raises(CheckpointError, match="no rule for 1 keys"):
        read({**file, "model": {**file["model"], "middle_encoder.more": torch.zeros(1)}}, "their.pt")
    odd = {**file, "cfg": {"model": {**MODEL, "label_rate_ratios": [2, 5]}, "task": {}}}
    with pytest.raises(ConfigError, match="pairs of 1 and a whole number"):
        read(odd, "their.pt")
