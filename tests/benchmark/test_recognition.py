"""The stages of recognition recipes: what makes one anew, and what does not."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sonorant.audio.io import write_audio
from sonorant.benchmark.recognition import (
    LmConfig,
    evaluate_stage,
    lm_stage,
    shuffled_transcripts,
    spoken_stage,
    train_stage,
    with_more,
)
from sonorant.benchmark.workspace import Workspace
from sonorant.core.checkpoint import Checkpoint, load_checkpoint
from sonorant.core.errors import CheckpointError, DataError
from sonorant.data.batches import BatchConfig
from sonorant.data.corpora.corpus import text_of
from sonorant.encoders.recurrent import RecurrentConfig
from sonorant.recipes.catalogue import load_recipe, preset
from sonorant.tasks.asr.augmentation import no_augmentation
from sonorant.tasks.asr.model import FeatureConfig
from sonorant.tasks.asr.training import Speech, TextConfig, TrainingConfig, build_recogniser, prepare_speech
from sonorant.train.config import TrainConfig

PARTS = {
    "features": FeatureConfig(dim=8),
    "encoder": RecurrentConfig(dim=4, num_layers=1, dropout=0.0),
    "augment": no_augmentation(),
}
TRAINING = TrainingConfig(
    steps=2, batches=BatchConfig(max_seconds=10), loop=TrainConfig(progress=False, tensorboard=False), max_bad_share=1.0
)
# The longest text needs all the frames of its recording, and has more than that of any other.
TEXTS = {"train": ("ab ba" * 7, "bb", "a b", "ba ba"), "dev": ("ab", "ba"), "test": ("a", "b ab")}


def build(tokenizer):
    return build_recogniser(tokenizer, **PARTS)


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """A corpus as lists of files, as the engine of Deep Speech reads them."""
    generator = torch.Generator().manual_seed(0)
    for split, texts in TEXTS.items():
        rows = ["wav_filename,wav_filesize,transcript"]
        for number, text in enumerate(texts):
            path = tmp_path / f"{split}{number}.wav"
            write_audio(path, 0.1 * torch.randn(16000 + 16000 * (len(text) > 9), generator=generator), 16000)
            rows.append(f"{path.name},{path.stat().st_size},{text}")
        (tmp_path / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def opened(folder: Path, work: Workspace) -> Speech:
    return prepare_speech(work.open_corpus(), TextConfig(), TRAINING, frame_rate=25, folder=work.folder)


@pytest.fixture
def work(lists: Path) -> Workspace:
    corpus = "csv:" + ",".join(str(lists / f"{split}.csv") for split in TEXTS)
    return Workspace(folder=lists / "run", corpus=corpus, progress=False)


def trained(
    work: Workspace, speech: Speech, training: TrainingConfig = TRAINING, **options: object
) -> tuple[Path, bool]:
    folder = train_stage(work, "main", build, speech, training, PARTS, **options)  # type: ignore[arg-type]
    return folder, work.done[-1].fresh


def test_a_training_is_made_anew_for_what_changes_its_weights_and_for_nothing_else(
    lists: Path, work: Workspace
) -> None:
    speech = opened(lists, work)
    first, fresh = trained(work, speech)
    assert fresh
    quiet = replace(TRAINING, loop=replace(TRAINING.loop, log_every=1, checkpoint_every=1))
    assert trained(work, speech, quiet) == (first, False)
    assert trained(work, speech, replace(TRAINING, steps=3))[1]
    assert trained(work, shuffled_transcripts(speech, 0))[1], "other transcripts"
    path = lists / "train0.wav"
    write_audio(path, torch.zeros(32000), 16000)
    assert trained(work, opened(lists, work))[1], "other audio of the same name and length"


def test_weights_to_start_from_count_by_their_content(lists: Path, work: Workspace) -> None:
    speech = opened(lists, work)
    first, _ = trained(work, speech)
    start = lists / "start"
    first.rename(start)
    then, _ = trained(work, speech, replace(TRAINING, steps=1), init_from=str(start), skip=("head.*",))
    (lists / "elsewhere").mkdir()
    start.rename(lists / "elsewhere" / "model")
    again = trained(work, speech, replace(TRAINING, steps=1), init_from=str(lists / "elsewhere"), skip=("head.*",))
    assert again == (then, False)
    then.rename(lists / "elsewhere" / "other")
    assert trained(work, speech, replace(TRAINING, steps=1), init_from=str(lists / "elsewhere" / "other"))[1]
    with pytest.raises(CheckpointError, match="no folder"):
        trained(work, speech, init_from=str(lists / "nowhere"))


def test_the_best_weights_are_kept_and_evaluation_follows_them(lists: Path, work: Workspace) -> None:
    speech = opened(lists, work)
    model, _ = trained(work, speech, replace(TRAINING, steps=4, loop=replace(TRAINING.loop, validate_every=1)))
    told = load_checkpoint(model).extra["training"]
    assert told["steps"] == 4
    assert 1 <= told["best_step"] <= 4
    config = LmConfig(order=2, beam_size=3, lm_weights=(0.5,), word_bonuses=(0.0,))
    lm = lm_stage(work, speech, config)
    scores = evaluate_stage(work, "main", model, speech, TRAINING.batches, lm, config)
    assert [score.name for score in scores] == ["main/wer", "main/cer", "main_lm/wer", "main_lm/cer"]
    assert evaluate_stage(work, "main", model, speech, TRAINING.batches, lm, config) == scores
    assert not work.done[-1].fresh
    evaluate_stage(work, "main", model, speech, TRAINING.batches, lm, replace(config, beam_size=4))
    assert work.done[-1].fresh
    assert json.loads((work.folder / "export" / "decoder.json").read_text())["beam_size"] == 4


def test_text_for_the_language_model_goes_the_way_of_the_transcripts(lists: Path, work: Workspace) -> None:
    speech = opened(lists, work)
    (lists / "text.txt").write_text("AB, ba!\n\nBb\n")
    lm = lm_stage(work, speech, LmConfig(order=2, text=str(lists / "text.txt")))
    assert lm is not None
    words = {
        line.split("\t")[1] for line in lm.read_text().split("\\1-grams:")[1].split("\\2-grams:")[0].split("\n") if line
    }
    assert words >= {"ab", "ba", "bb"}
    with pytest.raises(DataError, match="no file"):
        lm_stage(work, speech, LmConfig(order=2, text=str(lists / "absent.txt")))
    (lists / "text.txt").write_text("\n")
    with pytest.raises(DataError, match="no text to train a language model on"):
        lm_stage(work, speech, LmConfig(order=2, text=str(lists / "text.txt")))


def test_shuffling_keeps_audio_and_texts_and_breaks_their_bond(lists: Path, work: Workspace) -> None:
    speech = opened(lists, work)
    before, after = ([(c.id, text_of(c)) for c in s.split("train")] for s in (speech, shuffled_transcripts(speech, 1)))
    assert [name for name, _ in before] == [name for name, _ in after]
    assert sorted(text for _, text in before) == sorted(text for _, text in after)
    assert before != after


def test_texts_are_said_in_the_voices_that_were_asked_for(lists: Path, work: Workspace) -> None:
    pytest.importorskip("espeakng_loader")
    lines = [("ab", "0"), ("bb", "1"), ("ab", "1")]
    speech = opened(lists, work)
    cuts = spoken_stage(work, lines)
    assert [text_of(cut) for cut in cuts] == ["ab", "bb", "ab"]
    assert [cut.supervisions[0].speaker for cut in cuts] == ["voice-0", "voice-1", "voice-1"]
    assert all(cut.load_audio().std() > 1e-3 for cut in cuts)
    again = spoken_stage(replace(work, folder=lists / "again"), lines)
    assert all((a.load_audio() == b.load_audio()).all() for a, b in zip(cuts, again, strict=True))

    more = with_more(speech, cuts)
    assert len(more.split("train")) == len(speech.split("train")) + 3
    assert len(more.split("dev")) == 2


@pytest.mark.parametrize("name", ["conformer_ctc", "deepspeech", "digits"])
def test_every_recipe_can_start_from_weights(name: str) -> None:
    config = preset(load_recipe(name), "tiny")
    assert (config.init_from, config.skip) == ("", ())


@pytest.fixture
def said_by_two(lists: Path) -> str:
    """A folder of recordings by two speakers."""
    for number, speaker in enumerate(("s0", "s1", "s0", "s1")):
        place = lists / "spoken" / speaker
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(lists / f"train{number}.wav", place)
        (place / f"train{number}.txt").write_text("ab" if number < 3 else "red")
    return f"folder:{lists / 'spoken'}?speaker=parent"


def made_by_digits(folder: Path) -> Checkpoint:
    return load_checkpoint(next((folder / "stages").glob("train-main-s0-*")) / "model")


def test_digits_take_the_geometry_of_the_recogniser_they_start_from(
    lists: Path, work: Workspace, said_by_two: str
) -> None:
    start = train_stage(work, "main", build, opened(lists, work), TRAINING, PARTS)
    digits = load_recipe("digits")
    config = replace(
        preset(digits, "tiny"), init_from=str(start), skip=("head.*",), training=TRAINING, text=TextConfig()
    )
    config = replace(config, augment=no_augmentation(), speakers=("s0",))
    scores = digits.run(config, replace(work, corpus=said_by_two, folder=lists / "digits"))
    assert scores[0].name == "main/wer"
    made = made_by_digits(lists / "digits").config
    assert made["features"]["dim"] == PARTS["features"].dim
    assert made["encoder_options"]["dim"] == PARTS["encoder"].dim


def test_digits_of_phones_go_on_with_the_phones_they_start_from(lists: Path, work: Workspace, said_by_two: str) -> None:
    pytest.importorskip("espeakng_loader")
    phones = TextConfig(tokens="phone")
    # Letters' names and "red" hold every phone that the two words need, and more than they need.
    rows = (lists / "train.csv").read_text().splitlines()
    said = ("red abba", "abbot", "ab", "bread")
    rows[1:] = [",".join([*row.split(",")[:2], text]) for row, text in zip(rows[1:], said, strict=True)]
    (lists / "train.csv").write_text("\n".join(rows) + "\n")
    sentences = prepare_speech(work.open_corpus(), phones, TRAINING, frame_rate=25)
    start = train_stage(work, "main", build, sentences, TRAINING, PARTS)
    search = LmConfig(order=2, lm_weights=(1.0,), word_bonuses=(0.0,))
    digits = load_recipe("digits")
    config = replace(preset(digits, "tiny"), init_from=str(start), training=TRAINING, text=phones, lm=search)
    config = replace(config, augment=no_augmentation(), speakers=("s0",))
    scores = digits.run(config, replace(work, corpus=said_by_two, folder=lists / "digits"))
    assert [score.name for score in scores] == ["main/wer", "main-s0_lm/wer"]
    assert made_by_digits(lists / "digits").extra["vocabulary"] == sentences.tokenizer.to_plain()
    (answers,) = (lists / "digits" / "stages").glob("evaluate-main-s0-*/main-s0_lm.jsonl")
    answered = {word for line in answers.read_text().splitlines() for word in json.loads(line)["hypothesis"].split()}
    assert answered <= {"ab", "red"}, "a search along the words answers nothing else"
