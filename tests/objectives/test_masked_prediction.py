"""Masked prediction: labels and rates by hand, HuBERT's logits, several heads, views that swap, mixed audio."""

import math
from dataclasses import replace

import pytest
import torch
from tests.contracts.objectives import batch_of, check_objective, item_of
from tests.contracts.tiny_encoder import TinyEncoder

from sonorant.audio.augment.mix import Mix
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Batch, Features
from sonorant.encoders.spectral import OnSpectrum, on_spectrum
from sonorant.encoders.zipformer import zipformer_tiny
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.masked_prediction import (
    MaskedPrediction,
    MaskedPredictionConfig,
    UnitHead,
    fast_hubert_objective,
    hubert_objective,
    mr_hubert_objective,
    ms_hubert_objective,
    resampled_units,
    wavlm_objective,
)

STREAMS = {"units": (8, 20), "units1": (4, 20), "fast": (8, 10)}
SMALL = {"mask": MaskConfig(prob=0.6, span=4)}


def make(ids: tuple[str, ...], extra: int = 0) -> Batch:
    return batch_of(ids, extra, units=STREAMS)


CASES = {
    "hubert": hubert_objective(8, **SMALL),
    "mfcc round at 100 a second": MaskedPredictionConfig(
        heads=(UnitHead(stream="fast", num_units=8, label_rate=100.0),), **SMALL
    ),
    "seen frames count too": hubert_objective(8, masked_weight=0.7, unmasked_weight=0.3, **SMALL),
    "wavlm": wavlm_objective(8, **SMALL),
    "fast_hubert": fast_hubert_objective(8, layers=(1, -1), **SMALL),
    "ms_hubert": ms_hubert_objective((8, 4), (3, 2), swap=(1, 2), **SMALL),
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    config = CASES[name]
    # Cosines with random codewords over 0.1 are far from uniform, so the loss begins above the logarithm of the units.
    total = sum(head.weight * math.log(head.num_units) for head in config.heads)
    check_objective(lambda: MaskedPrediction(TinyEncoder(), config), make, chance=(0.5 * total, 6 * total))


def test_a_label_is_taken_at_a_frames_own_time() -> None:
    labels = torch.tensor([[0, 1, 2, 3, 4, 5, -1, 7]])
    taken, valid = resampled_units(labels, torch.tensor([8]), torch.tensor([4]), 5, 2.0)
    assert taken[0, :3].tolist() == [0, 2, 4]
    assert valid.tolist() == [[True, True, True, False, False]]  # an unknown unit, and padding
    taken, valid = resampled_units(labels, torch.tensor([3]), torch.tensor([5]), 5, 0.5)
    assert taken[0].tolist() == [0, 0, 1, 1, 2]
    assert valid.all()
    _, valid = resampled_units(labels, torch.tensor([2]), torch.tensor([5]), 5, 1.0)
    assert valid.tolist() == [[True, True, False, False, False]]
    taken, _ = resampled_units(
        torch.arange(3000)[None], torch.tensor([3000]), torch.tensor([1000]), 1000, 100 / 33.3333333333
    )
    assert taken[0].tolist() == list(range(0, 3000, 3))


def test_the_loss_is_the_formula_over_hidden_frames() -> None:
    torch.manual_seed(0)
    objective = MaskedPrediction(TinyEncoder(), hubert_objective(8, feature_weight=0.0, **SMALL)).eval()
    batch = make(("a", "b"))
    with torch.no_grad():
        loss = objective.losses(batch)["model"]
        local = objective.encoder.local(batch.waveform, batch.lengths)
        embedded = objective.encoder.embed(local)
        mask = objective.config.mask.draw(batch.seeds, embedded.lengths, embedded.values.shape[1])
        values = torch.where(mask[..., None], objective.hiding.embedding.vector, embedded.values)
        out = objective.encoder.context(Features(values, embedded.lengths, 50.0)).values
        head = objective.heads[0]
        expected = 0.0
        for item, frame in mask.nonzero().tolist():
            projected = head.project(out[item, frame])
            logits = torch.cosine_similarity(projected[None], head.codewords, dim=1) / 0.1
            if frame < int(batch.labels["units_lengths"][item]):
                expected -= float(logits.log_softmax(0)[batch.labels["units"][item, frame]])
    assert float(loss.total) == pytest.approx(expected, rel=1e-5)


def test_nothing_of_a_hidden_frame_reaches_its_answer() -> None:
    """What the audio says under the mask plays no part, without neighbours that see it."""
    torch.manual_seed(0)
    objective = MaskedPrediction(TinyEncoder(), hubert_objective(8, feature_weight=0.0, **SMALL)).eval()
    batch = make(("a",))
    embedded = objective.encoder.embed(objective.encoder.local(batch.waveform, batch.lengths))
    mask = objective.config.mask.draw(batch.seeds, embedded.lengths, embedded.values.shape[1])
    stretch = mask[0].nonzero().flatten()
    inside = next(int(f) for f in stretch if {int(f) - 2, int(f) - 1, int(f) + 1, int(f) + 2} <= set(stretch.tolist()))
    other = batch.waveform.clone()
    other[0, inside * 20 : inside * 20 + 10] += 0.7
    with torch.no_grad():
        losses = [objective.losses(replace(batch, waveform=wave))["model"].total for wave in (batch.waveform, other)]
    assert torch.equal(*losses)


def test_swapping_brings_clean_frames_into_the_masked_view() -> None:
    torch.manual_seed(0)
    batch = make(("a", "b"))
    plain = MaskedPrediction(TinyEncoder(), ms_hubert_objective((8, 4), (3, 2), swap=(), **SMALL)).eval()
    swapped = MaskedPrediction(plain.encoder, ms_hubert_objective((8, 4), (3, 2), swap=(1,), **SMALL)).eval()
    swapped.load_state_dict(plain.state_dict())
    with torch.no_grad():
        _, before, mask = plain._layers(batch)
        _, after, both = swapped._layers(batch)
        clean = plain.encoder.context(
            plain.encoder.embed(plain.encoder.local(batch.waveform, batch.lengths)), layers=True
        )
    assert torch.equal(both, torch.cat([mask, mask]))
    hidden, lengths = mask[..., None], before[1].lengths
    with torch.no_grad():
        for view, (own, other) in enumerate([(before[1], clean[1]), (clean[1], before[1])]):
            entering = torch.where(hidden, other.values, own.values)
            expected = zero_padding(plain.encoder.blocks[1](entering, lengths), lengths)
            torch.testing.assert_close(after[2].values.chunk(2)[view], expected)
    single = swapped.losses(batch)["model"]
    assert int(single.count) == 2 * int(plain.losses(batch)["model"].count)


class TwoRates(TinyEncoder):
    """The second block's frames come at half the rate, as MR-HuBERT's do."""

    def context(self, embedded: Features, layers: bool = False, between: object = None) -> object:
        fast = self.blocks[0](embedded.values, embedded.lengths)
        half = (embedded.lengths + 1) // 2
        slow = self.blocks[1](fast[:, ::2], half)
        up = slow.repeat_interleave(2, dim=1)[:, : fast.shape[1]]
        last = self.blocks[2](fast + up, embedded.lengths)
        rates = [(embedded.values, 50.0), (fast, 50.0), (slow, 25.0), (last, 50.0)]
        outputs = [Features(v, embedded.lengths if r == 50 else half, r) for v, r in rates]
        return outputs if layers else outputs[-1]


def test_two_frame_rates() -> None:
    config = mr_hubert_objective(8, low_layer=2, **SMALL)
    total = 2 * math.log(8)
    check_objective(lambda: MaskedPrediction(TwoRates(), config), make, chance=(0.5 * total, 6 * total))
    torch.manual_seed(0)
    objective = MaskedPrediction(TwoRates(), config).eval()
    batch = make(("a", "b"))
    _, layers, mask = objective._layers(batch)
    asked = objective._asked(batch, config.heads[1], layers, mask)
    places = [(i, f) for i, f in mask[:, ::2].nonzero().tolist() if 2 * f < int(batch.labels["units_lengths"][i])]
    assert asked.units.tolist() == [int(batch.labels["units"][i, 2 * f]) for i, f in places]


def test_mixed_audio_keeps_clean_labels() -> None:
    torch.manual_seed(0)
    mix = Mix(share=(0.1, 0.5), snr_db=(-5.0, 5.0), prob=1.0)
    clean = MaskedPrediction(TinyEncoder(), wavlm_objective(8, **SMALL)).eval()
    mixed = MaskedPrediction(clean.encoder, clean.config, mix).eval()
    mixed.load_state_dict(clean.state_dict())
    batch = make(("a", "b", "c"))
    with torch.no_grad():
        ours, theirs = mixed.losses(batch)["model"], clean.losses(batch)["model"]
        heard = clean.losses(mix(batch))["model"]
    assert int(ours.count) == int(theirs.count)
    assert float(ours.total) != float(theirs.total)
    assert torch.equal(ours.total, heard.total)


def test_masks_are_as_wide_as_the_first_stack_of_a_zipformer() -> None:
    zipformer = OnSpectrum(on_spectrum(zipformer_tiny(output_factor=1), dim=8, sample_rate=1000))
    assert (zipformer.embed_dim, zipformer.dim) == (48, 64)
    objective = MaskedPrediction(zipformer, hubert_objective(6, mask=MaskConfig(prob=0.5, span=4)))
    batch = batch_of(("a", "b"), seconds=(1.0, 1.6))
    units = torch.randint(0, 6, (2, 80))
    batch = replace(batch, labels={"units": units, "units_lengths": torch.tensor([80, 80])})
    loss = objective.losses(batch)["model"]
    assert float(loss.count) > 0
    (loss.total / loss.count).backward()
    assert objective.hiding.embedding.vector.grad is not None
    assert objective.hiding.embedding.vector.grad.abs().sum() > 0


def test_what_does_not_fit_is_named() -> None:
    batch = make(("a", "b"))
    objective = MaskedPrediction(TinyEncoder(), hubert_objective(5, **SMALL))
    with pytest.raises(DataError, match=r"item '.' holds unit \d in 'units', and its head knows units 0 to 4"):
        objective.losses(batch)
    with pytest.raises(DataError, match=r"labels 'phones', and the batch lacks phones and phones_lengths; it has fast"):
        MaskedPrediction(TinyEncoder(), MaskedPredictionConfig(heads=(UnitHead(stream="phones"),))).losses(batch)
    with pytest.raises(ConfigError, match="layer 4, and the encoder has 3"):
        MaskedPrediction(TinyEncoder(), MaskedPredictionConfig(heads=(UnitHead(layer=4),)))
    with pytest.raises(ConfigError, match="batch.seeds"):
        hubert = MaskedPrediction(TinyEncoder(), hubert_objective(8))
        hubert.losses(replace(batch, seeds=None))
    assert int(item_of(batch, 1).lengths[0]) == int(batch.lengths[1])
