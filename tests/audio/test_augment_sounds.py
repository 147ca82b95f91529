"""Noise, babble, reverb, mixing, volume, clipping and drops against what physics and arithmetic say."""

import math

import pytest
import torch
from tests.contracts.augmentations import speech_like

from sonorant.audio.augment.babble import Babble
from sonorant.audio.augment.clip import Clip, clip
from sonorant.audio.augment.clips import Clips, partners
from sonorant.audio.augment.draws import Draws
from sonorant.audio.augment.drop import BandDrop, ChunkDrop, EdgeDrop, drop_bands, drop_chunks, drop_edges
from sonorant.audio.augment.items import moved_segments
from sonorant.audio.augment.level import active_samples
from sonorant.audio.augment.mix import Mix, mix
from sonorant.audio.augment.noise import COLOURS, Noise, add_noise, coloured_noise
from sonorant.audio.augment.reverb import Reverb, direct_path, reverb
from sonorant.audio.augment.volume import change_volume
from sonorant.audio.spatial.rooms import Rooms
from sonorant.core.seed import item_seeds
from sonorant.core.types import Batch, Segment, Segments

RATE = 16000
LENGTHS = [16000, 24000, 12000]


def _batch(channels: int | None = None, **labels) -> Batch:
    ids = ("a", "b", "c")
    waveform = speech_like(LENGTHS, RATE, channels)
    return Batch(waveform, torch.tensor(LENGTHS), RATE, labels, ids, item_seeds(0, 0, ids))


def _snr(clean: torch.Tensor, noise: torch.Tensor, mask: torch.Tensor) -> float:
    return float(10 * torch.log10(clean[..., mask].square().mean() / noise[..., mask].square().mean()))


def _band_power(signal: torch.Tensor, low: float, high: float, rate: int = RATE) -> float:
    """Mean power density between two frequencies, in dB."""
    window = torch.hann_window(signal.shape[-1], dtype=torch.float64)  # else the bands beside leak into an empty one
    spectrum = torch.fft.rfft(signal.double() * window).abs().square()
    frequency = torch.fft.rfftfreq(signal.shape[-1], 1 / rate)
    return float(10 * torch.log10(spectrum[..., (frequency >= low) & (frequency < high)].mean()))


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 12.3, 40.0])
@pytest.mark.parametrize("channels", [None, 2])
def test_noise_has_the_ratio_asked_for(snr_db: float, channels: int | None) -> None:
    batch = _batch(channels)
    active = active_samples(batch.waveform, batch.lengths, RATE)
    for noise in (
        Noise(snr_db=(snr_db, snr_db)),
        Noise(clips=Clips.of([torch.rand(5000) - 0.5], RATE), snr_db=(snr_db, snr_db)),
    ):
        added = noise(batch).waveform - batch.waveform
        for item in range(3):
            assert _snr(batch.waveform[item], added[item], active[item]) == pytest.approx(snr_db, abs=0.05)


def test_pauses_do_not_count_as_speech() -> None:
    waveform = torch.cat((torch.randn(8000), torch.zeros(24000)))[None] * 0.1
    lengths = torch.tensor([32000])
    active = active_samples(waveform, lengths, RATE)
    assert active[0].float().sum() == 8000
    noisy = add_noise(waveform, lengths, torch.randn(1, 32000), torch.tensor([6.0]), sample_rate=RATE)
    assert _snr(waveform[0], (noisy - waveform)[0], active[0]) == pytest.approx(6, abs=0.05)


def test_a_silent_clip_or_item_adds_nothing_infinite() -> None:
    batch = _batch()
    quiet = add_noise(batch.waveform, batch.lengths, torch.zeros(3, 24000), torch.zeros(3), sample_rate=RATE)
    assert torch.equal(quiet, batch.waveform)
    silent = add_noise(torch.zeros(3, 24000), batch.lengths, torch.randn(3, 24000), torch.zeros(3), sample_rate=RATE)
    assert not silent.any()


@pytest.mark.parametrize("colour, exponent", COLOURS.items())
def test_colours_fall_as_they_should(colour: str, exponent: float) -> None:
    draws = Draws(torch.arange(16), "test")
    noise = coloured_noise(draws, "x", 64000, torch.full((16,), exponent), RATE)
    assert float(noise.double().square().mean()) == pytest.approx(1, rel=0.1)
    octaves = [_band_power(noise, low, 2 * low) for low in (125, 250, 500, 1000, 2000)]
    steps = [low - high for low, high in zip(octaves[:-1], octaves[1:])]
    assert sum(steps) / 4 == pytest.approx(3.01 * exponent, abs=0.25)
    short = coloured_noise(draws, "x", 1000, torch.full((16,), exponent), RATE)
    assert torch.allclose(noise[:, :1000], short, atol=1e-5)


def test_channels_get_noise_of_their_own() -> None:
    batch = _batch(2)
    added = Noise(colours=("white",))(batch).waveform - batch.waveform
    correlation = torch.nn.functional.cosine_similarity(added[:, 0], added[:, 1], dim=1)
    assert correlation.abs().max() < 0.05


def test_babble_is_the_sum_of_others_and_never_oneself() -> None:
    ids = tuple("abcdef")
    rate = torch.arange(6)
    tones = torch.sin(2 * math.pi * (200 + 100 * rate)[:, None] * torch.arange(16000) / RATE)
    batch = Batch(0.3 * tones, torch.full((6,), 16000), RATE, {}, ids, item_seeds(0, 0, ids))
    added = Babble(num_talkers=2, snr_db=(0, 0))(batch).waveform - batch.waveform
    spectrum = torch.fft.rfft(added).abs()[:, 200 + 100 * rate]
    heard = spectrum > 0.2 * spectrum.amax(dim=1, keepdim=True)
    assert heard.sum(dim=1).tolist() == [2] * 6
    assert not heard.diagonal().any()


def test_partners_form_a_ring_whatever_the_order() -> None:
    seeds = item_seeds(0, 0, [f"u{k}" for k in range(7)])
    ring = partners(Draws(seeds, "x"), 3)
    assert ring.shape == (7, 3)
    assert all(len({item, *row}) == 4 for item, row in enumerate(ring.tolist()))
    turn = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    turned = partners(Draws(seeds[turn], "x"), 3)
    assert torch.equal(turn[turned], ring[turn])
    assert partners(Draws(seeds[:1], "x"), 3).shape == (1, 0)


def test_one_item_alone_has_nobody_to_mix_with() -> None:
    batch = _batch()
    single = Batch(batch.waveform[:1], batch.lengths[:1], RATE, {}, ("a",), batch.seeds[:1])
    assert torch.equal(Babble()(single).waveform, single.waveform)
    assert torch.equal(Mix()(single).waveform, single.waveform)
    assert Mix()(single).labels["overlap"] == Segments(((),))


# --- reverb -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [None, 2])
def test_a_delta_is_the_identity_and_a_late_delta_a_delay(channels: int | None) -> None:
    batch = _batch(channels)
    rir = torch.zeros(3, 200)
    rir[:, 0] = 0.5
    same = reverb(batch.waveform, batch.lengths, rir, sample_rate=RATE)
    assert torch.allclose(same.waveform, batch.waveform, atol=1e-6)
    half = reverb(batch.waveform, batch.lengths, rir, sample_rate=RATE, keep_level=False)
    assert torch.allclose(half.waveform, 0.5 * batch.waveform, atol=1e-6)
    rir = rir.roll(57, dims=1)
    aligned = reverb(batch.waveform, batch.lengths, rir, sample_rate=RATE, keep_level=False)
    assert torch.allclose(aligned.waveform, 0.5 * batch.waveform, atol=1e-6)
    late = reverb(batch.waveform, batch.lengths, rir, sample_rate=RATE, keep_level=False, align=False, keep_tail=True)
    assert late.delay.tolist() == [57] * 3
    assert (late.lengths - batch.lengths).tolist() == [199] * 3
    assert torch.allclose(late.waveform[..., 57 : 57 + 24000], 0.5 * batch.waveform, atol=1e-6)
    assert late.waveform[..., :57].abs().max() < 1e-6


def test_reverb_equals_convolution_by_numpy() -> None:
    import numpy as np

    batch, rir = _batch(), torch.randn(3, 700) * torch.exp(-torch.arange(700) / 100)
    result = reverb(batch.waveform, batch.lengths, rir, sample_rate=RATE, align=False, keep_tail=True, keep_level=False)
    for item, length in enumerate(LENGTHS):
        expected = np.convolve(batch.waveform[item, :length].double().numpy(), rir[item].double().numpy())
        assert int(result.lengths[item]) == len(expected)
        assert np.abs(result.waveform[item, : len(expected)].numpy() - expected).max() < 1e-5


def test_a_late_room_shifts_segments() -> None:
    rir = torch.zeros(400)
    rir[320] = 1.0
    segments = Segments(((Segment(0.1, 0.2, "x"), Segment(0.97, 0.03, "end")),) * 3)
    result = Reverb(rirs=Clips.of([rir], RATE), align=False)(_batch(segments=segments))
    assert result.labels["segments"][0][0].start == pytest.approx(0.12)
    assert result.labels["segments"][0][1].end == pytest.approx(1.0)
    tail = Reverb(rirs=Clips.of([rir], RATE), align=False, keep_tail=True)(_batch(segments=segments))
    assert tail.labels["segments"][0][1].end == pytest.approx(1.02)
    assert tail.lengths.tolist() == [length + 399 for length in LENGTHS]


def test_drawn_rooms_keep_level_and_time() -> None:
    batch = _batch()
    result = Reverb(rooms=Rooms(rt60=(0.2, 0.4)))(batch)
    for item, length in enumerate(LENGTHS):
        before, after = (b.waveform[item, :length] for b in (batch, result))
        active = active_samples(before[None], torch.tensor([length]), RATE)[0]
        wet = active_samples(after[None], torch.tensor([length]), RATE)[0]
        assert float(before[active].square().mean()) == pytest.approx(float(after[wet].square().mean()), rel=1e-3)
    rir = Rooms().draw(batch.seeds, "r", RATE)
    assert direct_path(torch.roll(rir, 5, 1)).tolist() == (direct_path(rir) + 5).tolist()


# --- mixing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr_db", [-6.0, 0.0, 9.0])
def test_a_mixture_has_the_ratio_and_place_asked_for(snr_db: float) -> None:
    batch, other = _batch(), speech_like([24000] * 3, RATE, seed=5).roll(1, 0)
    start, duration = torch.tensor([1000, 0, 6000]), torch.tensor([9000, 24000, 9000])
    mixed = mix(batch.waveform, batch.lengths, other, torch.full((3,), snr_db), start, duration, sample_rate=RATE)
    assert torch.allclose(mixed.waveform - batch.waveform, mixed.other, atol=1e-6)
    own = active_samples(batch.waveform, batch.lengths, RATE)
    theirs = active_samples(mixed.other, batch.lengths, RATE)
    for item, end in enumerate((10000, 24000, 12000)):
        level = batch.waveform[item][own[item]].square().mean() / mixed.other[item][theirs[item]].square().mean()
        assert float(10 * torch.log10(level)) == pytest.approx(snr_db, abs=0.05)
        begin = int(start[item])
        assert not mixed.other[item, :begin].any()
        assert not mixed.other[item, end:].any()
        piece, source = mixed.other[item, begin:end], other[item, : end - begin]
        assert torch.nn.functional.cosine_similarity(piece, source, dim=0) > 0.9999


def test_mix_tells_where_the_other_is_heard() -> None:
    words = Segments(tuple(tuple(Segment(k / 10, 0.1, f"{name}{k}") for k in range(7)) for name in "abc"))
    batch = _batch(segments=words)
    result = Mix(share=(0.3, 0.6), both_segments=True)(batch)
    for item in range(3):
        (overlap,) = result.labels["overlap"][item]
        begin, end = round(overlap.start * RATE), round(overlap.end * RATE)
        added = (result.waveform - batch.waveform)[item]
        assert added[begin:end].any()
        assert not added[:begin].any()
        assert not added[end:].any()
        assert overlap.label != batch.ids[item]
        assert overlap.end <= LENGTHS[item] / RATE + 1e-9
        mine = [s for s in result.labels["segments"][item] if s.label[0] == batch.ids[item]]
        assert tuple(mine) == words[item]
        for other in (s for s in result.labels["segments"][item] if s.label[0] != batch.ids[item]):
            assert other.label[0] == overlap.label
            assert overlap.start - 1e-9 <= other.start <= other.end <= overlap.end + 1e-9
    plain = Mix(share=(0.3, 0.6))(batch)
    assert plain.labels["segments"] == words
    assert torch.equal(plain.waveform, result.waveform)


def test_mix_carries_the_partners_own_words_to_the_right_place() -> None:
    """A click at each word's start must be found at the moved segment's start."""
    clicks = torch.zeros(2, 16000)
    for item, step in enumerate((1600, 2300)):
        clicks[item, ::step] = 1.0
    words = Segments(tuple(tuple(Segment(k * s / RATE, 0.01, f"{k}") for k in range(6)) for s in (1600, 2300)))
    ids = ("a", "b")
    batch = Batch(clicks, torch.tensor([16000, 16000]), RATE, {"segments": words}, ids, item_seeds(2, 0, ids))
    result = Mix(share=(0.8, 0.9), both_segments=True, snr_db=(0, 0))(batch)
    for item in range(2):
        added = (result.waveform - batch.waveform)[item]
        (overlap,) = result.labels["overlap"][item]
        moved = [s for s in result.labels["segments"][item] if s not in words[item]]
        assert len(moved) >= 2
        for segment in moved:
            if segment.duration > 0.009 and segment.start > overlap.start:
                assert added[round(segment.start * RATE)] > 0.5


# --- simple ones ------------------------------------------------------------------------------------------------------


def test_volume_and_clip() -> None:
    batch = _batch()
    louder = change_volume(batch.waveform, torch.tensor([6.0206, 0.0, -6.0206]))
    assert torch.allclose(louder[0], 2 * batch.waveform[0], rtol=1e-4)
    assert torch.allclose(louder[2], 0.5 * batch.waveform[2], rtol=1e-4)
    peaks = batch.waveform.abs().amax(dim=1)
    clipped = Clip(share=(0.3, 0.3))(batch).waveform
    assert torch.allclose(clipped.abs().amax(dim=1), 0.3 * peaks)
    inside = batch.waveform.abs() < 0.3 * peaks[:, None]
    assert torch.equal(clipped[inside], batch.waveform[inside])
    soft = clip(batch.waveform, torch.full((3,), 0.3), soft=True)
    assert (soft.abs() <= 0.3 * peaks[:, None]).all()
    assert (soft.sign() == batch.waveform.sign()).all()


def test_chunks_are_dropped_where_said() -> None:
    ones = torch.ones(2, 3, 10)
    start, size = torch.tensor([[2, 8], [0, 0]]), torch.tensor([[3, 5], [0, 1]])
    kept = drop_chunks(ones, start, size)
    assert kept[0, 1].tolist() == [1, 1, 0, 0, 0, 1, 1, 1, 0, 0]
    assert kept[1, 2].tolist() == [0] + [1] * 9
    batch = _batch()
    gone = (ChunkDrop(max_chunks=3, seconds=(0.05, 0.05))(batch).waveform == 0) & (batch.waveform != 0)
    runs = gone.sum(dim=1) / 800
    assert (runs > 0.9).all()
    assert (runs <= 3).all()


def test_soft_edges_are_dropped_and_soft_middles_are_not() -> None:
    # 100 ms each at 0, -30, -10, -30, -10, -40 dB and nothing.
    levels = torch.tensor([-30.0, -10.0, -30.0, 0.0, -10.0, -40.0, -200.0])
    signal = (10 ** (levels / 20)).repeat_interleave(1600)[None].repeat(3, 1)
    kept = drop_edges(signal, torch.tensor([11200] * 3), torch.tensor([5.0, 15.0, 35.0]), sample_rate=RATE) != 0
    heard = [(int(row.nonzero()[0]) // 1600, int(row.nonzero()[-1]) // 1600, int(row.sum()) // 1600) for row in kept]
    assert heard == [(3, 3, 1), (1, 4, 4), (0, 4, 5)]
    batch = _batch()
    dropped = EdgeDrop(range_db=(3.0, 10.0))(batch)
    assert torch.equal(dropped.lengths, batch.lengths)
    assert ((dropped.waveform == batch.waveform) | (dropped.waveform == 0)).all()


def test_a_dropped_band_is_gone_and_the_rest_is_not() -> None:
    noise = torch.randn(2, 64000, generator=torch.Generator().manual_seed(0))
    center, width = torch.tensor([[1500.0, 4000.0]] * 2), torch.tensor([[300.0, 400.0], [300.0, 0.0]])
    result = drop_bands(noise, center, width, sample_rate=RATE)

    def change(item: int, low: float, high: float) -> float:
        return _band_power(result[item], low, high) - _band_power(noise[item], low, high)

    assert change(0, 1410, 1590) < -60
    assert change(0, 3860, 4140) < -60
    assert change(1, 3860, 4140) == pytest.approx(0, abs=0.01)
    for low, high in ((100, 1250), (1750, 3700), (4300, 7900)):
        assert change(0, low, high) == pytest.approx(0, abs=0.02)
    overlapping = drop_bands(noise[:1], torch.tensor([[1500.0, 1550.0]]), torch.full((1, 2), 300.0), sample_rate=RATE)
    assert _band_power(overlapping[0], 1410, 1640) - _band_power(noise[0], 1410, 1640) < -60
    # No delay: what is kept stands where it stood.
    tone = torch.sin(2 * math.pi * 500 * torch.arange(16000) / RATE)[None]
    kept = drop_bands(tone, torch.tensor([[3000.0]]), torch.tensor([[200.0]]), sample_rate=RATE)
    assert torch.allclose(kept[:, 2000:-2000], tone[:, 2000:-2000], atol=1e-3)
    assert BandDrop()(_batch()).waveform.shape == (3, 24000)


def test_segments_that_are_cut_away_go_and_marks_stay() -> None:
    item = (Segment(0.0, 1.0, "long"), Segment(1.5, 0.0, "mark"), Segment(1.6, 0.3, "gone"))
    (moved,) = moved_segments(Segments((item,)), [(1.0, 0.5, 2.0)])
    assert [segment.label for segment in moved] == ["long", "mark"]
    assert moved[1] == Segment(2.0, 0.0, "mark")


def test_measured_rooms_and_noises(packs) -> None:
    """Real responses and noises: the ratio holds and the direct path stays where it was."""
    import soundfile

    def bank(kind: str) -> Clips:
        found = sorted((packs / "noise_rir").rglob(f"{kind}_*.flac"))
        if not found:
            pytest.skip(f"no {kind} under {packs / 'noise_rir'}")
        read = [soundfile.read(path, dtype="float32", always_2d=True) for path in found]
        return Clips.of([torch.from_numpy(samples[:, 0].copy()) for samples, rate in read if rate == RATE], RATE)

    batch = _batch()
    active = active_samples(batch.waveform, batch.lengths, RATE)
    noisy = Noise(clips=bank("noise"), snr_db=(7, 7))(batch)
    wet = Reverb(rirs=bank("rir"))(batch)
    for item, length in enumerate(LENGTHS):
        added = (noisy.waveform - batch.waveform)[item]
        assert _snr(batch.waveform[item], added, active[item]) == pytest.approx(7, abs=0.05)
        size = 1 << 16
        spectra = (torch.fft.rfft(wave.waveform[item, :length], size) for wave in (wet, batch))
        first, second = spectra
        lag = int(torch.fft.irfft(first * second.conj() / (first * second).abs().clamp(min=1e-6), size).argmax())
        assert min(lag, size - lag) <= 32, f"the direct path moved by {lag} samples"
