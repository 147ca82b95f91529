"""Made-up text with the word frequencies and the repetition of a real one."""

import random


def zipf_lines(count: int, num_words: int = 300, seed: int = 0) -> list[str]:
    """Sentences of a random walk: each word prefers a few followers, so that longer n-grams help."""
    generator = random.Random(seed)
    habits = random.Random(77)  # the same language for every seed
    words = [f"w{index}" for index in range(num_words)]
    weights = [1 / (rank + 2) for rank in range(num_words)]
    followers = {word: habits.choices(words, weights, k=6) for word in words}
    lines = []
    for _ in range(count):
        sentence = generator.choices(words, weights)
        while generator.random() < 0.9 and len(sentence) < 30:
            likely = generator.random() < 0.7
            sentence += [generator.choice(followers[sentence[-1]])] if likely else generator.choices(words, weights)
        lines.append(" ".join(sentence))
    return lines
