"""The stages between a trained tokeniser and a network over its codes.

folder = tokenised_stage(work, "gumbel", config, front, quantizer)   # an encoder: codes that rest, a network that is new
codes = codes_stage(work, "gumbel", folder, cuts)                    # the codes of a corpus
labels = codes.streams                                               # for `objectives.token_bert`
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sonorant.benchmark.pretraining import load_kmeans
from sonorant.benchmark.probe import module_digest
from sonorant.benchmark.workspace import Workspace
from sonorant.core.checkpoint import checkpoint_digest
from sonorant.core.seed import derive, seed_everything
from sonorant.core.types import Features, Score, Units
from sonorant.data.batches import BatchConfig
from sonorant.data.corpora.corpus import content_of
from sonorant.data.shards import random_order
from sonorant.encoders.checkpoint import describe_config, load_trained_encoder, save_trained_encoder
from sonorant.encoders.tokenised import TokenisedConfig, build, tokenised
from sonorant.nn.quantize.quantizer import Quantizer, joint_codes
from sonorant.nn.quantize.vq import frozen_codebook
from sonorant.units.checks import check_units
from sonorant.units.store import UnitStore, write_units
from sonorant.units.tokenizer import UnitTokenizer, tokenise

__all__ = ["CodeStores", "codes_stage", "clusters_stage", "shuffled_codes", "tokenised_stage"]


@dataclass(frozen=True)
class CodeStores:
    """The codes of a corpus, as labels."""

    joint: UnitStore
    """One number for the codes of all codebooks."""
    streams: dict[str, UnitStore]
    """units, units1, …: each codebook's."""

    @property
    def num_used(self) -> int:
        """Joint codes that occur."""
        return int((self.joint.counts().counts > 0).sum())

    def usage(self, arm: str) -> list[Score]:
        """`arm/code_usage`: the share of the entries that occur, of that codebook where it is least; `arm/codes_used`."""
        share = min(store.counts().usage for store in self.streams.values())
        return [
            Score(f"{arm}/code_usage", share, "higher", num_items=self.joint.num_frames),
            Score(f"{arm}/codes_used", float(self.num_used), "higher", num_items=self.joint.num_frames),
        ]


def tokenised_stage(work: Workspace, name: str, config: TokenisedConfig, front: Path, quantizer: nn.Module) -> Path:
    """An encoder on codes before its network has learnt anything: a folder for `load_trained_encoder`.

    Args:
        work: where; its seed draws the network's weights.
        name: of these codes.
        config: of the encoder.
        front: trained encoder whose frames are quantised.
        quantizer: trained.
    """

    def make(folder: Path) -> None:
        seed_everything(derive(work.seed, "tokenised") % 2**31)
        encoder = build(config)
        encoder.front.load_state_dict(load_trained_encoder(front).state_dict())
        encoder.quantizer.load_state_dict(quantizer.state_dict())
        save_trained_encoder(encoder, folder / "encoder")

    inputs = {
        "encoder": describe_config(config),
        "front": checkpoint_digest(front),
        "quantizer": module_digest(quantizer),
    }
    return work.stage(f"tokenised-{name}", make, inputs) / "encoder"


def clusters_stage(
    work: Workspace, name: str, front: Path, clusters: Path, encoder: Any, layer: int | None = None
) -> Path:
    """`tokenised_stage` with the clusters of a `cluster_stage` as codes."""
    codebook = frozen_codebook(load_kmeans(clusters))
    options = {"dim": codebook.dim, "codebook_size": codebook.codebook_sizes[0], "metric": codebook.metric}
    frozen = {"learn": "frozen", "commitment": 0.0, "kmeans_init": False, "dead_below": 0.0}
    config = tokenised(load_trained_encoder(front), "vq", {**options, **frozen}, encoder, layer)
    return tokenised_stage(work, name, config, front, Quantizer(codebook))


class _Joint(nn.Module):
    """A quantiser that gives one number for the codes of all codebooks."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def encode(self, features: Features) -> Units:
        codes = self.quantizer.encode(features)
        ids = joint_codes(codes.ids, codes.codebook_sizes)
        return Units(ids, codes.lengths, codes.frame_rate, prod(codes.codebook_sizes))


def codes_stage(work: Workspace, name: str, encoder: Path, cuts: Any) -> CodeStores:
    """The codes of a corpus, made by an encoder of `tokenised_stage`.

    Args:
        work: where.
        name: of these codes.
        encoder: with `front`, `quantizer` and a layer.
        cuts: whose.
    """
    module: Any = load_trained_encoder(encoder)
    tokenizer = UnitTokenizer(module.front, _Joint(module.quantizer), module.config.layer)

    def make(folder: Path) -> None:
        items = tokenise(tokenizer, cuts, BatchConfig(max_seconds=120))
        store = write_units(
            folder / "units", items, offset=tokenizer.offset, sample_rate=tokenizer.sample_rate, note={"name": name}
        )
        # How many codes are in use is a result, and no reason to stop as long as there is more than one.
        check_units(store, cuts, min_perplexity_share=0.0)

    inputs = {"tokenizer": module_digest(tokenizer), "layer": tokenizer.layer, "cuts": content_of(cuts)}
    joint = UnitStore(work.stage(f"codes-{name}", make, inputs) / "units")
    return _streams(work, name, joint, tuple(module.quantizer.codebook_sizes))


def _streams(work: Workspace, name: str, joint: UnitStore, sizes: tuple[int, ...]) -> CodeStores:
    """Each codebook's codes out of the joint ones."""
    streams = {}
    for index, size in enumerate(sizes):
        column = partial(_column, step=prod(sizes[index + 1 :]), size=size)
        streams[f"units{index or ''}"] = _changed(work, f"codes-{name}-{index}", joint, column, size, [index, *sizes])
    return CodeStores(joint, streams)


def _column(ids: np.ndarray, name: str, step: int, size: int) -> np.ndarray:
    """One codebook's part of joint numbers: what `joint_codes` put together."""
    return np.asarray(ids // step % size)


def shuffled_codes(work: Workspace, name: str, encoder: Path, codes: CodeStores) -> CodeStores:
    """A control: the codes of each cut in random order, those of all codebooks alike; nothing tells a code from its
    neighbours then."""
    sizes = tuple(load_trained_encoder(encoder).quantizer.codebook_sizes)  # type: ignore[union-attr,arg-type]

    def mixed(ids: np.ndarray, name: str) -> np.ndarray:
        return ids[random_order(len(ids), derive(work.seed, "shuffle", name))]

    joint = _changed(work, f"shuffled-{name}", codes.joint, mixed, codes.joint.num_units, "shuffled")
    return _streams(work, f"shuffled-{name}", joint, sizes)


def _changed(
    work: Workspace,
    name: str,
    store: UnitStore,
    change: Callable[[np.ndarray, str], np.ndarray],
    num_units: int,
    settings: Any,
) -> UnitStore:
    """A store whose units are those of another, changed cut by cut."""

    def items() -> Iterator[tuple[str, Units, int]]:
        for cut in store.ids:
            ids = torch.from_numpy(np.ascontiguousarray(change(store[cut], cut)))[None]
            yield cut, Units(ids, torch.tensor([ids.shape[1]]), store.frame_rate, num_units), store.samples(cut)

    def make(folder: Path) -> None:
        write_units(folder / "units", items(), offset=store.offset, sample_rate=store.sample_rate, note={"name": name})

    return UnitStore(work.stage(name, make, {"units": store.digest(), "settings": settings}) / "units")
