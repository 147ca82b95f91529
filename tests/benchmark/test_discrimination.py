from pathlib import Path

import pytest
import torch
from tests.units.corpora import tone_corpus
from torch import nn

from sonorant.benchmark.discrimination import abx_scores, abx_stage, phone_items
from sonorant.benchmark.workspace import Workspace
from sonorant.core.errors import DataError
from sonorant.core.types import Features
from sonorant.data.batches import BatchConfig
from sonorant.data.corpora.corpus import Corpus
from sonorant.encoders.checkpoint import save_trained_encoder
from sonorant.encoders.spectral import SpectralFront, log_mel_front


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("tones"), train=1, dev=1, test=16)


@pytest.fixture(scope="module")
def front() -> SpectralFront:
    made, generator = SpectralFront(log_mel_front(50)), torch.Generator().manual_seed(0)
    noise = torch.randn(4, 16000, generator=generator)
    made.normalise.fit([made.local(noise, torch.full((4,), 16000))])
    return made


def test_phones_that_sound_apart_are_told_apart_and_noise_is_not(corpus: Corpus, front: SpectralFront) -> None:
    class Noise(nn.Module):
        """Frames that say nothing of the audio."""

        num_layers, frame_rate, output_lengths = 0, front.frame_rate, staticmethod(front.output_lengths)

        def forward(self, values: torch.Tensor, lengths: torch.Tensor) -> Features:
            frames = front.output_lengths(lengths)
            generator = torch.Generator().manual_seed(int(lengths.sum()))
            return Features(torch.randn(len(frames), int(frames.max()), 12, generator=generator), frames, 50.0)

    cuts = corpus.split("test")
    # A triphone holds its neighbours' frames too, and here there are few of them to compare.
    for context, limit in (("any", 0.1), ("triphone", 0.3)):
        within, across = abx_scores(front, cuts, "mel", context=context)  # type: ignore[arg-type]
        assert (within.name, across.name) == ("mel/abx_within", "mel/abx_across")
        assert within.value < limit
        assert across.value < 2 * limit
    assert abx_scores(Noise(), cuts, "noise", context="any", max_items=8)[0].value == pytest.approx(0.5, abs=0.1)
    again = abx_scores(front, cuts, "mel", context="triphone", batches=BatchConfig(max_seconds=2))
    assert again[0].value == pytest.approx(within.value, abs=1e-3)


def test_items_are_the_frames_of_the_phone_and_its_neighbours(corpus: Corpus) -> None:
    cut = next(cut for cut in corpus.split("test") if cut.supervisions[0].text.count(" ") == 1)
    letters = cut.supervisions[0].text.replace(" ", "")
    own = list(phone_items(cut, 100, 50.0, 0.01, "any", ("sil",)))
    assert [told[0] for told, _ in own] == list(letters)
    assert [(frames.start, frames.stop) for _, frames in own] == [(3, 9), (9, 15), (15, 21), (21, 27)]
    wide = list(phone_items(cut, 100, 50.0, 0.01, "triphone", ("sil",)))
    assert [(told[0], told[1]) for told, _ in wide] == [
        (letters[1], f"{letters[0]} {letters[2]}"), (letters[2], f"{letters[1]} {letters[3]}"),
    ]  # fmt: skip
    assert [(frames.start, frames.stop) for _, frames in wide] == [(3, 21), (9, 27)]


def test_too_few_cuts_are_refused(corpus: Corpus, front: SpectralFront, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no triple"):
        abx_scores(front, list(corpus.split("test"))[:1], "mel")


def test_a_stage_keeps_what_was_found(corpus: Corpus, front: SpectralFront, tmp_path: Path) -> None:
    encoder = save_trained_encoder(front, tmp_path / "encoder")
    work = Workspace(folder=tmp_path)
    cuts = corpus.split("test")
    first = abx_stage(work, "mel", encoder, cuts, context="any")
    assert first == abx_scores(front, cuts, "mel", context="any")
    assert abx_stage(work, "mel", encoder, cuts, context="any") == first
    abx_stage(work, "mel", encoder, cuts, context="any", max_items=2)
    assert [stage.fresh for stage in work.done] == [True, False, True]
