"""The best path through a hidden Markov model, for a batch of padded items."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.core.lengths import valid_mask

__all__ = ["viterbi"]


def viterbi(
    emissions: Float[Tensor, "batch frame state"],
    lengths: Int[Tensor, " batch"],
    transitions: Float[Tensor, "state state"],
    initial: Float[Tensor, " state"] | None = None,
    final: Float[Tensor, " state"] | None = None,
) -> tuple[Int[Tensor, "batch frame"], Float[Tensor, " batch"]]:
    """States of the best path and its score; all scores are logarithms (or any costs that add up, negated).

    Args:
        emissions: score of each state at each frame; what stands in the padding does not matter.
        lengths: frames of each item, at least 1.
        transitions: score of going from the state of the row to that of the column.
        initial: score of starting in a state; 0 where None.
        final: score of ending in a state; 0 where None.

    Returns:
        states `(batch, frame)`, 0 in the padding, and the scores of the paths.

    >>> scores = torch.tensor([[[0.0, -1.0], [-9.0, 0.0]]])
    >>> viterbi(scores, torch.tensor([2]), torch.zeros(2, 2))[0].tolist()
    [[0, 1]]
    """
    _, num_frames, num_states = emissions.shape
    zero = emissions.new_zeros(num_states)
    valid = valid_mask(lengths, num_frames)
    emissions = emissions.masked_fill(~valid[..., None], 0)
    scores = emissions[:, 0] + (zero if initial is None else initial)
    choices = []
    for frame in range(1, num_frames):
        best, choice = (scores[:, :, None] + transitions).max(dim=1)
        going = valid[:, frame, None]
        scores = torch.where(going, best + emissions[:, frame], scores)
        choices.append(torch.where(going, choice, torch.arange(num_states, device=choice.device)))
    total, state = (scores + (zero if final is None else final)).max(dim=1)
    path = [state]
    for choice in reversed(choices):
        state = choice.gather(1, state[:, None])[:, 0]
        path.append(state)
    return torch.stack(path[::-1], dim=1).masked_fill(~valid, 0), total
