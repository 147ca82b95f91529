"""A trained recogniser at work: batches, files of any length, and given texts aligned to their audio.

A `Transcriber` never changes after construction, so that threads may share one. Read `transcribe` (files), `log_probs`
(long recordings), `align`.
"""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from jaxtyping import Float
from torch import Tensor

from sonorant.audio.io import read_audio
from sonorant.audio.resample import resample
from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch, Segment
from sonorant.decoding.align import ctc_align
from sonorant.decoding.ctc_beam import CtcBeam
from sonorant.decoding.greedy import ctc_greedy
from sonorant.decoding.hypothesis import Hypothesis, Word
from sonorant.tasks.asr.model import CtcRecogniser, LogProbs
from sonorant.tasks.asr.pronunciation import knowing, written
from sonorant.tasks.asr.transcript import Transcript
from sonorant.text.tokenizer import decoder_symbols

__all__ = ["Transcriber", "Windows", "context_frames"]

log = logging.getLogger("sonorant")


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How long recordings are cut: windows that overlap, of which only the middles count."""

    seconds: float = 30.0
    """Length of a window; a recording up to it is taken whole."""
    margin: float = 4.0
    """Seconds at each inner edge that are computed for context and dropped. A model that sees no further (see
    `context_frames`) gives then exactly what it gives on the whole recording."""

    def __post_init__(self) -> None:
        at_least("margin", self.margin, 0)
        if self.seconds <= 2 * self.margin:
            raise ConfigError(f"seconds must be above twice the margin, got {self.seconds} and margin {self.margin}")


class Transcriber:
    """Audio to `Transcript`.

    Args:
        model: in `eval()`.
        beam: search with a language model; None takes the best path.
        windows: for long recordings.
    """

    def __init__(self, model: CtcRecogniser, beam: CtcBeam | None = None, windows: Windows | None = None) -> None:
        if model.training:
            raise ConfigError("the recogniser is in training mode; call model.eval() before transcribing with it")
        self.model, self.beam, self.windows = model, beam, windows or Windows()
        self.symbols = decoder_symbols(model.tokenizer)
        """Of the vocabulary, as decoders spell them."""
        if beam is not None and beam.symbols != self.symbols:
            raise ConfigError("the beam search was made for another vocabulary than the recogniser's; see build_beam")

    # --- files ----------------------------------------------------------------------------------------------------

    def transcribe(self, source: str | Path | BinaryIO, name: str = "", **options: Any) -> Transcript:
        """One recording, of any length, rate and number of channels (which are averaged).

        Args:
            source: file, or open binary file.
            name: id of the transcript; the file's name without it.
            options: fields of `BeamOptions` for this call, such as `hot_words`.

        Raises:
            DataError: not a recording, or an empty one.
        """
        audio = read_audio(source)
        name = name or (Path(source).name if isinstance(source, str | Path) else "audio")
        waveform = resample(audio.waveform[None], audio.sample_rate, self.model.sample_rate)[0]
        return self.transcribe_waveform(waveform, name, **options)

    def transcribe_waveform(self, waveform: Float[Tensor, " time"], name: str = "audio", **options: Any) -> Transcript:
        """One waveform at the model's sample rate."""
        scores = self.log_probs(waveform)
        hypothesis = self.decode(LogProbs(scores[None], torch.tensor([len(scores)])), **options)[0]
        return self.transcript(name, hypothesis, len(waveform) / self.model.sample_rate)

    @torch.no_grad()
    def log_probs(self, waveform: Float[Tensor, " time"]) -> Float[Tensor, "frame vocab"]:
        """Log probabilities of a recording of any length, in memory bounded by the window."""
        model, window = self.model, self.windows
        if len(waveform) <= window.seconds * model.sample_rate:
            return _scores(model, waveform)
        stride, grain = model.stride, model.stride * _chunk(model)
        margin = math.ceil(window.margin * model.sample_rate / grain) * grain
        # Rounded to whole chunks, a window must still hold more than its margins, or it would never move on.
        size = max(math.floor(window.seconds * model.sample_rate / grain) * grain, 2 * margin + grain)
        parts, start, total = [], 0, int(model.output_lengths(torch.tensor([len(waveform)])))
        done = 0
        while done < total:
            scores = _scores(model, waveform[start : start + size])
            last = start + size >= len(waveform)
            # Frame j of a window that begins at sample s is frame s / stride + j of the recording: windows begin at
            # multiples of the stride, and the front ends do not pad.
            first = start // stride
            end = total if last else first + len(scores) - margin // stride
            parts.append(scores[done - first : end - first])
            done, start = end, start + size - 2 * margin
        return torch.cat(parts)

    # --- batches --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def transcribe_batch(self, batch: Batch, **options: Any) -> list[Transcript]:
        """A padded batch, each item as if it were alone."""
        hypotheses = self.decode(self.model(batch.waveform, batch.lengths), **options)
        seconds = (batch.lengths / batch.sample_rate).tolist()
        names = batch.ids or tuple(str(index) for index in range(len(batch)))
        return [self.transcript(*row) for row in zip(names, hypotheses, seconds, strict=True)]

    def decode(self, scores: LogProbs, **options: Any) -> list[Hypothesis]:
        """The best hypothesis of each item."""
        if self.beam is None:
            if options:
                raise ConfigError(f"{', '.join(options)}: the best path has no options; give a beam search")
            found = ctc_greedy(scores.values, scores.lengths, self.model.tokenizer.blank_id, self.symbols)
        else:
            found = [best[0] for best in self.beam(scores.values, scores.lengths, **options)]
            if self.beam.closed:
                return found
        return [written(hypothesis, self.model.tokenizer) for hypothesis in found]

    def transcript(self, name: str, hypothesis: Hypothesis, seconds: float) -> Transcript:
        """A hypothesis about a recording of so many seconds, with its words' times."""
        words = self._timed(hypothesis.words, seconds)
        confidence = sum(word.score for word in words) / len(words) if words else 0.0
        return Transcript(name, hypothesis.text, words, confidence, seconds)

    def _timed(self, words: Iterable[Word], seconds: float) -> tuple[Segment, ...]:
        """Frames to seconds: a word lasts from the start of its first frame's step to the end of its last one's."""
        rate, shift = self.model.frame_rate, self.model.offset - 0.5 / self.model.frame_rate
        timed = []
        for word in words:
            start = min(max(0.0, word.start / rate + shift), seconds)
            end = min(max(start, word.end / rate + shift), seconds)
            timed.append(Segment(start, end - start, word.text, min(1.0, word.score)))
        return tuple(timed)

    # --- alignment ------------------------------------------------------------------------------------------------

    def align(self, waveform: Float[Tensor, " time"], text: str, name: str = "audio") -> Transcript:
        """Times of the words of a text that is known.

        Raises:
            DataError: a character that the vocabulary lacks, or too little audio for the text.
        """
        tokens = knowing(self.model.tokenizer, text.split()).encode(text, item=name)
        scores = self.log_probs(waveform)
        found = ctc_align(
            scores[None],
            torch.tensor([len(scores)]),
            torch.tensor([tokens], dtype=torch.long).reshape(1, -1),
            torch.tensor([len(tokens)]),
            self.model.tokenizer.blank_id,
            ids=(name,),
        )
        seconds = len(waveform) / self.model.sample_rate
        # One stretch of tokens a word: what is told is the word that was asked for, not the one that sounds like it.
        aligned = found.words(0, self.symbols)
        spelt = text.split() if len(text.split()) == len(aligned) else [word.text for word in aligned]
        words = self._timed([replace(word, text=said) for word, said in zip(aligned, spelt, strict=True)], seconds)
        confidence = sum(word.score for word in words) / len(words) if words else 0.0
        return Transcript(name, " ".join(word.label for word in words), words, confidence, seconds)

    def with_beam(self, beam: CtcBeam | None) -> "Transcriber":
        """The same with another search."""
        return Transcriber(self.model, beam, self.windows)


def context_frames(model: CtcRecogniser) -> int | None:
    """Output frames on either side beyond which a frame sees nothing; None where it sees the whole recording.

    With a margin of so many frames, windows give exactly what the whole recording gives.
    """
    config = model.encoder.config
    if model.config.features.normalise != "corpus":
        return None
    if model.config.encoder != "conformer" or config.chunk_size is None or config.left_chunks is None:
        return None
    per_layer = config.left_chunks * config.chunk_size + config.chunk_size + config.kernel_size - 1
    return int(config.num_layers * per_layer)


def _chunk(model: CtcRecogniser) -> int:
    """Frames between the places where a window may begin: those of a streaming chunk, so that chunks fall alike."""
    return int(model.encoder.config.chunk_size or 1) if model.config.encoder == "conformer" else 1


def _scores(model: CtcRecogniser, waveform: Tensor) -> Float[Tensor, "frame vocab"]:
    device = next(model.parameters()).device
    lengths = torch.tensor([len(waveform)])
    if int(model.output_lengths(lengths)) == 0:
        # Shorter than one frame: nothing was said that could be heard.
        return torch.zeros(0, model.tokenizer.vocab_size)
    values, _ = model(waveform[None].to(device), lengths.to(device))
    # Searches run on the CPU, and an hour's log probabilities need not lie in the device's memory.
    return values[0].cpu()
