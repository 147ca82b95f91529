"""Frozen probes: how much of phones, words and speakers a linear classifier reads off an encoder, with few labels.

All layers of the encoder are streamed once over a small labelled subset, once over a development part and twice over a test
part (as it is, and with noise and a room); nothing larger than that is held. Then, for each layer:

- phones: frames whose middle lies in a phone (pauses left out), trained on `num_labelled` utterances;
- words: the mean of the first and of the second half of each word's frames, for the commonest words of the same utterances;
- speakers: mean and deviation over an utterance; speakers of the development and test parts, utterances of each dealt out.

Penalty and layer are chosen on the development part and the accuracy is reported on the test part, whose voices and sentences
are neither those of the labels nor those that the encoder was trained on (where the corpus keeps them apart). Intervals
resample utterances. Read `ProbeConfig`, `gather`, `probe`; `probe_stage` keeps the result in a workspace.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sonorant.audio.augment.chain import Chain
from sonorant.audio.augment.noise import Noise
from sonorant.audio.augment.reverb import Reverb
from sonorant.audio.spatial.rooms import Rooms
from sonorant.benchmark.linear import RIDGES, LinearClassifier, fit_linear
from sonorant.benchmark.workspace import Workspace
from sonorant.core.alignment import first_centre, frame_labels, frames_within
from sonorant.core.config import at_least, content_hash, to_plain
from sonorant.core.errors import DataError
from sonorant.core.files import atomic_write
from sonorant.core.seed import derive
from sonorant.core.types import Batch, Features, Score, Segment
from sonorant.data.batches import BatchConfig
from sonorant.data.corpora.corpus import Corpus, content_of, speaker_of
from sonorant.data.shards import random_order
from sonorant.metrics.bootstrap import bootstrap_interval
from sonorant.units.tokenizer import streamed

__all__ = ["Gathered", "ProbeConfig", "alignment_of", "gather", "module_digest", "probe", "probe_stage", "sample_cuts"]


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What is probed, with how much."""

    num_labelled: int = 60
    """Utterances of the split `train` whose labels the phone and word probes see."""
    num_dev: int = 100
    """Utterances of `dev`, at most: penalty and layer are chosen on them."""
    num_test: int = 200
    """Utterances of `test`, at most."""
    phones: bool = True
    """Phone probe; needs phone alignments."""
    words: bool = False
    """Word probe; needs word alignments."""
    speakers: bool = True
    """Speaker probe; needs speakers."""
    noisy: bool = True
    """Test once more in a room with noise."""
    snr_db: tuple[float, float] = (5.0, 15.0)
    """Of that noise: lowest, highest."""
    rt60: tuple[float, float] = (0.3, 0.7)
    """Of that room, in seconds."""
    silence: tuple[str, ...] = ("sil",)
    """Phones that do not count: any level meter tells them."""
    num_words: int = 20
    """Words of the word probe: the commonest of the labelled utterances that have two or more frames."""
    speaker_utterances: int = 6
    """Utterances of each speaker that the speaker probe learns from; half as many more choose layer and penalty."""
    max_frames: int = 20000
    """Frames of each part that the phone probe keeps; more are thinned out evenly."""
    layers: tuple[int, ...] | None = None
    """Layers to probe; all where None."""
    ridges: tuple[float, ...] = RIDGES
    """Penalties that are tried."""
    sample_rate: int = 16000
    """Hz, of what the encoder takes."""
    batches: BatchConfig = field(default_factory=lambda: BatchConfig(max_seconds=60))
    """Sizes and loading."""

    def __post_init__(self) -> None:
        for name in ("num_labelled", "num_dev", "num_test", "num_words", "speaker_utterances", "max_frames"):
            at_least(name, getattr(self, name), 1)


@dataclass
class Rows:
    """What one probe reads: vectors of every layer, their labels, and the utterance of each."""

    values: list[Tensor] = field(default_factory=list)
    """`(layer, row, dim)` a batch, half precision."""
    labels: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)

    def add(self, values: Tensor, labels: Sequence[str], item: str) -> None:
        self.values.append(values.half().cpu())
        self.labels += labels
        self.items += [item] * len(labels)

    def stacked(self) -> Tensor:
        return torch.cat(self.values, dim=1) if self.values else torch.zeros(0, 0, 0)


@dataclass
class Gathered:
    """What was read off an encoder over one part of a corpus."""

    phones: Rows = field(default_factory=Rows)
    words: Rows = field(default_factory=Rows)
    speakers: Rows = field(default_factory=Rows)


def alignment_of(cut: Any, tier: str) -> list[Segment]:
    """A cut's `phone` or `word` alignment, in seconds from its start; empty where it has none."""
    found = []
    for supervision in cut.supervisions:
        for item in (supervision.alignment or {}).get(tier, ()):
            found.append(Segment(supervision.start + item.start, item.duration, str(item.symbol)))
    return sorted(found)


def sample_cuts(cuts: Any, count: int, seed: int) -> list[Any]:
    """So many cuts, the same for a seed; all where there are no more."""
    rows = list(cuts)
    return [rows[i] for i in sorted(random_order(len(rows), derive(seed, "probe"))[:count].tolist())]


def noisy_room(config: ProbeConfig) -> Chain:
    """The second test condition: a room and noise, drawn for each utterance from its own seed."""
    return Chain([Reverb(rooms=Rooms(rt60=config.rt60)), Noise(snr_db=config.snr_db)])


def gather(
    encoder: nn.Module, cuts: Sequence[Any], config: ProbeConfig, *, noisy: bool = False, seed: int = 0
) -> Gathered:
    """Streams an encoder once over some cuts and keeps the rows that the probes need.

    Args:
        encoder: from waveforms; put into `eval()` and left on its device.
        cuts: with alignments and speakers, for the probes that want them.
        config: which probes.
        noisy: in a room with noise.
        seed: of that.
    """
    found, by_id = Gathered(), {cut.id: cut for cut in cuts}
    encoder.eval()
    sampled: Any = encoder
    start = first_centre(sampled.output_lengths, config.sample_rate)
    seconds = sum(cut.duration for cut in cuts)
    every = max(1, int(np.ceil(seconds * sampled.frame_rate / config.max_frames)))
    change = noisy_room(config) if noisy else None
    device = next((tensor.device for tensor in [*encoder.parameters(), *encoder.buffers()]), torch.device("cpu"))

    def work(batch: Batch) -> tuple[Tensor, list[int]]:
        batch = change(batch) if change is not None else batch
        return _all_layers(encoder, batch, config.layers)

    batches = replace(config.batches, sample_rate=config.sample_rate)
    for batch, (layers, lengths) in streamed(cuts, batches, work, device=device, seed=seed):
        for row, (name, count) in enumerate(zip(batch.ids, lengths, strict=True)):
            if count:
                _take(found, by_id[name], layers[:, row, :count], sampled.frame_rate, start, every, config)
    return found


def _all_layers(encoder: Any, batch: Batch, layers: Sequence[int] | None) -> tuple[Tensor, list[int]]:
    """Frames `(layer, batch, frame, dim)` of the chosen layers at the rate of the last, narrow ones with zeros behind."""
    outputs: list[Features] = encoder(batch.waveform, batch.lengths, layers=True)
    chosen, last = outputs if layers is None else [outputs[layer] for layer in layers], outputs[-1]
    width = max(output.values.shape[2] for output in chosen)
    rows = [nn.functional.pad(_at_rate(output, last), (0, width - output.values.shape[2])) for output in chosen]
    return torch.stack(rows), last.lengths.tolist()


def _at_rate(output: Features, last: Features) -> Tensor:
    """The frames of a layer of another rate that stand at the times of the last layer's."""
    ratio = output.frame_rate / last.frame_rate
    if abs(ratio - 1) < 1e-9:
        return output.values
    where = ((torch.arange(last.values.shape[1], dtype=torch.float64) + 0.5) * ratio).floor().long()
    return output.values[:, where.clamp(max=output.values.shape[1] - 1).to(output.values.device)]


def _take(
    found: Gathered, cut: Any, values: Tensor, rate: float, start: float, every: int, config: ProbeConfig
) -> None:
    """Rows of one utterance; `values (layer, frame, dim)`."""
    count = values.shape[1]
    if config.phones:
        said = [phone for phone in alignment_of(cut, "phone") if phone.label not in config.silence]
        names = sorted({phone.label for phone in said})
        labels = frame_labels(said, count, rate, ids={name: i for i, name in enumerate(names)}, offset=start)
        frames = np.flatnonzero(labels >= 0)[::every]
        found.phones.add(values[:, torch.from_numpy(frames)], [names[i] for i in labels[frames]], cut.id)
    if config.words:
        for word in alignment_of(cut, "word"):
            first, end = frames_within(word.start, word.end, count, rate, start)
            if end - first >= 2:
                halves = values[:, first:end].float().tensor_split(2, dim=1)
                pooled = torch.cat([half.mean(1) for half in halves], dim=1)
                found.words.add(pooled[:, None], [word.label], cut.id)
    if config.speakers:
        speaker = speaker_of(cut)
        pooled = torch.cat([values.float().mean(1), values.float().std(1, correction=0)], dim=1)
        found.speakers.add(pooled[:, None], [speaker], cut.id)


# --- fitting ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fitted:
    """The best layer's classifier, and what led to it."""

    model: LinearClassifier
    layer: int
    classes: dict[str, int]
    dev: tuple[float, ...]
    """Accuracy of every layer on the development part."""


def _fitted(train: Rows, dev: Rows, ridges: Sequence[float], what: str) -> _Fitted:
    if not train.labels or not dev.labels:
        raise DataError(f"the {what} probe has nothing to learn from: does the corpus have alignments and speakers?")
    classes = {name: i for i, name in enumerate(sorted(set(train.labels)))}
    left, right = train.stacked(), dev.stacked()
    # A label that was never shown cannot be answered: it counts as wrong.
    wanted = (torch.tensor([classes[name] for name in train.labels]), _numbers(dev.labels, classes))
    fits = [
        fit_linear(left[layer], wanted[0], right[layer], wanted[1], len(classes), ridges) for layer in range(len(left))
    ]
    accuracies = tuple(accuracy for _, accuracy in fits)
    layer = int(np.argmax(accuracies))
    return _Fitted(fits[layer][0], layer, classes, accuracies)


def _numbers(labels: Sequence[str], classes: Mapping[str, int]) -> Tensor:
    return torch.tensor([classes.get(name, -1) for name in labels])


def _tested(fitted: _Fitted, test: Rows, name: str) -> Score:
    """Accuracy on the test part, with an interval over utterances."""
    if not test.labels:
        raise DataError(
            f"{name}: the test part holds nothing to score; take more utterances of it (num_test), or fewer of each speaker "
            "(speaker_utterances)"
        )
    answers = fitted.model.predict(test.stacked()[fitted.layer])
    right = (answers == _numbers(test.labels, fitted.classes)).numpy()
    order = {item: i for i, item in enumerate(dict.fromkeys(test.items))}
    index = np.array([order[item] for item in test.items])
    hits, counts = np.bincount(index, weights=right), np.bincount(index)
    low, high = bootstrap_interval(hits, counts)
    return Score(name, float(hits.sum() / counts.sum()), "higher", low, high, len(order))


def _chosen(rows: Rows, keep: Any) -> Rows:
    """The rows for which `keep(label, item)` holds."""
    kept = [i for i, pair in enumerate(zip(rows.labels, rows.items, strict=True)) if keep(*pair)]
    values = [rows.stacked()[:, kept]] if kept else []
    return Rows(values, [rows.labels[i] for i in kept], [rows.items[i] for i in kept])


def _joined(*parts: Rows) -> Rows:
    return Rows(
        [v for p in parts for v in p.values], [x for p in parts for x in p.labels], [x for p in parts for x in p.items]
    )


def _dealt(rows: Rows, config: ProbeConfig) -> dict[str, set[str]]:
    """Utterances of each speaker dealt into train, dev and test; speakers with too few are left out."""
    learn, tune = config.speaker_utterances, max(1, config.speaker_utterances // 2)
    by_speaker: dict[str, list[str]] = {}
    for speaker, item in zip(rows.labels, rows.items, strict=True):
        if speaker:
            by_speaker.setdefault(speaker, []).append(item)
    parts: dict[str, set[str]] = {"train": set(), "dev": set(), "test": set()}
    for speaker, items in sorted(by_speaker.items()):
        items = sorted(items, key=lambda item: derive(0, "speaker", speaker, item))
        if len(items) > learn + tune:
            parts["train"].update(items[:learn])
            parts["dev"].update(items[learn : learn + tune])
            parts["test"].update(items[learn + tune :])
    return parts


def probe(
    encoder: nn.Module, corpus: Corpus, config: ProbeConfig, arm: str, seed: int = 0
) -> tuple[list[Score], dict[str, Any]]:
    """Scores `arm/phone_accuracy`, `arm/word_accuracy`, `arm/speaker_accuracy`, each with `_noisy`, and the details.

    Args:
        encoder: frozen; from waveforms.
        corpus: with the splits `train`, `dev` and `test`.
        config: what is probed.
        arm: name of this encoder.
        seed: chooses utterances.

    Returns:
        Scores, and for each probe the chosen layer, its penalty and every layer's accuracy on the development part.

    Raises:
        DataError: a probe has nothing to learn from.
    """
    cuts = {
        name: sample_cuts(corpus.split(name), count, seed)
        for name, count in (("train", config.num_labelled), ("dev", config.num_dev), ("test", config.num_test))
    }
    seen = [gather(encoder, rows, config) for rows in cuts.values()]
    if config.noisy:
        seen.append(gather(encoder, cuts["test"], config, noisy=True, seed=seed))
    wanted = {"phone": config.phones, "word": config.words, "speaker": config.speakers}
    rows_of = {"phone": _phone_rows, "word": _word_rows, "speaker": _speaker_rows}
    scores, told = list[Score](), dict[str, Any]()
    for what in (name for name, asked in wanted.items() if asked):
        train, dev, *tests = rows_of[what](seen, config)
        fitted = _fitted(train, dev, config.ridges, what)
        for suffix, test in zip(("", "_noisy"), tests):
            scores.append(_tested(fitted, test, f"{arm}/{what}_accuracy{suffix}"))
        layer = fitted.layer if config.layers is None else config.layers[fitted.layer]
        told[what] = {"layer": layer, "ridge": fitted.model.ridge, "dev": fitted.dev, "rows": len(train.labels),
                      "classes": len(fitted.classes)}  # fmt: skip
    return scores, told


def _phone_rows(seen: Sequence[Gathered], config: ProbeConfig) -> list[Rows]:
    return [part.phones for part in seen]


def _word_rows(seen: Sequence[Gathered], config: ProbeConfig) -> list[Rows]:
    common = Counter(seen[0].words.labels).most_common(config.num_words)
    words = {word for word, count in common if count > 1}
    return [_chosen(part.words, lambda word, _: word in words) for part in seen]


def _speaker_rows(seen: Sequence[Gathered], config: ProbeConfig) -> list[Rows]:
    pool = _joined(seen[1].speakers, seen[2].speakers)
    dealt = _dealt(pool, config)
    rows = [_chosen(pool, lambda _, item, of=dealt[name]: item in of) for name in ("train", "dev", "test")]
    return rows + [_chosen(part.speakers, lambda _, item: item in dealt["test"]) for part in seen[3:]]


def module_digest(module: nn.Module) -> str:
    """Sixteen hexadecimal digits for a module's weights and buffers, and for the configurations of it and its parts.

    Two networks with the same weights are not the same where one looks ahead and the other does not.
    """
    digest = hashlib.sha256(type(module).__name__.encode())
    for name, part in module.named_modules():
        config = getattr(part, "config", None)
        if is_dataclass(config):
            digest.update(f"{name}{type(part).__name__}{content_hash(config)}".encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def probe_stage(work: Workspace, arm: str, encoder: nn.Module, corpus: Corpus, config: ProbeConfig) -> list[Score]:
    """`probe` as a stage: writes `scores.json` and `layers.json` (which layers were chosen, and all of them).

    Args:
        work: where.
        arm: name of this encoder, before the slash in the scores' names.
        encoder: frozen.
        corpus: with the splits `train`, `dev` and `test`.
        config: what is probed.
    """

    def make(folder: Path) -> None:
        scores, told = probe(encoder, corpus, config, arm, work.seed)
        for name, value in (("scores.json", [to_plain(score) for score in scores]), ("layers.json", to_plain(told))):
            with atomic_write(folder / name) as file:
                file.write(json.dumps(value, indent=1).encode())

    shown = {name: content_of(corpus.split(name)) for name in ("train", "dev", "test")}
    how = {**to_plain(config), "batches": None}
    folder = work.stage(f"probe-{arm}", make, {"encoder": module_digest(encoder), "config": how, "cuts": shown})
    return [Score(**row) for row in json.loads((folder / "scores.json").read_text())]
