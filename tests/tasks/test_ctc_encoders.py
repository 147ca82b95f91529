"""Each family that takes features can be trained by CTC and comes back from its folder."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sonorant.core.types import Batch
from sonorant.encoders.catalogue import encoder_preset
from sonorant.tasks.asr.model import CtcRecogniser, FeatureConfig, ctc_config, load_recogniser, save_recogniser
from sonorant.text.alphabet import Alphabet

NARROW: dict[str, dict[str, Any]] = {
    "zipformer_tiny": {"channels": (2, 3, 4)},
    "squeezeformer_tiny": {"channels": 4, "dim": 16, "ffn_dim": 16},
    "sparseformer_tiny": {"dim": 16, "ffn_dim": 16},
    "fastconformer_tiny": {"channels": 4, "dim": 16, "ffn_dim": 16},
}


@pytest.mark.parametrize("name", NARROW)
def test_trained_and_stored(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ctc_config(FeatureConfig(dim=40, normalise="utterance"), encoder_preset(name, **NARROW[name]))
    model = CtcRecogniser(config, Alphabet("ab"))
    labels = {"tokens": torch.tensor([[1, 2], [1, 0]]), "tokens_lengths": torch.tensor([2, 1])}
    batch = Batch(torch.randn(2, 16000) * 0.1, torch.tensor([16000, 12000]), 16000, labels, ("x", "y"))
    loss = model.losses(batch)["model"]
    loss.total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    save_recogniser(model, tmp_path / "model")
    again = load_recogniser(tmp_path / "model").eval()
    with torch.no_grad():
        assert torch.equal(again(batch.waveform, batch.lengths).values, model(batch.waveform, batch.lengths).values)
