"""What CTC's loss, its alignment and the checks on data share: the states of an item, and how many frames it needs.

Graves et al., ICML 2006, https://doi.org/10.1145/1143844.1143891, section 4.1.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sonorant.core.errors import DataError
from sonorant.core.lengths import valid_mask

__all__ = ["check_targets", "ctc_states", "frames_needed"]


def ctc_states(
    tokens: Int[Tensor, "batch token"], blank_id: int = 0
) -> tuple[Int[Tensor, "batch state"], Bool[Tensor, "batch state"]]:
    """Tokens with blanks around them, and the states that may be entered from two states before.

    A token may follow the token before it without a blank between, unless both are the same.

    >>> labels, skips = ctc_states(torch.tensor([[5, 5, 6]]))
    >>> labels.tolist(), skips.int().tolist()
    ([[0, 5, 0, 5, 0, 6, 0]], [[0, 0, 0, 0, 0, 1, 0]])
    """
    batch, count = tokens.shape
    labels = tokens.new_full((batch, 2 * count + 1), blank_id)
    labels[:, 1::2] = tokens
    skips = torch.zeros_like(labels, dtype=torch.bool)
    skips[:, 3::2] = tokens[:, 1:] != tokens[:, :-1]
    return labels, skips


def frames_needed(tokens: Int[Tensor, "batch token"], tokens_lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """The fewest frames that can carry each item: its tokens, and a blank between equal neighbours; 1 at least.

    >>> frames_needed(torch.tensor([[5, 5, 6], [5, 0, 0]]), torch.tensor([3, 1])).tolist()
    [4, 1]
    """
    if tokens.shape[1] == 0:
        return tokens_lengths.clamp(min=1)
    repeats = (tokens[:, 1:] == tokens[:, :-1]) & valid_mask((tokens_lengths - 1).clamp(min=0), tokens.shape[1] - 1)
    return (tokens_lengths + repeats.sum(1)).clamp(min=1)


def check_targets(
    num_frames: int,
    vocab_size: int,
    lengths: Int[Tensor, " batch"],
    tokens: Int[Tensor, "batch token"],
    tokens_lengths: Int[Tensor, " batch"],
    blank_id: int,
) -> None:
    """Refuses lengths that do not fit their tensors, and tokens that are no entry of the vocabulary.

    Waits for the device once; the message is made only when something is wrong.

    Raises:
        DataError: names the first item at fault.
    """
    mask = valid_mask(tokens_lengths, tokens.shape[1])
    bad_frames = (lengths < 0) | (lengths > num_frames)
    bad_counts = (tokens_lengths < 0) | (tokens_lengths > tokens.shape[1])
    bad_tokens = (((tokens < 0) | (tokens >= vocab_size) | (tokens == blank_id)) & mask).any(1)
    if not 0 <= blank_id < vocab_size:
        raise DataError(f"blank_id must lie in [0, {vocab_size}), got {blank_id}")
    if not bool((bad_frames | bad_counts | bad_tokens).any()):
        return
    for name, bad, what in (
        ("lengths", bad_frames, f"must lie in [0, {num_frames}] (frames of log_probs); counted before subsampling?"),
        ("tokens_lengths", bad_counts, f"must lie in [0, {tokens.shape[1]}] (width of tokens)"),
        ("tokens", bad_tokens, f"must lie in [0, {vocab_size}) and not be the blank {blank_id}; another vocabulary?"),
    ):
        items = bad.nonzero().flatten().tolist()
        if items:
            value = {"lengths": lengths, "tokens_lengths": tokens_lengths, "tokens": tokens}[name][items[0]].tolist()
            raise DataError(f"{name} of item {items[0]} {what}; got {value}")
