"""A synthetic corpus as files: shards of FLAC or WAV in 16 bits, and lhotse manifests beside them.

A shard is a folder of audio and a manifest, which is written last, beside a list of the files' sizes. A shard without its
manifest, or with a file of another size (a machine that stopped before its disk did), is written again; a stopped run
goes on with the next. Every shard is a pure function of the configuration: any number of workers writes the same bytes.
"""

import json
import logging
import multiprocessing
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from lhotse import CutSet
from lhotse.cut import MonoCut

from sonorant.core.config import content_hash, to_plain
from sonorant.core.errors import ConfigError, DataError, unknown_name
from sonorant.core.files import atomic_write
from sonorant.data.synthetic.corpus import SPLITS, SyntheticConfig, Utterance, num_utterances, utterance

__all__ = ["cut_of", "read_shards", "write_shards"]

_log = logging.getLogger(__name__)
VERSION = 1
"""Of the generator: another version writes other bytes for the same configuration, and old folders are refused."""


def write_shards(
    config: SyntheticConfig,
    folder: str | Path,
    *,
    num_workers: int = 1,
    shard_size: int = 200,
    audio_format: str = "flac",
    splits: tuple[str, ...] = SPLITS,
) -> Mapping[str, CutSet]:
    """Writes the corpus, or what is missing of it, and returns its splits.

    Args:
        config: of the corpus.
        folder: where to write; each split becomes a folder of shards.
        num_workers: processes.
        shard_size: utterances in a shard.
        audio_format: `flac` or `wav`.
        splits: which splits to write.

    Raises:
        DataError: the folder holds a corpus of another configuration.
    """
    if audio_format not in ("flac", "wav"):
        raise ConfigError(unknown_name("audio format", audio_format, ("flac", "wav")))
    folder = Path(folder)
    _claim(config, folder, {"shard_size": shard_size, "audio_format": audio_format})
    jobs = []
    for split in splits:
        total = num_utterances(config, split)
        starts = range(0, total, shard_size)
        jobs += [(config, str(folder), split, s, min(s + shard_size, total), audio_format) for s in starts]
    missing = [job for job in jobs if not _is_whole(_shard(folder, job[2], job[3]))]
    for done, job in enumerate(_mapped(missing, num_workers), start=1):
        _log.info("wrote shard %d of %d: %s", done, len(missing), job)
    return read_shards(folder, splits)


def read_shards(folder: str | Path, splits: tuple[str, ...] = SPLITS) -> Mapping[str, CutSet]:
    """The splits that were written to a folder; a split with no utterance is left out."""
    folder = Path(folder)
    found = {}
    for split in splits:
        cuts = [cut for manifest in sorted(folder.glob(f"{split}/*/cuts.jsonl")) for cut in _cuts(manifest, folder)]
        if cuts:
            found[split] = CutSet.from_cuts(cuts)
    if not found:
        raise DataError(f"no synthetic corpus at {folder}; write one with write_corpus")
    return found


def _claim(config: SyntheticConfig, folder: Path, layout: Mapping[str, Any]) -> None:
    """Writes which corpus the folder holds, or refuses one that holds another."""
    path = folder / "synthetic.json"
    mine = {"version": VERSION, "config": to_plain(config), **layout}
    if path.exists():
        theirs = json.loads(path.read_text("utf-8"))
        if content_hash(theirs) != content_hash(mine):
            raise DataError(f"{folder} holds a synthetic corpus of another configuration; give another folder")
        return
    with atomic_write(path) as file:
        file.write((json.dumps(mine, indent=1, ensure_ascii=False) + "\n").encode())


def _shard(folder: Path, split: str, start: int) -> Path:
    return folder / split / f"{start:07d}"


def _is_whole(shard: Path) -> bool:
    """Whether the manifest and all the files that belong to it are there, each of its size."""
    try:
        sizes = json.loads((shard / "sizes.json").read_text("utf-8"))
        return (shard / "cuts.jsonl").is_file() and all((shard / n).stat().st_size == size for n, size in sizes.items())
    except (OSError, ValueError):
        return False


def _mapped(jobs: list[tuple[Any, ...]], num_workers: int) -> Iterator[str]:
    if num_workers <= 1 or len(jobs) <= 1:
        yield from map(_write_shard, jobs)
        return
    # Workers run numpy and eSpeak only; forked ones need no guard in the caller's script and start at once.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        with ProcessPoolExecutor(min(num_workers, len(jobs)), multiprocessing.get_context(method)) as pool:
            yield from pool.map(_write_shard, jobs)


def _write_shard(job: tuple[SyntheticConfig, str, str, int, int, str]) -> str:
    import soundfile

    config, folder, split, start, stop, audio_format = job
    shard = _shard(Path(folder), split, start)
    shard.mkdir(parents=True, exist_ok=True)
    # What is in a manifest is whole; so the old one goes first. The sizes tell what a lost cache of the disk has taken:
    # forcing each small file to the disk would take longer than making it.
    (shard / "cuts.jsonl").unlink(missing_ok=True)
    lines, sizes = [], {}
    for index in range(start, stop):
        item = utterance(config, split, index)
        name = f"{item.id}.{audio_format}"
        soundfile.write(shard / name, item.samples, item.sample_rate, subtype="PCM_16")
        sizes[name] = (shard / name).stat().st_size
        lines.append(json.dumps(_plain(item, f"{split}/{shard.name}/{name}"), ensure_ascii=False) + "\n")
    for name, text in (("sizes.json", json.dumps(sizes, indent=0)), ("cuts.jsonl", "".join(lines))):
        with atomic_write(shard / name) as file:
            file.write(text.encode())
    return f"{split}/{shard.name}"


def _cuts(manifest: Path, folder: Path) -> Iterator[MonoCut]:
    with manifest.open(encoding="utf-8") as lines:
        for line in lines:
            cut = _cut(json.loads(line))
            cut.recording = cut.recording.with_path_prefix(folder.absolute())
            yield cut


def cut_of(item: Utterance, path: str) -> MonoCut:
    """The utterance as lhotse's cut: times of words, syllables and phones as alignments, the rest as custom fields."""
    return _cut(_plain(item, path))


def _cut(plain: dict[str, Any]) -> MonoCut:
    return MonoCut.from_dict({name: value for name, value in plain.items() if name != "type"})


def _plain(item: Utterance, path: str) -> dict[str, Any]:
    """The cut as lhotse writes it, made without its objects, which take longer than the waveform's last transform."""
    seconds = len(item.waveform) / item.sample_rate
    recording = {
        "id": item.id, "sources": [{"type": "file", "channels": [0], "source": path}],
        "sampling_rate": item.sample_rate, "num_samples": len(item.waveform), "duration": seconds, "channel_ids": [0],
    }  # fmt: skip
    tiers = {"word": item.words, "syllable": item.syllables, "phone": item.phones}
    supervision = {
        "id": item.id, "recording_id": item.id, "start": 0.0, "duration": seconds, "channel": 0, "text": item.text,
        "language": item.language, "speaker": item.speaker,
        "custom": {
            "intent": item.intent, "slots": dict(item.slots), "translations": dict(item.translations),
            "style": item.style,
        },
        "alignment": {
            name: [[s.label, round(s.start, 6), round(s.duration, 6), None] for s in tier] for name, tier in tiers.items()
        },
    }  # fmt: skip
    return {
        "id": item.id, "start": 0.0, "duration": seconds, "channel": 0, "supervisions": [supervision],
        "recording": recording, "type": "MonoCut",
    }  # fmt: skip
