"""Small corpora on disk: tones of a speaker's own height, whose phones are how the tone is coloured."""

from pathlib import Path

import torch
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.supervision import AlignmentItem

from sonorant.audio.io import write_audio
from sonorant.core.seed import derive
from sonorant.data.corpora.corpus import Card, Corpus

RATE = 16000
PHONES = {"a": 700.0, "e": 1400.0, "i": 2800.0, "u": 350.0}
WORDS = {"ai": "ai", "ue": "ue", "ia": "ia", "eu": "eu"}


def tone_cut(folder: Path, name: str, speaker: int, num_words: int = 3) -> MonoCut:
    """An utterance: words of two phones, each 0.12 s of two tones, one the speaker's and one the phone's."""
    draws = torch.Generator().manual_seed(derive(0, name) % 2**31)
    words = [list(WORDS)[int(torch.randint(4, (1,), generator=draws))] for _ in range(num_words)]
    time = torch.arange(round(0.12 * RATE)) / RATE
    own = torch.sin(2 * torch.pi * (100 + 35 * speaker) * time)
    said = [0.4 * own + 0.4 * torch.sin(2 * torch.pi * PHONES[p] * time) for word in words for p in word]
    edge = torch.zeros(round(0.06 * RATE))
    wave = torch.cat([edge, *said, edge])
    wave = wave + 0.02 * torch.randn(len(wave), generator=draws)
    path = folder / f"{name}.wav"
    write_audio(path, wave * 0.5, RATE)
    phones = [AlignmentItem(p, round(0.06 + 0.12 * i, 6), 0.12) for i, p in enumerate("".join(words))]
    spans = [AlignmentItem(word, round(0.06 + 0.24 * i, 6), 0.24) for i, word in enumerate(words)]
    ends = [AlignmentItem("sil", 0.0, 0.06), AlignmentItem("sil", round(len(wave) / RATE - 0.06, 6), 0.06)]
    supervision = SupervisionSegment(
        name, name, 0.0, len(wave) / RATE, text=" ".join(words), speaker=f"s{speaker}",
        alignment={"phone": [ends[0], *phones, ends[1]], "word": spans},
    )  # fmt: skip
    return MonoCut(
        name, 0.0, len(wave) / RATE, 0, [supervision], recording=Recording.from_file(path, recording_id=name)
    )


def tone_corpus(folder: Path, train: int = 24, dev: int = 8, test: int = 8) -> Corpus:
    """Splits without common speakers."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = {}
    for part, (split, count) in enumerate({"train": train, "dev": dev, "test": test}.items()):
        cuts = (tone_cut(folder, f"{split}-{n}", 3 * (n % 4) + part, 2 + n % 3) for n in range(count))
        splits[split] = CutSet.from_cuts(cuts)
    return Corpus("tones", splits, Card(name="tones"))
