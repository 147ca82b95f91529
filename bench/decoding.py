"""CTC searches: ours on flashlight-text against pyctcdecode (where installed) and against our plain Python reference.

Run `python bench/decoding.py [--quick]`. pyctcdecode pins numpy below 2 in its metadata and runs on 2 all the same:
`pip install --no-deps pyctcdecode pygtrie` in an environment of its own, or a folder on PYTHONPATH. Its language model
needs the kenlm package, which has to be compiled, so the rows with a model have our reference as their peer.
"""

import argparse
import contextlib
import io
import itertools
import logging
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import interleaved, peak_memory_mb, report

from sonorant.decoding.arpa import ArpaModel
from sonorant.decoding.ctc_beam import CtcBeam
from sonorant.decoding.ctc_beam_reference import ctc_beam_search
from sonorant.decoding.greedy import ctc_greedy
from sonorant.decoding.scorers import WordScorer

SYMBOLS = ("", " ", *"abcdefghijklmnopqrstuvwxyz'")
BEAM = 32
PRUNING = {"token_threshold": 5.0, "beam_threshold": 10.0}  # pyctcdecode's defaults, for every contender


def words(count: int, rng: np.random.Generator) -> list[str]:
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstv", "aeiou")]
    made = {"".join(rng.choice(syllables, size=rng.integers(1, 4))) for _ in range(2 * count)}
    return sorted(made)[:count]


def scores_of(text: str, rng: np.random.Generator) -> torch.Tensor:
    """Frames such as a trained recogniser gives: peaky, with confusions; about 25 frames a second of speech."""
    frames = []
    for letter in text:
        frames += [0] * rng.integers(0, 3) + [SYMBOLS.index(letter)] * rng.integers(1, 3)
        if rng.random() < 0.5:
            frames.append(0)
    logits = rng.normal(0, 1.5, (len(frames), len(SYMBOLS)))
    peaks = np.where(rng.random(len(frames)) < 0.85, 9.0, 3.0)
    logits[np.arange(len(frames)), frames] += peaks
    return torch.from_numpy(logits).float().log_softmax(-1)


def write_arpa(path: Path, lines: list[list[str]]) -> None:
    """A bigram model with add-one counts and no care: something to search with."""
    follows: dict[str, dict[str, int]] = {}
    for line in lines:
        for first, second in itertools.pairwise(["<s>", *line, "</s>"]):
            follows.setdefault(first, {})[second] = follows.setdefault(first, {}).get(second, 0) + 1
    vocabulary = [*sorted({word for line in lines for word in line}), "</s>", "<unk>"]
    pairs = [(a, b, count / (sum(after.values()) + 1)) for a, after in follows.items() for b, count in after.items()]
    with path.open("w") as file:
        file.write(f"\\data\\\nngram 1={len(vocabulary) + 1}\nngram 2={len(pairs)}\n\n\\1-grams:\n-99\t<s>\t-0.5\n")
        file.writelines(f"{-math.log10(len(vocabulary)):.4f}\t{word}\t-0.5\n" for word in vocabulary)
        file.write("\n\\2-grams:\n")
        file.writelines(f"{math.log10(prob):.4f}\t{a} {b}\n" for a, b, prob in pairs)
        file.write("\n\\end\\\n")


def measure(what: str, ours: Callable[[], Any], peer: Callable[[], Any], count: int, repeats: int) -> dict[str, Any]:
    pair = interleaved(ours, peer, repeats)
    return {
        "what": what,
        "ours": count / pair.ours_seconds,
        "peer": count / pair.peer_seconds,
        "ratio": pair.ratio,
        "memory_mb": round(peak_memory_mb()),
    }


def pyctcdecode() -> Any:
    """The peer's decoder, or None where it is not installed."""
    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            from pyctcdecode import build_ctcdecoder
        except ImportError:
            return None
        return build_ctcdecoder(list(SYMBOLS))


def greedy_in_python(log_probs: torch.Tensor, lengths: list[int]) -> list[list[int]]:
    best = log_probs.argmax(-1).tolist()
    return [[k for k, _ in itertools.groupby(row[:size]) if k] for row, size in zip(best, lengths, strict=True)]


@dataclass
class Simulated:
    """Utterances, and what the decoders are told beforehand."""

    items: list[torch.Tensor]
    lengths: torch.Tensor
    batch: torch.Tensor
    lines: list[list[str]]
    """The text that language models are made of."""
    lexicon: list[str]
    hot: dict[str, float]

    @classmethod
    def make(cls, count: int) -> "Simulated":
        rng = np.random.default_rng(0)
        lexicon = words(2000, rng)
        lines = [list(rng.choice(lexicon, size=10)) for _ in range(3000)]
        texts = [" ".join(line) for line in lines[:count]]
        items = [scores_of(text, rng) for text in texts]
        lengths = torch.tensor([len(item) for item in items])
        batch = torch.nn.utils.rnn.pad_sequence(items, batch_first=True)
        return cls(items, lengths, batch, lines, lexicon, dict.fromkeys(texts[0].split()[:3], 2.0))

    def decoded(self, beam: CtcBeam, part: slice = slice(None), **options: Any) -> Callable[[], Any]:
        """Ours."""
        return lambda: beam(self.batch[part], self.lengths[part], **PRUNING, **options)


def against_pyctcdecode(data: Simulated, plain: CtcBeam, repeats: int) -> list[dict[str, Any]]:
    """No rows where the peer is not installed."""
    peer = pyctcdecode()
    if peer is None:
        return []
    arrays = [item.numpy() for item in data.items]

    def theirs(**options: Any) -> Callable[[], Any]:
        return lambda: [peer.decode(array, beam_width=BEAM, **options) for array in arrays]

    boosted = theirs(hotwords=list(data.hot), hotword_weight=2.0)
    hot = data.decoded(plain, hot_words=data.hot)
    return [
        measure("no model (pyctcdecode)", data.decoded(plain), theirs(), len(arrays), repeats),
        measure("hot words, any word (pyctcdecode)", hot, boosted, len(arrays), repeats),
    ]


def against_the_reference(data: Simulated, plain: CtcBeam, repeats: int) -> list[dict[str, Any]]:
    """Ours with language models against our own search in Python, on a few utterances, for that one takes long."""
    few = slice(0, max(1, len(data.items) // 8))
    with tempfile.TemporaryDirectory() as folder:
        arpa = Path(folder) / "bigram.arpa"
        write_arpa(arpa, data.lines)
        fused = CtcBeam(SYMBOLS, lm=arpa, beam_size=BEAM)
        closed = CtcBeam(SYMBOLS, lm=arpa, lexicon=data.lexicon, beam_size=BEAM)
        scorer = WordScorer(SYMBOLS, ArpaModel.load(arpa), 0.5)

    def reference(scorer: WordScorer | None) -> Callable[[], Any]:
        return lambda: [ctc_beam_search(item, scorer, beam_size=BEAM, **PRUNING) for item in data.items[few]]

    size, boosted = len(data.items[few]), data.decoded(closed, hot_words=data.hot)
    lexicon = f"bigram of words, lexicon of {len(data.lexicon)} (our reference, any word)"
    return [
        measure("no model (our reference)", data.decoded(plain, few), reference(None), size, 3),
        measure("bigram of words, any word (our reference)", data.decoded(fused, few), reference(scorer), size, 3),
        measure(lexicon, data.decoded(closed, few), reference(scorer), size, 3),
        measure("the same with hot words (without)", boosted, data.decoded(closed), len(data.items), repeats),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer utterances and repeats")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    count, repeats = (4, 3) if quick else (16, 5)
    data = Simulated.make(count)
    batch, lengths = data.batch, data.lengths
    greedy = measure(
        "greedy, batched (argmax and groupby in Python)",
        lambda: ctc_greedy(batch, lengths),
        lambda: greedy_in_python(batch, lengths.tolist()),
        count,
        repeats,
    )
    plain = CtcBeam(SYMBOLS, beam_size=BEAM)
    peers = against_pyctcdecode(data, plain, repeats)
    rows = [greedy, *peers, *against_the_reference(data, plain, repeats)]
    missing = "" if peers else " pyctcdecode is not installed here."
    notes = (
        f"Utterances a second, one thread, beam {BEAM}, tokens above exp(−5), {len(SYMBOLS)} symbols, {count} simulated "
        f"utterances of {float(lengths.float().mean()):.0f} frames on average; peer in brackets.{missing}"
    )
    report("decoding", "CTC decoding", rows, notes)


if __name__ == "__main__":
    main()
