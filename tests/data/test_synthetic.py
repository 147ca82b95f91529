"""The built-in corpus: same bytes everywhere, splits that share nothing, manifests that lhotse reads."""

import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lhotse.qa import validate

from sonorant.core.errors import ConfigError, DataError
from sonorant.data.synthetic import shards
from sonorant.data.synthetic.corpus import (
    SPLITS,
    SyntheticConfig,
    iterate,
    num_utterances,
    sentence,
    speak,
    split_voices,
    utterance,
    write_corpus,
)  # fmt: skip
from sonorant.data.synthetic.espeak import SILENCE

pytest.importorskip("espeakng_loader")


def small(**changes: Any) -> SyntheticConfig:
    return SyntheticConfig(**{"train": 12, "dev": 6, "test": 6, "num_voices": (4, 2, 2), "vocab_size": 300} | changes)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_an_utterance_does_not_depend_on_what_was_made_before() -> None:
    config = small(languages=("en", "fr", "es", "de"), styles=("neutral", "whisper", "happy"))
    forward = [utterance(config, "train", index).samples for index in range(10)]
    for index in (5, 0, 7, 9, 3, 3, 1):
        np.testing.assert_array_equal(utterance(config, "train", index).samples, forward[index])


def test_another_process_makes_the_same_bytes() -> None:
    code = (
        "import hashlib; from sonorant.data.synthetic.corpus import SyntheticConfig, utterance;"
        "config = SyntheticConfig(languages=('fr', 'de'));"
        "made = [utterance(config, 'test', index) for index in (4, 2, 0)];"
        "print(hashlib.sha256(b''.join(item.samples.tobytes() for item in made)).hexdigest())"
    )
    environment = {"PYTHONHASHSEED": "5", "OMP_NUM_THREADS": "2", "PYTHONPATH": ":".join(sys.path)}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    config = SyntheticConfig(languages=("fr", "de"))
    mine = {index: utterance(config, "test", index).samples.tobytes() for index in (0, 1, 2, 3, 4)}
    assert hashlib.sha256(mine[4] + mine[2] + mine[0]).hexdigest() == other.stdout.strip()


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2), ("three", 3)):
        write_corpus(small(), tmp_path / name, workers, shard_size=4)
    assert digest(tmp_path / "one") == digest(tmp_path / "two") == digest(tmp_path / "three")
    assert len(digest(tmp_path / "one")) == 1 + 24 + 2 * 7  # the claim, the audio, two for each shard


def test_splits_share_no_voice_and_no_sentence() -> None:
    config = SyntheticConfig(vocab_size=300, num_voices=(6, 3, 3), seed=2)
    heard = {split: [utterance(config, split, index) for index in range(12)] for split in SPLITS}
    written = {split: [sentence(config, split, index) for index in range(1500)] for split in SPLITS}
    for left, right in itertools.combinations(SPLITS, 2):
        assert not {u.speaker for u in heard[left]} & {u.speaker for u in heard[right]}
        assert not {u.voice.formants for u in heard[left]} & {u.voice.formants for u in heard[right]}
        assert not {s.text for s in written[left]} & {s.text for s in written[right]}
        meant = [{(s.intent, tuple(s.slots.items())) for s in written[split] if s.slots} for split in (left, right)]
        assert not meant[0] & meant[1]
        assert [item.text for item in heard[left]] == [said.text for said in written[left][:12]]


def test_held_out_words_are_heard_in_training() -> None:
    config = SyntheticConfig(vocab_size=300)
    trained = {word for index in range(3000) for word in sentence(config, "train", index).text.split()}
    tested = [word for index in range(500) for word in sentence(config, "test", index).text.split()]
    assert np.mean([word in trained for word in tested]) > 0.99
    assert trained | set(tested) <= set(config.vocabulary("en"))


def test_the_labels_fit_the_waveform() -> None:
    config = small(languages=("en", "de"))
    for item in itertools.islice(iterate(config, "train"), 12):
        assert item.sample_rate == 16000
        assert item.phones[0].start == 0
        assert item.phones[-1].end == pytest.approx(item.seconds, abs=1e-4)
        for left, right in itertools.pairwise(item.phones):
            assert left.end == pytest.approx(right.start, abs=1e-9)
        assert [word.label for word in item.words] == item.text.split()
        assert all(0 <= word.start < word.end <= item.seconds + 1e-4 for word in item.words)
        assert len(item.f0) == pytest.approx(100 * item.seconds, abs=1.5)
        assert float(item.waveform.abs().max()) <= 1.0
        np.testing.assert_array_equal(item.samples.astype(np.float32) / 32768, item.waveform.numpy())


def test_jitter_changes_an_utterance_and_none_leaves_the_voice() -> None:
    still = small(jitter=0.0, room_prob=0.0, noise_prob=0.0)
    same = [utterance(still, "train", index, speaker="train-0001") for index in range(3)]
    assert len({item.pitch_hz for item in same}) == 1
    assert all(item.scale == 16000 / 22050 for item in same)
    moved = [utterance(small(), "train", index, speaker="train-0001") for index in range(6)]
    assert len({item.pitch_hz for item in moved}) == 6
    assert len({item.scale for item in moved}) > 2


def test_sizes_can_be_given_in_seconds() -> None:
    config = small(train_seconds=60.0)
    count = num_utterances(config, "train")
    total = sum(utterance(config, "train", index).seconds for index in range(count))
    assert 48 < total < 72
    assert num_utterances(config, "dev") == 6


def test_written_files_hold_the_utterances(tmp_path: Path) -> None:
    config = small()
    splits = write_corpus(config, tmp_path, 1, shard_size=5)
    assert {name: len(cuts) for name, cuts in splits.items()} == {"train": 12, "dev": 6, "test": 6}
    for index, cut in enumerate(splits["test"]):
        item, spoken = utterance(config, "test", index), cut.supervisions[0]
        np.testing.assert_array_equal(cut.load_audio()[0], item.waveform.numpy())
        assert (cut.id, spoken.text, spoken.language, spoken.speaker) == (item.id, item.text, "en", item.speaker)
        assert [w.symbol for w in spoken.alignment["word"]] == item.text.split()
        assert "".join(p.symbol for p in spoken.alignment["phone"] if p.symbol != SILENCE) == "".join(
            syllable.symbol for syllable in spoken.alignment["syllable"]
        )
        assert spoken.custom["intent"] == item.intent
        assert spoken.custom["slots"] == dict(item.slots)
        assert spoken.custom["translations"] == dict(item.translations)


def test_wav_holds_the_same_samples(tmp_path: Path) -> None:
    config = small(train=2, dev=0, test=0)
    cuts = write_corpus(config, tmp_path, audio_format="wav")["train"]
    np.testing.assert_array_equal(cuts[1].load_audio()[0], utterance(config, "train", 1).waveform.numpy())
    with pytest.raises(ConfigError, match="audio format 'mp5'"):
        write_corpus(config, tmp_path / "other", audio_format="mp5")


def test_a_stopped_writing_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small()
    write_corpus(config, tmp_path / "whole", shard_size=5)
    made: list[int] = []
    real = shards.utterance

    def failing(config: SyntheticConfig, split: str, index: int) -> Any:
        made.append(index)
        if len(made) == 8:
            raise KeyboardInterrupt
        return real(config, split, index)

    monkeypatch.setattr(shards, "utterance", failing)
    with pytest.raises(KeyboardInterrupt):
        write_corpus(config, tmp_path / "stopped", shard_size=5)
    assert [path.parent.name for path in (tmp_path / "stopped").glob("train/*/cuts.jsonl")] == ["0000000"]
    monkeypatch.setattr(shards, "utterance", lambda *arguments: (made.append(0), real(*arguments))[1])
    made.clear()
    write_corpus(config, tmp_path / "stopped", shard_size=5)
    assert len(made) == 24 - 5  # the finished shard is not made again
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")


def test_a_damaged_shard_is_written_again(tmp_path: Path) -> None:
    config = small(dev=0, test=0)
    write_corpus(config, tmp_path, shard_size=5)
    whole = digest(tmp_path)
    (tmp_path / "train" / "0000005" / "train-0000006.flac").write_bytes(b"")
    (tmp_path / "train" / "0000010" / "cuts.jsonl").unlink()
    write_corpus(config, tmp_path, shard_size=5)
    assert digest(tmp_path) == whole


def test_the_manifest_is_as_lhotse_writes_it(tmp_path: Path) -> None:
    cut = write_corpus(small(train=1, dev=0, test=0), tmp_path)["train"][0]
    line = (tmp_path / "train" / "0000000" / "cuts.jsonl").read_text("utf-8")
    relative = shards.cut_of(utterance(small(), "train", 0), "train/0000000/train-0000000.flac")
    assert json.loads(line) == json.loads(json.dumps(relative.to_dict()))
    validate(cut, read_data=True)


def test_another_configuration_does_not_mix_in(tmp_path: Path) -> None:
    write_corpus(small(train=1, dev=0, test=0), tmp_path)
    with pytest.raises(DataError, match="another configuration"):
        write_corpus(small(train=1, dev=0, test=0, seed=1), tmp_path)
    with pytest.raises(DataError, match="no synthetic corpus"):
        shards.read_shards(tmp_path / "nowhere")
    assert json.loads((tmp_path / "synthetic.json").read_text())["version"] == shards.VERSION


def test_the_seed_makes_another_corpus() -> None:
    texts = [[utterance(small(seed=seed), "train", index).text for index in range(6)] for seed in (0, 1)]
    assert texts[0] != texts[1]
    assert utterance(small(), "train", 0).voice != utterance(small(seed=1), "train", 0, speaker="train-0000").voice


def test_options_are_read_from_text() -> None:
    config = SyntheticConfig.from_options({"train": "7", "languages": "en+fr", "num_voices": "3,2,1", "snr_db": "5,9"})
    assert (config.train, config.languages, config.num_voices) == (7, ("en", "fr"), (3, 2, 1))
    assert config.snr_db == (5.0, 9.0)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"vocabsize": "7"}, "did you mean 'vocab_size'"),
        ({"languages": "xx"}, "language 'xx'. Known: de, en, es, fr"),
        ({"styles": "hapy"}, "did you mean 'happy'"),
        ({"vocab_size": "40"}, "vocab_size must be at least"),
        ({"commands": "-1"}, "commands must be at least 0"),
        ({"commands": "0", "numbers": "0", "world": "0", "free": "0"}, "must be above 0"),
        ({"num_voices": "1,0,1"}, "num_voices of dev must be at least 1"),
        ({"reverberation": "0.5,0.1"}, "reverberation"),
        ({"sample_rate": "100"}, "sample_rate must lie in"),
        ({"room_prob": "1.5"}, "room_prob"),
    ],
)
def test_nonsense_is_refused_by_name(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SyntheticConfig.from_options(options)


def test_wrong_names_are_named() -> None:
    with pytest.raises(ConfigError, match="split 'tests'; did you mean 'test'"):
        utterance(small(), "tests", 0)
    with pytest.raises(ConfigError, match="voice of 'train'"):
        utterance(small(), "train", 0, speaker="dev-0000")
    with pytest.raises(DataError, match="index"):
        utterance(small(), "train", -1)
    assert split_voices(small(), "dev") == ("dev-0000", "dev-0001")


def test_speak_says_any_text_in_a_voice_that_no_split_has() -> None:
    item = speak("hello there", "ann", seed=3)
    assert [word.label for word in item.words] == ["hello", "there"]
    assert not any(item.speaker in split_voices(SyntheticConfig(), split) for split in SPLITS)
    np.testing.assert_array_equal(item.samples, speak("hello there", "ann", seed=3).samples)
    assert len(speak("hello there", "bob", seed=3).samples) != len(item.samples)
    assert [w.label for w in speak("guten tag", language="de", style="whisper").words] == ["guten", "tag"]
    with pytest.raises(ConfigError, match="language 'xx'"):
        speak("hello", language="xx")
