"""Error rates of a recogniser on a corpus, with and without a language model, and the tuning of the model's weight.

Log probabilities are computed once (`collect`) where searches with other options go over them again.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sonorant.core.errors import DataError
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig, Batches
from sonorant.data.corpora.corpus import speaker_of, text_of
from sonorant.decoding.ctc_beam import CtcBeam
from sonorant.metrics.edit import ErrorRate
from sonorant.tasks.asr.model import CtcRecogniser, LogProbs
from sonorant.tasks.asr.transcriber import Transcriber
from sonorant.tasks.asr.transcript import Transcript

__all__ = ["Scored", "collect", "error_rates", "greedy_scores", "heard", "transcripts", "tune_beam"]


@dataclass(frozen=True)
class Scored:
    """One utterance: what was said, by whom, and what the network heard."""

    id: str
    reference: str
    speaker: str
    log_probs: Tensor
    """`(frame, vocab)`, on the CPU."""
    seconds: float


@torch.no_grad()
def heard(model: CtcRecogniser, cuts: Sequence[Any], config: BatchConfig) -> Iterator[Scored]:
    """Log probabilities of every cut, longest first, a batch at a time.

    Raises:
        DataError: no cut, two of one id, or audio that cannot be read.
    """
    if not cuts:
        raise DataError("there is nothing to evaluate: the split is empty")
    by_id = {cut.id: cut for cut in cuts}
    if len(by_id) < len(cuts):
        twice = [name for name, count in Counter(cut.id for cut in cuts).items() if count > 1]
        raise DataError(f"ids must differ, but {len(twice)} stand twice in the split, such as '{twice[0]}'")
    device = next(model.parameters()).device
    # What training may leave out counts here.
    everything = replace(config, min_item_seconds=0.0, max_item_seconds=None)
    by_length = replace(everything, sample_rate=model.sample_rate, by_duration=True, shuffle=False)
    was_training = model.training
    model.eval()
    try:
        for batch in Batches(cuts, by_length, train=False):
            batch = batch.to(device)
            values, lengths = model(batch.waveform, batch.lengths)
            for name, item, length in zip(batch.ids, values.cpu(), lengths.tolist(), strict=True):
                cut = by_id[name]
                yield Scored(name, text_of(cut) or "", speaker_of(cut), item[:length].clone(), cut.duration)
    finally:
        model.train(was_training)


def collect(model: CtcRecogniser, cuts: Any, config: BatchConfig) -> list[Scored]:
    """`heard` in the corpus's order; all are held in memory, 4 bytes a frame and token."""
    cuts = list(cuts)
    found = {item.id: item for item in heard(model, cuts, config)}
    return [found[cut.id] for cut in cuts]


def error_rates(items: Sequence[Scored], hypotheses: Sequence[str], arm: str) -> list[Score]:
    """`arm/wer` and `arm/cer` with 95 % intervals, speakers resampled whole where they are known."""
    scores = []
    for unit, name in (("word", "wer"), ("char", "cer")):
        metric = ErrorRate(unit, f"{arm}/{name}")  # type: ignore[arg-type]
        for item, text in zip(items, hypotheses, strict=True):
            metric.update(item.reference, text, group=item.speaker)
        scores.append(metric.score())
    return scores


def transcripts(items: Sequence[Scored], transcriber: Transcriber, **options: Any) -> list[Transcript]:
    """Each item decoded; options are the search's."""
    found = []
    for item in items:
        scores = LogProbs(item.log_probs[None], torch.tensor([len(item.log_probs)]))
        hypothesis = transcriber.decode(scores, **options)[0]
        found.append(transcriber.transcript(item.id, hypothesis, item.seconds))
    return found


def greedy_scores(model: CtcRecogniser, cuts: Any, config: BatchConfig, arm: str) -> list[Score]:
    """Error rates of the best path; what validation reports. Holds the log probabilities of one batch."""
    cuts, texts, said = list(cuts), dict[str, str](), dict[str, Scored]()
    was_training = model.training
    transcriber = Transcriber(model.eval())
    try:
        for item in heard(model, cuts, config):
            texts[item.id] = transcripts([item], transcriber)[0].text
            # Not a slice of nothing: that would keep the whole tensor's memory.
            said[item.id] = replace(item, log_probs=torch.zeros(0, 0))
    finally:
        model.train(was_training)
    return error_rates([said[cut.id] for cut in cuts], [texts[cut.id] for cut in cuts], arm)


def tune_beam(
    items: Sequence[Scored],
    beam: CtcBeam,
    lm_weights: Sequence[float] = (0.3, 0.6, 0.9, 1.2, 1.6),
    word_bonuses: Sequence[float] = (-1.0, 0.0, 1.0, 2.0),
) -> dict[str, float]:
    """The weight of the language model and the bonus for each word that give the lowest word error rate.

    To be called with development data only.

    Returns:
        `lm_weight`, `word_bonus` and the `wer` that they reached.
    """
    best: tuple[float, dict[str, float]] | None = None
    for weight, bonus in itertools.product(lm_weights, word_bonuses):
        metric = ErrorRate("word", num_resamples=1)
        for item, text in zip(items, _search(items, beam, lm_weight=weight, word_bonus=bonus), strict=True):
            metric.update(item.reference, text)
        rate = metric.total.rate
        if best is None or rate < best[0]:
            best = (rate, {"lm_weight": weight, "word_bonus": bonus, "wer": rate})
    if best is None:
        raise DataError("tuning needs at least one weight and one bonus")
    return best[1]


def _search(items: Sequence[Scored], beam: CtcBeam, **options: Any) -> Iterator[str]:
    for item in items:
        yield beam(item.log_probs[None], torch.tensor([len(item.log_probs)]), **options)[0][0].text
