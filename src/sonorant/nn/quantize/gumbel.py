"""The Gumbel product quantiser of vq-wav2vec (arXiv:1910.05453) and wav2vec 2.0 (arXiv:2006.11477, section 2).

A linear layer gives logits over `codebook_size` entries in each of `num_groups` groups. In training one entry a group is
drawn by the Gumbel-max trick and gradients take the way of the softmax (equation 1); in evaluation the largest logit wins.
The entries of all groups stand side by side. The penalty wants all entries to be used alike (equation 4).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError
from sonorant.core.seed import uniform
from sonorant.nn.quantize.quantizer import FrameCodes, FrameSeeds, perplexity

__all__ = ["GumbelCodebook", "gumbel_temperature"]


def gumbel_temperature(step: int, start: float = 2.0, end: float = 0.5, decay: float = 0.999995) -> float:
    """The softmax's temperature at a training step: `start` times `decay` a step, never below `end`.

    The defaults are wav2vec 2.0 base's (section 4.2; large: 2 to 0.1).

    >>> gumbel_temperature(0), gumbel_temperature(10**6)
    (2.0, 0.5)
    """
    return max(start * decay**step, end)


class GumbelCodebook(nn.Module):
    """Entries chosen by logits.

    Args:
        dim: width of the frames.
        codebook_size: entries a group (320).
        num_groups: groups (2).
        code_dim: width of what comes out; where None `dim`.
        share_entries: all groups choose from one set of entries (`combine_groups` in fairseq).
        diversity: weight of the penalty 1 - Σ perplexity / (groups · entries), of the mean softmax.
        depth: linear layers to the logits (wav2vec 2.0: 1; vq-wav2vec: 2); those before the last are `widen` times as wide,
            with GELU.
        widen: see `depth`.

    `temperature` is an attribute that the training loop sets from `gumbel_temperature(step)`; it is not saved.
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int = 320,
        num_groups: int = 2,
        *,
        code_dim: int | None = None,
        share_entries: bool = False,
        diversity: float = 0.1,
        depth: int = 1,
        widen: int = 3,
    ) -> None:
        super().__init__()
        for name, value in (("codebook_size", codebook_size), ("num_groups", num_groups), ("depth", depth)):
            at_least(name, value, 1)
        self.dim, self.output_dim = dim, code_dim or dim
        if self.output_dim % num_groups:
            raise ConfigError(
                f"num_groups must divide code_dim, got num_groups={num_groups} and code_dim={self.output_dim}"
            )
        self.codebook_sizes, self.diversity = (codebook_size,) * num_groups, diversity
        self.num_groups, self.temperature = num_groups, gumbel_temperature(0)
        sets = 1 if share_entries else num_groups
        # The starting points of fairseq: entries uniform in [0, 1), logits of unit spread and no bias.
        self.entries = nn.Parameter(torch.rand(sets, codebook_size, self.output_dim // num_groups))
        layers: list[nn.Module] = []
        for _ in range(depth - 1):
            layers += [nn.Linear(dim if not layers else widen * dim, widen * dim), nn.GELU()]
        last = nn.Linear(dim if not layers else widen * dim, num_groups * codebook_size)
        nn.init.normal_(last.weight)
        nn.init.zeros_(last.bias)
        self.logits = nn.Sequential(*layers, last)

    def forward(self, frames: Float[Tensor, "n dim"], seeds: FrameSeeds) -> FrameCodes:
        logits = self._logits(frames)
        if self.training:
            draws = uniform(seeds.frame, "gumbel", logits[0].numel() if len(logits) else 1).view(logits.shape)
            noise = -torch.log(-torch.log(draws.clamp(1e-10, 1 - 2.0**-24)))
            return self.choose(logits, noise)
        ids = logits.argmax(dim=-1)
        return FrameCodes(self.vectors(ids), ids, self._penalty(logits))

    def choose(self, logits: Float[Tensor, "n group code"], noise: Float[Tensor, "n group code"]) -> FrameCodes:
        """Draws an entry a group with the given Gumbel noise; gradients are those of the softmax at `temperature`."""
        soft = ((logits + noise) / self.temperature).softmax(dim=-1)
        ids = soft.argmax(dim=-1)
        hard = torch.zeros_like(soft).scatter_(-1, ids[..., None], 1.0)
        weights = hard - soft.detach() + soft
        entries = self.entries.float().expand(self.num_groups, -1, -1)
        values = torch.einsum("ngv,gvd->ngd", weights, entries).flatten(1)
        return FrameCodes(values, ids, self._penalty(logits))

    @torch.no_grad()
    def ids(self, frames: Float[Tensor, "n dim"]) -> Int[Tensor, "n codebook"]:
        return self._logits(frames).argmax(dim=-1)

    def vectors(self, ids: Int[Tensor, "n codebook"]) -> Float[Tensor, "n code_dim"]:
        entries = self.entries.float().expand(self.num_groups, -1, -1)
        groups = torch.arange(self.num_groups, device=ids.device)
        return entries[groups, ids].flatten(1)

    def _logits(self, frames: Tensor) -> Tensor:
        return self.logits(frames).float().view(len(frames), self.num_groups, self.codebook_sizes[0])

    def _penalty(self, logits: Tensor) -> Tensor:
        if not len(logits):
            return logits.sum()
        used = perplexity(logits.softmax(dim=-1).sum(dim=0)).sum()
        return self.diversity * (1 - used / sum(self.codebook_sizes))
