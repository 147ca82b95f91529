"""Sentences: agreement in four languages, closed vocabularies, a partition by meaning."""

import random
from collections import Counter

import pytest

from sonorant.core.errors import DataError
from sonorant.data.synthetic.lexicon import COLOURS, LANGUAGES, NOUNS, noun
from sonorant.data.synthetic.numerals import numeral
from sonorant.data.synthetic.sentences import FRAMES, Meaning, draw, grammar_words, partition, realise, values
from sonorant.data.synthetic.words import free_words


def said(frame: str, **slots: str) -> list[str]:
    return [realise(Meaning(frame, tuple(slots.items())), language) for language in LANGUAGES]


@pytest.mark.parametrize(
    "frame, slots, sentences",
    [
        (
            "switch_on",
            {"device": "oven", "room": "garage"},
            ["turn on the oven in the garage", "allume le four dans le garage", "enciende el horno en el garaje",
             "schalte den Ofen in der Garage ein"],
        ),
        (
            "switch_off",
            {"device": "printer", "room": "office"},
            ["turn off the printer in the office", "éteins l'imprimante dans le bureau",
             "apaga la impresora en la oficina", "schalte den Drucker im Büro aus"],
        ),
        (
            "is_at",
            {"thing": "white bird", "spot": "next to|tree"},
            ["the white bird is next to the tree", "l'oiseau blanc est à côté de l'arbre",
             "el pájaro blanco está al lado del árbol", "der weiße Vogel ist neben dem Baum"],
        ),
        (
            "is_at",
            {"thing": "blue cup", "spot": "next to|bed"},
            ["the blue cup is next to the bed", "la tasse bleue est à côté du lit",
             "la taza azul está al lado de la cama", "die blaue Tasse ist neben dem Bett"],
        ),
        (
            "sees",
            {"name": "anna", "thing": "golden book", "spot": "behind|church"},
            ["Anna sees a golden book behind the church", "Anna voit un livre doré derrière l'église",
             "Ana ve un libro dorado detrás de la iglesia", "Anna sieht ein goldenes Buch hinter der Kirche"],
        ),
        (
            "gives",
            {"name": "peter", "thing": "green hat", "to": "maria"},
            ["Peter gives the green hat to Maria", "Pierre donne le chapeau vert à Marie",
             "Pedro da el sombrero verde a María", "Peter gibt Maria den grünen Hut"],
        ),
        (
            "has",
            {"name": "paul", "things": "2 white knife"},
            ["Paul has two white knives", "Paul a deux couteaux blancs", "Pablo tiene dos cuchillos blancos",
             "Paul hat zwei weiße Messer"],
        ),
        (
            "costs",
            {"thing": "brown key", "price": "31"},
            ["the brown key costs thirty one euros", "la clé brune coûte trente et un euros",
             "la llave marrón cuesta treinta y un euros", "der braune Schlüssel kostet einunddreißig Euro"],
        ),
        (
            "larger",
            {"thing": "red car", "other": "grey dog"},
            ["the red car is larger than the grey dog", "la voiture rouge est plus grande que le chien gris",
             "el coche rojo es más grande que el perro gris", "das rote Auto ist größer als der graue Hund"],
        ),
        (
            "set_timer",
            {"minutes": "21", "room": "kitchen"},
            ["set a timer for twenty one minutes in the kitchen", "mets un minuteur de vingt et une minutes dans la cuisine",
             "pon un temporizador de veintiún minutos en la cocina",
             "stelle einen Timer auf einundzwanzig Minuten in der Küche"],
        ),
    ],
)  # fmt: skip
def test_a_meaning_agrees_in_every_language(frame: str, slots: dict[str, str], sentences: list[str]) -> None:
    assert said(frame, **slots) == sentences


def test_tables_are_complete() -> None:
    for kind, meanings in NOUNS.items():
        assert len(set(meanings)) == len(meanings)
        for meaning in meanings:
            for language in LANGUAGES:
                word = noun(kind, meaning, language)
                assert word.word
                assert word.gender in {"en": {""}, "fr": {"m", "f"}, "es": {"m", "f"}, "de": {"m", "f", "n"}}[language]
    for forms in COLOURS.values():
        assert len(forms["fr"].split()) == len(forms["es"].split()) == 4


def test_every_frame_speaks_every_language() -> None:
    draws = random.Random(0)
    seen = Counter()
    for grammar in ("commands", "numbers", "world") * 150:
        meaning = draw(grammar, 32, draws)
        seen[meaning.frame] += 1
        for language in LANGUAGES:
            text = realise(meaning, language)
            assert "{" not in text
            assert text == " ".join(text.split())
    assert set(seen) == set(FRAMES)


@pytest.mark.parametrize("size", [2, 5, 32])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_vocabulary_is_closed(language: str, size: int) -> None:
    draws = random.Random(size)
    for grammar in ("commands", "numbers", "world"):
        known = grammar_words(grammar, size, language)
        heard = {w for _ in range(400) for w in realise(draw(grammar, size, draws), language).lower().split()}
        assert heard <= known
    assert len(grammar_words("world", 2, language)) < len(grammar_words("world", 32, language))


def test_translations_are_one_to_one() -> None:
    """Two meanings of a frame never sound the same in one language and differ in another."""
    draws = random.Random(3)
    meanings = {draw("world", 10, draws) for _ in range(1500)}
    for language in LANGUAGES:
        assert len({(m.frame, realise(m, language)) for m in meanings}) == len(meanings)


def test_the_partition_follows_its_shares() -> None:
    draws = random.Random(5)
    counts = Counter(partition(draw("world", 20, draws), seed=1) for _ in range(6000))
    assert [round(counts[part] / 6000, 1) for part in range(3)] == [0.8, 0.1, 0.1]


def test_another_seed_is_another_partition() -> None:
    draws = random.Random(5)
    meanings = [draw("world", 20, draws) for _ in range(300)]
    assert [partition(m, 1) for m in meanings] != [partition(m, 2) for m in meanings]


def test_all_numerals_differ() -> None:
    for language in LANGUAGES:
        words = [numeral(number, language) for number in range(101)]
        assert len(set(words)) == 101
    assert numeral(71, "fr") == "soixante et onze"
    assert numeral(80, "fr") == "quatre vingts"
    assert numeral(81, "fr", "f") == "quatre vingt une"
    assert numeral(91, "fr", "f") == "quatre vingt onze"
    assert numeral(16, "de") == "sechzehn"
    assert numeral(61, "de") == "einundsechzig"
    assert numeral(1, "es", "f") == "una"
    with pytest.raises(DataError, match="between 0 and 100"):
        numeral(101, "en")


def test_sums_are_right() -> None:
    for value in values("sum", 6)[:50]:
        left, right = (int(part) for part in value.split())
        assert (
            said("sum", first=value)[0]
            == f"{numeral(left, 'en')} plus {numeral(right, 'en')} is {numeral(left + right, 'en')}"
        )


def test_invented_words_go_on_for_ever() -> None:
    few, many = free_words("es", 300), free_words("es", 3000)
    assert many[:300] == few
    assert len(set(many)) == 3000
    assert all(word.isalpha() for word in many)
