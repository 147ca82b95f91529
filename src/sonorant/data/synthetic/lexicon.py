"""Words of the small world in English, French, Spanish and German, with gender and plural; the commonest first.

A vocabulary of limited size takes the first entries of each table. A line is one meaning: English plural where it is not
in -s, then for the others `gender word[/plural]`. Nouns of Spanish that begin with a stressed *a* and French words whose
*h* is aspirate are left out: their articles would be exceptions.
"""

from dataclasses import dataclass
from functools import cache

__all__ = ["CITIES", "COLOURS", "DAYS", "GENRES", "LANGUAGES", "NAMES", "NOUNS", "Noun", "noun"]

LANGUAGES = ("en", "fr", "es", "de")

_NOUNS = {
    "device": """
        light | f lumière | f luz | n Licht
        lamp | f lampe | f lámpara | f Lampe
        heating | m chauffage | f calefacción | f Heizung
        radio | f radio | f radio | n Radio
        television | f télévision | f televisión | m Fernseher
        fan | m ventilateur | m ventilador | m Ventilator
        oven | m four | m horno | m Ofen
        computer | m ordinateur | m ordenador | m Computer
        printer | f imprimante | f impresora | m Drucker
        speaker | f enceinte | m altavoz | m Lautsprecher
        kettle | f bouilloire | m hervidor | m Wasserkocher
        alarm | f alarme | f alarma | m Alarm
        camera | f caméra | f cámara | f Kamera
        dryer | m séchoir | f secadora | m Trockner
        pump | f pompe | f bomba | f Pumpe
        screen | m écran | f pantalla | m Bildschirm""",
    "room": """
        kitchen | f cuisine | f cocina | f Küche
        bedroom | f chambre | m dormitorio | n Schlafzimmer
        bathroom | f salle de bain | m baño | n Bad
        garden | m jardin | m jardín | m Garten
        office | m bureau | f oficina | n Büro
        garage | m garage | m garaje | f Garage
        living room | m salon | m salón | n Wohnzimmer
        cellar | f cave | m sótano | m Keller
        hall | m couloir | m pasillo | m Flur
        attic | m grenier | m desván | m Dachboden
        library | f bibliothèque | f biblioteca | f Bibliothek
        workshop | m atelier | m taller | f Werkstatt
        pantry | m cellier | f despensa | f Speisekammer
        studio | m studio | m estudio | n Studio""",
    "opening": """
        door | f porte | f puerta | f Tür
        window | f fenêtre | f ventana | n Fenster
        curtain | m rideau | f cortina | m Vorhang
        cupboard | m placard | m armario | m Schrank
        drawer | m tiroir | m cajón | f Schublade
        gate | m portail | m portón | n Tor
        tap | m robinet | m grifo | m Wasserhahn
        blind | m store | f persiana | f Jalousie
        skylight | f lucarne | f claraboya | f Dachluke
        safe | m coffre | f caja fuerte | m Tresor""",
    "item": """
        apple apples | f pomme | f manzana | m Apfel/Äpfel
        egg | m œuf/œufs | m huevo | n Ei/Eier
        lemon | m citron | m limón/limones | f Zitrone/Zitronen
        onion | m oignon | f cebolla | f Zwiebel/Zwiebeln
        tomato tomatoes | f tomate | m tomate | f Tomate/Tomaten
        potato potatoes | f pomme de terre/pommes de terre | f patata | f Kartoffel/Kartoffeln
        carrot | f carotte | f zanahoria | f Karotte/Karotten
        orange | f orange | f naranja | f Orange/Orangen
        pear | f poire | f pera | f Birne/Birnen
        candle | f bougie | f vela | f Kerze/Kerzen
        peach peaches | f pêche | m melocotón/melocotones | m Pfirsich/Pfirsiche
        cherry cherries | f cerise | f cereza | f Kirsche/Kirschen
        melon | m melon | m melón/melones | f Melone/Melonen
        pencil | m crayon | m lápiz/lápices | m Bleistift/Bleistifte""",
    "object": """
        ball | m ballon | f pelota | m Ball/Bälle
        cup | f tasse | f taza | f Tasse/Tassen
        book | m livre | m libro | n Buch/Bücher
        box boxes | f boîte | f caja | f Kiste/Kisten
        chair | f chaise | f silla | m Stuhl/Stühle
        bottle | f bouteille | f botella | f Flasche/Flaschen
        hat | m chapeau/chapeaux | m sombrero | m Hut/Hüte
        key | f clé | f llave | m Schlüssel/Schlüssel
        bag | m sac | f bolsa | f Tasche/Taschen
        flower | f fleur | f flor/flores | f Blume/Blumen
        car | f voiture | m coche | n Auto/Autos
        bird | m oiseau/oiseaux | m pájaro | m Vogel/Vögel
        cat | m chat | m gato | f Katze/Katzen
        dog | m chien | m perro | m Hund/Hunde
        plate | f assiette | m plato | m Teller/Teller
        shoe | f chaussure | m zapato | m Schuh/Schuhe
        knife knives | m couteau/couteaux | m cuchillo | n Messer/Messer
        spoon | f cuillère | f cuchara | m Löffel/Löffel
        clock | f horloge | m reloj/relojes | f Uhr/Uhren
        ring | f bague | m anillo | m Ring/Ringe
        coat | m manteau/manteaux | m abrigo | m Mantel/Mäntel
        toy | m jouet | m juguete | n Spielzeug/Spielzeuge
        boat | m bateau/bateaux | m barco | n Boot/Boote
        umbrella | m parapluie | m paraguas/paraguas | m Regenschirm/Regenschirme
        basket | m panier | f cesta | m Korb/Körbe
        pillow | m oreiller | f almohada | n Kissen/Kissen""",
    "place": """
        table | f table | f mesa | m Tisch
        bed | m lit | f cama | n Bett
        tree | m arbre | m árbol | m Baum
        house | f maison | f casa | n Haus
        wall | m mur | m muro | f Mauer
        door | f porte | f puerta | f Tür
        window | f fenêtre | f ventana | n Fenster
        bench | m banc | m banco | f Bank
        bridge | m pont | m puente | f Brücke
        church | f église | f iglesia | f Kirche
        school | f école | f escuela | f Schule
        tower | f tour | f torre | m Turm
        sofa | m canapé | m sofá | n Sofa
        fence | f clôture | f valla | m Zaun
        wardrobe | f armoire | m armario | m Schrank
        desk | m bureau | m escritorio | m Schreibtisch""",
}

_COLOURS = """
    red | rouge rouge rouges rouges | rojo roja rojos rojas | rot
    blue | bleu bleue bleus bleues | azul azul azules azules | blau
    green | vert verte verts vertes | verde verde verdes verdes | grün
    black | noir noire noirs noires | negro negra negros negras | schwarz
    white | blanc blanche blancs blanches | blanco blanca blancos blancas | weiß
    yellow | jaune jaune jaunes jaunes | amarillo amarilla amarillos amarillas | gelb
    brown | brun brune bruns brunes | marrón marrón marrones marrones | braun
    grey | gris grise gris grises | gris gris grises grises | grau
    violet | violet violette violets violettes | morado morada morados moradas | violett
    golden | doré dorée dorés dorées | dorado dorada dorados doradas | golden"""

_NAMES = """
    Anna | Anna | Ana | Anna
    Peter | Pierre | Pedro | Peter
    Maria | Marie | María | Maria
    Paul | Paul | Pablo | Paul
    Laura | Laura | Laura | Laura
    Thomas | Thomas | Tomás | Thomas
    Julia | Julie | Julia | Julia
    David | David | David | David
    Clara | Claire | Clara | Klara
    Martin | Martin | Martín | Martin
    Sarah | Sarah | Sara | Sara
    Simon | Simon | Simón | Simon
    Lucas | Lucas | Lucas | Lukas
    Emma | Emma | Emma | Emma
    Daniel | Daniel | Daniel | Daniel
    Sophie | Sophie | Sofía | Sophie"""

_CITIES = """
    Paris | Paris | París | Paris
    London | Londres | Londres | London
    Berlin | Berlin | Berlín | Berlin
    Madrid | Madrid | Madrid | Madrid
    Rome | Rome | Roma | Rom
    Vienna | Vienne | Viena | Wien
    Lisbon | Lisbonne | Lisboa | Lissabon
    Prague | Prague | Praga | Prag
    Athens | Athènes | Atenas | Athen
    Geneva | Genève | Ginebra | Genf
    Brussels | Bruxelles | Bruselas | Brüssel
    Warsaw | Varsovie | Varsovia | Warschau
    Milan | Milan | Milán | Mailand
    Dublin | Dublin | Dublín | Dublin
    Tokyo | Tokyo | Tokio | Tokio
    Munich | Munich | Múnich | München"""

_DAYS = """
    Monday | lundi | lunes | Montag
    Tuesday | mardi | martes | Dienstag
    Wednesday | mercredi | miércoles | Mittwoch
    Thursday | jeudi | jueves | Donnerstag
    Friday | vendredi | viernes | Freitag
    Saturday | samedi | sábado | Samstag
    Sunday | dimanche | domingo | Sonntag"""

_GENRES = """
    jazz | du jazz | jazz | Jazz
    classical music | de la musique classique | música clásica | klassische Musik
    rock | du rock | rock | Rock
    piano music | de la musique de piano | música de piano | Klaviermusik
    opera | de l'opéra | ópera | Oper
    dance music | de la musique de danse | música de baile | Tanzmusik
    folk music | de la musique traditionnelle | música tradicional | Volksmusik
    film music | de la musique de film | música de cine | Filmmusik"""


@dataclass(frozen=True)
class Noun:
    """A noun of one language; `gender` is m, f or n, and empty in English."""

    word: str
    plural: str
    gender: str = ""


def _rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def _plain(table: str) -> dict[str, dict[str, str]]:
    return {row[0].lower(): dict(zip(LANGUAGES, row, strict=True)) for row in _rows(table)}


def _parsed(language: str, cell: str) -> Noun:
    if language == "en":
        words = cell.split()
        plural = words[1] if len(words) == 2 and words[1].endswith("s") and words[1][0] == words[0][0] else f"{cell}s"
        return Noun(words[0] if plural != f"{cell}s" else cell, plural)
    gender, _, forms = cell.partition(" ")
    word, _, plural = forms.partition("/")
    return Noun(word, plural or f"{word}s", gender)


@cache
def _nouns(kind: str) -> dict[str, dict[str, Noun]]:
    parsed = [dict(zip(LANGUAGES, map(_parsed, LANGUAGES, row), strict=True)) for row in _rows(_NOUNS[kind])]
    return {nouns["en"].word: nouns for nouns in parsed}


NOUNS: dict[str, tuple[str, ...]] = {kind: tuple(_nouns(kind)) for kind in _NOUNS}
"""Kind of noun → the meanings (their English words), the commonest first."""
COLOURS = _plain(_COLOURS)
"""Colour → language → forms (masculine, feminine, their plurals; the bare stem in English and German)."""
NAMES, CITIES, DAYS, GENRES = _plain(_NAMES), _plain(_CITIES), _plain(_DAYS), _plain(_GENRES)


def noun(kind: str, meaning: str, language: str) -> Noun:
    """The noun for a meaning.

    >>> noun("object", "knife", "en").plural, noun("object", "hat", "fr")
    ('knives', Noun(word='chapeau', plural='chapeaux', gender='m'))
    """
    return _nouns(kind)[meaning][language]
