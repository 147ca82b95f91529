"""Voices: who speaks is in the spectrum, not in the pitch."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from sonorant.core.errors import ConfigError
from sonorant.data.synthetic.corpus import SyntheticConfig, Utterance, split_voices, utterance
from sonorant.data.synthetic.espeak import speak
from sonorant.data.synthetic.voices import STYLES, draw_voice, pitch_setting, style_named, voice_file

pytest.importorskip("espeakng_loader")


def spectrum(waveform: NDArray, size: int = 512) -> NDArray:
    """Mean log spectrum in some 20 bands over the louder frames, without its level."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, size)[::160] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames)) ** 2
    loud = power.sum(axis=1)
    power = power[loud > np.percentile(loud, 40)]
    edges = np.unique(np.geomspace(6, size // 2 + 1, 25).astype(int))
    bands = np.log(np.stack([power[:, a:b].sum(axis=1) for a, b in zip(edges, edges[1:])], axis=1) + 1e-9)
    return (bands - bands.mean(axis=1, keepdims=True)).mean(axis=0)


def nearest_voice_accuracy(features: NDArray, voices: NDArray) -> float:
    """Leave one out, nearest mean of a voice."""
    right = 0
    for index in range(len(voices)):
        rest = np.arange(len(voices)) != index
        means = np.stack([features[rest & (voices == voice)].mean(axis=0) for voice in np.unique(voices)])
        right += int(np.argmin(((means - features[index]) ** 2).sum(axis=1))) == voices[index]
    return right / len(voices)


def test_pitch_alone_does_not_give_a_speaker_away() -> None:
    config = SyntheticConfig(room_prob=0.0, noise_prob=0.0, num_voices=(16, 1, 1))
    items: list[Utterance] = [
        utterance(config, "train", 100 * number + take, speaker=name)
        for number, name in enumerate(split_voices(config, "train"))
        for take in range(6)
    ]
    voices = np.repeat(np.arange(16), 6)
    pitches = np.array([[np.log(float(item.f0[item.f0 > 0].median()))] for item in items])
    spectra = np.stack([spectrum(item.waveform.numpy()) for item in items])
    by_pitch, by_spectrum = nearest_voice_accuracy(pitches, voices), nearest_voice_accuracy(spectra, voices)
    assert by_pitch < 0.35
    assert by_spectrum > 0.75


def test_formants_move_the_envelope() -> None:
    """A shorter tract puts the peaks of the same vowel higher; the pitch stays."""
    plain = draw_voice(0, "x", formant_jitter=0.0)
    found = []
    for scale in (0.9, 1.2):
        formants = tuple((round(100 * scale), 100, 100) for _ in plain.formants)
        speech = speak("ah ah ah", "en", voice_file(replace(plain, formants=formants)))
        power = np.abs(np.fft.rfft(speech.samples.astype(float))) ** 2
        hz = np.fft.rfftfreq(len(speech.samples), 1 / speech.sample_rate)
        band = (hz > 300) & (hz < 4000)
        found.append(float((hz[band] * power[band]).sum() / power[band].sum()))
    assert 1.15 < found[1] / found[0] < 1.5


def test_pitch_settings_rise_with_semitones() -> None:
    settings = [pitch_setting(semitones) for semitones in np.linspace(-12, 12, 49)]
    assert settings == sorted(settings)
    assert (settings[0], pitch_setting(0.0), settings[-1]) == (0, 50, 99)


def test_voices_are_drawn_from_their_name() -> None:
    assert draw_voice(1, "a") == draw_voice(1, "a")
    assert draw_voice(1, "a") != draw_voice(1, "b")
    assert draw_voice(1, "a") != draw_voice(2, "a")


@pytest.mark.parametrize("style", ["happy", "sad", "fast", "slow", "emphatic", "whisper"])
def test_styles_are_heard(style: str) -> None:
    quiet = {"jitter": 0.0, "room_prob": 0.0, "noise_prob": 0.0, "num_voices": (3, 1, 1)}
    plain = utterance(SyntheticConfig(**quiet), "train", 4)
    styled = utterance(SyntheticConfig(**quiet, styles=(style,)), "train", 4)
    assert styled.text == plain.text
    assert styled.speaker == plain.speaker
    manner = STYLES[style]
    assert (styled.seconds < plain.seconds) == (manner.rate > 1)
    if style == "whisper":
        assert float(styled.f0.max()) == 0.0
        return
    spread = [float(torch_f0[torch_f0 > 0].log2().std()) for torch_f0 in (plain.f0, styled.f0)]
    if manner.span > 1.5:
        assert spread[1] > 1.1 * spread[0]
    if manner.span < 0.5:
        assert spread[1] < 0.8 * spread[0]


def test_an_unknown_style_is_named() -> None:
    with pytest.raises(ConfigError, match="style 'hapy'; did you mean 'happy'"):
        style_named("hapy")
