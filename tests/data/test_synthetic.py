"""The built-in corpus: same bytes everywhere, splits that share nothing, manifests that lhotse reads."""

import numpy as np
import pytest

from sonorant.core.errors import ConfigError
from sonorant.data.synthetic.corpus import SyntheticConfig, speak, utterance, write_corpus

pytest.importorskip("espeakng_loader")


def small(**changes: object) -> SyntheticConfig:
    return SyntheticConfig(**{"train": 12, "dev": 6, "test": 6, "num_voices": (4, 2, 2), "vocab_size": 300} | changes)


def test_an_utterance_does_not_depend_on_what_was_made_before() -> None:
    config = small()
    forward = [utterance(config, "train", index).samples for index in range(8)]
    for index in (5, 0, 7, 3, 3, 1):
        np.testing.assert_array_equal(utterance(config, "train", index).samples, forward[index])


def test_written_files_hold_the_utterances(tmp_path) -> None:
    splits = write_corpus(small(), tmp_path, 1, shard_size=5)
    assert {name: len(cuts) for name, cuts in splits.items()} == {"train": 12, "dev": 6, "test": 6}
    cut = splits["test"][3]
    item = utterance(small(), "test", 3)
    np.testing.assert_array_equal(cut.load_audio()[0], item.waveform.numpy())
    assert cut.supervisions[0].text == item.text


def test_options_are_read_from_text() -> None:
    config = SyntheticConfig.from_options({"train": "7", "languages": "en,fr", "num_voices": "3,2,1"})
    assert (config.train, config.languages, config.num_voices) == (7, ("en", "fr"), (3, 2, 1))
    with pytest.raises(ConfigError, match="vocab_size"):
        SyntheticConfig.from_options({"vocabsize": "7"})


def test_speak_says_any_text() -> None:
    item = speak("hello there", "ann", seed=3)
    assert [word.label for word in item.words] == ["hello", "there"]
