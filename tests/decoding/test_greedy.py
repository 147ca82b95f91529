import itertools
import math

import pytest
import torch

from sonorant.core.errors import DataError
from sonorant.decoding.greedy import ctc_greedy
from sonorant.decoding.hypothesis import spelled_out, words_of

SYMBOLS = ("", "|", "a", "b")


def test_equals_a_loop_over_frames() -> None:
    torch.manual_seed(0)
    log_probs = (2 * torch.randn(5, 40, 6)).log_softmax(-1)
    lengths = torch.tensor([40, 17, 1, 0, 33])
    for item, hypothesis in enumerate(ctc_greedy(log_probs, lengths)):
        frames = log_probs[item, : int(lengths[item])]
        tokens, spans, confidences, position = [], [], [], 0
        for label, run in itertools.groupby(frames.argmax(-1).tolist()):
            size = len(list(run))
            if label != 0:
                tokens.append(label)
                spans.append((position, position + size))
                confidences.append(float(frames[position : position + size, label].exp().mean()))
            position += size
        assert hypothesis.tokens == tuple(tokens)
        assert hypothesis.frames == tuple(spans)
        assert hypothesis.confidences == pytest.approx(confidences, abs=1e-6)
        assert hypothesis.score == pytest.approx(float(frames.amax(-1).sum()) if len(frames) else 0.0, abs=1e-4)


def test_text_and_words() -> None:
    labels = torch.tensor([[2, 2, 0, 2, 1, 1, 3, 0, 0]])
    log_probs = torch.nn.functional.one_hot(labels, 4).float().mul(8).log_softmax(-1)
    (hypothesis,) = ctc_greedy(log_probs, torch.tensor([8]), symbols=SYMBOLS)
    assert hypothesis.text == "aa b"
    assert [(word.text, word.start, word.end) for word in hypothesis.words] == [("aa", 0, 4), ("b", 6, 7)]
    assert all(0.9 < word.score < 1 for word in hypothesis.words)


def test_words_of_pieces() -> None:
    symbols = ("", "▁he", "llo", "▁", "▁a")
    frames = [(0, 1), (2, 4), (5, 6), (6, 7), (9, 12)]
    words = words_of([1, 2, 4, 3, 2], frames, symbols, [1.0, 0.5, 1.0, 0.1, 0.3])
    assert [(w.text, w.start, w.end, w.score) for w in words] == [
        ("hello", 0, 4, 0.75),
        ("a", 5, 6, 1.0),
        ("llo", 9, 12, 0.3),
    ]
    assert spelled_out([1, 2, 4, 3, 2], symbols) == "hello a llo"


def test_padding_never_matters() -> None:
    log_probs = torch.randn(1, 9, 4).log_softmax(-1)
    dirty = torch.cat([log_probs, torch.full((1, 3, 4), math.nan)], dim=1)
    assert ctc_greedy(dirty, torch.tensor([9])) == ctc_greedy(log_probs, torch.tensor([9]))


@pytest.mark.parametrize(
    "log_probs, lengths, message",
    [
        (torch.zeros(1, 3, 5), [3], "have 5 entries and the vocabulary 4"),
        (torch.zeros(1, 3, 4), [4], r"lengths must lie in \[0, 3\]"),
        (torch.full((2, 3, 4), math.nan), [0, 2], "item 1 hold NaN"),
        (torch.ones(1, 3, 4), [3], "log_softmax is missing"),
    ],
)
def test_refuses_what_does_not_fit(log_probs: torch.Tensor, lengths: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ctc_greedy(log_probs, torch.tensor(lengths), symbols=SYMBOLS)
