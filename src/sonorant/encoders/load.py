"""Encoders from anywhere: our own folders, Hugging Face's folders and names, and the original files of other toolkits.

    encoder = load_encoder("facebook/hubert-base-ls960")
    save_pretrained(encoder, "mine")                            # ours
    save_pretrained(encoder, "theirs", format="huggingface")    # what transformers loads

How an encoder's waveforms are normalised comes along. `read_encoder` also tells what was left out, and keeps what others
need.
"""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from sonorant.core.checkpoint import META_FILE, load_checkpoint, load_weights
from sonorant.core.config import at_least, one_of, to_plain
from sonorant.core.errors import CheckpointError, ConfigError, blaming, unknown_name
from sonorant.core.files import atomic_folder
from sonorant.encoders.catalogue import ENCODERS
from sonorant.encoders.checkpoint import (
    KIND,
    describe_config,
    described_config,
    described_module,
    save_trained_encoder,
)
from sonorant.encoders.convert import Converted, Foreign, KeyTable, Weights, under_prefix
from sonorant.encoders.hub import CONFIG, find_folder, read_features, read_json, read_weights, write_folder
from sonorant.encoders.pickled import read_pickled
from sonorant.encoders.spectral import FrontConfig, OnSpectrum, on_spectrum

__all__ = [
    "HUGGING_FACE", "MISMATCH", "ORIGINAL", "HuggingFaceFolder", "LoadedEncoder", "foreign_of", "load_encoder",
    "read_encoder", "read_hugging_face", "save_pretrained",
]  # fmt: skip

_KEYS = "sonorant.encoders.keys"
HUGGING_FACE: dict[str, str] = {
    "wav2vec2": f"{_KEYS}.wav2vec2:WAV2VEC2",
    "hubert": f"{_KEYS}.wav2vec2:HUBERT",
    "wavlm": f"{_KEYS}.wav2vec2:WAVLM",
    "unispeech-sat": f"{_KEYS}.wav2vec2:UNISPEECH_SAT",
    "data2vec-audio": f"{_KEYS}.wav2vec2:DATA2VEC_AUDIO",
    "whisper": f"{_KEYS}.whisper:WHISPER",
    "sew": f"{_KEYS}.sew:SEW",
    "wav2vec2-bert": f"{_KEYS}.w2v_bert:W2V_BERT",
    "wav2vec2-conformer": f"{_KEYS}.wav2vec2_conformer:WAV2VEC2_CONFORMER",
    "audio-spectrogram-transformer": f"{_KEYS}.patch:AST",
    "parakeet_encoder": f"{_KEYS}.parakeet:PARAKEET",
    "parakeet_ctc": f"{_KEYS}.parakeet:PARAKEET_CTC",
}
"""transformers' `model_type` → its `Foreign`. An encoder of ours is written as the first that has its variant."""

ORIGINAL: tuple[str, ...] = tuple(
    f"{_KEYS}.{name}" for name in ("mr_hubert", "fairseq", "cpc", "tera", "whisper", "beats", "dasheng", "patch")
)
"""Modules that know files of other toolkits: `read(content, where)` gives `(configuration, Converted)`, or None if it is none
of theirs; `front(configuration)` the `FrontConfig` of the features that it takes."""


MISMATCH = "Its configuration and its weights are not of one model: fetch both anew, from one place"
"""What to do where the weights are not what the configuration beside them tells of."""


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder and what came with it."""

    encoder: nn.Module
    """In `eval()`."""
    kept: Weights = field(default_factory=dict)
    """See `encoders.convert.Converted`."""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Why which foreign keys were left out."""


def load_encoder(
    name: str | Path,
    *,
    layers: int | None = None,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    front: bool = False,
    **changes: Any,
) -> nn.Module:
    """An encoder with its trained weights, in `eval()`.

    Args:
        name: a folder that `save_pretrained` or a pre-training wrote; a folder of transformers; a file of fairseq, WavLM,
            UniSpeech-SAT, Whisper, BEATs, Dasheng, Audio-MAE, CPC_audio or s3prl; or a name on the hub (extra `hub`), which
            is looked for in its cache first.
        layers: only so many of the first layers.
        revision: branch, tag or commit on the hub.
        device: where it goes.
        front: put the features that it was trained on before it, where it takes features: the result takes waveforms.
        changes: fields of its configuration that change no weight, such as `layer_drop=0.0` or `over_padding=True`.

    Raises:
        CheckpointError: nothing there, not safe to read, keys that no table knows, or weights that do not fit.
        ConfigError: an architecture that we lack.
        MissingPackage: a name on the hub without the extra `hub`.
    """
    return read_encoder(name, layers=layers, revision=revision, front=front, **changes).encoder.to(device)


def read_encoder(
    name: str | Path,
    *,
    layers: int | None = None,
    revision: str | None = None,
    front: bool = False,
    **changes: Any,
) -> LoadedEncoder:
    """As `load_encoder`, with what was kept beside the encoder and what was left out."""
    told, found, frames = _source(name, revision)
    told, weights = _shortened(told, found.weights, layers)
    told = {**told, "options": {**told["options"], **to_plain(changes)}}
    encoder: Any = described_module(told)
    with blaming(name):
        load_weights(encoder, weights, where=str(name), remedy=MISMATCH)
    if front and encoder.input == "features":
        encoder = _on_front(encoder, frames, str(name))
    return LoadedEncoder(encoder.eval(), found.kept, found.dropped)


def _on_front(encoder: Any, frames: FrontConfig | None, name: str) -> nn.Module:
    if frames is None:
        raise ConfigError(
            f"{name}: the features that this encoder was trained on are not known here; build them yourself"
        )
    whole = OnSpectrum(on_spectrum(encoder.config, frames))
    if whole.config.encoder != describe_config(encoder.config):
        raise ConfigError(f"{name}: the features that go with it are {frames}, and it takes others")
    whole.encoder = encoder
    return whole


def _source(name: str | Path, revision: str | None) -> tuple[dict[str, Any], Converted, FrontConfig | None]:
    """Configuration, as `describe_config` tells it, weights under our names, and the front of an encoder of features."""
    if Path(name).is_file():
        return _original(Path(name))
    if str(name) in ENCODERS:
        raise CheckpointError(
            f"'{name}' is an architecture without weights: build_encoder('{name}') makes a random one"
        )
    folder = find_folder(name, revision)
    if (folder / META_FILE).is_file():
        own = load_checkpoint(folder, kind=KIND)
        with blaming(folder / META_FILE):
            # Told and read again: every field is there then, and of its type.
            told = describe_config(described_config(own.config))
        return told, Converted(own.weights), None
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"no encoder in {folder}: expected {META_FILE} (ours) or {CONFIG} (transformers) there")
    found = read_hugging_face(folder)
    return describe_config(found.config), found.encoder, found.front


@dataclass(frozen=True)
class HuggingFaceFolder:
    """What a folder of transformers holds."""

    kind: Foreign
    config: Any
    """Ours, of the encoder."""
    encoder: Converted
    """Its weights."""
    heads: Weights
    """All other weights, under their names."""
    front: FrontConfig | None
    """The features that it was trained on, where it takes features and they are known."""


def read_hugging_face(folder: Path) -> HuggingFaceFolder:
    """Everything in a folder of transformers, under our names but for what stands on top of the encoder.

    Raises:
        CheckpointError: keys that no table knows, or a configuration that holds something else.
        ConfigError: a model or variant that we lack.
    """
    values, features = read_json(folder / CONFIG), read_features(folder)
    with blaming(folder / CONFIG):
        kind = foreign_of(str(values.get("model_type")))
        # Told and read again: so every field is checked to be of its type.
        config = described_config(describe_config(kind.read(values, features)))
        front = kind.front(config, features)
    inner, heads = under_prefix(read_weights(folder), *kind.prefixes)
    found = kind.table(config).to_ours(inner, str(folder))
    kind.check(found, str(folder))
    left = KeyTable((), kind.heads).to_ours(heads, str(folder))
    weights = Converted(found.weights, found.kept, {**found.dropped, **left.dropped})
    return HuggingFaceFolder(kind, config, weights, heads, front)


def foreign_of(model_type: str) -> Foreign:
    """The table of one of transformers' kinds of models.

    Raises:
        ConfigError: we have none, with the list.
    """
    if model_type not in HUGGING_FACE:
        raise ConfigError(unknown_name("model_type of an encoder", model_type, HUGGING_FACE))
    module, name = HUGGING_FACE[model_type].split(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


def _original(file: Path) -> tuple[dict[str, Any], Converted, FrontConfig | None]:
    content = read_pickled(file)
    for name in ORIGINAL:
        module = importlib.import_module(name)
        with blaming(file):
            if (found := module.read(content, str(file))) is not None:
                config = described_config(describe_config(found[0]))
                return describe_config(config), found[1], module.front(config)
    keys = ", ".join(map(str, list(content)[:6])) if isinstance(content, Mapping) else type(content).__name__
    known = "fairseq, WavLM, UniSpeech-SAT, Whisper, BEATs, Dasheng, Audio-MAE, CPC_audio, s3prl"
    raise CheckpointError(f"{file} is of no toolkit that is known here ({known}); it holds {keys}")


# --- fewer layers -----------------------------------------------------------------------------------------------------

_LAYER = re.compile(r"(?:.*\.)?blocks\.(\d+)\..*")


def _shortened(told: dict[str, Any], weights: Weights, layers: int | None) -> tuple[dict[str, Any], Weights]:
    if layers is None:
        return told, weights
    at_least("layers", layers, 1)
    kept = {name: t for name, t in weights.items() if not (m := _LAYER.fullmatch(name)) or int(m[1]) < layers}
    return _with_layers(told, layers), kept


def _with_layers(told: Mapping[str, Any], layers: int) -> dict[str, Any]:
    options = dict(told["options"])
    if isinstance(options.get("encoder"), Mapping):  # an encoder of features on its front end
        return {**told, "options": {**options, "encoder": _with_layers(options["encoder"], layers)}}
    total = options.get("num_layers")
    if not isinstance(total, int):
        raise ConfigError(f"a {told['family']} cannot be shortened: its layers are not of one kind")
    if layers > total:
        raise ConfigError(f"layers must be at most {total}, which the checkpoint has, got {layers}")
    return {**told, "options": {**options, "num_layers": layers}}


# --- out --------------------------------------------------------------------------------------------------------------


def save_pretrained(
    encoder: nn.Module,
    folder: str | Path,
    format: Literal["sonorant", "huggingface"] = "sonorant",
    *,
    model_type: str | None = None,
    kept: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Writes an encoder; the folder appears whole or keeps what it had.

    Args:
        encoder: with `config`.
        folder: where; replaced if it holds such a checkpoint.
        format: ours, or transformers'.
        model_type: of transformers, where several have the variant (`hubert` rather than `wav2vec2`).
        kept: what `LoadedEncoder.kept` held; the mask's vector is zeros without it.

    Raises:
        ConfigError: transformers has no such variant.
        CheckpointError: the folder holds something else.
    """
    one_of("format", format, ("sonorant", "huggingface"))
    if format == "sonorant":
        return save_trained_encoder(encoder, folder)
    folder = Path(folder)
    config: Any = encoder.config
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder} holds files that are no checkpoint; give a new or empty folder")
    kind, values = _as_theirs(config, model_type)
    told = {"architectures": [kind.architecture], "model_type": kind.name, "dtype": "float32", **values}
    table = kind.table(config)
    weights = table.to_theirs(encoder.state_dict(), {**kind.spare(config), **(kept or {})})
    with atomic_folder(folder) as part:
        write_folder(part, weights, told, kind.features(config))
    return folder


def _as_theirs(config: Any, model_type: str | None) -> tuple[Foreign, dict[str, Any]]:
    names = HUGGING_FACE if model_type is None else [model_type]
    kinds = [kind for kind in map(foreign_of, names) if kind.config is type(config)]
    if not kinds:
        what = model_type or "transformers"
        raise ConfigError(f"{what} has no class for {type(config).__name__}: save it with format='sonorant'")
    refused = []
    for kind in kinds:
        try:
            return kind, kind.write(config)
        except ConfigError as error:
            refused.append(str(error))
    raise ConfigError("; ".join(refused))
