"""Every entry of the catalogue keeps the contract, small."""

from dataclasses import replace

import pytest
import torch
from tests.contracts.quantizers import check_quantizer

from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.nn.quantize.catalogue import QUANTIZERS, build_quantizer
from sonorant.nn.quantize.compound import KMeansTree
from sonorant.nn.quantize.product import Product
from sonorant.nn.quantize.quantizer import Quantizer
from sonorant.nn.quantize.residual import Residual
from sonorant.nn.quantize.vq import VectorCodebook

CASES: dict[str, list[dict]] = {
    "vq": [
        {"codebook_size": 16},
        {"codebook_size": 16, "kmeans_init": False, "dead_below": 0.0},
        {"codebook_size": 200},
    ],
    "cosine_vq": [{"codebook_size": 16}],
    "factorised_vq": [{"codebook_size": 16, "code_dim": 3}],
    "vq_wav2vec": [
        {"codebook_size": 16},
        {"codebook_size": 16, "shared": True},
    ],
    "gumbel": [{"codebook_size": 10}, {"codebook_size": 10, "share_entries": True, "code_dim": 6, "depth": 2}],
    "residual": [{"codebook_size": 16, "num_codebooks": 3}, {"codebook_size": 16, "num_codebooks": 3, "dropout": 0.5}],
    "finite_scalar": [{"levels": (8, 5, 5)}],
    "lookup_free": [{"num_bits": 5}],
    "random_projection": [
        {"codebook_size": 64, "code_dim": 4},
        {"codebook_size": 64, "code_dim": 3, "num_codebooks": 2},
    ],
    "multi": [{"codebook_size": 16, "num_codebooks": 3}],
    "online": [{"codebook_size": 16}],
}
MAPPED = ("gumbel", "factorised_vq", "finite_scalar", "lookup_free")
"""Those in which frames pass learnt or curved maps, so that decoded frames may be encoded to other codes."""
BENT = (*MAPPED, "cosine_vq")
"""Those in which gradients pass such maps, or a normalisation."""
UNTIED = (*MAPPED, "residual", "multi")
"""Those whose decoded frames another code may describe as well or better: residual search is greedy."""


def test_every_entry_has_a_case() -> None:
    assert set(CASES) == set(QUANTIZERS)


@pytest.mark.parametrize("name, options", [(name, options) for name, cases in CASES.items() for options in cases])
def test_contract(name: str, options: dict) -> None:
    check_quantizer(
        lambda: build_quantizer(name, 8, **options), straight=name not in BENT, idempotent=name not in UNTIED
    )


def test_bare_codebooks_keep_the_contract_too() -> None:
    check_quantizer(lambda: Quantizer(KMeansTree(3, 4, 6)), idempotent=False)
    pairs = [VectorCodebook(3, 8, learn="frozen"), VectorCodebook(5, 4, metric="cosine", learn="frozen")]
    check_quantizer(lambda: Quantizer(Product(pairs)), straight=False)


@pytest.mark.parametrize("name", ["finite_scalar", "lookup_free"])
def test_grids_without_projection_pass_gradients(name: str) -> None:
    options = {"finite_scalar": {"levels": (5, 3, 4)}, "lookup_free": {"num_bits": 3}}[name]
    check_quantizer(
        lambda: build_quantizer(name, 3, **options), straight=name == "lookup_free", idempotent=name == "lookup_free"
    )


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'gumbel'"):
        build_quantizer("gumbl", 8)
    with pytest.raises(ConfigError, match="num_groups must divide"):
        build_quantizer("gumbel", 9)
    with pytest.raises(ConfigError, match="levels must be at least 3"):
        build_quantizer("finite_scalar", 2, levels=(2, 2))
    with pytest.raises(ConfigError, match="one width"):
        Residual([VectorCodebook(3, 4), VectorCodebook(4, 4)])


def test_normed_groups_take_their_codes_whatever_the_scale() -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer("vq_wav2vec", 12, codebook_size=16, normed=True).eval()
    frames = Features(torch.randn(1, 30, 12), torch.tensor([30]), 100.0)
    loud = replace(frames, values=50 * frames.values)
    assert torch.equal(quantizer.encode(frames).ids, quantizer.encode(loud).ids)
    # The code of one group looks at that group alone.
    half = replace(frames, values=torch.cat([frames.values[..., :6], torch.randn(1, 30, 6)], dim=2))
    assert torch.equal(quantizer.encode(frames).ids[:, 0], quantizer.encode(half).ids[:, 0])
    # What the shrunken frames of a plain codebook do not: they spread over the entries.
    plain = build_quantizer("vq_wav2vec", 12, codebook_size=16).eval()
    small = replace(frames, values=1e-3 * frames.values)
    used = [len(set(one.encode(small).ids[:, 0].flatten().tolist())) for one in (quantizer, plain)]
    assert used[0] > 2 * used[1]
