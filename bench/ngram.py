"""N-gram training: seconds and memory on generated text, and perplexity against the formula on a small one.

`python bench/ngram.py [--quick]`. Each size runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import harness
import numpy as np

from sonorant.lm.ngram import train_ngram

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def zipf_text(num_words: int, vocabulary: int = 200_000, seed: int = 0) -> Iterator[str]:
    """Lines of 20 words on average. Word frequencies are Zipf's; half of the words are drawn from a few followers of the
    word before, as in real text, where about 40 % of trigrams come twice."""
    generator = np.random.default_rng(seed)
    chances = np.cumsum(1 / np.arange(2, vocabulary + 2))
    chances /= chances[-1]
    names = np.array([f"w{index:x}" for index in range(vocabulary)])
    done = 0
    while done < num_words:
        size = 100_000
        ids = np.searchsorted(chances, generator.random(size))
        draws = generator.random(size)
        likely = np.floor(draws * 8).astype(np.int64)  # half of the draws: one of four followers
        for shift in range(1, 5):  # a chain of followers is followed up to four words
            chosen = (likely < 4) & (np.arange(size) % 5 >= shift)
            before = np.roll(ids, 1)
            follower = np.searchsorted(chances, (before * 0.6180339887 + likely * 0.127) % 1.0)
            ids = np.where(chosen, follower, ids)
        cuts = np.flatnonzero(generator.random(size) < 0.05)
        words = names[ids].tolist()
        for start, stop in zip([0, *cuts], [*cuts, size], strict=True):
            if stop > start:
                yield " ".join(words[start:stop])
        done += size


def _train(num_words: int, order: int, path: str) -> dict[str, object]:
    before = harness.peak_memory_mb()
    start, processor = time.perf_counter(), time.process_time()
    with open(path, encoding="utf-8") as lines:
        model = train_ngram(lines, order)
    trained, processor = time.perf_counter() - start, time.process_time() - processor
    peak = harness.peak_memory_mb()
    start = time.perf_counter()
    model.save_arpa(f"{path}.arpa")
    return {
        "what": f"order {order}, {num_words / 1e6:g} M words: train, s",
        "ours": trained,
        "CPU, s": processor,
        "words per CPU second": num_words / processor,
        "memory_mb": peak,
        "memory over import, MB": peak - before,
        "n-grams": sum(size.num_ngrams for size in model.sizes),
        "write ARPA, s": time.perf_counter() - start,
    }


def train_rows(sizes: list[tuple[int, int]], folder: Path) -> Iterator[dict[str, object]]:
    context = multiprocessing.get_context("spawn")
    for num_words, order in sizes:
        path = folder / f"text{num_words}.txt"
        if not path.exists():
            with path.open("w", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in zipf_text(num_words))
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            yield pool.submit(_train, num_words, order, str(path)).result()


def peer_row(num_lines: int) -> dict[str, object]:
    """The same model by nltk's (plain, not modified) interpolated Kneser–Ney: the only peer that installs without a
    compiler. Perplexities are of different smoothings; ours is the lower one."""
    from nltk.lm import KneserNeyInterpolated
    from nltk.lm.preprocessing import padded_everygram_pipeline
    from tests.lm.texts import zipf_lines

    lines, held_out = zipf_lines(num_lines), zipf_lines(100, seed=1)
    split = [line.split() for line in lines]

    def ours() -> object:
        return train_ngram(lines, 3)

    def peer() -> object:
        grams, words = padded_everygram_pipeline(3, split)
        model = KneserNeyInterpolated(3)
        model.fit(grams, words)
        return model

    timed = harness.interleaved(ours, peer, 3)
    model, other = ours(), peer()
    total, tokens = 0.0, 0
    for line in held_out[:10]:
        words = ["<s>", "<s>", *line.split(), "</s>"]
        for index in range(2, len(words)):
            total += math.log(max(other.score(words[index], words[index - 2 : index]), 1e-12))
            tokens += 1
    return {
        "what": f"order 3, {sum(map(len, split)) / 1e3:.0f} k words against nltk {_version('nltk')}: train, s",
        "ours": timed.ours_seconds,
        "peer": timed.peer_seconds,
        "ratio": timed.ratio,
        "perplexity": model.perplexity(held_out[:10]),
        "peer's perplexity": math.exp(-total / tokens),
    }


def reference_row(num_lines: int) -> dict[str, object]:
    """Perplexity against the formula in dictionaries (tests/lm/reference.py)."""
    from tests.lm.reference import Reference
    from tests.lm.texts import zipf_lines

    lines, held_out = zipf_lines(num_lines), zipf_lines(6, seed=1)
    model = train_ngram(lines, 3)
    reference = Reference(lines, 3, model.discounts)
    total, tokens = 0.0, 0
    for line in held_out:
        history: tuple[str, ...] = ("<s>",)
        for word in [*line.split(), "</s>"]:
            known = word if word in reference.vocabulary else "<unk>"
            total += math.log(reference.prob(known, history))
            history, tokens = (*history, known), tokens + 1
    ours, theirs = model.perplexity(held_out), math.exp(-total / tokens)
    return {
        "what": "perplexity against the formula",
        "perplexity": ours,
        "peer's perplexity": theirs,
        "error": abs(ours - theirs),
    }


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one million words only")
    quick = parser.parse_args().quick
    million = 10**6
    sizes = [(million, 3)] if quick else [(million, 3), (10 * million, 3), (10 * million, 4)]
    with tempfile.TemporaryDirectory() as folder:
        rows = list(train_rows(sizes, Path(folder)))
    rows += [peer_row(300 if quick else 2_000), reference_row(200)]
    notes = "No n-gram trainer with a wheel exists; nltk's plain Kneser–Ney and the formula itself stand in as peers."
    harness.report("ngram", "Modified Kneser–Ney training", rows, notes)


if __name__ == "__main__":
    main()
