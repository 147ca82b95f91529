"""CTC models of transformers, built tiny and random, as our recogniser: logits and transcripts are theirs."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sonorant.audio.io import read_audio, write_audio
from sonorant.cli.main import main
from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.encoders.load import save_pretrained
from sonorant.tasks.asr.foreign import is_foreign, load_foreign_recogniser
from sonorant.tasks.asr.model import load_recogniser, save_recogniser
from sonorant.tasks.asr.package import open_transcriber

transformers = pytest.importorskip("transformers")

SETTINGS: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (8,) * 4,
    "conv_kernel": (10, 3, 3, 2), "conv_stride": (5, 4, 4, 4), "num_feat_extract_layers": 4, "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "initializer_range": 0.5, "vocab_size": 14,
}  # fmt: skip
VOCABULARY = {symbol: index for index, symbol in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH'"])}
KINDS = {
    "Wav2Vec2": {},
    "Hubert": {"do_stable_layer_norm": True, "feat_extract_norm": "layer"},
    "WavLM": {"num_buckets": 16, "max_bucket_distance": 20},
    "UniSpeechSat": {},
    "Data2VecAudio": {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2},
}


def made(folder: Path, kind: str = "Wav2Vec2", vocabulary: dict[str, int] = VOCABULARY, **token_options: Any) -> Any:
    """A folder as the hub has it; returns their model and processor."""
    model = getattr(transformers, f"{kind}ForCTC")
    blank = vocabulary["<pad>"]
    torch.manual_seed(0)
    theirs = model(model.config_class(**{**SETTINGS, **KINDS[kind]}, pad_token_id=blank)).eval()
    # Frames of random networks are much alike: what they have in common is taken out, so that transcripts vary.
    theirs.lm_head.bias.data -= theirs(sound(2.0)[None]).logits.detach().mean((0, 1))
    theirs.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), **token_options)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)
    processor = transformers.Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer)
    processor.save_pretrained(folder)
    return theirs, processor


def sound(seconds: float) -> torch.Tensor:
    """A gliding tone that comes and goes, with some noise."""
    time = torch.arange(round(16000 * seconds)) / 16000
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(1))
    return (
        0.3 * torch.sin(2000 * time * (1 + time)) * torch.sin(9 * time) + 0.05 * noise * torch.sin(5 * time)
    ).float()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_transcripts_are_theirs(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs, processor = made(tmp_path / "model", kind)
    write_audio(tmp_path / "a.wav", sound(2.0), 16000)
    waveform = read_audio(tmp_path / "a.wav").waveform.reshape(-1)
    inputs = processor(np.asarray(waveform), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(inputs.input_values).logits
    model = load_foreign_recogniser(tmp_path / "model")
    lengths = torch.tensor([len(waveform)])
    with torch.no_grad():
        features = model.features(waveform[None], lengths)
        own = model.head(model.encoder(features.values, features.lengths).values)
    torch.testing.assert_close(own, logits, atol=1e-4, rtol=0)
    expected = processor.batch_decode(logits.argmax(-1))[0]
    assert len(set(logits.argmax(-1)[0].tolist())) > 3
    found = open_transcriber(tmp_path / "model", greedy=True).transcribe(tmp_path / "a.wav")
    assert found.text == " ".join(expected.split())
    assert main(["transcribe", str(tmp_path / "a.wav"), "--model", str(tmp_path / "model"), "--greedy"]) == 0
    assert found.text in capsys.readouterr().out
    assert math.isclose(model.frame_rate, 16000 / 320)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_parakeet_says_what_it_says_there(kind: str, tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    pytest.importorskip("librosa")
    trainers, special = library.trainers, ["<unk>"]
    if kind == "bpe":
        backend = library.Tokenizer(library.models.BPE(unk_token="<unk>"))
        trainer = trainers.BpeTrainer(vocab_size=30, special_tokens=special, show_progress=False)
    else:
        backend = library.Tokenizer(library.models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=22, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.pre_tokenizer, backend.decoder = library.pre_tokenizers.Metaspace(), library.decoders.Metaspace()
    backend.train_from_iterator(["the cat sat on the mat", "a hat that sat at the hat"] * 4, trainer)
    tokenizer = transformers.ParakeetTokenizer(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>")
    settings = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "num_mel_bins": 40,
        "subsampling_conv_channels": 8, "initializer_range": 0.3,
    }  # fmt: skip
    blank = tokenizer.pad_token_id
    config = transformers.ParakeetCTCConfig(encoder_config=settings, vocab_size=len(tokenizer), pad_token_id=blank)
    torch.manual_seed(0)
    theirs = transformers.ParakeetForCTC(config).eval()
    extractor = transformers.ParakeetFeatureExtractor(feature_size=40)
    waveform = sound(3.0)
    inputs = extractor([waveform.numpy()], sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        theirs.ctc_head.bias -= theirs(**inputs).logits.mean((0, 1))
        logits = theirs(**inputs).logits
    for part in (theirs, tokenizer, extractor):
        part.save_pretrained(tmp_path)
    model = load_foreign_recogniser(tmp_path)
    with torch.no_grad():
        scores, lengths = model(waveform[None], torch.tensor([len(waveform)]))
    order = [blank, *(index for index in range(len(tokenizer)) if index != blank)]
    expected = logits.log_softmax(-1)[:, : int(lengths[0]), order]
    torch.testing.assert_close(scores, expected, atol=2e-3, rtol=0)
    found = open_transcriber(tmp_path).transcribe_waveform(waveform)
    best = logits.argmax(-1)[0, : int(lengths[0])]
    assert found.text == " ".join(tokenizer.decode(best).split())
    assert len(set(best.tolist())) > 3
    assert math.isclose(model.frame_rate, 12.5)
    text = "the hat sat"
    assert [order[index] for index in model.tokenizer.encode(text)] == tokenizer(text)["input_ids"]


def test_a_blank_that_is_not_the_first(tmp_path: Path) -> None:
    symbols = [*"abcdefgh", " ", "<unk>", "<s>", "</s>", "'", "<pad>"]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    theirs, processor = made(tmp_path / "model", vocabulary=vocabulary, word_delimiter_token=" ")
    model = load_foreign_recogniser(tmp_path / "model")
    assert model.tokenizer.symbols[:3] == ("<blank>", "a", "b")
    assert model.tokenizer.word_boundary == "|"
    assert model.tokenizer.encode("bad a") == [2, 1, 4, 9, 1]
    assert model.tokenizer.uncovered(["<s>"]).keys() == {"<", "s", ">"}
    waveform = sound(1.5)
    inputs = processor(np.asarray(waveform), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(inputs.input_values).logits
        scores, _ = model(waveform[None], torch.tensor([len(waveform)]))
    torch.testing.assert_close(scores, logits.log_softmax(-1)[..., [13, *range(13)]], atol=1e-4, rtol=1e-4)


def test_letters_of_the_other_case_and_a_copy_of_our_own(tmp_path: Path) -> None:
    made(tmp_path / "model", do_lower_case=True)
    model = load_foreign_recogniser(tmp_path / "model")
    assert model.tokenizer.encode("bad 'a") == [6, 5, 8, 4, 13, 5]
    assert is_foreign(tmp_path / "model")
    save_recogniser(model, tmp_path / "ours")
    assert not is_foreign(tmp_path / "ours")
    again = load_recogniser(tmp_path / "ours")
    assert again.tokenizer == model.tokenizer
    waveform, lengths = sound(1.0)[None], torch.tensor([16000])
    with torch.no_grad():
        assert torch.equal(again(waveform, lengths).values, model(waveform, lengths).values)


def test_phones_stand_apart(tmp_path: Path) -> None:
    symbols = ["<pad>", "<s>", "</s>", "<unk>", "aɪ", "b", "d", "tʃ", "ə", "ɪ", "k", "s", "t", "n"]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    theirs, _ = made(tmp_path, vocabulary=vocabulary)
    tokenizer = transformers.Wav2Vec2PhonemeCTCTokenizer(
        str(tmp_path / "vocab.json"), do_phonemize=False, word_delimiter_token=None
    )
    (tmp_path / "tokenizer_config.json").unlink()
    tokenizer.save_pretrained(tmp_path)
    model = load_foreign_recogniser(tmp_path)
    assert model.tokenizer.encode("b aɪ t") == [5, 4, 12]
    waveform = sound(2.0)
    normed = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
    with torch.no_grad():
        best = theirs(normed[None]).logits.argmax(-1)[0]
    expected = tokenizer.decode(best)
    assert len(set(best.tolist())) > 3
    assert open_transcriber(tmp_path).transcribe_waveform(waveform).text == " ".join(expected.split())


def test_what_is_no_recogniser_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "model")
    model: Any = load_foreign_recogniser(tmp_path / "model").encoder
    save_pretrained(model.inner, tmp_path / "bare", "huggingface")
    with pytest.raises(CheckpointError, match=r"without a CTC head \(lm_head\).* Wav2Vec2ForCTC"):
        load_foreign_recogniser(tmp_path / "bare")
    vocabulary = dict(VOCABULARY)
    del vocabulary["H"]
    (tmp_path / "model" / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(ConfigError, match="the head has 14 rows and the vocabulary no symbol for row 12"):
        load_foreign_recogniser(tmp_path / "model")
    (tmp_path / "model" / "vocab.json").write_text(json.dumps({**vocabulary, "ch": 12}))
    with pytest.raises(ConfigError, match="holds single characters, got 'ch'"):
        load_foreign_recogniser(tmp_path / "model")
    (tmp_path / "model" / "vocab.json").unlink()
    with pytest.raises(CheckpointError, match=r"no vocab.json in"):
        load_foreign_recogniser(tmp_path / "model")
    assert is_foreign("someone/model")
    (tmp_path / "runs").mkdir()
    assert not is_foreign(tmp_path / "runs" / "misspelt")


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("vocab.json", {}, "vocab.json: the head has 14 rows"),
        ("vocab.json", {"a": "x"}, "vocab.json must give each symbol a number, got 'x' for 'a'"),
        ("vocab.json", {"eng": VOCABULARY}, None),
        ("vocab.json", {"deu": VOCABULARY, "eng": 1}, "unknown target_lang of its vocabulary 'eng'"),
        ("added_tokens.json", {"x": "y"}, "added_tokens.json does not hold"),
        ("tokenizer.json", {"model": {"type": "BPE"}}, r"tokenizer.json does not hold .*KeyError: 'vocab'"),
        ("tokenizer.json", {"model": [], "added_tokens": [1]}, "tokenizer.json does not hold"),
        ("tokenizer.json", {"model": {"type": "WordPiece"}}, "tokenizer.json: a vocabulary of type 'WordPiece'"),
    ],
)
def test_a_vocabulary_of_anything_is_named(file: str, content: Any, message: str | None, tmp_path: Path) -> None:
    made(tmp_path)
    if file == "tokenizer.json":
        (tmp_path / "vocab.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"target_lang": "eng"}')
    (tmp_path / file).write_text(json.dumps(content))
    if message is None:
        assert load_foreign_recogniser(tmp_path).tokenizer.vocab_size == 14
        return
    with pytest.raises((CheckpointError, ConfigError), match=message):
        load_foreign_recogniser(tmp_path)


def test_a_head_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    made(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for changes, message in (
        ({"lm_head.weight": torch.zeros(14, 30)}, "takes frames of 30 values, and the encoder .* gives 24"),
        ({"lm_head.bias": torch.zeros(3)}, r"must be a matrix and a bias of as many rows, got \(14, 24\) and \(3,\)"),
        ({"lm_head.weight": torch.zeros(14)}, "must be a matrix and a bias"),
    ):
        save_file({**weights, **changes}, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            load_foreign_recogniser(tmp_path)
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "vocab.json").write_text(json.dumps({f"<{index}>": index for index in range(14)}))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "pad_token_id": None}))
    with pytest.raises(ConfigError, match=r"the blank \(pad_token_id\) is to be row None"):
        load_foreign_recogniser(tmp_path)


def test_a_model_without_ctc_says_what_would_do(tmp_path: Path) -> None:
    settings = {
        "d_model": 24,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "vocab_size": 51865,
    }
    config = transformers.WhisperConfig(**settings, encoder_attention_heads=2, decoder_attention_heads=2)
    transformers.WhisperModel(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"a whisper, which is no CTC model .* such as Wav2Vec2ForCTC"):
        load_foreign_recogniser(tmp_path)


def test_a_recording_whose_scores_are_no_numbers_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path / "model")
    model: Any = load_foreign_recogniser(tmp_path / "model")
    model.head.weight.data.fill_(math.nan)
    save_recogniser(model, tmp_path / "broken")
    write_audio(tmp_path / "a.wav", sound(1.0), 16000)
    assert main(["transcribe", str(tmp_path / "a.wav"), "--model", str(tmp_path / "broken")]) == 1
    assert f"{tmp_path / 'a.wav'}: log_probs of item 0 hold NaN" in caplog.text
