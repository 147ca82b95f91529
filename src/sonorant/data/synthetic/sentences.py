"""Sentences from meanings: commands with intents and slots, numbers, and facts of a small world, in four languages.

A `Meaning` knows no language; `realise` says it in one, with articles, cases and agreement, so that the four sentences
of one meaning are true translations of each other. Read in this order: `FRAMES` (what can be said), `forms` (how a slot's
value looks in each case), `draw`, `partition`, `Vocabulary`.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product
from typing import Any

from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.seed import derive
from sonorant.data.synthetic.lexicon import CITIES, COLOURS, DAYS, GENRES, LANGUAGES, NAMES, NOUNS, Noun, noun
from sonorant.data.synthetic.numerals import numeral

__all__ = ["FRAMES", "GRAMMARS", "Frame", "Meaning", "draw", "forms", "grammar_words", "partition", "realise"]

GRAMMARS = ("commands", "numbers", "world", "free")


@dataclass(frozen=True)
class Meaning:
    """What is said: a frame and the values of its slots; `free` sentences bear their words in the only slot."""

    frame: str
    slots: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        return "\x1e".join([self.frame, *(f"{name}={value}" for name, value in self.slots)])


@dataclass(frozen=True)
class Frame:
    """A kind of sentence: its slots (name → kind of value) and how each language says it."""

    grammar: str
    slots: Mapping[str, str]
    templates: Mapping[str, str]


def _frame(grammar: str, slots: str, en: str, fr: str, es: str, de: str) -> Frame:
    pairs = (slot.partition(":") for slot in slots.split())
    return Frame(grammar, {name: kind or name for name, _, kind in pairs}, {"en": en, "fr": fr, "es": es, "de": de})


FRAMES: dict[str, Frame] = {
    "switch_on": _frame(
        "commands", "device room", "turn on {device[the]} {room[in]}", "allume {device[the]} {room[in]}",
        "enciende {device[the]} {room[in]}", "schalte {device[acc]} {room[in]} ein"),
    "switch_off": _frame(
        "commands", "device room", "turn off {device[the]} {room[in]}", "éteins {device[the]} {room[in]}",
        "apaga {device[the]} {room[in]}", "schalte {device[acc]} {room[in]} aus"),
    "open": _frame(
        "commands", "opening room", "open {opening[the]} {room[in]}", "ouvre {opening[the]} {room[in]}",
        "abre {opening[the]} {room[in]}", "öffne {opening[acc]} {room[in]}"),
    "close": _frame(
        "commands", "opening room", "close {opening[the]} {room[in]}", "ferme {opening[the]} {room[in]}",
        "cierra {opening[the]} {room[in]}", "schließe {opening[acc]} {room[in]}"),
    "set_level": _frame(
        "commands", "device percent", "set {device[the]} to {percent[bare]} percent",
        "règle {device[the]} à {percent[bare]} pour cent", "pon {device[the]} al {percent[bare]} por ciento",
        "stelle {device[acc]} auf {percent[bare]} Prozent"),
    "set_timer": _frame(
        "commands", "minutes room", "set a timer for {minutes[m]} minutes {room[in]}",
        "mets un minuteur de {minutes[f]} minutes {room[in]}",
        "pon un temporizador de {minutes[m]} minutos {room[in]}",
        "stelle einen Timer auf {minutes[f]} Minuten {room[in]}"),
    "set_alarm": _frame(
        "commands", "day hour", "wake me on {day[bare]} at {hour[bare]} o'clock",
        "réveille moi {day[bare]} à {hour[f]} heures", "despiértame el {day[bare]} a las {hour[bare]}",
        "weck mich am {day[bare]} um {hour[n]} Uhr"),
    "weather": _frame(
        "commands", "city day", "what is the weather in {city[bare]} on {day[bare]}",
        "quel temps fait il à {city[bare]} {day[bare]}", "qué tiempo hace en {city[bare]} el {day[bare]}",
        "wie ist das Wetter in {city[bare]} am {day[bare]}"),
    "play": _frame(
        "commands", "genre room", "play {genre[bare]} {room[in]}", "joue {genre[bare]} {room[in]}",
        "pon {genre[bare]} {room[in]}", "spiele {genre[bare]} {room[in]}"),
    "call": _frame(
        "commands", "name hour", "call {name[bare]} at {hour[bare]} o'clock",
        "appelle {name[bare]} à {hour[f]} heures", "llama a {name[bare]} a las {hour[bare]}",
        "ruf {name[bare]} um {hour[n]} Uhr an"),
    "add_to_list": _frame(
        "commands", "items", "add {items[bare]} to the list", "ajoute {items[bare]} à la liste",
        "añade {items[bare]} a la lista", "setze {items[bare]} auf die Liste"),
    "digits": _frame(
        "numbers", "digits", "the code is {digits[bare]}", "le code est {digits[bare]}", "el código es {digits[bare]}",
        "der Code ist {digits[bare]}"),
    "spoken_digits": _frame("numbers", "digits", *["{digits[bare]}"] * 4),
    "sum": _frame(
        "numbers", "first:sum", "{first[left]} plus {first[right]} is {first[both]}",
        "{first[left]} plus {first[right]} font {first[both]}", "{first[left]} más {first[right]} son {first[both]}",
        "{first[left]} plus {first[right]} ist {first[both]}"),
    "range": _frame(
        "numbers", "low:number high:number", "from {low[bare]} to {high[bare]}", "de {low[bare]} à {high[bare]}",
        "de {low[bare]} a {high[bare]}", "von {low[bare]} bis {high[bare]}"),
    "time": _frame(
        "numbers", "hour minute", "it is {hour[bare]} {minute[bare]}", "il est {hour[f]} heures {minute[f]}",
        "son las {hour[bare]} {minute[bare]}", "es ist {hour[n]} Uhr {minute[bare]}"),
    "is_at": _frame(
        "world", "thing spot", "{thing[the]} is {spot[at]}", "{thing[the]} est {spot[at]}",
        "{thing[the]} está {spot[at]}", "{thing[the]} ist {spot[at]}"),
    "where": _frame(
        "world", "thing", "where is {thing[the]}", "où est {thing[the]}", "dónde está {thing[the]}",
        "wo ist {thing[the]}"),
    "costs": _frame(
        "world", "thing price", "{thing[the]} costs {price[euros]}", "{thing[the]} coûte {price[euros]}",
        "{thing[the]} cuesta {price[euros]}", "{thing[the]} kostet {price[euros]}"),
    "how_much": _frame(
        "world", "thing", "how much does {thing[the]} cost", "combien coûte {thing[the]}", "cuánto cuesta {thing[the]}",
        "wie viel kostet {thing[the]}"),
    "has": _frame(
        "world", "name things", "{name[bare]} has {things[bare]}", "{name[bare]} a {things[bare]}",
        "{name[bare]} tiene {things[bare]}", "{name[bare]} hat {things[bare]}"),
    "sees": _frame(
        "world", "name thing spot", "{name[bare]} sees {thing[a]} {spot[at]}", "{name[bare]} voit {thing[a]} {spot[at]}",
        "{name[bare]} ve {thing[a]} {spot[at]}", "{name[bare]} sieht {thing[a]} {spot[at]}"),
    "gives": _frame(
        "world", "name thing to:name", "{name[bare]} gives {thing[the]} to {to[bare]}",
        "{name[bare]} donne {thing[the]} à {to[bare]}", "{name[bare]} da {thing[the]} a {to[bare]}",
        "{name[bare]} gibt {to[bare]} {thing[acc]}"),
    "larger": _frame(
        "world", "thing other:thing", "{thing[the]} is larger than {other[the]}",
        "{thing[the]} est plus {thing[large]} que {other[the]}", "{thing[the]} es más grande que {other[the]}",
        "{thing[the]} ist größer als {other[the]}"),
}  # fmt: skip
"""Name (the intent) → frame."""

RELATIONS = {
    "under": ("under", "sous", "debajo de", "unter"),
    "behind": ("behind", "derrière", "detrás de", "hinter"),
    "next to": ("next to", "à côté de", "al lado de", "neben"),
    "in front of": ("in front of", "devant", "delante de", "vor"),
}
_SPREAD = {"number": 100, "percent": 100, "price": 99, "minutes": 59, "minute": 59, "hour": 12}
_LOWEST = {"number": 0, "percent": 1, "price": 1, "minutes": 2, "minute": 1, "hour": 2}


@lru_cache(maxsize=4096)
def values(kind: str, size: int) -> Sequence[str]:
    """The values that a slot of this kind takes when each table is cut to `size` entries (numbers to 4 × size)."""
    if kind in NOUNS:
        return NOUNS[kind][:size]
    tables: dict[str, Mapping[str, Any]] = {"city": CITIES, "day": DAYS, "genre": GENRES, "name": NAMES}
    if kind in tables:
        return tuple(tables[kind])[:size]
    if kind in _SPREAD:
        low, high = _LOWEST[kind], min(_SPREAD[kind], max(12, 4 * size))
        return tuple(str(number) for number in range(low, high + 1))
    if kind == "thing":
        return tuple(f"{colour} {thing}" for colour, thing in product(tuple(COLOURS)[:size], NOUNS["object"][:size]))
    if kind == "spot":
        return tuple(f"{relation}|{place}" for relation, place in product(RELATIONS, NOUNS["place"][:size]))
    if kind == "items":
        return tuple(f"{count} {item}" for count, item in product(range(2, 13), NOUNS["item"][:size]))
    if kind == "things":
        return tuple(f"{count} {thing}" for count, thing in product(range(2, 13), values("thing", size)))
    if kind == "sum":
        largest = _largest_sum(size)
        return tuple(f"{a} {b}" for a in range(1, largest) for b in range(1, largest - a + 1))
    raise ConfigError(unknown_name("kind of slot", kind, {*NOUNS, *tables, *_SPREAD, "thing", "spot", "digits"}))


def _largest_sum(size: int) -> int:
    return min(99, max(12, 4 * size))


def draw(grammar: str, size: int, random: random.Random) -> Meaning:
    """A meaning of a grammar, with tables cut to `size` entries."""
    name = random.choice(_names(grammar))
    slots = []
    for slot, kind in FRAMES[name].slots.items():
        if kind == "digits":
            value = "".join(random.choices("0123456789", k=random.randint(3, 8)))
        else:
            value = random.choice(values(kind, size))
        slots.append((slot, value))
    return Meaning(name, tuple(slots))


@cache
def _names(grammar: str) -> tuple[str, ...]:
    return tuple(name for name, frame in FRAMES.items() if frame.grammar == grammar)


def realise(meaning: Meaning, language: str) -> str:
    """The meaning in words, without punctuation; German nouns and names bear their capitals.

    >>> red_ball = Meaning("is_at", (("thing", "red ball"), ("spot", "under|table")))
    >>> [realise(red_ball, language) for language in ("en", "fr")]
    ['the red ball is under the table', 'le ballon rouge est sous la table']
    >>> [realise(red_ball, language) for language in ("es", "de")]
    ['la pelota roja está debajo de la mesa', 'der rote Ball ist unter dem Tisch']
    """
    frame = FRAMES[meaning.frame]
    filled = {name: forms(frame.slots[name], value, language) for name, value in meaning.slots}
    return frame.templates[language].format(**filled)


def partition(meaning: Meaning, seed: int = 0, shares: Sequence[float] = (0.8, 0.1, 0.1)) -> int:
    """The split a meaning belongs to, by a hash: the same in every language and for every voice."""
    point, edge = derive(seed, "partition", meaning.key) / 2**63, 0.0
    for split, share in enumerate(shares):
        edge += share
        if point < edge:
            return split
    return len(shares) - 1


@lru_cache(maxsize=65536)
def forms(kind: str, value: str, language: str) -> Mapping[str, str]:
    """How a slot's value looks in each grammatical place of the templates."""
    if kind in NOUNS:
        return _noun_forms(noun(kind, value, language), language)
    if kind in ("city", "day", "genre", "name"):
        return {"bare": {"city": CITIES, "day": DAYS, "genre": GENRES, "name": NAMES}[kind][value][language]}
    if kind == "digits":
        return {"bare": " ".join(numeral(int(digit), language) for digit in value)}
    if kind == "sum":
        left, right = (int(part) for part in value.split())
        return {name: numeral(n, language) for name, n in (("left", left), ("right", right), ("both", left + right))}
    if kind in _SPREAD:
        return _number_forms(int(value), language)
    if kind == "thing":
        colour, _, thing = value.partition(" ")
        return _thing_forms(noun("object", thing, language), COLOURS[colour][language], language)
    if kind == "spot":
        relation, _, place = value.partition("|")
        return {"at": _at(relation, noun("place", place, language), language)}
    count, _, rest = value.partition(" ")
    if kind == "items":
        item = noun("item", rest, language)
        return {"bare": f"{numeral(int(count), language, item.gender)} {item.plural}"}
    colour, _, thing = rest.partition(" ")
    return {"bare": _several(int(count), noun("object", thing, language), COLOURS[colour][language], language)}


def _number_forms(number: int, language: str) -> Mapping[str, str]:
    euros = "euro" if number == 1 else "euros"
    if language == "de":
        euros = "Euro"
    counted = {gender: numeral(number, language, gender) for gender in "mfn"}
    return {"bare": numeral(number, language), "euros": f"{counted['m']} {euros}", **counted}


_ARTICLES = {
    ("fr", "m"): "le", ("fr", "f"): "la", ("es", "m"): "el", ("es", "f"): "la",
    ("de", "m"): "der", ("de", "f"): "die", ("de", "n"): "das",
}  # fmt: skip


def _elides(word: str) -> bool:
    """Whether the French article loses its vowel: before vowels and the mute h, which is the only one in the lexicon."""
    return word[0].lower() in "aâàeéèêiîoôuûyhœ"


def _the(word: Noun, language: str) -> str:
    if language == "en":
        return f"the {word.word}"
    if language == "fr" and _elides(word.word):
        return f"l'{word.word}"
    return f"{_ARTICLES[language, word.gender]} {word.word}"


def _accusative(word: Noun, language: str) -> str:
    return f"den {word.word}" if language == "de" and word.gender == "m" else _the(word, language)


def _dative(word: Noun) -> str:
    return f"{'der' if word.gender == 'f' else 'dem'} {word.word}"


def _noun_forms(word: Noun, language: str) -> Mapping[str, str]:
    if language == "de":
        inside = f"in der {word.word}" if word.gender == "f" else f"im {word.word}"
    else:
        inside = {"en": "in", "fr": "dans", "es": "en"}[language] + f" {_the(word, language)}"
    return {"the": _the(word, language), "acc": _accusative(word, language), "in": inside}


def _at(relation: str, place: Noun, language: str) -> str:
    word = RELATIONS[relation][LANGUAGES.index(language)]
    if language == "de":
        return f"{word} {_dative(place)}"
    phrase = f"{word} {_the(place, language)}"
    return phrase.replace("de le ", "du ").replace("de el ", "del ")


def _adjective(colour: str, gender: str, plural: bool) -> str:
    """French and Spanish tables give masculine, feminine, and their plurals."""
    return colour.split()[2 * plural + (gender == "f")]


def _thing_forms(word: Noun, colour: str, language: str) -> Mapping[str, str]:
    if language == "en":
        article = "an" if colour[0] in "aeiou" else "a"
        return {
            "the": f"the {colour} {word.word}",
            "acc": f"the {colour} {word.word}",
            "a": f"{article} {colour} {word.word}",
        }
    if language == "de":
        golden = colour
        nominative, accusative = f"{golden}e", f"{golden}en" if word.gender == "m" else f"{golden}e"
        indefinite = {"m": f"einen {golden}en", "f": f"eine {golden}e", "n": f"ein {golden}es"}[word.gender]
        article = _ARTICLES["de", word.gender]
        return {
            "the": f"{article} {nominative} {word.word}",
            "acc": f"{'den' if word.gender == 'm' else article} {accusative} {word.word}",
            "a": f"{indefinite} {word.word}",
        }
    adjective = _adjective(colour, word.gender, plural=False)
    the = f"{_the(word, language)} {adjective}"
    article = {"fr": ("un", "une"), "es": ("un", "una")}[language][word.gender == "f"]
    large = "grande" if word.gender == "f" else "grand"
    return {"the": the, "acc": the, "a": f"{article} {word.word} {adjective}", "large": large}


def _several(count: int, word: Noun, colour: str, language: str) -> str:
    number = numeral(count, language, word.gender)
    if language == "en":
        return f"{number} {colour} {word.plural}"
    if language == "de":
        return f"{number} {colour}e {word.plural}"
    return f"{number} {word.plural} {_adjective(colour, word.gender, plural=True)}"


def _representatives(kind: str, size: int) -> Sequence[str]:
    """Values that between them hold every word that the kind's values hold."""
    if kind == "digits":
        return "0123456789"
    if kind == "sum":  # every number on either side, and as the sum
        return [text for n in range(1, _largest_sum(size)) for text in (f"{n} 1", f"1 {n}")]
    if kind == "things":  # two to twelve have one form for all genders
        things = values("thing", size)
        return [*(f"{count} {things[0]}" for count in range(2, 13)), *(f"2 {thing}" for thing in things)]
    return values(kind, size)


@lru_cache(maxsize=1024)
def grammar_words(grammar: str, size: int, language: str) -> frozenset[str]:
    """Every word, in lower case, that the sentences of a grammar can hold when its tables are cut to `size`."""
    found: set[str] = set()
    for name in _names(grammar):
        frame = FRAMES[name]
        for kind in frame.slots.values():
            for value in _representatives(kind, size):
                for form in forms(kind, value, language).values():
                    found.update(form.lower().split())
        fixed = frame.templates[language].lower().split()
        found.update(word for word in fixed if "{" not in word)
    return frozenset(found)
