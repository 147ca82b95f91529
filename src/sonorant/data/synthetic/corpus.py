"""The built-in corpus: utterances that are pure functions of (configuration, split, index).

Read `SyntheticConfig`, `Utterance`, `utterance`; then `iterate`, `write_corpus` and `speak`. The same arguments give the
same bytes in every process, with any number of workers and in any order. Splits share no voice and no sentence.
"""

import bisect
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sonorant.core.config import at_least, override, within
from sonorant.core.errors import ConfigError, DataError, unknown_name
from sonorant.core.seed import derive
from sonorant.core.types import Segment
from sonorant.data.synthetic import espeak
from sonorant.data.synthetic.f0 import FRAME_RATE, track
from sonorant.data.synthetic.lexicon import LANGUAGES
from sonorant.data.synthetic.rooms import Channel, record
from sonorant.data.synthetic.sentences import GRAMMARS, Meaning, draw, grammar_words, partition, realise
from sonorant.data.synthetic.voices import Voice, draw_voice, pitch_setting, style_named, voice_file
from sonorant.data.synthetic.words import free_words

__all__ = [
    "SPLITS", "Sentence", "SyntheticConfig", "Utterance", "iterate", "num_utterances", "sentence", "speak",
    "split_voices", "utterance", "write_corpus",
]  # fmt: skip

SPLITS = ("train", "dev", "test")
_LARGEST_TABLE = 32
_ATTEMPTS = 4000


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What a synthetic corpus holds."""

    seed: int = 0
    """Another seed is another corpus: other voices, sentences and rooms."""
    languages: tuple[str, ...] = ("en",)
    """Languages that are spoken, one an utterance: en, fr, es, de."""
    commands: float = 1.0
    """Weight of commands to a house, with intents and slots."""
    numbers: float = 1.0
    """Weight of digits, sums, ranges and times."""
    world: float = 1.0
    """Weight of facts about objects, colours, places and prices."""
    free: float = 1.0
    """Weight of free sentences, drawn from a word list."""
    vocab_size: int = 400
    """Most distinct words of each language."""
    num_voices: tuple[int, int, int] = (64, 12, 12)
    """Voices of train, dev and test; no voice is in two of them."""
    train: int = 2000
    """Utterances."""
    dev: int = 200
    """Utterances."""
    test: int = 200
    """Utterances."""
    train_seconds: float = 0.0
    """Seconds of audio, where above 0: takes the place of `train`, met within the error of an estimate."""
    dev_seconds: float = 0.0
    """Likewise."""
    test_seconds: float = 0.0
    """Likewise."""
    styles: tuple[str, ...] = ("neutral",)
    """Ways of speaking, drawn evenly."""
    jitter: float = 1.0
    """Factor on all jitters of an utterance and on how voices differ; 0 turns them off."""
    pitch_semitones: float = 2.0
    """Standard deviation of an utterance's pitch."""
    rate_spread: float = 0.1
    """Standard deviation of the logarithm of an utterance's rate."""
    tract_spread: float = 0.02
    """Standard deviation of the logarithm of an utterance's tract length."""
    formant_spread: float = 0.06
    """Standard deviation of each formant's factor from voice to voice."""
    equaliser_db: float = 4.0
    """Standard deviation of the equaliser at each of six bands, from voice to voice."""
    room_prob: float = 0.5
    """Share of utterances in a room."""
    reverberation: tuple[float, float] = (0.1, 0.5)
    """Seconds by which a room's response falls by 60 dB: lowest, highest."""
    noise_prob: float = 0.8
    """Share of utterances with a noise floor."""
    snr_db: tuple[float, float] = (12.0, 45.0)
    """Speech over noise in dB: lowest, highest."""
    sample_rate: int = 16000
    """Hz."""

    def __post_init__(self) -> None:
        for language in self.languages:
            if language not in LANGUAGES:
                raise ConfigError(unknown_name("language", language, LANGUAGES))
        if not self.languages:
            raise ConfigError(f"languages must name at least one of {', '.join(LANGUAGES)}")
        for name in GRAMMARS:
            at_least(name, getattr(self, name), 0)
        if not any(getattr(self, name) for name in GRAMMARS):
            raise ConfigError(f"one of the weights {', '.join(GRAMMARS)} must be above 0")
        for name in ("train", "dev", "test", "train_seconds", "dev_seconds", "test_seconds", "jitter", "pitch_semitones",
                     "rate_spread", "tract_spread", "formant_spread", "equaliser_db"):  # fmt: skip
            at_least(name, getattr(self, name), 0)
        for name in ("room_prob", "noise_prob"):
            within(name, getattr(self, name), 0, 1)
        for split, count in zip(SPLITS, self.num_voices):
            at_least(f"num_voices of {split}", count, 1)
        if not 0 < self.reverberation[0] <= self.reverberation[1] <= 5:
            raise ConfigError(f"reverberation must be two rising seconds in (0, 5], got {self.reverberation}")
        if self.snr_db[0] > self.snr_db[1]:
            raise ConfigError(f"snr_db must be two rising numbers, got {self.snr_db}")
        for style in self.styles or ("",):
            style_named(style)
        within("sample_rate", self.sample_rate, 8000, 22050)
        draws = random.Random(0)
        for part, grammar in product(range(len(SPLITS)), GRAMMARS):
            if getattr(self, grammar):
                _meaning(self, part, self.languages[0], draws, grammar)

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> "SyntheticConfig":
        """From texts as typed on a command line, such as `{"train": "500", "languages": "en,fr"}` (or `en+fr`).

        Raises:
            ConfigError: unknown option (with the nearest name), wrong type, value out of range.
        """
        lists = ("languages", "styles", "num_voices", "reverberation", "snr_db")
        # A list may be written with plus signs, for where commas already separate options.
        return override(cls(), {name: t.replace("+", ",") if name in lists else t for name, t in options.items()})

    def vocabulary(self, language: str) -> tuple[str, ...]:
        """Every word, in lower case, that can occur in a language; sorted."""
        size, free = _vocabulary(self)
        words = {word for name in GRAMMARS[:3] if getattr(self, name) for word in grammar_words(name, size, language)}
        return tuple(sorted(words.union(word.lower() for word in free.get(language, ()))))


@lru_cache(maxsize=64)
def _vocabulary(config: SyntheticConfig) -> tuple[int, dict[str, tuple[str, ...]]]:
    """How long the tables of the grammars may be, and the free words of each language, within `vocab_size`."""
    grammars = [name for name in GRAMMARS[:3] if getattr(config, name)]
    spare = 20 if config.free else 0

    def needed(size: int, language: str) -> set[str]:
        return {word for name in grammars for word in grammar_words(name, size, language)}

    def too_long(size: int, room: float) -> bool:
        return any(len(needed(size, language)) > room for language in config.languages)

    def largest(room: float) -> int:
        """The longest tables whose words fit, 0 where none do; the number of words grows with the tables."""
        sizes = range(2, _LARGEST_TABLE + 1)
        first_too_long = bisect.bisect_left(sizes, True, key=lambda size: too_long(size, room))
        return sizes[first_too_long - 1] if first_too_long else 0

    # Free sentences get at least two fifths of the words, if the grammars can do with the rest.
    size = largest(config.vocab_size * (0.6 if config.free and grammars else 1.0)) or largest(config.vocab_size - spare)
    if not size or config.vocab_size < spare:
        least = max(len(needed(2, language)) for language in config.languages) + spare
        raise ConfigError(f"vocab_size must be at least {least} for the grammars in use, got {config.vocab_size}")
    free = {}
    for language in config.languages if config.free else ():
        taken = needed(size, language)
        room = config.vocab_size - len(taken)
        words = [w for w in free_words(language, config.vocab_size + 200) if w.lower() not in taken]
        free[language] = tuple({word.lower(): word for word in words}.values())[:room]
    return size, free


@dataclass(frozen=True)
class Sentence:
    """What is said."""

    spoken: str
    """As it is given to the voice: German nouns and names bear their capitals."""
    language: str
    intent: str
    """Name of the sentence's frame; `free` where it has none."""
    slots: Mapping[str, str]
    """Slot → value, the same in every language."""
    translations: Mapping[str, str]
    """Language → the same meaning; empty for free sentences."""

    @property
    def text(self) -> str:
        """Lower case."""
        return self.spoken.lower()


@dataclass(frozen=True)
class Utterance:
    """A spoken sentence and everything that is known about it; times in seconds."""

    id: str
    waveform: Float[Tensor, " time"]
    """In [-1, 1], multiples of 2⁻¹⁵: a file of 16 bits holds it exactly."""
    sample_rate: int
    """Hz."""
    text: str
    """Lower case, no punctuation."""
    language: str
    words: tuple[Segment, ...]
    phones: tuple[Segment, ...]
    """IPA; pauses are `espeak.SILENCE`. Contiguous over the whole signal."""
    syllables: tuple[Segment, ...]
    speaker: str
    style: str
    pitch_hz: float
    """What the voice was told to speak at, in the middle of its intonation; 0 in a whisper."""
    intent: str
    """Name of the sentence's frame."""
    slots: Mapping[str, str]
    """Slot → value, the same in every language."""
    translations: Mapping[str, str]
    """Language → the same meaning; empty for free sentences."""
    voice: Voice = field(repr=False)
    dry: espeak.Speech = field(repr=False)
    """What the voice said, before tract, room and noise."""
    scale: float = 1.0
    """Samples of the waveform for a sample of `dry`."""

    @property
    def seconds(self) -> float:
        return len(self.waveform) / self.sample_rate

    @cached_property
    def f0(self) -> Float[Tensor, " frame"]:
        """Pitch in Hz at 100 frames a second, the first at time 0; 0 where there is none. Tracked on the dry voice."""
        times = np.arange(0, len(self.waveform) / self.sample_rate, 1 / FRAME_RATE)
        if not self.pitch_hz:
            return torch.zeros(len(times))
        # The recording plays `tract` times faster than the voice spoke.
        tract = self.sample_rate / (self.scale * self.dry.sample_rate)
        tracked = track(self.dry, self.pitch_hz / tract, times * tract)
        return torch.from_numpy(tracked * np.float32(tract))

    @cached_property
    def samples(self) -> NDArray[np.int16]:
        """The waveform in 16 bits."""
        return (self.waveform.numpy() * 32768).astype(np.int16)


def split_voices(config: SyntheticConfig, split: str) -> tuple[str, ...]:
    """Names of a split's voices."""
    return tuple(f"{split}-{number:04d}" for number in range(config.num_voices[_split_number(split)]))


def utterance(
    config: SyntheticConfig,
    split: str,
    index: int,
    *,
    language: str | None = None,
    speaker: str | None = None,
    channel: Channel | None = None,
) -> Utterance:
    """One utterance of a split; a pure function of its arguments.

    Args:
        config: of the corpus.
        split: `train`, `dev` or `test`.
        index: from 0; above the split's size it goes on for ever.
        language: in this language of the corpus instead of the one that is drawn.
        speaker: in this voice of the split instead of the one that is drawn.
        channel: through this one instead (its tract and equaliser are still the voice's own).

    Raises:
        MissingPackage: the extra `synthetic` is not installed.
        ConfigError: unknown split, or a vocabulary too small to hold sentences for it.
    """
    said, draws = _drawn(config, split, index, language)
    names = split_voices(config, split)
    drawn = draws.choice(names)
    if speaker is not None and speaker not in names:
        raise ConfigError(unknown_name(f"voice of '{split}'", speaker, names))
    voice = _voice(config, speaker or drawn)
    return _spoken(config, f"{split}-{index:07d}", said, voice, draws.choice(config.styles), draws, channel)


def sentence(config: SyntheticConfig, split: str, index: int, *, language: str | None = None) -> Sentence:
    """What an utterance says, without saying it: thousands a second, for language models.

    Args:
        config, split, index, language: as for `utterance`, whose text this is.
    """
    return _drawn(config, split, index, language)[0]


def _drawn(config: SyntheticConfig, split: str, index: int, language: str | None) -> tuple[Sentence, random.Random]:
    """The sentence of an utterance, and the draws that are left for the rest of it."""
    part = _split_number(split)
    if index < 0:
        raise DataError(f"an utterance's index must be at least 0, got {index}")
    if language is not None and language not in config.languages:
        raise ConfigError(unknown_name("language of this corpus", language, config.languages))
    draws = random.Random(derive(config.seed, "utterance", split, index))
    drawn = draws.choice(config.languages)
    language = language or drawn
    meaning = _meaning(config, part, language, draws)
    if meaning.frame == "free":
        return Sentence(meaning.slots[0][1], language, "free", {}, {}), draws
    others = {other: realise(meaning, other).lower() for other in LANGUAGES if other != language}
    return Sentence(realise(meaning, language), language, meaning.frame, dict(meaning.slots), others), draws


def _split_number(split: str) -> int:
    if split not in SPLITS:
        raise ConfigError(unknown_name("split", split, SPLITS))
    return SPLITS.index(split)


def _meaning(config: SyntheticConfig, part: int, language: str, draws: random.Random, grammar: str = "") -> Meaning:
    """A meaning that belongs to the split."""
    size, free = _vocabulary(config)
    grammar = grammar or draws.choices(GRAMMARS, [getattr(config, name) for name in GRAMMARS])[0]
    for _ in range(_ATTEMPTS):
        meaning = _free(free[language], draws) if grammar == "free" else draw(grammar, size, draws)
        if partition(meaning, config.seed) == part:
            return meaning
    raise ConfigError(
        f"vocab_size={config.vocab_size} is too small for three disjoint splits: no sentence of the grammar "
        f"'{grammar}' falls into '{SPLITS[part]}'; raise vocab_size or set {grammar}=0"
    )


def _free(words: tuple[str, ...], draws: random.Random) -> Meaning:
    """Three to nine words, the first of the list the more often (Zipf's law with a flat head)."""
    count = draws.randint(3, 9)
    chosen = [words[int(len(words) ** draws.random()) - 1 if draws.random() < 0.5 else draws.randrange(len(words))]
              for _ in range(count)]  # fmt: skip
    return Meaning("free", (("words", " ".join(chosen)),))


@lru_cache(maxsize=4096)
def _voice(config: SyntheticConfig, speaker: str) -> Voice:
    return draw_voice(config.seed, speaker, config.formant_spread * config.jitter, config.equaliser_db * config.jitter)


def _spoken(
    config: SyntheticConfig, name: str, said: Sentence, voice: Voice, style: str, draws: random.Random,
    channel: Channel | None = None,
) -> Utterance:  # fmt: skip
    manner, jitter = style_named(style), config.jitter
    tract = float(np.exp(jitter * config.tract_spread * _normal(draws)))
    rate = voice.rate * manner.rate * float(np.exp(jitter * config.rate_spread * _normal(draws))) / tract
    # The recording is played `tract` times faster: what that adds to the pitch is taken away first.
    semitones = manner.semitones + jitter * config.pitch_semitones * _normal(draws) - 12 * float(np.log2(tract))
    speech = espeak.speak(
        said.spoken, said.language, voice_file(voice, manner.whisper), rate=int(min(max(rate, 90), 380)),
        pitch=pitch_setting(semitones), pitch_range=round(50 * manner.span), volume=80,
    )  # fmt: skip
    samples, scale = record(
        speech.samples, speech.sample_rate, config.sample_rate, _channel(config, voice, tract, draws)
    )
    return Utterance(
        id=name,
        waveform=torch.from_numpy(samples.astype(np.float32) / 32768),
        sample_rate=config.sample_rate,
        text=" ".join(mark.label for mark in speech.words).lower(),
        language=said.language,
        words=_segments(speech.words, scale, config.sample_rate, lower=True),
        phones=_segments(speech.phones, scale, config.sample_rate),
        syllables=_segments(speech.syllables, scale, config.sample_rate),
        speaker=voice.name,
        style=style,
        pitch_hz=0.0 if manner.whisper else voice.pitch_hz * 2 ** (semitones / 12) * tract,
        intent=said.intent,
        slots=said.slots,
        translations=said.translations,
        voice=voice,
        dry=speech,
        scale=scale,
    )


def _normal(draws: random.Random) -> float:
    """A standard normal draw cut at two deviations."""
    return min(max(draws.gauss(0.0, 1.0), -2.0), 2.0)


def _channel(config: SyntheticConfig, voice: Voice, tract: float, draws: random.Random) -> Channel:
    room, noise = draws.random() < config.room_prob, draws.random() < config.noise_prob
    return Channel(
        tract=tract,
        equaliser_db=voice.equaliser_db,
        reverberation=draws.uniform(*config.reverberation) if room else 0.0,
        direct_db=draws.uniform(2.0, 12.0),
        snr_db=draws.uniform(*config.snr_db) if noise else None,
        noise_slope=round(draws.uniform(0.0, 2.0), 1),
        level_db=draws.uniform(-30.0, -20.0) if config.jitter else -26.0,
        seed=draws.getrandbits(63),
    )


def _segments(marks: tuple[espeak.Mark, ...], scale: float, rate: int, lower: bool = False) -> tuple[Segment, ...]:
    """Marks in samples of the voice as segments in seconds, on the recording's own samples."""
    edges = np.rint(np.array([(m.start, m.end) for m in marks]) * scale) / rate
    starts, lengths = edges[:, 0].tolist(), (edges[:, 1] - edges[:, 0]).tolist()
    return tuple(Segment(a, d, m.label.lower() if lower else m.label) for m, a, d in zip(marks, starts, lengths))


@lru_cache(maxsize=64)
def num_utterances(config: SyntheticConfig, split: str) -> int:
    """Utterances of a split; where it is given in seconds, from the mean length of its first 40."""
    _split_number(split)
    seconds = getattr(config, f"{split}_seconds")
    if not seconds:
        return int(getattr(config, split))
    mean = sum(utterance(config, split, index).seconds for index in range(40)) / 40
    return max(1, round(seconds / mean))


def iterate(config: SyntheticConfig, split: str) -> Iterator[Utterance]:
    """The utterances of a split in order, each made when it is asked for."""
    return (utterance(config, split, index) for index in range(num_utterances(config, split)))


def write_corpus(config: SyntheticConfig, folder: Any, num_workers: int = 1, **options: Any) -> Mapping[str, Any]:
    """Writes the corpus as files with manifests; see `sonorant.data.synthetic.shards.write_shards`."""
    from sonorant.data.synthetic.shards import write_shards

    return write_shards(config, folder, num_workers=num_workers, **options)


def speak(text: str, voice: str = "guest", *, seed: int = 0, language: str = "en", style: str = "neutral",
          config: SyntheticConfig | None = None) -> Utterance:  # fmt: skip
    """Says any text in a voice that no split has.

    Args:
        text: what to say.
        voice: a name; each is another voice.
        seed: another seed gives other jitters, room and noise.
        language: en, fr, es or de.
        style: a way of speaking, see `sonorant.data.synthetic.voices.STYLES`.
        config: gives the corpus whose family of voices and channels is used.
    """
    config = config or SyntheticConfig()
    draws = random.Random(derive(seed, "speak", text, voice))
    speaker = f"guest-{voice}"
    if language not in LANGUAGES:
        raise ConfigError(unknown_name("language", language, LANGUAGES))
    return _spoken(config, speaker, Sentence(text, language, "free", {}, {}), _voice(config, speaker), style, draws)
