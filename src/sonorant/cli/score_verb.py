"""Error rate of hypotheses against references, with interval and alignment.

  sonorant score ref.txt hyp.txt
  sonorant score ref.txt hyp.txt --against other.txt       is the difference significant?

A file holds one utterance a line, either bare text (lines in the same order) or `id<TAB>text`.
"""

import argparse
import sys
from pathlib import Path

from sonorant.cli.options import table
from sonorant.core.errors import DataError
from sonorant.core.files import read_text
from sonorant.metrics.bootstrap import paired_bootstrap
from sonorant.metrics.edit import ErrorRate, format_alignment, split_units
from sonorant.text.normalise import Normaliser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("references", type=Path)
    parser.add_argument("hypotheses", type=Path)
    parser.add_argument("--against", type=Path, help="another system's hypotheses: paired bootstrap")
    parser.add_argument("--unit", choices=["word", "char"], default="word")
    parser.add_argument(
        "--normalise", metavar="LANGUAGE", help="lower case, no punctuation, numbers in words of en/fr/es/de"
    )
    parser.add_argument("--alignments", type=int, default=0, metavar="N", help="print the N worst utterances aligned")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    references = read_lines(args.references)
    change = Normaliser(language=args.normalise) if args.normalise else lambda text: text
    metrics = {}
    for path in filter(None, (args.hypotheses, args.against)):
        hypotheses = _matched(references, read_lines(path), args.references, path)
        metric = ErrorRate(args.unit, str(path))
        for name, text in references.items():
            metric.update(change(text), change(hypotheses[name]))
        metrics[path] = metric
    table([_row(metric) for metric in metrics.values()])
    if args.against:
        _compare(metrics[args.hypotheses], metrics[args.against])
    if args.alignments:
        hypotheses = _matched(references, read_lines(args.hypotheses), args.references, args.hypotheses)
        counts = list(metrics[args.hypotheses])
        worst = sorted(zip(references, counts, strict=True), key=lambda row: -row[1].edits)[: args.alignments]
        for name, count in worst:
            pair = (split_units(change(text), args.unit) for text in (references[name], hypotheses[name]))
            sys.stdout.write(f"\n{name}: {count.edits} edits\n{format_alignment(*pair)}\n")
    return 0


def read_lines(path: Path) -> dict[str, str]:
    """Utterances by id; the line's number where the file has no ids.

    Raises:
        DataError: no such file, not text, or an id given twice.
    """
    # Only "\n" ends a line: transcripts may hold other characters that `splitlines` would break at.
    text = read_text(path)
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
    if not all("\t" in line for line in lines if line):
        return {str(number): line for number, line in enumerate(lines, start=1)}
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        name, _, text = line.partition("\t")
        if name in found:
            raise DataError(f"{path}, line {number}: id '{name}' is given twice")
        found[name] = text
    return found


def _matched(references: dict[str, str], hypotheses: dict[str, str], left: Path, right: Path) -> dict[str, str]:
    missing = [name for name in references if name not in hypotheses]
    if missing or len(hypotheses) != len(references):
        extra = [name for name in hypotheses if name not in references]
        raise DataError(
            f"{left} has {len(references)} utterances and {right} {len(hypotheses)}; "
            f"missing there: {', '.join(missing[:3]) or 'none'}, only there: {', '.join(extra[:3]) or 'none'}"
        )
    return hypotheses


def _row(metric: ErrorRate) -> dict[str, object]:
    score, total = metric.score(), metric.total
    return {
        "hypotheses": metric.name,
        "rate": score.value,
        "95 % interval": f"{score.low:.4g} to {score.high:.4g}",
        "substitutions": total.substitutions,
        "deletions": total.deletions,
        "insertions": total.insertions,
        "reference": total.reference_length,
        "utterances": score.num_items,
    }


def _compare(one: ErrorRate, other: ErrorRate) -> None:
    lengths = [count.reference_length for count in one]
    found = paired_bootstrap([c.edits for c in one], [c.edits for c in other], lengths)
    sys.stdout.write(
        f"difference {found.difference:+.4g} (95 % interval {found.low:+.4g} to {found.high:+.4g}), p = {found.p_value:.3g}\n"
    )
