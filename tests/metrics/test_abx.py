from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from tests.contracts.metrics import check_metric

from sonorant.core.errors import ConfigError, DataError
from sonorant.core.lengths import pad
from sonorant.metrics.abx import Abx, dtw_distances, frame_distances

DRAWS = torch.Generator().manual_seed(0)
PHONES = ("a", "e", "i", "o")


def item(phone: str, speaker: int, spread: float, voice: float = 0.0) -> Any:
    """Frames around the phone's direction, and, by `voice`, around the speaker's."""
    centre = torch.zeros(8)
    centre[PHONES.index(phone)] = 1.0
    centre[4 + speaker] = voice
    frames = 3 + int(torch.randint(5, (1,), generator=DRAWS))
    return (phone, "b_t", f"s{speaker}"), centre + spread * torch.randn(frames, 8, generator=DRAWS)


def items(spread: float, voice: float = 0.0, count: int = 3) -> list[Any]:
    return [item(phone, speaker, spread, voice) for phone, speaker, _ in product(PHONES, range(3), range(count))]


def scored(mode: str, rows: list[Any], **options: Any) -> Any:
    metric = Abx(mode, **options)  # type: ignore[arg-type]
    for reference, frames in rows:
        metric.update(reference, frames)
    return metric.score()


@pytest.mark.parametrize("mode", ["within", "across"])
def test_contract(mode: Any) -> None:
    check_metric(lambda: Abx(mode, max_items=3), items(0.4), perfect=items(0.0), best=0.0)


def cheapest(cost: np.ndarray) -> tuple[float, int]:
    """By recursion over all paths."""
    if cost.shape == (1, 1):
        return float(cost[0, 0]), 1
    before = [cost[:-1, :-1], cost[:-1], cost[:, :-1]]
    total, steps = min(cheapest(part) for part in before if part.size)
    return total + float(cost[-1, -1]), steps + 1


@pytest.mark.parametrize("distance", ["angular", "cosine", "euclidean"])
def test_warping_finds_the_cheapest_of_all_paths_whatever_stands_in_the_padding(distance: Any) -> None:
    sizes = [(1, 1), (1, 4), (3, 3), (5, 2), (4, 5)]
    left, right = ([torch.randn(size[side], 6, generator=DRAWS) for size in sizes] for side in (0, 1))
    sides = [pad(part, value=7.0) for part in (left, right)]
    found = dtw_distances(*sides[0], *sides[1], distance=distance)
    for value, a, b in zip(found.tolist(), left, right, strict=True):
        total, steps = cheapest(frame_distances(a[None], b[None], distance)[0].double().numpy())
        assert value == pytest.approx(total / steps, abs=1e-5)


def test_a_stretched_sound_is_the_same_sound() -> None:
    frames = torch.randn(4, 6, generator=DRAWS)
    slow = frames.repeat_interleave(3, dim=0)
    found = dtw_distances(frames[None], torch.tensor([4]), slow[None], torch.tensor([12]), "cosine")
    assert float(found) == pytest.approx(0, abs=1e-6)


def test_noise_is_at_chance_and_voices_disturb_across_speakers_only() -> None:
    noise = scored("within", [(name, torch.randn_like(frames)) for name, frames in items(0.0, count=12)], max_items=12)
    assert noise.value == pytest.approx(0.5, abs=0.06)
    plain, voiced = items(0.35, count=5), items(0.35, voice=1.5, count=5)
    assert scored("within", voiced).value < 0.25
    assert scored("across", voiced).value > 3 * scored("across", plain).value


def test_contexts_count_evenly_and_are_not_mixed() -> None:
    """In one context the phones are exchanged: each is clear by itself, and together they would contradict each other."""
    other = {"a": "e", "e": "a"}
    rows = [row for row in items(0.05) if row[0][0] in other]
    swapped = [((other[phone], "p_k", speaker), frames) for (phone, _, speaker), frames in rows]
    assert scored("within", rows + swapped).value == 0
    together = [((phone, "any", speaker), frames) for (phone, _, speaker), frames in rows + swapped]
    assert scored("within", together, max_items=10).value > 0.3


def test_stretches_do_not_keep_what_they_were_cut_from() -> None:
    metric = Abx()
    batch = torch.randn(4, 500, 8, requires_grad=True)
    metric.update(("a", "", "s"), batch[1, 20:23])
    ((kept,),) = metric._cells.values()
    assert kept.untyped_storage().nbytes() == 3 * 8 * 4
    assert not kept.requires_grad


def test_fewer_items_are_chosen_by_content_and_refusals() -> None:
    rows = items(0.5, count=8)
    assert scored("across", rows, max_items=2) == scored("across", rows[::-1], max_items=2)
    assert scored("across", rows, max_items=2, seed=1) != scored("across", rows, max_items=2)
    with pytest.raises(DataError, match="no triple"):
        scored("within", [row for row in rows if row[0][0] == "a"])
    with pytest.raises(DataError, match="finite frames"):
        Abx().update(("a", "", "s"), torch.zeros(0, 3))
    with pytest.raises(TypeError):
        Abx().update("a", torch.zeros(1, 3))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_items"):
        Abx(max_items=0)
