"""The way from eSpeak to a recording: rates, tract, equaliser, room and noise are what they say."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sonorant.data.synthetic.rooms import BANDS_HZ, CLEAN, Channel, channel_noise, record, room_response

RATE, OUT = 22050, 16000


def tone(hz: float, seconds: float = 1.0) -> NDArray[np.int16]:
    return np.rint(8000 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.int16)


def peak_hz(signal: NDArray, rate: int) -> float:
    power = np.abs(np.fft.rfft(signal * np.hanning(len(signal)), 1 << 20))
    return float(np.argmax(power) * rate / (1 << 20))


def level_db(signal: NDArray) -> float:
    return float(10 * np.log10(np.mean(np.square(signal.astype(float))) / 32768**2))


@pytest.mark.parametrize("hz", [100.0, 1000.0, 5000.0, 7000.0])
def test_a_tone_stays_where_it_is(hz: float) -> None:
    recorded, scale = record(tone(hz), RATE, OUT, CLEAN)
    assert scale == OUT / RATE
    assert len(recorded) == OUT
    assert abs(peak_hz(recorded, OUT) - hz) < 0.1
    assert abs(level_db(recorded) - CLEAN.level_db) < 0.1


def test_what_the_rate_cannot_hold_is_gone() -> None:
    mixed = tone(1000.0) // 2 + tone(9500.0) // 2
    recorded, _ = record(mixed, RATE, OUT, CLEAN)
    power = np.abs(np.fft.rfft(recorded * np.hanning(len(recorded)))) ** 2
    hz = np.fft.rfftfreq(len(recorded), 1 / OUT)
    assert power[np.abs(hz - 1000) > 50].sum() < 1e-4 * power.sum()  # no alias at 6500 Hz


@pytest.mark.parametrize("tract", [0.94, 0.98, 1.03])
def test_the_tract_moves_all_frequencies(tract: float) -> None:
    recorded, scale = record(tone(1000.0), RATE, OUT, Channel(tract=tract))
    played = OUT / (scale * RATE)
    assert abs(played / tract - 1) < 0.01
    assert abs(peak_hz(recorded, OUT) - 1000 * played) < 0.5
    assert abs(len(recorded) - RATE * scale) <= 1


def test_the_equaliser_has_its_gains() -> None:
    gains = (6.0, -6.0, 3.0, 0.0, -9.0, 4.0)
    noise = np.random.default_rng(0).normal(0, 3000, RATE * 4).astype(np.int16)
    plain, _ = record(noise, RATE, OUT, Channel(level_db=-30))
    shaped, _ = record(noise, RATE, OUT, Channel(level_db=-30, equaliser_db=gains))
    hz = np.fft.rfftfreq(len(plain), 1 / OUT)
    ratio = []
    for centre in BANDS_HZ[:5]:
        band = (hz > 0.97 * centre) & (hz < 1.03 * centre)
        power = [np.sum(np.abs(np.fft.rfft(x.astype(float))[band]) ** 2) for x in (shaped, plain)]
        ratio.append(10 * np.log10(power[0] / power[1]))
    differences = np.array(ratio) - np.array(gains[:5])
    assert np.ptp(differences) < 1.2  # the level is set afterwards: one common offset


@pytest.mark.parametrize("seconds", [0.2, 0.4])
def test_the_room_decays_as_told(seconds: float) -> None:
    response = room_response(np.random.default_rng(3), seconds, 0.0, OUT)
    tail = np.square(response[int(0.03 * OUT) :].astype(float))
    decay = 10 * np.log10(np.cumsum(tail[::-1])[::-1] / tail.sum())  # Schroeder's backward integral
    steps = [int(np.argmax(decay < level)) for level in (-5, -25)]
    assert abs(3 * (steps[1] - steps[0]) / OUT / seconds - 1) < 0.2
    assert response[0] == 1.0
    assert abs(np.square(response[1:]).sum() - 1.0) < 1e-3  # direct_db = 0: as much in the room as direct


def test_the_room_does_not_delay() -> None:
    """Times stay exact: the first sound through a room comes when it comes without one."""
    click = np.zeros(RATE, np.int16)
    click[4410] = 20000
    dry, _ = record(click, RATE, OUT, CLEAN)
    wet, _ = record(click, RATE, OUT, Channel(reverberation=0.4, direct_db=3.0, seed=1))
    assert np.argmax(np.abs(dry)) == np.argmax(np.abs(wet)) == 3200
    assert np.abs(wet[3300:8000]).max() > 10 * np.abs(dry[3300:8000]).max()


@pytest.mark.parametrize("snr", [0.0, 10.0, 25.0])
def test_the_noise_is_as_strong_as_told(snr: float) -> None:
    signal = tone(1000.0, 3.0)
    noisy, _ = record(signal, RATE, OUT, Channel(snr_db=snr, noise_slope=0.0, level_db=-20, seed=4))
    spectrum = np.abs(np.fft.rfft(noisy * np.hanning(len(noisy)))) ** 2
    hz = np.fft.rfftfreq(len(noisy), 1 / OUT)
    inside = np.abs(hz - 1000) < 20
    assert abs(10 * np.log10(spectrum[inside].sum() / spectrum[~inside].sum()) - snr) < 0.7


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_falls_with_frequency(slope: float) -> None:
    signal = np.ones(OUT * 4, np.float32)
    noise = channel_noise(signal, 20.0, slope, seed=5)
    assert abs(10 * np.log10(np.mean(signal**2) / np.mean(noise**2)) - 20) < 0.01
    power = np.abs(np.fft.rfft(noise)) ** 2
    hz = np.fft.rfftfreq(len(noise), 1 / OUT)
    octaves = [np.mean(power[(hz > low) & (hz < 1.2 * low)]) for low in (500, 4000)]
    assert abs(10 * np.log10(octaves[0] / octaves[1]) - 9.03 * slope) < 1.0


def test_the_loudest_sample_does_not_clip() -> None:
    spiky = np.zeros(RATE, np.int16)
    spiky[100::2000] = 30000
    recorded, _ = record(spiky, RATE, OUT, Channel(level_db=-3.0))
    assert 0.9 * 32767 < np.abs(recorded.astype(int)).max() < 32767


def test_the_same_channel_gives_the_same_bytes() -> None:
    channel = Channel(tract=1.01, reverberation=0.3, snr_db=15, seed=9)
    first, _ = record(tone(300.0), RATE, OUT, channel)
    np.testing.assert_array_equal(first, record(tone(300.0), RATE, OUT, channel)[0])
