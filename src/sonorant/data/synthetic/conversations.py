"""Conversations of two to four voices with exact turns, and turns as RTTM.

Each voice speaks in the same room from its own place; turns follow each other after a pause or begin before the last one
has ended. Everything is a pure function of (configuration, split, index). Read `Conversation`, then `conversation`.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sonorant.core.config import at_least, within
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.files import atomic_write
from sonorant.core.seed import derive
from sonorant.core.types import Segment
from sonorant.data.synthetic.corpus import SyntheticConfig, Utterance, split_voices, utterance
from sonorant.data.synthetic.rooms import Channel, channel_noise

__all__ = ["Conversation", "ConversationConfig", "Turn", "conversation", "rttm", "write_rttm"]


@dataclass(frozen=True, kw_only=True)
class ConversationConfig:
    """How people take turns."""

    seconds: float = 30.0
    """Least length: the turn that reaches it is the last one."""
    min_speakers: int = 2
    """Fewest voices."""
    max_speakers: int = 4
    """Most voices."""
    overlap_prob: float = 0.25
    """Share of turns that begin before the last one has ended."""
    pause: float = 0.5
    """Mean pause between turns in seconds."""
    level_spread_db: float = 3.0
    """Standard deviation of the voices' levels."""

    def __post_init__(self) -> None:
        at_least("seconds", self.seconds, 1)
        at_least("min_speakers", self.min_speakers, 1)
        at_least("max_speakers", self.max_speakers, self.min_speakers)
        within("overlap_prob", self.overlap_prob, 0, 1)
        at_least("pause", self.pause, 0)
        at_least("level_spread_db", self.level_spread_db, 0)


@dataclass(frozen=True)
class Turn:
    """One utterance of one voice; times in seconds of the conversation, from its first to its last word."""

    speaker: str
    start: float
    duration: float
    text: str
    words: tuple[Segment, ...]

    @property
    def end(self) -> float:
        return self.start + self.duration


@dataclass(frozen=True)
class Conversation:
    """Several voices in a room."""

    id: str
    waveform: Float[Tensor, " time"]
    """The sum of `sources` and the channel's noise."""
    sample_rate: int
    """Hz."""
    sources: Float[Tensor, "source time"]
    """Each voice alone, as it sounds in the room; in the order of `speakers`."""
    speakers: tuple[str, ...]
    turns: tuple[Turn, ...]
    """By start."""

    @property
    def seconds(self) -> float:
        return len(self.waveform) / self.sample_rate

    @property
    def overlap(self) -> float:
        """Share of the spoken time in which two or more voices speak."""
        edges = sorted([(turn.start, 1) for turn in self.turns] + [(turn.end, -1) for turn in self.turns])
        active, spoken, shared = 0, 0.0, 0.0
        for (time, step), (after, _) in zip(edges, edges[1:]):
            active += step
            spoken += (after - time) * (active > 0)
            shared += (after - time) * (active > 1)
        return shared / spoken if spoken else 0.0


def conversation(
    config: SyntheticConfig, split: str, index: int, manner: ConversationConfig | None = None
) -> Conversation:
    """One conversation of a split, in voices and sentences of that split only.

    Args:
        config: of the corpus; its rooms and noise apply to the whole conversation.
        split: `train`, `dev` or `test`.
        index: from 0.
        manner: how turns are taken.

    Raises:
        ConfigError: unknown split, or the split has fewer voices than a conversation needs.
    """
    manner = manner or ConversationConfig()
    names = split_voices(config, split)
    if len(names) < manner.min_speakers:
        raise ConfigError(
            f"min_speakers={manner.min_speakers} but split '{split}' has {len(names)} voices; see num_voices"
        )
    draws = random.Random(derive(config.seed, "conversation", split, index))
    speakers = tuple(draws.sample(names, draws.randint(manner.min_speakers, min(manner.max_speakers, len(names)))))
    levels = {name: draws.gauss(-26.0, manner.level_spread_db) for name in speakers}
    noisy, roomy = draws.random() < config.noise_prob, draws.random() < config.room_prob
    room = Channel(reverberation=draws.uniform(*config.reverberation) if roomy else 0.0, direct_db=draws.uniform(2, 12))
    language = draws.choice(config.languages)
    spoken = _turns(config, split, index, manner, draws, speakers, language, levels, room)
    snr = draws.uniform(*config.snr_db) if noisy else None
    return _mixed(config, f"{split}-talk-{index:06d}", speakers, spoken, snr, draws)


def _turns(
    config: SyntheticConfig, split: str, index: int, manner: ConversationConfig, draws: random.Random,
    speakers: tuple[str, ...], language: str, levels: dict[str, float], room: Channel,
) -> list[tuple[int, Utterance]]:  # fmt: skip
    """Utterances with the samples at which they begin; nobody speaks over himself, everybody speaks at least once."""
    rate, spoken = config.sample_rate, list[tuple[int, Utterance]]()
    waiting = draws.sample(speakers, len(speakers))
    free_from = dict.fromkeys(speakers, 0)
    start, number = round(draws.uniform(0.1, 0.6) * rate), 0
    while waiting or max((s + len(u.waveform) for s, u in spoken), default=0) < manner.seconds * rate:
        last = spoken[-1][1].speaker if spoken else None
        others = [name for name in speakers if name != last] or list(speakers)
        name = waiting.pop() if waiting and waiting[-1] != last else draws.choice(others)
        if name in waiting:
            waiting.remove(name)
        item = utterance(
            config, split, derive(index, "turn", number) >> 20, language=language, speaker=name,
            channel=replace(room, level_db=levels[name], seed=draws.getrandbits(63)),
        )  # fmt: skip
        start = max(start, free_from[name])
        spoken.append((start, item))
        end = start + len(item.waveform)
        free_from[name] = end + round(0.1 * rate)
        if draws.random() < manner.overlap_prob:
            start = end - round(draws.uniform(0.1, 0.5) * len(item.waveform))
        else:
            start = end + round(
                min(draws.expovariate(1 / manner.pause), 4 * manner.pause) * rate if manner.pause else 0
            )
        number += 1
    return spoken


def _mixed(
    config: SyntheticConfig, name: str, speakers: tuple[str, ...], spoken: list[tuple[int, Utterance]],
    snr_db: float | None, draws: random.Random,
) -> Conversation:  # fmt: skip
    rate = config.sample_rate
    total = max(start + len(item.waveform) for start, item in spoken) + round(draws.uniform(0.1, 0.5) * rate)
    sources = np.zeros((len(speakers), total), np.float32)
    for start, item in spoken:
        row = sources[speakers.index(item.speaker)]
        row[start : start + len(item.waveform)] += item.waveform.numpy()
    waveform: NDArray[np.float32] = sources.sum(axis=0)
    if snr_db is not None:
        waveform = waveform + channel_noise(waveform, snr_db, round(draws.uniform(0, 2), 1), draws.getrandbits(63))
    gain = np.float32(min(1.0, 0.98 / max(float(np.abs(waveform).max()), 1e-6)))
    turns = sorted((_turn(item, start / rate) for start, item in spoken), key=lambda turn: turn.start)
    return Conversation(
        name, torch.from_numpy(waveform * gain), rate, torch.from_numpy(sources * gain), speakers, tuple(turns)
    )


def _turn(item: Utterance, start: float) -> Turn:
    words = tuple(Segment(word.start + start, word.duration, word.label) for word in item.words)
    return Turn(item.speaker, words[0].start, words[-1].end - words[0].start, item.text, words)


def rttm(talk: Conversation) -> str:
    """The turns as RTTM, one line each, times to the tenth of a millisecond."""
    lines = [
        f"SPEAKER {talk.id} 1 {turn.start:.4f} {turn.duration:.4f} <NA> <NA> {turn.speaker} <NA> <NA>\n"
        for turn in talk.turns
    ]
    return "".join(lines)


def write_rttm(talks: Iterable[Conversation], path: str | Path) -> None:
    """Writes the turns of several conversations to one RTTM file, atomically.

    Raises:
        DataError: two conversations bear the same id.
    """
    texts: dict[str, str] = {}
    for talk in talks:
        if talk.id in texts:
            raise DataError(f"two conversations bear the id '{talk.id}'; RTTM cannot tell them apart")
        texts[talk.id] = rttm(talk)
    with atomic_write(path) as file:
        file.write("".join(texts.values()).encode())
