"""The recogniser as a module, at work, and in one folder."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sonorant.audio.io import write_audio
from sonorant.core.checkpoint import save_checkpoint
from sonorant.core.errors import CheckpointError, ConfigError, DataError
from sonorant.core.seed import item_seeds
from sonorant.core.types import Batch
from sonorant.encoders.conformer import conformer_tiny
from sonorant.encoders.recurrent import DeepSpeechConfig, RecurrentConfig
from sonorant.lm.ngram import train_ngram
from sonorant.tasks.asr.augmentation import AugmentConfig, build_chain, build_mask, build_warp, no_augmentation
from sonorant.tasks.asr.model import (
    CtcRecogniser,
    FeatureConfig,
    LogProbs,
    ctc_config,
    load_recogniser,
    save_recogniser,
)
from sonorant.tasks.asr.package import build_beam, export_recogniser, find_recogniser, open_transcriber
from sonorant.tasks.asr.training import TextConfig, build_recogniser, build_tokenizer
from sonorant.tasks.asr.transcriber import Transcriber, Windows, context_frames
from sonorant.text.alphabet import Alphabet
from sonorant.text.lexicon import Lexicon
from sonorant.text.pronounced import Pronounced

ALPHABET = Alphabet("abcdefgh|")
ENCODERS = {
    "conformer": conformer_tiny(),
    "deepspeech": DeepSpeechConfig(dim=16, context=2, dropout=0.0),
    "recurrent": RecurrentConfig(dim=8, num_layers=1),
}


def recogniser(encoder: str = "conformer", **changes: object) -> CtcRecogniser:
    torch.manual_seed(0)
    config = replace(ENCODERS[encoder], **changes)
    model = CtcRecogniser(ctc_config(FeatureConfig(dim=20), config), ALPHABET)
    model.fit_normalisation([noise_batch(4)])
    return model.eval()


def noise_batch(size: int, seconds: float = 1.0) -> Batch:
    generator = torch.Generator().manual_seed(1)
    lengths = (torch.linspace(0.5, 1.0, size) * seconds * 16000).long()
    waveform = 0.1 * torch.randn(size, int(lengths.max()), generator=generator)
    waveform = waveform * (torch.arange(waveform.shape[1]) < lengths[:, None])
    names = tuple(f"utt{i}" for i in range(size))
    tokens = torch.randint(1, 9, (size, 4), generator=generator)
    labels = {"tokens": tokens, "tokens_lengths": torch.full((size,), 4)}
    return Batch(waveform, lengths, 16000, labels, names, item_seeds(0, 0, names))


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_an_utterance_alone_is_the_utterance_in_a_batch(encoder: str) -> None:
    model, batch = recogniser(encoder), noise_batch(3)
    values, lengths = model(batch.waveform, batch.lengths)
    assert torch.equal(lengths, model.output_lengths(batch.lengths))
    for item in range(3):
        alone, _ = model(batch.waveform[item : item + 1, : batch.lengths[item]], batch.lengths[item : item + 1])
        torch.testing.assert_close(alone[0], values[item, : lengths[item]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_gradients_reach_every_parameter_and_training_overfits(encoder: str) -> None:
    model, batch = recogniser(encoder).train(), noise_batch(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    first = None
    for _ in range(30):
        loss = model.losses(batch)["model"].mean
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
        optimizer.step()
        first = first if first is not None else loss.item()
    assert loss.item() < 0.5 * first


def test_the_loss_counts_tokens_and_adds_over_batches() -> None:
    model, batch = recogniser(), noise_batch(4)
    whole = model.losses(batch)["model"]
    halves = [
        replace(
            batch,
            waveform=batch.waveform[rows],
            lengths=batch.lengths[rows],
            labels={name: label[rows] for name, label in batch.labels.items()},
            ids=batch.ids[rows],
            seeds=None,
        )
        for rows in (slice(0, 2), slice(2, 4))
    ]
    parts = [model.losses(half)["model"] for half in halves]
    torch.testing.assert_close(whole.total, parts[0].total + parts[1].total, rtol=1e-4, atol=1e-4)
    assert int(whole.count) == 16


def test_augmentation_is_for_training_only() -> None:
    config = AugmentConfig(noise=1.0)
    model = recogniser()
    model.augment, model.mask = build_chain(config), build_mask(config)
    model.allow_unalignable = True
    batch = noise_batch(2)
    assert model.losses(batch)["model"].total == recogniser().losses(batch)["model"].total
    assert model.train().losses(batch)["model"].total != model.eval().losses(batch)["model"].total
    assert build_chain(no_augmentation()) is None
    assert build_mask(no_augmentation()) is None


def test_labels_that_are_missing_are_named() -> None:
    batch = replace(noise_batch(2), labels={"text": ["a", "b"]})
    with pytest.raises(DataError, match="no labels 'tokens'; it has text"):
        recogniser().losses(batch)


def test_diagnose_counts_blanks() -> None:
    model = recogniser()
    with torch.no_grad():
        model.head.bias[0] = 100.0
    assert model.diagnose(noise_batch(2)) == {"blank_share": 1.0}
    assert not model.training


def test_a_checkpoint_loads_with_no_flags_and_gives_the_same(tmp_path: Path) -> None:
    model, batch = recogniser("deepspeech"), noise_batch(2)
    save_recogniser(model, tmp_path / "m")
    found = load_recogniser(tmp_path / "m")
    assert torch.equal(found(batch.waveform, batch.lengths).values, model(batch.waveform, batch.lengths).values)
    assert found.tokenizer == model.tokenizer


def test_another_alphabet_is_reported_by_its_sizes(tmp_path: Path) -> None:
    from sonorant.core.checkpoint import load_checkpoint, load_weights

    save_recogniser(recogniser(), tmp_path / "m")
    other = CtcRecogniser(recogniser().config, Alphabet("abc"))
    with pytest.raises(CheckpointError, match=r"head.weight: checkpoint 10×64, model 4×64(.|\n)*--skip 'head\.\*'"):
        load_weights(other, load_checkpoint(tmp_path / "m").weights)


# --- long recordings ------------------------------------------------------------------------------------------------


def test_windows_equal_the_whole_where_the_model_sees_no_further() -> None:
    model = recogniser(num_layers=1, causal=True, chunk_size=4, left_chunks=1, kernel_size=3)
    margin = context_frames(model)
    assert margin is not None
    waveform = 0.1 * torch.randn(16000 * 9, generator=torch.Generator().manual_seed(3))
    whole = Transcriber(model, windows=Windows(seconds=60)).log_probs(waveform)
    windows = Windows(seconds=3.0, margin=margin / model.frame_rate)
    cut = Transcriber(model, windows=windows).log_probs(waveform)
    assert len(cut) == int(model.output_lengths(torch.tensor([len(waveform)])))
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)


def test_windows_give_every_frame_once_whatever_the_length() -> None:
    model = recogniser("recurrent")
    transcriber = Transcriber(model, windows=Windows(seconds=2.0, margin=0.5))
    for samples in (0, 100, 16000, 32000, 32001, 48000, 50001, 79999):
        frames = transcriber.log_probs(torch.randn(samples) * 0.1)
        assert len(frames) == int(model.output_lengths(torch.tensor([samples])))


def test_a_model_that_sees_everything_says_so() -> None:
    assert context_frames(recogniser()) is None
    assert context_frames(recogniser("recurrent")) is None


def test_windows_refuse_nonsense() -> None:
    with pytest.raises(ConfigError, match="above twice the margin"):
        Windows(seconds=4, margin=2)
    with pytest.raises(ConfigError, match="call model.eval"):
        Transcriber(recogniser().train())


# --- words and alignment --------------------------------------------------------------------------------------------


def test_word_times_lie_where_the_network_put_its_tokens() -> None:
    """A network that is told what to say: its head gives the blank, but for chosen frames."""
    model = recogniser("recurrent")
    transcriber = Transcriber(model)
    scores = torch.full((1, 50, 10), -20.0)
    scores[0, :, 0] = 0.0
    for frame, token in ((10, "a"), (11, "b"), (20, "|"), (30, "c")):
        scores[0, frame] = -20.0
        scores[
            0, frame, ALPHABET.encode(token.replace("|", " "))[0] if token != "|" else ALPHABET.symbols.index("|")
        ] = 0.0
    hypothesis = transcriber.decode(
        type(model(torch.zeros(1, 16000), torch.tensor([16000])))(scores, torch.tensor([50]))
    )[0]
    transcript = transcriber.transcript("x", hypothesis, 2.0)
    assert transcript.text == "ab c"
    assert [word.label for word in transcript.words] == ["ab", "c"]
    middle = model.offset + 10 / model.frame_rate
    assert transcript.words[0].start <= middle <= transcript.words[0].end
    assert transcript.words[0].end == pytest.approx(model.offset + 11.5 / model.frame_rate, abs=1e-6)
    assert all(0 <= word.start <= word.end <= 2.0 for word in transcript.words)


def test_alignment_gives_the_words_of_the_text_in_order() -> None:
    transcriber = Transcriber(recogniser())
    found = transcriber.align(0.1 * torch.randn(32000), "abc de f")
    assert found.text == "abc de f"
    starts = [word.start for word in found.words]
    assert starts == sorted(starts)
    with pytest.raises(DataError, match="'z'"):
        transcriber.align(torch.randn(32000), "xyz")
    with pytest.raises(DataError, match="frames"):
        transcriber.align(torch.randn(1600), "abcdefgh" * 5)


# --- one folder -----------------------------------------------------------------------------------------------------


@pytest.fixture
def export(tmp_path: Path) -> Path:
    save_recogniser(recogniser(), tmp_path / "checkpoint")
    train_ngram(["ab cd", "ef gh ab", "cd ab"], order=2).save_arpa(tmp_path / "lm.arpa")
    search = {"lm_weight": 0.7, "word_bonus": 1.0, "wer": 0.5}
    return export_recogniser(tmp_path / "checkpoint", tmp_path / "export", lm=tmp_path / "lm.arpa", search=search)


def test_an_export_transcribes_with_no_flags(export: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "checkpoint")
    transcriber = open_transcriber(export)
    assert transcriber.beam is not None
    assert (transcriber.beam.options.lm_weight, transcriber.beam.options.word_bonus) == (0.7, 1.0)
    for rate in (8000, 16000, 44100):
        write_audio(tmp_path / "a.wav", 0.1 * torch.randn(2, rate), rate)
        transcript = transcriber.transcribe(tmp_path / "a.wav")
        assert transcript.id == "a.wav"
        assert transcript.duration == pytest.approx(1.0, abs=0.01)


def test_silence_and_nothing_are_answered_not_refused(export: Path) -> None:
    transcriber = open_transcriber(export, greedy=True)
    assert transcriber.transcribe_waveform(torch.zeros(0)).text == ""
    assert transcriber.transcribe_waveform(torch.zeros(16000)).duration == 1.0


def test_options_replace_the_exports_own(export: Path) -> None:
    assert open_transcriber(export, beam_size=7).beam.options.beam_size == 7
    assert open_transcriber(export, greedy=True).beam is None
    assert open_transcriber(export, hot_words={"ab": 2.0}).beam.options.hot_words == {"ab": 2.0}
    assert open_transcriber(export / "model").beam is None


def test_a_folder_without_a_recogniser_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CheckpointError, match=r"no recogniser in .*it holds notes.txt"):
        open_transcriber(tmp_path)
    with pytest.raises(CheckpointError, match="no folder"):
        open_transcriber(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="files that are no export"):
        save_recogniser(recogniser(), tmp_path / "m")
        export_recogniser(tmp_path / "m", tmp_path)


def test_a_damaged_search_file_is_named(export: Path) -> None:
    (export / "decoder.json").write_text('{"lm_wieght": 1}')
    with pytest.raises(CheckpointError, match="unknown search option 'lm_wieght'; did you mean 'lm_weight'"):
        open_transcriber(export)


def test_bands_are_warped_in_training_before_they_are_normalised() -> None:
    model, batch = recogniser(), noise_batch(2)
    plain = model.features(batch.waveform, batch.lengths).values
    model.warp = build_warp(AugmentConfig(tract=1.0), 20.0, 8000.0)
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    model.losses(batch)
    model.train().losses(batch)
    assert torch.equal(seen[0], plain)
    raw = model.front_end(batch.waveform, batch.lengths)
    torch.testing.assert_close(seen[1], model.normalise(model.warp(raw, batch.seeds)).values)
    assert not torch.allclose(seen[1], plain, atol=1e-3)
    with pytest.raises(ConfigError, match="features.kind is mfcc"):
        build_recogniser(ALPHABET, FeatureConfig(kind="mfcc", dim=13), ENCODERS["recurrent"], AugmentConfig(tract=0.5))


def test_signal_processing_is_not_rounded_under_autocast() -> None:
    """Formant shift and log energies in bfloat16 once gave NaN in most batches of short clips."""
    model, batch = recogniser(), noise_batch(3)
    model.augment = build_chain(AugmentConfig(speed=0.0, volume=0.0, formant=1.0, noise=1.0))
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    model.train()
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            model.losses(batch)
    assert torch.equal(seen[0], seen[1])


# --- phones ---------------------------------------------------------------------------------------------------------

LEXICON = Lexicon.parse_kaldi(["red r e d", "read r e d", "row r o", "rode r o d"])


def spoken(tokenizer: Pronounced, symbols: str) -> LogProbs:
    """Frames that say these symbols beyond doubt, "-" for the blank."""
    scores = torch.full((1, len(symbols), tokenizer.vocab_size), -20.0)
    for frame, symbol in enumerate(symbols):
        scores[0, frame, 0 if symbol == "-" else tokenizer.symbols.index(symbol)] = 0.0
    return LogProbs(scores, torch.tensor([len(symbols)]))


@pytest.fixture
def of_phones() -> CtcRecogniser:
    features = FeatureConfig(dim=20, normalise="utterance")
    return CtcRecogniser(ctc_config(features, ENCODERS["recurrent"]), Pronounced(LEXICON, language="en")).eval()


def test_phones_are_answered_as_words(of_phones: CtcRecogniser, tmp_path: Path) -> None:
    scores = spoken(of_phones.tokenizer, "-rre-d|-ro-d-|eo-")
    transcriber = Transcriber(of_phones)
    best = transcriber.decode(scores)[0]
    assert best.text == "red rode eo", "of homophones the first; phones where no word has them"
    assert [(word.text, word.start, word.end) for word in best.words] == [
        ("red", 1, 6),
        ("rode", 8, 12),
        ("eo", 14, 16),
    ]

    train_ngram(["read row", "row read", "rode read row"], order=2).save_arpa(tmp_path / "lm.arpa")
    beam = build_beam(of_phones.tokenizer, tmp_path / "lm.arpa", closed=True)
    found = transcriber.with_beam(beam).decode(spoken(of_phones.tokenizer, "-rre-d|-ro--"))[0]
    assert found.text == "read row", "of homophones the one that the language model knows"
    assert [word.text for word in found.words] == ["read", "row"]


def test_phones_with_an_open_search_are_answered_as_words(of_phones: CtcRecogniser) -> None:
    beam = build_beam(of_phones.tokenizer, None)
    assert Transcriber(of_phones, beam).decode(spoken(of_phones.tokenizer, "-re-d|ro"))[0].text == "red row"


def test_any_word_can_be_aligned_by_its_pronunciation(of_phones: CtcRecogniser) -> None:
    aligned = Transcriber(of_phones).align(0.1 * torch.randn(32000), "read row read")
    assert [word.label for word in aligned.words] == ["read", "row", "read"]
    with pytest.raises(DataError, match="no pronunciation of 'elephant'"):
        Transcriber(of_phones).align(0.1 * torch.randn(32000), "read elephant")


def test_a_lexicon_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    cases = {
        "absent.txt": "no file",
        "binary.txt": "is not UTF-8",
        "other.txt": "has none of the 2 words.*such as 'red'",
    }
    (tmp_path / "binary.txt").write_bytes(b"\xf5\x80\xff")
    (tmp_path / "other.txt").write_text("blue b l uw\n")
    for name, message in cases.items():
        with pytest.raises(DataError, match=message) as refusal:
            build_tokenizer(TextConfig(tokens="phone", lexicon=str(tmp_path / name)), ["red", "row red"])
        assert name in str(refusal.value)


def test_a_recogniser_of_phones_comes_back_with_its_lexicon(of_phones: CtcRecogniser, tmp_path: Path) -> None:
    save_recogniser(of_phones, tmp_path / "checkpoint")
    again = load_recogniser(tmp_path / "checkpoint").tokenizer
    assert again == of_phones.tokenizer
    assert again.decode(again.encode("rode red")) == "rode red"


# --- what once went wrong --------------------------------------------------------------------------------------------


def test_tokens_that_are_words_stay_apart() -> None:
    words = Alphabet(["no", "yes"], "word")
    model = CtcRecogniser(ctc_config(FeatureConfig(dim=20, normalise="utterance"), ENCODERS["recurrent"]), words).eval()
    scores = torch.full((1, 9, 3), -20.0)
    for frame, token in enumerate((0, 2, 0, 1, 1, 0, 2, 0, 0)):
        scores[0, frame, token] = 0.0
    transcriber = Transcriber(model)
    hypothesis = transcriber.decode(LogProbs(scores, torch.tensor([9])))[0]
    assert hypothesis.text == "yes no yes"
    assert [word.text for word in hypothesis.words] == ["yes", "no", "yes"]
    assert [word.label for word in transcriber.align(0.1 * torch.randn(16000), "no yes").words] == ["no", "yes"]
    beam = build_beam(words, None, hot_words={"yes": 1.0})
    assert transcriber.with_beam(beam).decode(LogProbs(scores, torch.tensor([9])))[0].text == "yes no yes"


def test_windows_move_on_though_chunks_leave_no_room_for_them() -> None:
    model = recogniser(num_layers=1, causal=True, chunk_size=64, left_chunks=1, kernel_size=3)
    transcriber = Transcriber(model, windows=Windows(seconds=9.0, margin=4.0))
    waveform = 0.1 * torch.randn(16000 * 31)
    assert len(transcriber.log_probs(waveform)) == int(model.output_lengths(torch.tensor([len(waveform)])))


def test_the_frame_rate_is_that_of_whole_samples() -> None:
    features = FeatureConfig(sample_rate=22050, dim=20)
    model = CtcRecogniser(ctc_config(features, ENCODERS["recurrent"]), ALPHABET)
    hour = torch.tensor([3600 * 22050])
    assert int(model.output_lengths(hour)) == pytest.approx(3600 * model.frame_rate, abs=2)
    assert model.stride == 4 * 220


def test_every_item_of_a_split_is_scored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lhotse import CutSet

    from sonorant.data.batches import BatchConfig
    from sonorant.data.corpora.audio_files import read_header, whole_file_cut
    from sonorant.tasks.asr import evaluation
    from sonorant.tasks.asr.evaluation import collect, error_rates, greedy_scores, heard, transcripts

    cuts = []
    for seconds in (0.4, 1.0):
        path = tmp_path / f"{seconds}.wav"
        write_audio(path, 0.1 * torch.randn(int(seconds * 16000)), 16000)
        cuts.append(whole_file_cut(path.stem, path, read_header(path), text="ab", speaker="s"))
    strict = BatchConfig(min_item_seconds=0.5, max_item_seconds=0.9)
    assert [item.id for item in collect(recogniser(), CutSet.from_cuts(cuts), strict)] == ["0.4", "1.0"]
    with pytest.raises(DataError, match=r"stand twice in the split, such as '0.4'"):
        collect(recogniser(), [cuts[0], cuts[0]], strict)
    # Validation decodes batch by batch, with the same scores, and leaves a training that was under way in training.
    model = recogniser().train()
    assert next(heard(model, cuts, strict)).id == "1.0"
    assert model.training
    validated = greedy_scores(model, cuts, strict, "dev")
    assert model.training
    # By then no log probabilities are held.
    held: list[int] = []

    def rates(items: list[Any], *rest: Any) -> list[Any]:
        held.extend(item.log_probs.untyped_storage().nbytes() for item in items)
        return error_rates(items, *rest)

    monkeypatch.setattr(evaluation, "error_rates", rates)
    assert greedy_scores(model, cuts, strict, "dev") == validated
    assert held == [0, 0]
    items = collect(model, cuts, strict)
    assert validated == error_rates(items, [t.text for t in transcripts(items, Transcriber(model.eval()))], "dev")


def test_a_run_is_found_by_its_newest_training(tmp_path: Path) -> None:
    for name, age in (("train-main-b", 100), ("train-main-a", 200), ("train-main-c", 300)):
        save_recogniser(recogniser(), tmp_path / "stages" / name / "model")
        os.utime(tmp_path / "stages" / name, (1e9 - age, 1e9 - age))
    assert find_recogniser(tmp_path).name == "train-main-b"
    with pytest.raises(CheckpointError, match="no vocabulary"):
        save_checkpoint(tmp_path / "bare", kind="asr.ctc", weights={}, config=recogniser().config)
        load_recogniser(tmp_path / "bare")


def test_level_normalisation_answers_a_whisper_as_a_shout() -> None:
    torch.manual_seed(0)
    features = FeatureConfig(dim=20, normalise="level")
    model = CtcRecogniser(ctc_config(features, conformer_tiny()), ALPHABET)
    batch = noise_batch(3)
    model.fit_normalisation([batch])
    model.eval()
    loud = model(batch.waveform, batch.lengths).values
    soft = model(0.05 * batch.waveform, batch.lengths).values
    torch.testing.assert_close(soft, loud, atol=1e-4, rtol=1e-4)
    alone = model(batch.waveform[:1, : batch.lengths[0]], batch.lengths[:1]).values
    torch.testing.assert_close(alone[0], loud[0, : alone.shape[1]], atol=1e-5, rtol=1e-5)
    assert context_frames(model) is None


def test_peak_normalisation_does_not_hear_noise_far_below_speech() -> None:
    torch.manual_seed(0)
    features = FeatureConfig(dim=20, normalise="peak", range_db=30.0)
    model = CtcRecogniser(ctc_config(features, conformer_tiny()), ALPHABET)
    # Speech in the middle of digital silence, or of noise 60 dB below it, and at another level.
    burst = torch.zeros(1, 16000)
    burst[:, 4000:12000] = torch.randn(1, 8000)
    lengths = torch.tensor([16000])
    model.fit_normalisation([noise_batch(3)])
    model.eval()
    clean = model(burst, lengths).values
    noisy = model(0.1 * (burst + 1e-3 * torch.randn(1, 16000)), lengths).values
    assert (noisy - clean).abs().max() < 0.05
    assert context_frames(model) is None
    with pytest.raises(ConfigError, match="cepstra"):
        FeatureConfig(kind="mfcc", normalise="peak")


@pytest.mark.parametrize(
    "name, value", [("edges_db", (35.0, 6.0)), ("tract_range", (0.1, 1.2)), ("noise_db", (9.0, 3.0))]
)
def test_a_range_of_an_augmentation_is_refused_before_anything_is_made(name: str, value: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} must be \(low, high\)"):
        AugmentConfig(**{name: value})
