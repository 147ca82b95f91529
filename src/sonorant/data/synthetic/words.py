"""Words for free sentences: a few hundred common ones for each language, then invented ones, as many as are asked for."""

from functools import lru_cache

import numpy as np

from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.seed import derive

__all__ = ["free_words"]

_COMMON = {
    "en": """
        time people water day man woman world child life hand part place week year case point work company number group
        problem fact money month lot right study story job word business issue side kind head house service friend
        father mother power hour game line end member law city community name president team minute idea body back
        parent face others level office door health person art war history party result change morning reason research
        girl guy moment air teacher force education foot boy age policy music market sense nation plan college
        interest death experience effect use class control field development role effort rate heart drug show leader
        light voice wife police mind price report decision son hope view town road arm difference value building
        action season society tax director position player record paper space ground form event matter center couple
        site project activity star table need court oil situation cost industry figure street image phone data picture
        practice piece land product doctor wall patient worker news test movie north love support technology step baby
        computer type attention film tree source truth thought summer winter spring river mountain forest island ocean
        bridge garden kitchen window bread butter cheese sugar coffee supper dinner breakfast rabbit horse chicken
        good new first last long great little own other old big high different small large next early young important
        few public bad same able strong open gentle quiet heavy simple narrow bright hungry frozen broken golden
        see come think look want give find tell ask work seem feel try leave call keep let begin help talk turn start
        show hear play run move like live believe hold bring happen write provide sit stand lose pay meet include
        continue set learn change lead understand watch follow stop create speak read allow add spend grow open walk
        win offer remember love consider appear buy wait serve die send expect build stay fall cut reach kill remain""",
    "fr": """
        temps homme femme jour monde enfant vie main chose année pays moment point travail groupe problème fait argent
        mois droit histoire mot côté tête maison service ami père mère force heure jeu ligne fin membre loi ville nom
        équipe minute idée corps visage niveau porte santé personne art guerre parti résultat matin raison recherche
        fille air professeur pied garçon âge politique musique marché sens nation plan intérêt mort effet classe champ
        rôle effort cœur chef lumière voix police esprit prix rapport décision fils espoir vue route bras différence
        valeur action saison société position joueur papier espace sol forme événement centre couple projet activité
        étoile table besoin cour situation industrie rue image pièce terre produit médecin mur nouvelle film arbre
        source vérité été hiver printemps rivière montagne forêt île océan pont jardin cuisine fenêtre pain beurre
        fromage sucre café dîner cheval lapin poulet bon nouveau premier dernier long grand petit autre vieux jeune
        public même fort ouvert doux lourd simple clair froid voir venir penser vouloir donner trouver parler demander
        sembler sentir laisser appeler garder commencer aider tourner montrer entendre jouer courir vivre croire tenir
        porter écrire perdre payer suivre apprendre changer comprendre regarder arrêter lire ouvrir marcher gagner
        offrir acheter attendre servir envoyer rester tomber couper""",
    "es": """
        tiempo hombre mujer día mundo niño vida mano cosa año país momento punto trabajo grupo problema hecho dinero
        mes derecho historia palabra lado cabeza casa servicio amigo padre madre fuerza hora juego línea fin miembro
        ley ciudad nombre equipo minuto idea cuerpo cara nivel puerta salud persona arte guerra partido resultado
        mañana razón niña aire maestro pie edad política música mercado sentido nación plan interés muerte efecto clase
        campo papel esfuerzo corazón jefe luz voz policía mente precio informe decisión hijo esperanza vista camino
        brazo diferencia valor acción sociedad posición jugador espacio suelo forma evento centro pareja proyecto
        actividad estrella mesa corte situación industria calle imagen pieza tierra producto médico pared noticia
        árbol fuente verdad verano invierno primavera río montaña bosque isla océano puente jardín cocina ventana pan
        mantequilla queso azúcar café cena caballo conejo pollo bueno nuevo primero último largo grande pequeño otro
        viejo joven público mismo fuerte abierto suave pesado simple claro frío ver venir pensar querer dar encontrar
        hablar preguntar parecer sentir dejar llamar guardar empezar ayudar girar mostrar oír jugar correr vivir creer
        tener llevar escribir perder pagar seguir aprender cambiar entender mirar parar leer abrir caminar ganar
        ofrecer comprar esperar servir enviar quedar caer cortar""",
    "de": """
        Zeit Mann Frau Tag Welt Kind Leben Hand Sache Jahr Land Augenblick Punkt Arbeit Gruppe Problem Geld Monat Recht
        Geschichte Wort Seite Kopf Haus Dienst Freund Vater Mutter Kraft Stunde Spiel Linie Ende Mitglied Gesetz Stadt
        Name Mannschaft Minute Idee Körper Gesicht Stufe Tür Gesundheit Mensch Kunst Krieg Partei Ergebnis Morgen Grund
        Mädchen Luft Lehrer Fuß Junge Alter Politik Musik Markt Sinn Plan Tod Wirkung Klasse Feld Rolle Mühe Herz Licht
        Stimme Polizei Geist Preis Bericht Sohn Hoffnung Blick Weg Arm Wert Handlung Gesellschaft Lage Spieler Raum
        Boden Form Ereignis Mitte Paar Stern Tisch Hof Straße Bild Stück Erde Ware Arzt Wand Nachricht Film Baum Quelle
        Wahrheit Sommer Winter Frühling Fluss Berg Wald Insel Meer Brücke Garten Küche Fenster Brot Butter Käse Zucker
        Kaffee Pferd Hase Huhn gut neu erst letzt lang groß klein ander alt jung öffentlich selb stark offen sanft
        schwer einfach klar kalt sehen kommen denken wollen geben finden reden fragen scheinen fühlen lassen rufen
        halten beginnen helfen drehen zeigen hören spielen laufen leben glauben tragen schreiben verlieren zahlen
        folgen lernen ändern verstehen schauen lesen öffnen gehen gewinnen bieten kaufen warten dienen senden bleiben
        fallen schneiden""",
}
_ONSETS = {
    "en": "b d f g k l m n p r s t v w br dr gl kr pl st tr sh ch", "fr": "b d f g l m n p r s t v ch br cl dr pl tr",
    "es": "b d f l m n p r s t ch br cl dr pl tr", "de": "b d f g k l m n r s t w sch br dr gl kr pl schl tr",
}  # fmt: skip
_VOWELS = {"en": "a e i o u ee oo ay", "fr": "a é i o u ou an on", "es": "a e i o u", "de": "a e i o u au ei ie"}
_CODAS = {"en": "n m l s t k nd", "fr": "", "es": "n l s r", "de": "n m l t k r ck"}


@lru_cache(maxsize=32)
def free_words(language: str, count: int) -> tuple[str, ...]:
    """The first `count` words: common ones, then invented ones that follow the language's syllables.

    >>> words = free_words("en", 2000)
    >>> len(set(words)), words[:3]
    (2000, ('time', 'people', 'water'))
    """
    if language not in _COMMON:
        raise ConfigError(unknown_name("language of free sentences", language, _COMMON))
    words = dict.fromkeys(_COMMON[language].split())
    attempt = 0
    while len(words) < count:
        words.setdefault(_invented(language, attempt))
        attempt += 1
    return tuple(words)[:count]


def _invented(language: str, number: int) -> str:
    draws = np.random.default_rng(derive(0, "word", language, number))
    onsets, vowels = _ONSETS[language].split(), _VOWELS[language].split()
    codas = ["", "", *_CODAS[language].split()]
    syllables = int(draws.integers(2, 4))
    parts = [onsets[draws.integers(len(onsets))] + vowels[draws.integers(len(vowels))] for _ in range(syllables)]
    return "".join(parts) + codas[draws.integers(len(codas))]
