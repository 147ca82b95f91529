"""Connectionist temporal classification (Graves et al., ICML 2006, https://doi.org/10.1145/1143844.1143891).

The forward and the backward variables of a whole batch run side by side in one recurrence over the frames (the backward
ones are the forward ones of the item turned round), so a step costs a handful of small operations whatever the batch.
The gradient is the exact one with respect to `log_probs`: minus the posterior of each label at each frame. torch's own
loss returns `exp(log_probs)` minus it, which is right only under a log-softmax.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sonorant.core.ctc import check_targets, ctc_states, frames_needed
from sonorant.core.errors import DataError
from sonorant.core.lengths import padding_mask
from sonorant.core.types import Loss

__all__ = ["ctc_loss", "ctc_scores"]

_NEVER = float("-inf")


def _recursion(emissions: Float[Tensor, "frame state row"], skips: Bool[Tensor, "state row"]) -> Tensor:
    """Equation 6, in logarithms: all variables, `(frame, 2 + state, row)`, with two impossible states in front.

    States stand before rows, so that a state, its neighbour and the one before that are three contiguous blocks.
    """
    num_frames, num_states, num_rows = emissions.shape
    table = emissions.new_full((num_frames, num_states + 2, num_rows), _NEVER)
    table[0, 2:4] = emissions[0, :2]
    barrier = torch.zeros_like(emissions[0]).masked_fill_(~skips, _NEVER)
    jump, total = torch.empty_like(barrier), torch.empty_like(barrier)
    stays, moves, jumps = (table[:, 2 - back : num_states + 2 - back].unbind(0) for back in range(3))
    for frame, emission in enumerate(emissions.unbind(0)[1:]):
        torch.add(jumps[frame], barrier, out=jump)
        torch.logaddexp(stays[frame], moves[frame], out=total)
        torch.logaddexp(total, jump, out=total)
        torch.add(total, emission, out=stays[frame + 1])
    return table


def _turned(lengths: Tensor, size: int) -> Int[Tensor, "batch size"]:
    """Positions of each item in reverse; those beyond its length stay."""
    steps = torch.arange(size, device=lengths.device)[None, :]
    return torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)


def _spread(log_probs: Float[Tensor, "row frame vocab"], labels: Int[Tensor, "row state"]) -> Tensor:
    """The score of each state at each frame, `(frame, state, row)`: whole columns are copied, which gather cannot."""
    rows, num_frames, vocab_size = log_probs.shape
    columns = labels.t() * rows + torch.arange(rows, device=labels.device)
    flat = log_probs.permute(1, 2, 0).reshape(num_frames, vocab_size * rows)
    return flat.index_select(1, columns.flatten()).view(num_frames, labels.shape[1], rows)


class _Ctc(torch.autograd.Function):
    """(batch, frame, vocab) log-probabilities → (batch,) log-likelihoods."""

    @staticmethod
    def forward(
        ctx: Any, log_probs: Tensor, lengths: Tensor, tokens: Tensor, tokens_lengths: Tensor, blank_id: int
    ) -> Tensor:
        ctx.vocab_size = log_probs.shape[2]
        labels, skips = ctc_states(tokens, blank_id)
        padding = padding_mask(lengths, log_probs.shape[1])
        entries = labels
        if ctx.vocab_size > 2 * labels.shape[1]:  # a large vocabulary: go on with the entries that occur
            log_probs = torch.gather(log_probs, 2, labels[:, None, :].expand(-1, log_probs.shape[1], -1))
            entries = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
        log_probs = log_probs.masked_fill(padding[..., None], 0)
        num_states = 2 * tokens_lengths + 1
        batch = torch.arange(len(lengths), device=lengths.device)
        if ctx.needs_input_grad[0]:
            turns = _turned(lengths, log_probs.shape[1]), _turned(num_states, labels.shape[1])
            turned = torch.gather(log_probs, 1, turns[0][..., None].expand_as(log_probs))
            _, back_skips = ctc_states(torch.gather(labels, 1, turns[1])[:, 1::2], blank_id)
            back_entries = torch.gather(entries, 1, turns[1])
            emissions = _spread(torch.cat([log_probs, turned]), torch.cat([entries, back_entries]))
            table = _recursion(emissions, torch.cat([skips, back_skips]).t())
        else:
            table = _recursion(_spread(log_probs, entries), skips.t())
        last = table[(lengths - 1).clamp(min=0), :, batch]  # (batch, 2 + state)
        ends = torch.stack([num_states + 1, num_states], dim=1)  # last blank and last token, behind the two in front
        result = torch.logsumexp(torch.gather(last, 1, ends), dim=1)
        if ctx.needs_input_grad[0]:
            outside = padding.t()[:, None, :] | padding_mask(num_states, labels.shape[1]).t()[None]
            ctx.save_for_backward(_posterior(table, emissions, turns, result, outside), labels)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        posterior, labels = ctx.saved_tensors
        weighted = posterior.permute(2, 0, 1) * gradients[0][:, None, None]  # (batch, frame, state)
        if ctx.vocab_size <= 128:  # a product with a table of ones is faster than adding entry by entry
            table = torch.nn.functional.one_hot(labels, ctx.vocab_size).to(weighted.dtype)
            return torch.bmm(weighted, table), None, None, None, None
        gradient = posterior.new_zeros(*weighted.shape[:2], ctx.vocab_size)
        gradient.scatter_add_(2, labels[:, None, :].expand_as(weighted), weighted)
        return gradient, None, None, None, None


def _posterior(
    table: Tensor, emissions: Tensor, turns: tuple[Tensor, Tensor], result: Tensor, outside: Tensor
) -> Float[Tensor, "frame state batch"]:
    """Probability of each state at each frame, from the forward variables of items and of turned items."""
    num_frames, num_states, batch = outside.shape
    backwards = table[:, 2:, batch:].gather(0, turns[0].t()[:, None, :].expand(-1, num_states, -1))
    columns = turns[1].t() * batch + torch.arange(batch, device=table.device)
    backwards = backwards.view(num_frames, -1).index_select(1, columns.flatten()).view(outside.shape)
    # Both variables hold the frame's own emission, so one of them is taken off.
    # An item without any alignment has −∞ everywhere; +∞ in place of its sum makes its posteriors 0, not NaN.
    total = result.masked_fill(result == _NEVER, float("inf"))
    joint = backwards.add_(table[:, 2:, :batch]).sub_(emissions[:, :, :batch]).sub_(total)
    return joint.exp_().masked_fill_(outside, 0)


def ctc_scores(
    log_probs: Float[Tensor, "batch frame vocab"],
    lengths: Int[Tensor, " batch"],
    tokens: Int[Tensor, "batch token"],
    tokens_lengths: Int[Tensor, " batch"],
    blank_id: int = 0,
) -> Float[Tensor, " batch"]:
    """Log-likelihood of each item's tokens, summed over all alignments; −∞ where there is none. Differentiable."""
    check_targets(log_probs.shape[1], log_probs.shape[2], lengths, tokens, tokens_lengths, blank_id)
    width = max(1, tokens.shape[1])
    if tokens.shape[1] == 0:
        tokens = tokens.new_full((len(tokens), width), blank_id)
    exact = log_probs if log_probs.dtype in (torch.float32, torch.float64) else log_probs.float()
    scores = _Ctc.apply(exact, lengths, tokens, tokens_lengths, blank_id)
    return scores.masked_fill(lengths < 1, _NEVER)


def ctc_loss(
    log_probs: Float[Tensor, "batch frame vocab"],
    lengths: Int[Tensor, " batch"],
    tokens: Int[Tensor, "batch token"],
    tokens_lengths: Int[Tensor, " batch"],
    blank_id: int = 0,
    *,
    zero_infinity: bool = False,
    ids: Sequence[str] = (),
) -> Loss:
    """Minus the log-likelihood of the tokens, summed over items, over the number of tokens.

    Args:
        log_probs: logarithms of probabilities (log-softmax); what stands in the padding does not matter.
        lengths: frames of each item.
        tokens: targets, padded with anything; none may be the blank.
        tokens_lengths: targets of each item.
        blank_id: index of the blank.
        zero_infinity: leave items out of sum and count that have too few frames for their tokens, and report their
            number in `parts["skipped"]`; otherwise they are an error.
        ids: names of the items, for the message.

    Raises:
        DataError: an item cannot be aligned (it needs a frame for each token and one between equal neighbours), a length
            exceeds its tensor, or a token is not in the vocabulary.

    >>> uniform = torch.full((1, 2, 2), 0.5).log()
    >>> loss = ctc_loss(uniform, torch.tensor([2]), torch.tensor([[1]]), torch.tensor([1]))
    >>> round(float(loss.total.exp()), 4)  # three of the four paths spell the token
    1.3333
    """
    scores = ctc_scores(log_probs, lengths, tokens, tokens_lengths, blank_id)
    impossible = lengths < frames_needed(tokens, tokens_lengths)
    if not zero_infinity and bool(impossible.any()):
        item = int(impossible.nonzero()[0])
        needed = int(frames_needed(tokens, tokens_lengths)[item])
        name = f"'{ids[item]}'" if ids else str(item)
        raise DataError(
            f"{int(impossible.sum())} of {len(lengths)} items cannot be aligned; item {name} has {int(lengths[item])} frames "
            f"and needs {needed} for {int(tokens_lengths[item])} tokens. Thin frames out less, use longer units, or pass "
            f"zero_infinity=True to leave such items out"
        )
    losses = torch.where(impossible, torch.zeros_like(scores), -scores)
    total = losses.sum()
    count = torch.where(impossible, 0, tokens_lengths.clamp(min=1)).sum()
    parts = {"ctc": total.detach(), "skipped": impossible.sum().to(total.dtype)}
    return Loss(total, count, parts)
