import pytest

from sonorant.core.errors import DataError
from sonorant.decoding.hypothesis import Hypothesis
from sonorant.decoding.rescore import num_words, rescore, score, tune


def hypothesis(text: str, total: float) -> Hypothesis:
    return Hypothesis((), (), total, text=text)


NBEST = [
    [hypothesis("the cat sad", -1.0), hypothesis("the cat sat", -1.5), hypothesis("cat sat", -2.0)],
    [hypothesis("a dog", -0.5), hypothesis("a fog", -0.6)],
]
REFERENCES = ["the cat sat", "a dog"]
TASTE = {"the cat sad": -9.0, "the cat sat": -4.0, "cat sat": -5.0, "a dog": -2.0, "a fog": -2.2}


def wrong_words(reference: str, text: str) -> float:
    words = reference.split()
    return float(len(set(words) ^ set(text.split())))


def test_each_text_is_asked_for_once() -> None:
    asked: list[str] = []

    def taste(texts: list[str]) -> list[float]:
        asked.extend(texts)
        return [TASTE[text] for text in texts]

    scored = score([*NBEST, NBEST[0]], {"lm": taste, "words": num_words})
    assert sorted(asked) == sorted(TASTE)
    assert scored[0][2].parts == {"lm": -5.0, "words": 2.0}


def test_weights_are_found_and_applied() -> None:
    scored = score(NBEST, {"lm": lambda texts: [TASTE[text] for text in texts], "words": num_words})
    tuned = tune(scored, REFERENCES, wrong_words, {"lm": [0.0, 0.05, 0.2, 1.0], "words": [0.0, 0.5]})
    assert tuned.weights == {"lm": 0.2, "words": 0.0}
    assert (tuned.errors, tuned.first_errors, tuned.oracle_errors) == (0.0, 2.0, 0.0)
    best = [item[0].text for item in rescore(scored, tuned.weights)]
    assert best == REFERENCES
    assert rescore(scored, {"lm": 0.2})[0][0].score == pytest.approx(-1.5 - 0.8)


def test_refusals() -> None:
    with pytest.raises(DataError, match="gave 1 scores for 5 texts"):
        score(NBEST, {"lm": lambda texts: [0.0]})
    with pytest.raises(DataError, match="2 items cannot be tuned on 1"):
        tune(NBEST, ["a"], wrong_words, {})
    with pytest.raises(DataError, match="item 1 has no hypothesis"):
        tune([NBEST[0], []], REFERENCES, wrong_words, {})
