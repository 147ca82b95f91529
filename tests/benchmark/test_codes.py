"""Codes of a corpus: joint numbers and streams, clusters as codes, a control in random order, a trained quantiser."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.units.corpora import tone_corpus

from sonorant.benchmark.codes import clusters_stage, codes_stage, shuffled_codes, tokenised_stage
from sonorant.benchmark.pretraining import cluster_stage, load_kmeans, statistics_stage, units_stage
from sonorant.benchmark.workspace import Workspace
from sonorant.data.batches import BatchConfig
from sonorant.encoders import cpc
from sonorant.encoders.checkpoint import load_trained_encoder, save_trained_encoder
from sonorant.encoders.cpc import wav2vec_tiny
from sonorant.encoders.spectral import mfcc_front
from sonorant.encoders.tera import tera_tiny
from sonorant.encoders.tokenised import tokenised
from sonorant.nn.quantize.catalogue import build_quantizer
from sonorant.units.tokenizer import UnitTokenizer, layer_of, streamed

OVER = tera_tiny(input_dim=12, dim=16, ffn_dim=32, num_heads=2)
OPTIONS: dict[str, Any] = {"dim": 32, "codebook_size": 5, "num_groups": 2, "depth": 2}


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    return Workspace(folder=tmp_path / "work", progress=False)


@pytest.fixture
def cuts(tmp_path: Path) -> Any:
    return tone_corpus(tmp_path / "corpus").split("train")


def on_wav2vec(work: Workspace) -> Path:
    torch.manual_seed(0)
    front = cpc.build(wav2vec_tiny())
    folder = save_trained_encoder(front, work.folder / "front")
    quantizer = build_quantizer("gumbel", **OPTIONS)
    config = tokenised(front, "gumbel", OPTIONS, OVER, layer=0)
    return tokenised_stage(work, "wav2vec", config, folder, quantizer)


def test_streams_and_joint_codes_are_those_of_the_encoder(work: Workspace, cuts: Any) -> None:
    folder = on_wav2vec(work)
    codes, encoder = codes_stage(work, "wav2vec", folder, cuts), load_trained_encoder(folder)
    assert list(codes.streams) == ["units", "units1"]
    assert codes.joint.num_units == 25
    for batch, _ in streamed(cuts, BatchConfig(max_seconds=5), lambda batch: layer_of(encoder, batch)):
        found = encoder.tokenise(batch.waveform, batch.lengths)  # type: ignore[operator]
        for row, name in enumerate(batch.ids):
            ids = found.ids[row, :, : int(found.lengths[row])].numpy()
            assert np.array_equal(codes.streams["units"][name], ids[0])
            assert np.array_equal(codes.streams["units1"][name], ids[1])
            assert np.array_equal(codes.joint[name], 5 * ids[0] + ids[1])


def test_usage_is_that_of_the_poorer_codebook(work: Workspace, cuts: Any) -> None:
    codes = codes_stage(work, "wav2vec", on_wav2vec(work), cuts)
    used = [len(set(np.concatenate([store[name] for name in store.ids]).tolist())) for store in codes.streams.values()]
    joint = set(np.concatenate([codes.joint[name] for name in codes.joint.ids]).tolist())
    share, count = codes.usage("arm")
    assert (share.name, share.value) == ("arm/code_usage", min(used) / 5)
    assert (count.name, count.value) == ("arm/codes_used", len(joint))


def test_shuffled_codes_keep_what_occurs_and_both_streams_together(work: Workspace, cuts: Any) -> None:
    folder = on_wav2vec(work)
    codes = codes_stage(work, "wav2vec", folder, cuts)
    mixed = shuffled_codes(work, "wav2vec", folder, codes)
    moved = 0
    for name in codes.joint.ids:
        assert sorted(mixed.joint[name]) == sorted(codes.joint[name])
        joined = 5 * mixed.streams["units"][name] + mixed.streams["units1"][name]
        assert np.array_equal(joined, mixed.joint[name])
        moved += int((mixed.joint[name] != codes.joint[name]).sum())
    assert moved > 0


def test_clusters_become_codes(work: Workspace, cuts: Any) -> None:
    front = statistics_stage(work, mfcc_front(50), cuts)
    cepstra = load_trained_encoder(front)
    clusters = cluster_stage(work, "mfcc", cepstra, cuts, 6)
    folder = clusters_stage(work, "mfcc", front, clusters, OVER)
    codes = codes_stage(work, "mfcc", folder, cuts)
    units = units_stage(work, "mfcc", UnitTokenizer(cepstra, load_kmeans(clusters)), cuts)
    for name in units.ids:
        assert np.array_equal(codes.streams["units"][name], units[name])


def test_weights_of_the_network_come_from_the_seed(work: Workspace) -> None:
    one, again = load_trained_encoder(on_wav2vec(work)), load_trained_encoder(on_wav2vec(work))
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
