"""CTC models of transformers as our recogniser: folders and names on the hub, with their vocabulary and normalisation.

    model = load_foreign_recogniser("facebook/wav2vec2-base-960h")
    save_recogniser(model, "mine")

`open_transcriber`, and with it `sonorant transcribe --model`, takes the same names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sonorant.core.checkpoint import META_FILE, load_weights
from sonorant.core.config import to_plain
from sonorant.core.errors import CheckpointError, ConfigError, blaming, unknown_name
from sonorant.encoders.checkpoint import describe_config
from sonorant.encoders.convert import Foreign
from sonorant.encoders.hub import CONFIG, find_folder, hub_name, read_json
from sonorant.encoders.load import MISMATCH, read_hugging_face
from sonorant.encoders.spectral import on_spectrum
from sonorant.tasks.asr.model import CtcConfig, CtcRecogniser, FeatureConfig
from sonorant.tasks.asr.waveform import WaveformEncoderConfig
from sonorant.text.alphabet import Alphabet
from sonorant.text.pieces import Pieces
from sonorant.text.tokenizer import Tokenizer

__all__ = ["ctc_alphabet", "ctc_pieces", "is_foreign", "load_foreign_recogniser"]


def is_foreign(name: str | Path) -> bool:
    """Whether a recogniser is transformers': a folder with its `config.json`, or a name on the hub."""
    if Path(name).is_dir():
        return (Path(name) / CONFIG).is_file() and not (Path(name) / META_FILE).is_file()
    # A run's folder that is spelt wrong looks like a name too, but what it should lie in is here.
    return not Path(name).exists() and hub_name(name) and not Path(name).parent.is_dir()


def load_foreign_recogniser(name: str | Path, revision: str | None = None) -> CtcRecogniser:
    """A recogniser in `eval()` from a CTC model of transformers.

    Args:
        name: folder, or owner/model on the hub (extra `hub`).
        revision: branch, tag or commit on the hub.

    Raises:
        CheckpointError: nothing there, no CTC model, or keys that no table knows.
        ConfigError: an architecture or a vocabulary that we lack.
    """
    folder = find_folder(name, revision)
    values = read_json(folder / CONFIG)
    found = read_hugging_face(folder)
    kind, encoder, frames = found.kind, found.config, found.front
    weight, bias = _head(kind, found.heads, folder)
    tokenizer, order = _vocabulary(folder, len(weight), values.get("pad_token_id", 0))
    whole = encoder if frames is None else on_spectrum(encoder, frames)
    rate = getattr(encoder if frames is None else frames, "sample_rate", None)
    if rate is None:
        raise ConfigError(f"{name}: the features that a {kind.name} takes are not known here; load_encoder reads it")
    features = FeatureConfig(kind="waveform", sample_rate=rate, dim=1, hop=1 / rate, normalise="none")
    options = WaveformEncoderConfig(encoder=describe_config(whole), input_frame_rate=float(rate))
    config = CtcConfig(features=features, encoder="waveform", encoder_options=to_plain(options))
    model = CtcRecogniser(config, tokenizer)
    if weight.shape != model.head.weight.shape:
        raise CheckpointError(
            f"{folder}: {kind.head}.weight takes frames of {weight.shape[1]} values, and the encoder that {CONFIG} tells of "
            f"gives {model.head.in_features}; do they belong together?"
        )
    inner = model.encoder.inner
    load_weights(inner if frames is None else inner.encoder, found.encoder.weights, where=str(name), remedy=MISMATCH)
    with torch.no_grad():
        model.head.weight.copy_(weight[order])
        model.head.bias.copy_(bias[order])
    return model.eval()


def _head(kind: Foreign, heads: Mapping[str, Tensor], folder: Path) -> tuple[Tensor, Tensor]:
    if not kind.ctc:
        raise CheckpointError(
            f"{folder} holds a {kind.name}, which is no CTC model and so no recogniser here; give one such as Wav2Vec2ForCTC "
            "or ParakeetForCTC (load_encoder reads this one's encoder alone)"
        )
    weight, bias = heads.get(f"{kind.head}.weight"), heads.get(f"{kind.head}.bias")
    if weight is None or bias is None:
        raise CheckpointError(
            f"{folder} holds a {kind.name} without a CTC head ({kind.head}); a recogniser is a {kind.ctc}, and load_encoder "
            "reads the encoder alone"
        )
    if weight.dim() < 2 or bias.shape != weight.shape[:1]:
        raise CheckpointError(
            f"{folder}: {kind.head} must be a matrix and a bias of as many rows, got {tuple(weight.shape)} and "
            f"{tuple(bias.shape)}; fetch the folder anew"
        )
    return weight.flatten(1), bias  # a kernel of one frame is a matrix


def _vocabulary(folder: Path, size: int, blank: int | None) -> tuple[Tokenizer, list[int]]:
    if (folder / "vocab.json").is_file() or not (folder / "tokenizer.json").is_file():
        return ctc_alphabet(folder, size, blank)
    return ctc_pieces(folder, size, blank)


def ctc_pieces(folder: Path, size: int, blank: int | None) -> tuple[Pieces, list[int]]:
    """As `ctc_alphabet`, of a vocabulary of subwords in `tokenizer.json`.

    Raises:
        ConfigError: neither BPE nor unigram, or of another size.
    """
    file = folder / "tokenizer.json"
    told = read_json(file)
    with blaming(file):
        ids, special, scores = _subwords(told)
        by_id, order = _ordered(file, {index: piece for piece, index in ids.items()}, size, blank)
        pieces = [by_id[index] for index in order[1:]]
        pairs = told["model"].get("merges", [])
        merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in pairs]
        likely = [scores.get(piece, 0.0) for piece in pieces] if scores else []
        kept = [piece for piece in pieces if piece in special]
        return Pieces(pieces, merges=merges, scores=likely, special=kept), order


def _subwords(told: Mapping[str, Any]) -> tuple[dict[str, int], set[str], dict[str, float]]:
    """Id of each piece, the pieces that no text is encoded to, and the score of each piece of a unigram model."""
    model, added = told.get("model", {}), told.get("added_tokens", [])
    special = {token["content"] for token in added if token.get("special")}
    ids = {token["content"]: int(token["id"]) for token in added}
    if model.get("type") == "BPE":
        return ids | model["vocab"], special, {}
    if model.get("type") != "Unigram":
        raise ConfigError(f"a vocabulary of type {model.get('type')!r} is not known here, only BPE and Unigram")
    scores = dict(model["vocab"])
    special.add(model["vocab"][model.get("unk_id") or 0][0])
    return ids | {piece: index for index, piece in enumerate(scores)}, special, scores


def _ordered(file: Path, by_id: dict[int, str], size: int, blank: int | None) -> tuple[dict[int, str], list[int]]:
    """The blank first, all others as they stand."""
    if blank is None or blank not in range(size):
        raise ConfigError(f"{file}: the head has {size} rows, and the blank (pad_token_id) is to be row {blank}")
    missing = [index for index in range(size) if index not in by_id and index != blank]
    if missing:
        raise ConfigError(f"{file}: the head has {size} rows and the vocabulary no symbol for row {missing[0]}")
    return by_id, [blank, *(index for index in range(size) if index != blank)]


def ctc_alphabet(folder: Path, size: int, blank: int | None) -> tuple[Alphabet, list[int]]:
    """The vocabulary of a CTC model, and for each of our ids theirs: the blank, which is theirs of padding, comes first.

    Args:
        folder: with `vocab.json`, and `tokenizer_config.json` where it has one.
        size: rows of the head.
        blank: their id of it, unless the vocabulary says another; None where it must.

    Raises:
        ConfigError: a vocabulary that is no list of letters or phones, or of another size.
        CheckpointError: none there, or a damaged one.
    """
    ids = read_json(folder / "vocab.json")
    told = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    if any(isinstance(value, dict) for value in ids.values()):
        language = told.get("target_lang") or next(iter(ids))
        if not isinstance(ids.get(language), dict):
            raise ConfigError(
                f"{folder / 'vocab.json'}: {unknown_name('target_lang of its vocabulary', language, ids)}"
            )
        ids = ids[language]
    if odd := [symbol for symbol, index in ids.items() if not isinstance(index, int)]:
        raise ConfigError(f"{folder / 'vocab.json'} must give each symbol a number, got {ids[odd[0]]!r} for {odd[0]!r}")
    by_id = {index: symbol for symbol, index in {**ids, **_added(folder)}.items()}
    names = {name: _text(told.get(name, default)) for name, default in _NAMES.items()}
    blank = next((index for index, symbol in by_id.items() if symbol == names["pad_token"]), blank)
    by_id, order = _ordered(folder / "vocab.json", by_id, size, blank)
    phones = "Phoneme" in str(told.get("tokenizer_class", ""))
    special = {names["bos_token"], names["eos_token"], names["unk_token"], *_added(folder)}
    symbols, lower = [by_id[index] for index in order[1:]], bool(told.get("do_lower_case"))
    with blaming(folder / "vocab.json"):
        return _alphabet(symbols, names, special, phones, lower), order


_NAMES = {
    "pad_token": "<pad>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "word_delimiter_token": "|",
}


def _alphabet(symbols: list[str], names: Mapping[str, str], special: set[str], phones: bool, lower: bool) -> Alphabet:
    space = names["word_delimiter_token"]
    if not phones and space.isspace() and space in symbols:
        # Here no symbol is a space itself; the usual bar stands for it.
        symbols = ["|" if symbol == space else symbol for symbol in symbols]
        space = "|"
    kept = [symbol for symbol in symbols if symbol in special]
    if lower:
        symbols = [symbol if symbol in special else symbol.lower() for symbol in symbols]
    if phones:
        return Alphabet(symbols, "phone", special=kept)
    return Alphabet(symbols, "char", space=space if space in symbols else "|", special=kept)


def _added(folder: Path) -> dict[str, int]:
    file = folder / "added_tokens.json"
    with blaming(file):
        return {symbol: int(index) for symbol, index in read_json(file).items()} if file.is_file() else {}


def _text(value: Any) -> str:
    """A token, which newer files wrap together with how it is stripped."""
    return str(value.get("content", "")) if isinstance(value, Mapping) else str(value or "")
