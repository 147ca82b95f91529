"""Conversations: exact turns, sources that add up, RTTM."""

import numpy as np
import pytest
import torch

from sonorant.core.errors import ConfigError, DataError
from sonorant.data.synthetic.conversations import ConversationConfig, conversation, rttm, write_rttm
from sonorant.data.synthetic.corpus import SyntheticConfig, split_voices

pytest.importorskip("espeakng_loader")

CONFIG = SyntheticConfig(num_voices=(8, 4, 3), noise_prob=0.0)
SHORT = ConversationConfig(seconds=10.0)


def test_turns_are_where_the_voices_are() -> None:
    config = SyntheticConfig(num_voices=(8, 4, 3), noise_prob=0.0, room_prob=0.0)
    for index in range(3):
        talk = conversation(config, "train", index, SHORT)
        assert talk.seconds >= 10
        assert set(talk.speakers) == {turn.speaker for turn in talk.turns}
        assert set(talk.speakers) <= set(split_voices(config, "train"))
        for source, speaker in zip(talk.sources.numpy(), talk.speakers):
            speaks = np.zeros(len(source), bool)
            for turn in talk.turns:
                if turn.speaker == speaker:
                    speaks[round(turn.start * 16000) : round(turn.end * 16000)] = True
            energy = np.square(source.astype(float))
            assert energy[speaks].sum() > 0.9999 * energy.sum()
            assert np.mean(energy[speaks] > 0) > 0.8


def test_nobody_speaks_over_himself() -> None:
    for index in range(4):
        talk = conversation(CONFIG, "train", index, ConversationConfig(seconds=12.0, overlap_prob=0.8))
        for speaker in talk.speakers:
            own = [turn for turn in talk.turns if turn.speaker == speaker]
            assert all(a.end <= b.start for a, b in zip(own, own[1:]))
        starts = [turn.start for turn in talk.turns]
        assert starts == sorted(starts)


def test_sources_add_up() -> None:
    talk = conversation(CONFIG, "dev", 1, SHORT)
    torch.testing.assert_close(talk.sources.sum(dim=0), talk.waveform, atol=1e-6, rtol=0)
    noisy = conversation(SyntheticConfig(num_voices=(8, 4, 3), noise_prob=1.0, snr_db=(20.0, 20.0)), "dev", 1, SHORT)
    speech = noisy.sources.sum(dim=0)
    ratio = 10 * torch.log10(speech.square().sum() / (noisy.waveform - speech).square().sum())
    assert abs(float(ratio) - 20) < 0.1


def test_overlap_can_be_asked_for() -> None:
    shares = []
    for prob in (0.0, 0.9):
        manner = ConversationConfig(seconds=15.0, overlap_prob=prob)
        shares.append(np.mean([conversation(CONFIG, "train", index, manner).overlap for index in range(3)]))
    assert shares[0] == 0.0
    assert shares[1] > 0.1


def test_a_conversation_is_a_function_of_its_number() -> None:
    first, other = conversation(CONFIG, "test", 0, SHORT), conversation(CONFIG, "test", 1, SHORT)
    again = conversation(CONFIG, "test", 0, SHORT)
    assert torch.equal(first.waveform, again.waveform)
    assert first.turns == again.turns
    assert first.turns != other.turns


def test_rttm_reads_back(tmp_path) -> None:
    talks = [conversation(CONFIG, "train", index, SHORT) for index in range(2)]
    write_rttm(talks, tmp_path / "ref.rttm")
    from lhotse import SupervisionSet

    read = SupervisionSet.from_rttm(tmp_path / "ref.rttm")
    rows = [(s.recording_id, s.speaker, s.start, s.end) for s in read]
    expected = [(talk.id, turn.speaker, turn.start, turn.end) for talk in talks for turn in talk.turns]
    assert len(rows) == len(expected)
    for got, want in zip(sorted(rows), sorted(expected)):
        assert got[:2] == want[:2]
        assert got[2:] == pytest.approx(want[2:], abs=2e-4)
    assert rttm(talks[0]).startswith(f"SPEAKER {talks[0].id} 1 ")
    with pytest.raises(DataError, match="bear the id"):
        write_rttm([talks[0], talks[0]], tmp_path / "twice.rttm")


def test_too_few_voices_are_named() -> None:
    with pytest.raises(ConfigError, match="has 1 voices"):
        conversation(SyntheticConfig(num_voices=(1, 1, 1)), "train", 0)
    with pytest.raises(ConfigError, match="overlap_prob"):
        ConversationConfig(overlap_prob=1.5)
