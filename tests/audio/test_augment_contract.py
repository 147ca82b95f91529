"""Every augmentation of the catalogue under the contract battery, and what chains and choices keep."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from tests.contracts.augmentations import check_augmentation, check_feature_augmentation, speech_like

from sonorant.audio.augment.catalogue import AUGMENTATIONS, FEATURE_AUGMENTATIONS, build_augmentation
from sonorant.audio.augment.chain import Chain, OneOf
from sonorant.audio.augment.clips import Clips
from sonorant.audio.augment.noise import Noise
from sonorant.audio.augment.speed import Speed
from sonorant.audio.augment.volume import Volume
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.seed import item_seeds
from sonorant.core.types import Batch, Segment, Segments

NEIGHBOURS = ("babble", "mix")
FIXED = ("mu_law", "gsm")
NO_GRADIENT = ("codec", "mp3", "opus")


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_contract(name: str) -> None:
    check_augmentation(
        AUGMENTATIONS[name],
        gradient=name not in NO_GRADIENT,
        alone=name not in NEIGHBOURS,
        drawn=name not in FIXED,
        sample_rates=(16000,) if name in NO_GRADIENT else (16000, 8000),
    )


@pytest.mark.parametrize("name", FEATURE_AUGMENTATIONS)
def test_contract_on_features(name: str) -> None:
    check_feature_augmentation(FEATURE_AUGMENTATIONS[name])


def _bank() -> Clips:
    draw = torch.Generator().manual_seed(3)
    noises = [0.3 * torch.randn(5000, generator=draw), 0.1 * torch.randn(900, generator=draw)]
    return Clips.of([*noises, torch.sin(torch.arange(3000.0))], 16000)


@pytest.mark.parametrize(
    "build",
    [
        lambda prob: build_augmentation("noise", clips=_bank(), prob=prob),
        lambda prob: build_augmentation("babble", clips=_bank(), prob=prob),
        lambda prob: build_augmentation("reverb", rirs=_bank(), prob=prob),
        lambda prob: build_augmentation("reverb", rirs=_bank(), align=False, keep_tail=True, prob=prob),
        lambda prob: build_augmentation("clip", soft=True, prob=prob),
        lambda prob: Chain([Noise(), Speed(), Volume()], prob=prob),
        lambda prob: OneOf([Noise(), Speed(), Volume()], weights=(1, 2, 1), prob=prob),
        lambda prob: Chain([build_augmentation("tempo"), OneOf([Chain([Speed(), Noise()]), Volume()])], prob=prob),
    ],
    ids=["noise bank", "babble bank", "rir bank", "rir late", "soft clip", "chain", "one of", "nested"],
)
def test_contract_with_options(build) -> None:
    check_augmentation(build, sample_rates=(16000,))


def _batch() -> Batch:
    waveform = speech_like([9000, 12000, 7000], 16000)
    ids = ("a", "b", "c")
    segments = Segments(((Segment(0.1, 0.2, "x"),),) * 3)
    return Batch(waveform, torch.tensor([9000, 12000, 7000]), 16000, {"segments": segments}, ids, item_seeds(0, 0, ids))


def test_two_entries_of_a_kind_draw_differently() -> None:
    batch = _batch()
    noise = Noise(snr_db=(10, 10), colours=("white",))
    once, twice = Chain([noise])(batch), Chain([noise, noise])(batch)
    first, second = once.waveform - batch.waveform, twice.waveform - once.waveform
    correlation = torch.nn.functional.cosine_similarity(first, second, dim=1)
    assert correlation.abs().max() < 0.1


def test_a_chain_keeps_times_right() -> None:
    batch = _batch()
    result = Chain([Speed(factors=(0.8,)), Noise(), Speed(factors=(1.25,))])(batch)
    assert (result.lengths - batch.lengths).abs().max() <= 1
    assert result.labels["segments"][0][0].start == pytest.approx(0.1, abs=1e-4)
    half = Chain([Speed(factors=(2.0,))])(batch)
    assert half.lengths.tolist() == [4500, 6000, 3500]
    assert half.labels["segments"][1][0].start == 0.05
    assert half.waveform.shape[1] == 6000


def test_one_of_follows_its_weights() -> None:
    ids = [f"utt{k}" for k in range(4000)]
    batch = Batch(torch.ones(4000, 4), torch.full((4000,), 4), 16000, seeds=item_seeds(0, 0, ids))
    up, down = Volume(gain_db=(6, 6)), Volume(gain_db=(-6, -6))
    levels = OneOf([up, down], weights=[3, 1], prob=0.8)(batch).waveform[:, 0]
    shares = [
        float((levels > 1.5).float().mean()),
        float((levels < 0.6).float().mean()),
        float((levels == 1).float().mean()),
    ]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.025)
    with pytest.raises(ConfigError, match="OneOf.weights must hold 2"):
        OneOf([up, down], weights=[1])


def test_labels_of_every_kind_come_through_a_choice() -> None:
    batch = replace(_batch(), labels={"text": ["x", "y", "z"], "tokens": torch.arange(6).view(3, 2), "corpus": "toy"})
    result = OneOf([Speed(), Volume()])(batch)
    assert result.labels["text"] == ["x", "y", "z"]
    assert torch.equal(result.labels["tokens"], batch.labels["tokens"])
    assert result.labels["corpus"] == "toy"

    def reshaping(some: Batch, stream: str = "") -> Batch:
        return replace(some, labels={"tokens": torch.zeros(len(some), 5)})

    with pytest.raises(DataError, match="label 'tokens' changed to shape"):
        OneOf([reshaping])(batch)


def test_catalogue_is_lazy_and_names_the_nearest() -> None:
    code = (
        "import sys; import sonorant.audio.augment.catalogue as c; "
        "loaded = [m for m in sys.modules if m.startswith('sonorant.audio')]; "
        "assert loaded == ['sonorant.audio', 'sonorant.audio.augment', 'sonorant.audio.augment.catalogue'], loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ConfigError, match="did you mean 'reverb'"):
        build_augmentation("revreb")
    with pytest.raises(ConfigError, match="snr"):
        build_augmentation("noise", snr=3)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("noise", {"prob": 1.5}, "Noise.prob must lie in"),
        ("noise", {"colours": ("grey",)}, "Noise.colours must be some of white"),
        ("noise", {"snr_db": (10, 0)}, "Noise.snr_db must be"),
        ("speed", {"factors": ()}, "at least one factor"),
        ("pitch_shift", {"semitones": (40,)}, "PitchShift.semitones must lie in"),
        ("codec", {"kinds": ("aac",)}, "Codec.kinds must be some of mp3"),
        ("tempo", {"rate": (0.1, 1)}, "Tempo.rate must be"),
        ("spec_augment", {"fill": "noise"}, "SpecAugment.fill"),
    ],
)
def test_nonsense_is_refused_by_name(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_augmentation(name, **options)


def test_a_bank_of_another_rate_is_refused() -> None:
    with pytest.raises(ConfigError, match="8000 Hz and the batch 16000 Hz"):
        Noise(clips=Clips.of([torch.ones(10)], 8000))(_batch())
    with pytest.raises(DataError, match="at least one clip"):
        Clips.of([], 8000)
    with pytest.raises(DataError, match="clip 1 must have samples"):
        Clips.of([torch.ones(2), torch.ones(0)], 8000)
