"""Word error rate of 100 000 pairs against jiwer: seconds, and whether every count is the same.

`python bench/wer.py [--quick]`
"""

import argparse
import random
from importlib.metadata import version

import harness
import jiwer

from sonorant.metrics.edit import ErrorRate


def pairs(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Sentences of 2 to 30 words out of 20 000, and a hypothesis with about 15 % of the words wrong; a third is right."""
    generator = random.Random(seed)
    vocabulary = [f"w{index}" for index in range(20_000)]
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    stream = iter(generator.choices(vocabulary, weights, k=count * 17))
    references, hypotheses = [], []
    for _ in range(count):
        words = [word for _, word in zip(range(generator.randint(2, 30)), stream, strict=False)]
        wrong = 0.0 if generator.random() < 1 / 3 else 0.22
        heard = []
        for word in words:
            draw = generator.random()
            if draw > wrong:
                heard.append(word)
            elif draw > wrong / 3:
                heard += [generator.choice(vocabulary)] * (1 + (draw > wrong * 0.8))
        references.append(" ".join(words) or "w0")
        hypotheses.append(" ".join(heard))
    return references, hypotheses


def row(what: str, unit: str, count: int, repeats: int) -> dict[str, object]:
    references, hypotheses = pairs(count)
    process = jiwer.process_words if unit == "word" else jiwer.process_characters
    results: dict[str, tuple[int, ...]] = {}

    def ours() -> None:
        metric = ErrorRate(unit)
        metric.update_many(references, hypotheses)
        results["ours"] = tuple(metric.total)

    def peer() -> None:
        output = process(references, hypotheses)
        results["peer"] = (output.hits, output.substitutions, output.deletions, output.insertions)

    timed = harness.interleaved(ours, peer, repeats)
    if results["ours"] != results["peer"]:
        raise SystemExit(f"counts differ: {results}")
    return {
        "what": what,
        "ours": timed.ours_seconds,
        "peer": timed.peer_seconds,
        "ratio": timed.ratio,
        "error": 0,
        "counts": " ".join(map(str, results["ours"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the pairs")
    quick = parser.parse_args().quick
    count, repeats = (10_000, 3) if quick else (100_000, 5)
    rows = [
        row(f"WER of {count} pairs, s", "word", count, repeats),
        row(f"CER of {count // 10} pairs, s", "char", count // 10, repeats),
    ]
    references, hypotheses = pairs(count)
    metric = ErrorRate()
    metric.update_many(references, hypotheses)
    interval = min(harness.seconds(metric.score) for _ in range(repeats))
    rows.append({"what": f"bootstrap interval of {count} utterances, 1000 resamples, s", "ours": interval})
    notes = f"Peer: jiwer {version('jiwer')}. Counts are hits, substitutions, deletions, insertions, and equal jiwer's."
    harness.report("wer", "Error rates against jiwer", rows, notes)


if __name__ == "__main__":
    main()
