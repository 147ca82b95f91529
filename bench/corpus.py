"""How fast the built-in corpus is made: audio-seconds a second, plain and jittered, and the share that each step takes.

    python bench/corpus.py [--quick]

Two things are measured: wall time, which on a shared machine holds what others do, and processor time (with workers, the
time that each would need on a core of its own). The peer is eSpeak NG on the same texts and voices, loaded anew and
seeded before each utterance, which is what makes its bytes repeatable without putting its state back.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import interleaved, peak_memory_mb, report

from sonorant.data.synthetic import corpus as module
from sonorant.data.synthetic import espeak
from sonorant.data.synthetic.corpus import SyntheticConfig, sentence, utterance, write_corpus
from sonorant.data.synthetic.library import Library
from sonorant.data.synthetic.voices import voice_file

JITTERED = SyntheticConfig(num_voices=(64, 12, 12))
PLAIN = replace(JITTERED, jitter=0.0, room_prob=0.0, noise_prob=0.0)
RATES = dict[str, Any]


def made(config: SyntheticConfig, count: int) -> float:
    """Makes utterances; seconds of audio."""
    return sum(utterance(config, "train", index).seconds for index in range(count))


def speed(what: str, config: SyntheticConfig, count: int, repeats: int) -> RATES:
    """Medians over repeats, after a first round in which voices are made."""
    audio = made(config, count)
    wall, cpu = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        made(config, count)
        wall.append(audio / (time.perf_counter() - start[0]))
        cpu.append(audio / (time.process_time() - start[1]))
    return {
        "what": what,
        "x real time": statistics.median(wall),
        "x real time, processor": statistics.median(cpu),
        "memory_mb": peak_memory_mb(),
    }


def with_workers(count: int, num_workers: int) -> RATES:
    """Files, labels and manifests, from nothing; the start of the workers is counted too."""
    config = replace(JITTERED, train=count, dev=0, test=0)
    with TemporaryDirectory() as folder:
        start, before = time.perf_counter(), sum(os.times()[:4])
        cuts = write_corpus(config, Path(folder), num_workers, shard_size=max(1, count // 8))["train"]
        wall, cpu = time.perf_counter() - start, sum(os.times()[:4]) - before
        audio = sum(cut.duration for cut in cuts)
    return {
        "what": f"written as FLAC with manifests, {num_workers} workers",
        "x real time": audio / wall,
        "x real time, processor": num_workers * audio / cpu,
    }


def shares(config: SyntheticConfig, count: int) -> list[RATES]:
    """The share of each step of an utterance: the steps are timed where they are called."""
    spent: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

        return call

    steps = [
        (module, "_drawn", "sentence and its translations"), (Library, "speak", "eSpeak NG"),
        (espeak, "speak", "times of phones, syllables, words"), (module, "record", "tract, equaliser, room, noise, rate"),
    ]  # fmt: skip
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in steps]
    try:
        for owner, name, label in steps:
            setattr(owner, name, timed(label, getattr(owner, name)))
        start = time.perf_counter()
        made(config, count)
        total = time.perf_counter() - start
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
    spent["times of phones, syllables, words"] -= spent["eSpeak NG"]  # the one calls the other
    spent["segments and the rest"] = total - sum(spent.values())
    return [{"what": f"share: {name}", "share": seconds / total} for name, seconds in spent.items()]


def against_reload(count: int, repeats: int) -> RATES:
    """State put back against the library loaded anew: the same bytes, the same voices and texts."""
    ours, peer = Library("en"), Library("en", snapshot=False)
    items = [utterance(JITTERED, "train", index) for index in range(count)]
    work = [(sentence(JITTERED, "train", index).spoken, voice_file(item.voice)) for index, item in enumerate(items)]

    def say(library: Library) -> list[bytes]:
        return [library.speak(text, voice, rate=175)[0] for text, voice in work]

    differing = sum(a != b for a, b in zip(say(ours), say(peer)))
    pair = interleaved(partial(say, ours), partial(say, peer), repeats)
    return {
        "what": "eSpeak NG repeatable: state put back vs loaded anew",
        "ours": pair.ours_seconds / count,
        "peer": pair.peer_seconds / count,
        "ratio": pair.ratio,
        "error": differing,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    count, repeats = (80, 2) if parser.parse_args().quick else (400, 5)
    rows = [speed("plain, one core", PLAIN, count, repeats), speed("jittered, one core", JITTERED, count, repeats)]
    rows += [with_workers(4 * count, 1), with_workers(4 * count, 2)]
    rows.append(against_reload(count // 2, repeats))
    rows += shares(JITTERED, count)
    report(
        "corpus", "Synthetic corpus", rows, "ours and peer are seconds an utterance; error counts differing utterances."
    )


if __name__ == "__main__":
    main()
