"""The CTC recogniser: features → normalisation → encoder → one linear layer over tokens.

Read `CtcConfig` (what is stored in a checkpoint), then `CtcRecogniser`; `load_recogniser` brings one back with no flags.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.audio.features.cmvn import Cmvn, below_peak, cmvn, without_level
from sonorant.core.alignment import first_centre
from sonorant.core.checkpoint import load_checkpoint, load_weights, save_checkpoint
from sonorant.core.config import at_least, from_plain, one_of, to_plain
from sonorant.core.errors import CheckpointError, ConfigError, DataError, blaming, unknown_name
from sonorant.core.lengths import valid_mask
from sonorant.core.types import Batch, Features, Loss
from sonorant.encoders.conformer import Conformer, ConformerConfig
from sonorant.encoders.recurrent import DeepSpeechConfig, DeepSpeechEncoder, RecurrentConfig, RecurrentEncoder
from sonorant.encoders.sparseformer import Sparseformer, SparseformerConfig
from sonorant.encoders.squeezeformer import Squeezeformer, SqueezeformerConfig
from sonorant.encoders.zipformer import Zipformer, ZipformerConfig
from sonorant.losses.ctc import ctc_loss
from sonorant.tasks.asr.waveform import Samples, WaveformEncoder, WaveformEncoderConfig
from sonorant.text.load import tokenizer_from_plain
from sonorant.text.tokenizer import Tokenizer

__all__ = [
    "KIND", "CtcConfig", "CtcRecogniser", "EncoderConfig", "FeatureConfig", "LogProbs", "ctc_config", "load_recogniser",
    "save_recogniser", "stored_parts",
]  # fmt: skip

KIND = "asr.ctc"
EncoderConfig = (
    ConformerConfig
    | DeepSpeechConfig
    | RecurrentConfig
    | SparseformerConfig
    | SqueezeformerConfig
    | WaveformEncoderConfig
    | ZipformerConfig
)

ENCODERS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "conformer": (ConformerConfig, Conformer),
    "deepspeech": (DeepSpeechConfig, DeepSpeechEncoder),
    "recurrent": (RecurrentConfig, RecurrentEncoder),
    "sparseformer": (SparseformerConfig, Sparseformer),
    "squeezeformer": (SqueezeformerConfig, Squeezeformer),
    "waveform": (WaveformEncoderConfig, WaveformEncoder),
    "zipformer": (ZipformerConfig, Zipformer),
}
"""Family → its configuration and its module."""


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """What the encoder sees."""

    kind: Literal["fbank", "mfcc", "waveform"] = "fbank"
    """Log mel energies, their cepstra, or the samples themselves for an encoder with a front end of its own."""
    sample_rate: int = 16000
    """Hz; audio of another rate is resampled."""
    dim: int = 80
    """Mel bands of fbank, coefficients of MFCC."""
    num_mels: int = 40
    """Mel bands beneath MFCC."""
    frame_length: float = 0.025
    """Seconds."""
    hop: float = 0.01
    """Seconds between frames."""
    high_hz: float = 0.0
    """Upper end of the last band in Hz; 0 for half the sample rate."""
    low_hz: float = 20.0
    """Lower end of the first band in Hz."""
    normalise: Literal["corpus", "level", "none", "peak", "utterance"] = "corpus"
    """By mean and variance of the training data; `level` takes each utterance's mean over all bands and frames out before, so
    that a soft recording looks like a loud one; `peak` its largest value, and hides what lies more than `range_db` below it,
    so that a noisy one or one cut close looks like a clean one; `utterance` takes mean and variance of each band from the
    utterance itself, which also hides the microphone, and from a single word much of its vowels; `none` leaves the features
    alone. All but the first and `none` tie a frame to its whole utterance."""
    range_db: float = 50.0
    """Of `peak`."""

    def __post_init__(self) -> None:
        at_least("sample_rate", self.sample_rate, 1000)
        at_least("dim", self.dim, 1)
        one_of("kind", self.kind, ("fbank", "mfcc", "waveform"))
        one_of("normalise", self.normalise, ("corpus", "level", "none", "peak", "utterance"))
        if self.range_db <= 0:
            raise ConfigError(f"range_db must be > 0, got {self.range_db}")
        if self.normalise == "peak" and self.kind != "fbank":
            raise ConfigError("normalise=peak compares energies, which cepstra and samples are not: use kind=fbank")
        if self.kind == "waveform" and self.normalise != "none":
            raise ConfigError(
                "samples are normalised by the encoder that takes them: with kind=waveform set normalise=none"
            )


@dataclass(frozen=True, kw_only=True)
class CtcConfig:
    """Everything that a checkpoint must say to be built again; plain all through."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    encoder: str = "conformer"
    """Family; one of `ENCODERS`."""
    encoder_options: dict[str, Any] = field(default_factory=dict)
    """All fields of the family's configuration."""

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise ConfigError(unknown_name("encoder", self.encoder, ENCODERS))


def ctc_config(features: FeatureConfig, encoder: EncoderConfig) -> CtcConfig:
    """From typed parts; the encoder's input is fitted to the features."""
    names = [name for name, (kind, _) in ENCODERS.items() if type(encoder) is kind]
    if isinstance(encoder, WaveformEncoderConfig) != (features.kind == "waveform"):
        raise ConfigError(
            f"an encoder of waveforms goes with features.kind=waveform, got {features.kind} for {names[0]}"
        )
    options = {**to_plain(encoder), "input_frame_rate": 1 / features.hop}
    if features.kind != "waveform":
        options["input_dim"] = features.dim
    return CtcConfig(features=features, encoder=names[0], encoder_options=options)


class LogProbs(NamedTuple):
    """Log probabilities of tokens."""

    values: Float[Tensor, "batch frame vocab"]
    lengths: Int[Tensor, " batch"]


class CtcRecogniser(nn.Module):
    """Waveform → log probabilities of tokens, trained by CTC (Graves et al., 2006, doi:10.1145/1143844.1143891).

    Args:
        config: geometry.
        tokenizer: text ↔ ids; id 0 is the blank.
        augment: changes batches while training, such as `audio.augment.chain.Chain`.
        mask: changes features while training by items' seeds, such as `SpecAugment`.
        warp: likewise, before they are normalised, such as `TractWarp`.
        allow_unalignable: count items with more tokens than frames as nothing, rather than stop.

    >>> from sonorant.text.alphabet import Alphabet
    >>> from sonorant.encoders.conformer import conformer_tiny
    >>> model = CtcRecogniser(ctc_config(FeatureConfig(normalise="utterance"), conformer_tiny()), Alphabet("ab")).eval()
    >>> model(torch.randn(1, 16000), torch.tensor([16000])).values.shape
    torch.Size([1, 23, 3])
    """

    def __init__(
        self,
        config: CtcConfig,
        tokenizer: Tokenizer,
        augment: Callable[[Batch], Batch] | None = None,
        mask: Callable[[Features, Tensor], Features] | None = None,
        warp: Callable[[Features, Tensor], Features] | None = None,
        allow_unalignable: bool = False,
    ) -> None:
        super().__init__()
        kind, module = ENCODERS[config.encoder]
        self.config, self.tokenizer = config, tokenizer
        self.augment, self.mask, self.warp, self.allow_unalignable = augment, mask, warp, allow_unalignable
        self.front_end = _front_end(config.features)
        self.normalise = Cmvn(config.features.dim)
        self.encoder: Any = module(from_plain(kind, config.encoder_options, "encoder_options"))
        self.head = nn.Linear(self.encoder.dim, tokenizer.vocab_size)

    # --- geometry -------------------------------------------------------------------------------------------------

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.config.features.sample_rate

    @property
    def frame_rate(self) -> float:
        """Frames of log probabilities a second."""
        # The front end moves by whole samples: at 22050 Hz a hop of 10 ms is 220 samples, and 100 frames a second would be
        # 8 s off after an hour.
        return float(self.encoder.frame_rate * self.front_end.frame_rate * self.config.features.hop)

    @property
    def stride(self) -> int:
        """Samples from one frame to the next."""
        return round(self.sample_rate / self.frame_rate)

    @property
    def offset(self) -> float:
        """Seconds from the start of a recording to the middle of what its first frame sees by the front ends."""
        # Frames of features that make the first frame of the encoder, counted from 1, have their middle there.
        middle = first_centre(self.encoder.output_lengths, 1.0, most=1 << 16)
        return float(self.front_end.geometry.center(middle, self.sample_rate))

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Frames of log probabilities for samples."""
        return self.encoder.output_lengths(self.front_end.output_lengths(lengths))

    # --- forward --------------------------------------------------------------------------------------------------

    def features(self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Features:
        """Normalised features."""
        return self._normalised(self._raw(waveform, lengths))

    def _normalised(self, raw: Features) -> Features:
        if self.config.features.normalise == "none":
            return raw
        return cmvn(raw) if self.config.features.normalise == "utterance" else self.normalise(raw)

    @property
    def lacks_statistics(self) -> bool:
        """Whether `fit_normalisation` is still to be called."""
        return self.config.features.normalise != "none" and float(self.normalise.count) == 0

    def _raw(self, waveform: Tensor, lengths: Tensor) -> Features:
        """What the corpus's statistics are gathered from."""
        raw = self.front_end(waveform, lengths)
        if self.config.features.normalise == "peak":
            return below_peak(raw, self.config.features.range_db)
        return without_level(raw) if self.config.features.normalise == "level" else raw

    def forward(self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> LogProbs:
        """Log probabilities, float32."""
        return self._decode(self.features(waveform, lengths))

    def log_probs(self, features: Features) -> LogProbs:
        """From normalised features on."""
        return self._decode(features)

    def _decode(self, features: Features) -> LogProbs:
        encoded = self.encoder(features.values, features.lengths)
        # In float32 also under bf16 autocast: CTC sums thousands of log probabilities.
        return LogProbs(self.head(encoded.values).float().log_softmax(dim=-1), encoded.lengths)

    # --- training -------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """The CTC loss in nats, counted by tokens; `batch.labels` must hold `tokens` and `tokens_lengths`."""
        if "tokens" not in batch.labels:
            raise DataError(f"the batch has no labels 'tokens'; it has {', '.join(batch.labels) or 'none'}")
        # Signal processing stays in float32 under autocast: linear prediction and log energies do not survive bfloat16.
        with torch.autocast(batch.waveform.device.type, enabled=False):
            if self.training and self.augment is not None:
                batch = self.augment(batch)
            raw = self._raw(batch.waveform, batch.lengths)
            if self.training and self.warp is not None and batch.seeds is not None:
                raw = self.warp(raw, batch.seeds)
            features = self._normalised(raw)
        if self.training and self.mask is not None and batch.seeds is not None:
            features = self.mask(features, batch.seeds)
        log_probs, lengths = self._decode(features)
        tokens, tokens_lengths = batch.labels["tokens"], batch.labels["tokens_lengths"]
        return {"model": ctc_loss(log_probs, lengths, tokens, tokens_lengths, zero_infinity=self.allow_unalignable)}

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, float]:
        """What the training doctor asks for: the share of frames whose best token is the blank."""
        was_training = self.training
        self.eval()
        log_probs, lengths = self(batch.waveform, batch.lengths)
        self.train(was_training)
        best = log_probs.argmax(dim=-1)
        valid = valid_mask(lengths, best.shape[1])
        return {"blank_share": float(((best == self.tokenizer.blank_id) & valid).sum() / valid.sum().clamp(min=1))}

    @torch.no_grad()
    def fit_normalisation(self, batches: Iterable[Batch], max_seconds: float = 3600.0) -> None:
        """Gathers mean and variance of the features from up to `max_seconds` of audio."""
        seconds = 0.0
        for batch in batches:
            self.normalise.update(self._raw(batch.waveform, batch.lengths))
            seconds += batch.seconds
            if seconds >= max_seconds:
                break
        if seconds == 0:
            raise DataError("no audio to gather feature statistics from: the training split is empty")


def _front_end(config: FeatureConfig) -> Any:
    from sonorant.audio.features.fbank import Fbank
    from sonorant.audio.features.mfcc import Mfcc

    shared = {
        "sample_rate": config.sample_rate,
        "frame_length": config.frame_length,
        "hop": config.hop,
        "low_hz": config.low_hz,
        "high_hz": config.high_hz or None,
    }
    if config.kind == "waveform":
        return Samples(config.sample_rate)
    if config.kind == "fbank":
        return Fbank(num_mels=config.dim, **shared)  # type: ignore[arg-type]
    return Mfcc(num_ceps=config.dim, num_mels=max(config.num_mels, config.dim), energy="none", **shared)  # type: ignore[arg-type]


# --- checkpoints ------------------------------------------------------------------------------------------------------


def save_recogniser(model: CtcRecogniser, folder: str | Path, extra: dict[str, Any] | None = None) -> Path:
    """Writes weights, configuration and vocabulary; see `core.checkpoint.save_checkpoint`."""
    return save_checkpoint(
        folder,
        kind=KIND,
        weights=model.state_dict(),
        config=model.config,
        extra={"vocabulary": model.tokenizer.to_plain(), **(extra or {})},
    )


def stored_parts(folder: str | Path) -> tuple[FeatureConfig, EncoderConfig]:
    """Features and encoder of a recogniser's checkpoint, to build another of the same geometry.

    Raises:
        CheckpointError: as `load_recogniser`.
    """
    config = from_plain(CtcConfig, load_checkpoint(folder, kind=KIND).config)
    return config.features, from_plain(ENCODERS[config.encoder][0], config.encoder_options)


def load_recogniser(folder: str | Path) -> CtcRecogniser:
    """A recogniser in `eval()`, with no flags.

    Raises:
        CheckpointError: nothing there, damaged, of another kind, of a newer version, or without its vocabulary.
    """
    found = load_checkpoint(folder, kind=KIND)
    if "vocabulary" not in found.extra:
        raise CheckpointError(f"{folder} holds no vocabulary: a recogniser is written by save_recogniser")
    with blaming(folder):
        model = CtcRecogniser(from_plain(CtcConfig, found.config), tokenizer_from_plain(found.extra["vocabulary"]))
    load_weights(model, found.weights, where=str(folder))
    return model.eval()
