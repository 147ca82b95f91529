"""Forced alignment: the best CTC path that spells given tokens, for a whole batch at once.

The forward pass stores the scores of all states and finds the choices afterwards in one operation over all frames, so a
frame costs four small operations; the way back costs two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.core.ctc import check_targets, ctc_states, frames_needed
from sonorant.core.errors import DataError
from sonorant.core.lengths import padding_mask, valid_mask
from sonorant.decoding.hypothesis import Word, check_scores, words_of

__all__ = ["Alignment", "ctc_align"]

_NEVER = float("-inf")


@dataclass(frozen=True)
class Alignment:
    """Where each token of each item lies."""

    tokens: Int[Tensor, "batch token"]
    tokens_lengths: Int[Tensor, " batch"]
    starts: Int[Tensor, "batch token"]
    """First frame of each token; 0 in the padding."""
    ends: Int[Tensor, "batch token"]
    """The frame after its last."""
    scores: Float[Tensor, "batch token"]
    """Mean probability of the token over its frames, in [0, 1]."""
    log_likelihoods: Float[Tensor, " batch"]
    """Log-probability of the best path."""
    labels: Int[Tensor, "batch frame"]
    """The label of each frame, blanks included; blank in the padding."""

    def spans(self, item: int) -> list[tuple[int, int]]:
        """First frame and frame after the last of each token of one item."""
        count = int(self.tokens_lengths[item])
        return list(zip(self.starts[item, :count].tolist(), self.ends[item, :count].tolist(), strict=True))

    def words(self, item: int, symbols: Sequence[str]) -> tuple[Word, ...]:
        """The tokens of one item gathered into words."""
        count = int(self.tokens_lengths[item])
        tokens, scores = self.tokens[item, :count].tolist(), self.scores[item, :count].tolist()
        return words_of(tokens, self.spans(item), symbols, scores)


def _best_states(emissions: Tensor, skips: Tensor, lengths: Tensor, num_states: Tensor) -> tuple[Tensor, Tensor]:
    """Viterbi over `emissions (frame, batch, state)`: the state of each frame `(frame, batch)`, and the path's score."""
    num_frames, batch, width = emissions.shape
    table = emissions.new_full((num_frames, batch, width + 2), _NEVER)  # two impossible states in front
    table[0, :, 2:4] = emissions[0, :, :2]
    barrier = torch.zeros_like(emissions[0]).masked_fill_(~skips, _NEVER)
    best = torch.empty_like(barrier)
    stays, moves, jumps = (table[:, :, 2 - back : width + 2 - back].unbind(0) for back in range(3))
    for frame, emission in enumerate(emissions.unbind(0)[1:]):
        torch.add(jumps[frame], barrier, out=best)
        torch.maximum(best, moves[frame], out=best)
        torch.maximum(best, stays[frame], out=best)
        torch.add(best, emission, out=stays[frame + 1])
    # How many states back the best predecessor lies, for all frames at once; ties stay where they are.
    stay, move, jump = table[:-1, :, 2:], table[:-1, :, 1:-1], table[:-1, :, :-2] + barrier
    back = torch.where(jump > torch.maximum(stay, move), 2, (move > stay).to(torch.uint8)).to(torch.uint8)
    rows = torch.arange(batch, device=emissions.device)
    last = (lengths - 1).clamp(min=0)
    token_end, blank_end = (table[last, rows, num_states + offset] for offset in (0, 1))
    state = num_states - 1 - (token_end > blank_end).to(num_states.dtype)
    path = torch.empty((num_frames, batch), dtype=torch.long, device=emissions.device)
    going = (torch.arange(num_frames, device=emissions.device)[:, None] <= last[None, :]).unbind(0)
    for frame in range(num_frames - 1, -1, -1):
        path[frame] = state
        if frame:
            step = back[frame - 1].gather(1, state[:, None])[:, 0].to(state.dtype)
            state = state - step * going[frame]  # a shorter item waits in its last state until its last frame
    return path, torch.maximum(token_end, blank_end)


def ctc_align(
    log_probs: Float[Tensor, "batch frame vocab"],
    lengths: Int[Tensor, " batch"],
    tokens: Int[Tensor, "batch token"],
    tokens_lengths: Int[Tensor, " batch"],
    blank_id: int = 0,
    ids: Sequence[str] = (),
) -> Alignment:
    """The best path through each item that spells its tokens.

    Args:
        log_probs: logarithms of probabilities; what stands in the padding does not matter.
        lengths: frames of each item.
        tokens: what is to be found, padded with anything.
        tokens_lengths: tokens of each item.
        blank_id: index of the blank.
        ids: names of the items, for messages.

    Raises:
        DataError: an item has too few frames for its tokens, or one of the inputs does not fit.

    >>> scores = torch.tensor([[[0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.9, 0.1]]]).log()
    >>> ctc_align(scores, torch.tensor([4]), torch.tensor([[1]]), torch.tensor([1])).spans(0)
    [(1, 3)]
    """
    check_scores(log_probs, lengths)
    check_targets(log_probs.shape[1], log_probs.shape[2], lengths, tokens, tokens_lengths, blank_id)
    _check_feasible(lengths, tokens, tokens_lengths, ids)
    if tokens.shape[1] == 0:
        tokens = tokens.new_full((len(tokens), 1), blank_id)
    padding = padding_mask(lengths, log_probs.shape[1])
    labels, skips = ctc_states(tokens, blank_id)
    index = labels[:, None, :].expand(-1, log_probs.shape[1], -1)
    emissions = torch.gather(log_probs, 2, index).masked_fill_(padding[..., None], 0).transpose(0, 1).contiguous()
    path, scores = _best_states(emissions, skips, lengths, 2 * tokens_lengths + 1)
    path = path.t()  # (batch, frame)
    frame_labels = torch.gather(labels, 1, path).masked_fill(padding, blank_id)
    frame_probs = torch.gather(emissions.transpose(0, 1), 2, path[..., None])[..., 0].exp()
    starts, ends, means = _spans(path, frame_probs, ~padding, tokens.shape[1])
    outside = ~valid_mask(tokens_lengths, tokens.shape[1])
    starts, ends, means = (values.masked_fill(outside, 0) for values in (starts, ends, means))
    return Alignment(tokens, tokens_lengths, starts, ends, means, scores, frame_labels)


def _check_feasible(lengths: Tensor, tokens: Tensor, tokens_lengths: Tensor, ids: Sequence[str]) -> None:
    needed = frames_needed(tokens, tokens_lengths)
    short = (lengths < needed).nonzero().flatten().tolist()
    if short:
        item = short[0]
        name = f"'{ids[item]}'" if ids else str(item)
        raise DataError(
            f"{len(short)} of {len(lengths)} items cannot be aligned; item {name} has {int(lengths[item])} frames and needs "
            f"{int(needed[item])} for {int(tokens_lengths[item])} tokens"
        )


def _spans(path: Tensor, probs: Tensor, valid: Tensor, num_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """First frame, frame after the last, and mean probability of each token, from the state of each frame."""
    batch, num_frames = path.shape
    # Token n is state 2n + 1; blanks and padding are counted in a column that is cut off.
    column = torch.where((path % 2 == 1) & valid, path // 2, num_tokens)
    steps = torch.arange(num_frames, device=path.device).expand(batch, -1)
    starts = path.new_full((batch, num_tokens + 1), num_frames).scatter_reduce_(1, column, steps, "amin")
    ends = path.new_zeros((batch, num_tokens + 1)).scatter_reduce_(1, column, steps + 1, "amax")
    sums = probs.new_zeros((batch, num_tokens + 1)).scatter_add_(1, column, probs)
    means = sums / (ends - starts).clamp(min=1).to(sums.dtype)
    return starts[:, :-1], ends[:, :-1], means[:, :-1]
