"""The catalogue of quantisers: name → what it is made of, written out. Nothing is imported until its builder is called."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from sonorant.core.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from sonorant.nn.quantize.quantizer import Quantizer

__all__ = ["QUANTIZERS", "build_quantizer"]


def _vq(dim: int, codebook_size: int = 1024, **options: Any) -> nn.Module:
    from sonorant.nn.quantize.vq import VectorCodebook

    return VectorCodebook(dim, codebook_size, **{"dead_below": 1.0, "kmeans_init": True, **options})


def _factorised(dim: int, codebook_size: int = 1024, code_dim: int = 8, **options: Any) -> nn.Module:
    from sonorant.nn.quantize.projected import Projected
    from sonorant.nn.quantize.vq import VectorCodebook

    defaults = {"metric": "cosine", "learn": "gradient", "commitment": 0.25}
    return Projected(dim, VectorCodebook(code_dim, codebook_size, **{**defaults, **options}))


def _vq_wav2vec(
    dim: int,
    codebook_size: int = 320,
    num_groups: int = 2,
    shared: bool = False,
    normed: bool = False,
    **options: Any,
) -> nn.Module:
    from sonorant.nn.quantize.product import Product
    from sonorant.nn.quantize.projected import Normed
    from sonorant.nn.quantize.vq import VectorCodebook

    if dim % num_groups:
        raise ConfigError(f"num_groups must divide dim, got num_groups={num_groups} and dim={dim}")

    def codebook() -> nn.Module:
        defaults = {"learn": "gradient", "commitment": 0.25}
        return VectorCodebook(dim // num_groups, codebook_size, **{**defaults, **options})

    product = Product([codebook()] * num_groups if shared else [codebook() for _ in range(num_groups)])
    return Normed(num_groups, product) if normed else product


def _gumbel(dim: int, codebook_size: int = 320, num_groups: int = 2, **options: Any) -> nn.Module:
    from sonorant.nn.quantize.gumbel import GumbelCodebook

    return GumbelCodebook(dim, codebook_size, num_groups, **options)


def _residual(
    dim: int, codebook_size: int = 1024, num_codebooks: int = 8, dropout: float = 0.0, **options: Any
) -> nn.Module:
    from sonorant.nn.quantize.residual import Residual

    return Residual([_vq(dim, codebook_size, **options) for _ in range(num_codebooks)], dropout)


def _finite_scalar(dim: int, levels: tuple[int, ...] = (8, 5, 5, 5)) -> nn.Module:
    from sonorant.nn.quantize.finite_scalar import FiniteScalar
    from sonorant.nn.quantize.projected import Projected

    return FiniteScalar(levels) if dim == len(levels) else Projected(dim, FiniteScalar(levels))


def _lookup_free(dim: int, num_bits: int = 10, **options: Any) -> nn.Module:
    from sonorant.nn.quantize.lookup_free import LookupFree
    from sonorant.nn.quantize.projected import Projected

    codebook = LookupFree(num_bits, **options)
    return codebook if dim == num_bits else Projected(dim, codebook)


def _random_projection(dim: int, codebook_size: int = 8192, **options: Any) -> nn.Module:
    from sonorant.nn.quantize.random_projection import RandomProjection

    return RandomProjection(dim, codebook_size, **options)


def _multi(dim: int, codebook_size: int = 256, num_codebooks: int = 8, **options: Any) -> nn.Module:
    from sonorant.nn.quantize.multi import MultiCodebook

    return MultiCodebook(dim, codebook_size, num_codebooks, **options)


def _online(dim: int, codebook_size: int = 256, **options: Any) -> nn.Module:
    from sonorant.nn.quantize.online import OnlineCodebook

    return OnlineCodebook(dim, codebook_size, **options)


QUANTIZERS: dict[str, Callable[..., nn.Module]] = {
    "vq": _vq,
    "cosine_vq": lambda dim, **options: _vq(dim, **{"metric": "cosine", **options}),
    "factorised_vq": _factorised,
    "vq_wav2vec": _vq_wav2vec,
    "gumbel": _gumbel,
    "residual": _residual,
    "finite_scalar": _finite_scalar,
    "lookup_free": _lookup_free,
    "random_projection": _random_projection,
    "multi": _multi,
    "online": _online,
}
"""Name → builder of the codebook; takes `dim` and options with the published defaults."""


def build_quantizer(name: str, dim: int, **options: Any) -> "Quantizer":
    """A quantiser of frames `dim` wide, by its name.

    >>> build_quantizer("gumbel", 512, code_dim=256).codebook_sizes
    (320, 320)
    """
    from sonorant.nn.quantize.quantizer import Quantizer

    if name not in QUANTIZERS:
        raise ConfigError(unknown_name("quantiser", name, QUANTIZERS))
    return Quantizer(QUANTIZERS[name](dim, **options))
