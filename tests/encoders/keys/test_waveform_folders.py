"""Folders of transformers' further waveform families: read, written, and read by transformers again."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.encoders.keys.test_sew import reference as sew
from tests.encoders.keys.test_w2v_bert import reference as w2v_bert
from tests.encoders.keys.test_wav2vec2_conformer import reference as conformer

from sonorant.core.errors import ConfigError
from sonorant.encoders.load import load_encoder, save_pretrained
from sonorant.encoders.surgery import truncate

REFERENCES = {"SEWModel": sew, "Wav2Vec2ConformerModel": conformer, "Wav2Vec2BertModel": w2v_bert}


def frames(model: Any, values: torch.Tensor) -> torch.Tensor:
    """What either kind of model gives for items of equal length."""
    with torch.no_grad():
        if hasattr(model, "last_hidden_state") or hasattr(model, "config_class"):
            return model(values).last_hidden_state
        return model(values, torch.full((len(values),), values.shape[1])).values


@pytest.mark.parametrize("name", REFERENCES)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    theirs = REFERENCES[name]()
    theirs.save_pretrained(tmp_path / "theirs")
    ours: Any = load_encoder(tmp_path / "theirs")
    torch.manual_seed(1)
    values = torch.randn(2, 41, 12) if ours.input == "features" else torch.randn(2, 1500)
    expected = frames(theirs, values)
    torch.testing.assert_close(frames(ours, values), expected, atol=1e-4, rtol=0)
    save_pretrained(ours, tmp_path / "back", format="huggingface")
    again = getattr(importlib.import_module("transformers"), name).from_pretrained(tmp_path / "back").eval()
    torch.testing.assert_close(frames(again, values), expected, atol=1e-4, rtol=0)
    save_pretrained(truncate(ours, 2), tmp_path / "ours")
    assert load_encoder(tmp_path / "ours").num_layers == 2


def test_a_variant_that_they_lack_is_refused(tmp_path: Path) -> None:
    conformer().save_pretrained(tmp_path / "theirs")
    ours: Any = load_encoder(tmp_path / "theirs")
    ours.config = type(ours.config)(**{**vars(ours.config), "norm": "layer"})
    with pytest.raises(ConfigError, match="norm='batch' only"):
        save_pretrained(ours, tmp_path / "back", format="huggingface")
