import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lhotse import CutSet
from tests.units.corpora import tone_corpus
from torch import Tensor, nn

from sonorant.benchmark.baselines import VoicedPitch
from sonorant.benchmark.probe import (
    ProbeConfig,
    _dealt,
    _joined,
    gather,
    module_digest,
    probe,
    probe_stage,
    sample_cuts,
)
from sonorant.benchmark.workspace import Workspace
from sonorant.core.errors import DataError
from sonorant.core.types import Features
from sonorant.data.batches import BatchConfig
from sonorant.data.corpora.corpus import Corpus
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.spectral import SpectralFront, log_mel_front

CONFIG = ProbeConfig(num_labelled=16, speaker_utterances=2, words=True, batches=BatchConfig(max_seconds=5))


class Layered(nn.Module):
    """Layer 0 is noise that is the same for each audio, layer 1 log mel energies, layer 2 their level alone."""

    num_layers = 2

    def __init__(self) -> None:
        super().__init__()
        self.front = SpectralFront(log_mel_front(50))
        self.dim, self.frame_rate = self.front.dim, self.front.frame_rate

    def output_lengths(self, lengths: Any) -> Any:
        return self.front.output_lengths(lengths)

    def forward(self, values: Tensor, lengths: Tensor, layers: bool = False) -> list[Features]:
        assert layers
        mel = self.front(values, lengths)
        noise = (mel.values * 1e4).sin()
        level = mel.values.mean(-1, keepdim=True).expand_as(mel.values)
        return [replace(mel, values=value) for value in (noise, mel.values, level)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("tones"), train=24, dev=20, test=20)


def test_what_is_there_is_read_off_the_right_layer(corpus: Corpus) -> None:
    scores, told = probe(Layered(), corpus, CONFIG, "toy")
    found = {score.name: score for score in scores}
    assert list(found) == [
        f"toy/{what}_accuracy{end}" for what in ("phone", "word", "speaker") for end in ("", "_noisy")
    ]
    assert found["toy/phone_accuracy"].value > 0.9
    assert found["toy/word_accuracy"].value > 0.9
    assert (found["toy/speaker_accuracy"].low or 0) > 2 / 8, "of eight speakers"
    assert found["toy/phone_accuracy_noisy"].value < found["toy/phone_accuracy"].value
    for score in scores:
        assert score.low is not None
        assert score.low <= score.value <= (score.high or 0)
    assert found["toy/phone_accuracy"].num_items == 20
    assert {what: details["layer"] for what, details in told.items()} == {"phone": 1, "word": 1, "speaker": 1}
    assert told["phone"]["dev"][0] < 0.6
    assert told["phone"]["classes"] == 4
    again, _ = probe(Layered(), corpus, replace(CONFIG, batches=BatchConfig(max_seconds=20)), "toy")
    assert [score.value for score in again] == pytest.approx([score.value for score in scores], abs=0.01)
    assert probe(Layered(), corpus, CONFIG, "toy")[0] == scores


def test_rows_bear_the_labels_of_their_own_frames(corpus: Corpus) -> None:
    cuts = list(corpus.split("dev"))
    found = gather(Layered(), cuts, CONFIG)
    rows = found.phones.stacked()
    assert rows.shape == (3, len(found.phones.labels), 80)
    assert set(found.phones.labels) == {"a", "e", "i", "u"}
    # Twelve frames of 20 ms a word: those in the pauses at both ends do not count.
    spoken = sum(0.24 * len((cut.supervisions[0].text or "").split()) for cut in cuts)
    assert len(found.phones.labels) == pytest.approx(spoken * 50, rel=0.05)
    thin = gather(Layered(), cuts, replace(CONFIG, max_frames=200))
    assert 100 < len(thin.phones.labels) <= 200
    one = gather(Layered(), cuts, replace(CONFIG, layers=(1,)))
    assert torch.equal(one.phones.stacked()[0], rows[1])
    assert sample_cuts(cuts, 3, 0) == sample_cuts(cuts, 3, 0) != sample_cuts(cuts, 3, 1)


def test_no_speaker_s_utterance_is_learnt_from_and_tested_on(corpus: Corpus) -> None:
    seen = [gather(Layered(), list(corpus.split(name)), CONFIG) for name in ("dev", "test")]
    parts = _dealt(_joined(*(part.speakers for part in seen)), CONFIG)
    assert not parts["train"] & parts["test"]
    assert not parts["dev"] & (parts["test"] | parts["train"])
    assert (len(parts["train"]), len(parts["dev"]), len(parts["test"])) == (16, 8, 16)


def test_a_stage_is_kept_and_follows_the_weights(corpus: Corpus, tmp_path: Path) -> None:
    work = Workspace(folder=tmp_path)
    config = replace(CONFIG, words=False, noisy=False)
    encoder = Layered()
    scores = probe_stage(work, "toy", encoder, corpus, config)
    assert probe_stage(work, "toy", encoder, corpus, replace(config, batches=BatchConfig(max_seconds=9))) == scores
    assert [stage.fresh for stage in work.done] == [True, False]
    encoder.front.normalise.fit([encoder.front.local(torch.randn(1, 16000), torch.tensor([16000]))])
    probe_stage(work, "toy", encoder, corpus, config)
    assert work.done[-1].fresh


def test_a_corpus_without_labels_is_refused(corpus: Corpus) -> None:
    bare = {n: CutSet.from_cuts([cut.drop_supervisions() for cut in cuts]) for n, cuts in corpus.splits.items()}
    for changes in ({"speakers": False}, {"phones": False}):
        with pytest.raises(DataError, match="nothing to learn from"):
            probe(Layered(), corpus.with_splits(bare), replace(CONFIG, words=False, **changes), "toy")  # type: ignore[arg-type]


def test_pitch_alone_tells_speakers_that_differ_in_nothing_else(tmp_path: Path) -> None:
    """The speakers are tones of 100 to 500 Hz, beside which the phones' tones lie."""
    corpus = tone_corpus(tmp_path, train=2, dev=16, test=16)
    config = replace(CONFIG, phones=False, words=False, noisy=False, speaker_utterances=1)
    (score,), told = probe(VoicedPitch(), corpus, config, "pitch")
    assert score.name == "pitch/speaker_accuracy"
    assert score.value > 2 / 8
    assert told["speaker"]["classes"] == 8
    silent = VoicedPitch()(torch.zeros(2, 8000), torch.tensor([8000, 4000]))
    assert silent.values.tolist() == [[[0.0]], [[0.0]]]


def test_the_same_weights_under_another_configuration_are_another_module() -> None:
    torch.manual_seed(0)
    whole = build_encoder("conformer_tiny")
    causal = build_encoder("conformer_tiny", causal=True)
    causal.load_state_dict(whole.state_dict())
    assert module_digest(whole) == module_digest(copy.deepcopy(whole))
    assert module_digest(whole) != module_digest(causal)
    assert module_digest(nn.Sequential(whole)) != module_digest(nn.Sequential(causal)), "parts count too"
