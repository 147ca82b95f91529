"""pocketsphinx 5, with the model in its wheel, on the test split of a corpus: the peer of a recogniser trained here.

    python bench/pocketsphinx_peer.py --corpus pack:DIR --run runs/conformer_ctc-speechocean762

Both are scored on the same files by the same normaliser; the difference has a paired bootstrap interval over speakers.
pocketsphinx's answers are kept beside the run, so that a second call only scores.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import report

from sonorant.core.files import atomic_write
from sonorant.data.corpora.catalogue import open_corpus
from sonorant.data.corpora.corpus import text_of
from sonorant.data.reading import read_cut
from sonorant.metrics.bootstrap import paired_bootstrap
from sonorant.metrics.edit import ErrorRate
from sonorant.text.normalise import Normaliser

COMMAND = "python bench/pocketsphinx_peer.py --corpus pack:DIR --run RUN"


def decode(cuts: list, store: Path) -> dict[str, str]:
    """pocketsphinx's text of each cut, from the store where it is there."""
    from pocketsphinx import Decoder

    found = dict(json.loads(store.read_text())) if store.is_file() else {}
    left = [cut for cut in cuts if cut.id not in found]
    decoder = Decoder(samprate=16000, loglevel="ERROR") if left else None
    start, seconds = time.perf_counter(), 0.0
    for number, cut in enumerate(left, start=1):
        samples = np.asarray(read_cut(cut, 16000, None)).reshape(-1)
        decoder.start_utt()
        decoder.process_raw((samples.clip(-1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        found[cut.id] = decoder.hyp().hypstr if decoder.hyp() else ""
        seconds += cut.duration
        if number % 25 == 0 or number == len(left):
            with atomic_write(store) as file:
                file.write(json.dumps(found).encode())
            speed = seconds / (time.perf_counter() - start)
            print(f"{number}/{len(left)} utterances, {speed:.2f} audio-seconds a second", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument(
        "--run", type=Path, help="folder of a run of ours on the same corpus; without it, the peer alone"
    )
    parser.add_argument("--split", default="test")
    parser.add_argument("--store", type=Path, default=Path("runs/pocketsphinx.json"), help="keeps the peer's answers")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        corpus = open_corpus(args.corpus, Path(scratch))
        cuts = list(corpus.split(args.split))
        hypotheses = decode(cuts, args.store)
    normalise = Normaliser()
    systems = {"pocketsphinx 5, its en-us model": {cut.id: normalise(hypotheses[cut.id]) for cut in cuts}}
    for path in sorted(args.run.glob("stages/evaluate-*/*.jsonl")) if args.run else []:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        systems[f"ours, {path.stem}"] = {row["id"]: row["hypothesis"] for row in rows}
    # Scored on what every system answered: our checks may have left out an item.
    common = set.intersection(*(set(answers) for answers in systems.values()))
    cuts = [cut for cut in cuts if cut.id in common]
    rows, errors = [], {}
    for name, answers in systems.items():
        row = {"system": name}
        for unit, short in (("word", "wer"), ("char", "cer")):
            metric = ErrorRate(unit)
            for cut in cuts:
                metric.update(normalise(text_of(cut) or ""), answers[cut.id], group=cut.supervisions[0].speaker or "")
            score = metric.score()
            row[short] = f"{100 * score.value:.1f} % [{100 * score.low:.1f}, {100 * score.high:.1f}]"
            if unit == "word":
                errors[name] = ([c.edits for c in metric], [c.reference_length for c in metric], metric.groups)
        rows.append(row)
    peer = next(iter(errors.values()))
    for row in rows[1:]:
        mine = errors[row["system"]]
        found = paired_bootstrap(mine[0], peer[0], mine[1], groups=mine[2])
        row["wer minus the peer's"] = f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    report(
        "pocketsphinx_peer",
        f"Recognition of held-out speakers of {corpus.name}, {len(cuts)} utterances",
        rows,
        command=COMMAND,
    )


if __name__ == "__main__":
    main()
