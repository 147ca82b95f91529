"""Between frame rates and widths, exact for padded batches: averages of neighbours, repetition, channels cut or added."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["Downsample", "fit_width", "upsample"]


class Downsample(nn.Module):
    """Each group of `factor` frames becomes their average with learnt weights (arXiv:2310.11230, section 3.1).

    An item's last, incomplete group is filled up with its own last frame, whatever stands in the padding.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.bias = nn.Parameter(torch.zeros(factor))

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """A group for each begun one."""
        return -(-lengths // self.factor)

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch out dim"], Int[Tensor, " batch"]]:
        num_out = -(-values.shape[1] // self.factor)
        frames = torch.arange(num_out * self.factor, device=values.device)
        index = torch.minimum(frames, (lengths[:, None] - 1).clamp(min=0))
        filled = torch.gather(values, 1, index[..., None].expand(-1, -1, values.shape[2]))
        groups = filled.view(values.shape[0], num_out, self.factor, values.shape[2])
        weights = self.bias.softmax(0).to(values.dtype)
        return torch.einsum("bofd,f->bod", groups, weights), self.output_lengths(lengths)


def upsample(values: Float[Tensor, "batch frame dim"], factor: int, num_frames: int) -> Float[Tensor, "batch out dim"]:
    """Each frame `factor` times, cut to `num_frames`.

    >>> upsample(torch.tensor([[[1.0], [2.0]]]), 2, 3).flatten().tolist()
    [1.0, 1.0, 2.0]
    """
    if torch.compiler.is_compiling():  # the slice below would tie the graph to even or odd numbers of frames
        return values.index_select(1, torch.arange(num_frames, device=values.device) // factor)
    repeated = values.unsqueeze(2).expand(-1, -1, factor, -1).flatten(1, 2)
    return repeated[:, :num_frames]


def fit_width(values: Float[Tensor, "batch frame dim"], dim: int) -> Float[Tensor, "batch frame out"]:
    """The first `dim` channels, or all of them and zeros."""
    if values.shape[-1] >= dim:
        return values[..., :dim]
    return nn.functional.pad(values, (0, dim - values.shape[-1]))
