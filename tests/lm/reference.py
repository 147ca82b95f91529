"""Modified Kneser–Ney straight from the formulas (Chen & Goodman 1998), in dictionaries and loops: slow, and plain."""

from collections import Counter, defaultdict


class Reference:
    """Interpolated model; `prob(word, history)` recurses as eq. 26 does."""

    def __init__(self, lines: list[str], order: int, discounts: list[tuple[float, float, float]]) -> None:
        self.order, self.discounts = order, discounts
        sentences = [["<s>", *line.split(), "</s>"] for line in lines]
        self.vocabulary = {word for sentence in sentences for word in sentence} | {"<unk>"}
        raw = [Counter(gram for s in sentences for gram in _grams(s, n)) for n in range(1, order + 1)]
        self.counts: list[dict] = []
        for n in range(1, order + 1):
            if n == order:
                counts = dict(raw[n - 1])
            else:
                before = defaultdict(set)
                for gram in raw[n]:
                    before[gram[1:]].add(gram[0])
                counts = {gram: raw[n - 1][gram] if gram[0] == "<s>" else len(before[gram]) for gram in raw[n - 1]}
            counts.pop(("<s>",), None)
            self.counts.append(counts)

    def _discount(self, n: int, count: int) -> float:
        return self.discounts[n - 1][min(count, 3) - 1] if count else 0.0

    def prob(self, word: str, history: tuple[str, ...]) -> float:
        history = history[len(history) - min(len(history), self.order - 1) :]
        n = len(history) + 1
        following = {gram[-1]: count for gram, count in self.counts[n - 1].items() if gram[:-1] == history}
        if n == 1:
            lower = 1 / (len(self.vocabulary) - 1)  # all but <s>
        else:
            lower = self.prob(word, history[1:])
        total = sum(following.values())
        if not total:
            return lower
        count = following.get(word, 0)
        left = sum(self._discount(n, other) for other in following.values()) / total
        return (count - self._discount(n, count)) / total + left * lower


def _grams(sentence: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(sentence[i : i + n]) for i in range(len(sentence) - n + 1)]


def discounts_by_formula(counts: list[int]) -> tuple[float, float, float]:
    """Eq. 26's D1, D2, D3+ of one order's counts."""
    n = {k: sum(count == k for count in counts) for k in (1, 2, 3, 4)}
    y = n[1] / (n[1] + 2 * n[2])
    return tuple(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))  # type: ignore[return-value]
