"""How an n-gram model lies in memory: one sorted array of integers an order, and how to look things up in it.

An n-gram of order n is the pair (its history: an index into order n − 1, its last word). Packed as `history × vocabulary +
word` it is one 64-bit integer at any order, so each order is a sorted array, all n-grams of one history stand together,
and a batch of look-ups is one binary search. Order 1 holds every word, at the index that is its id.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sonorant.core.errors import DataError

__all__ = ["BEGIN", "END", "SPECIAL", "UNKNOWN", "Level", "Nodes", "check_packing", "find", "levels_from_ids", "unpack"]

UNKNOWN, BEGIN, END = 0, 1, 2
"""Ids of <unk>, <s> and </s>."""
SPECIAL = ("<unk>", "<s>", "</s>")

_SORTED_SEARCH = 50_000
"""Look-ups from which sorting the queries first pays: memory is then read in order."""

Nodes = Int[np.ndarray, " ngram"]


@dataclass(frozen=True)
class Level:
    """All n-grams of one order, by rising key."""

    keys: Int[np.ndarray, " ngram"]
    log_probs: Float[np.ndarray, " ngram"]
    """Natural logarithm of p(word | history)."""
    backoffs: Float[np.ndarray, " ngram"]
    """Natural logarithm of the weight by which lower orders are scaled after this n-gram; 0 at the highest order."""

    def __len__(self) -> int:
        return len(self.keys)


def find(keys: Int[np.ndarray, " ngram"], queries: Int[np.ndarray, " query"]) -> Int[np.ndarray, " query"]:
    """Index of each query in the sorted keys, -1 where it is not there."""
    if len(keys) == 0:
        return np.full(len(queries), -1, dtype=np.int64)
    if len(queries) > _SORTED_SEARCH:
        order = np.argsort(queries)
        found = np.empty(len(queries), dtype=np.int64)
        found[order] = np.searchsorted(keys, queries[order])
    else:
        found = np.searchsorted(keys, queries)
    np.minimum(found, len(keys) - 1, out=found)
    found[keys[found] != queries] = -1
    return found


def check_packing(num_histories: int, num_words: int) -> None:
    """Refuses what does not fit into 63 bits."""
    if num_histories * num_words >= 2**63:
        raise DataError(
            f"{num_histories} histories × {num_words} words do not fit into a 64-bit key; limit the vocabulary "
            "(max_words) or cut off rare n-grams (cutoffs)"
        )


def unpack(
    keys: Sequence[Int[np.ndarray, " _"]], order: int, num_words: int, nodes: Int[np.ndarray, " query"]
) -> Int[np.ndarray, "query word"]:
    """Word ids of n-grams, given by their indices at `order`."""
    words = np.empty((len(nodes), order), dtype=np.int64)
    for level in range(order, 1, -1):
        nodes, words[:, level - 1] = np.divmod(keys[level - 1][nodes], num_words)
    words[:, 0] = nodes
    return words


def levels_from_ids(
    ids: Sequence[Int[np.ndarray, "_ _"]],
    log_probs: Sequence[Float[np.ndarray, " _"]],
    backoffs: Sequence[Float[np.ndarray, " _"]],
    num_words: int,
) -> tuple[list[Level], list[Int[np.ndarray, " _"]]]:
    """Levels from n-grams in any order, as rows of word ids; and the permutation that sorted each.

    Raises `DataError` where an n-gram's own beginning is missing, or an n-gram comes twice.
    """
    levels: list[Level] = []
    orders: list[np.ndarray] = []
    for order, rows in enumerate(ids, 1):
        nodes = rows[:, 0].astype(np.int64)
        for position in range(1, order - 1):
            nodes = find(levels[position].keys, nodes * num_words + rows[:, position])
            if (nodes < 0).any():
                row = rows[int(np.argmin(nodes))].tolist()
                raise DataError(f"the {order}-gram of words {row} has no entry for its first {position + 1} words")
        if order > 1:
            check_packing(len(levels[order - 2]) if order > 2 else num_words, num_words)
            nodes = nodes * num_words + rows[:, -1]
        sorting = np.argsort(nodes, kind="stable")
        keys = nodes[sorting]
        if (keys[1:] == keys[:-1]).any():
            row = rows[sorting[int(np.argmax(keys[1:] == keys[:-1]))]].tolist()
            raise DataError(f"the {order}-gram of words {row} comes twice")
        levels.append(Level(keys, log_probs[order - 1][sorting], backoffs[order - 1][sorting]))
        orders.append(sorting)
    return levels, orders
