"""A strict parser of prompts of the form "a photo of X in Z".

X names things of the 19 classes on a street, Z ordinary light or weather. Both are checked against
vocabularies: an open one for X, where one named class suffices, and a closed one for Z, where every
word must be known, because "in a park on a sunny day" is a place and not a light.
"""

import dataclasses
import re
import unicodedata

from clouds_jax.data.classes import get_space

CLASSES = get_space("cityscapes19").names

# One line per class, in the order of CLASSES; singular, plurals are formed below.
_NAMES = """
road, street, avenue, boulevard, highway, lane, alley, roadway, crossroad, intersection, crossing,
    crosswalk, roundabout, junction, motorway, bike lane, bus lane, bicycle lane, car lane,
    pedestrian crossing, pedestrian street, zebra crossing
sidewalk, pavement, footpath, walkway, curb, kerb
building, house, skyscraper, apartment, shop, store, storefront, shopfront, office, tower, church,
    school, hotel, restaurant, cafe, bakery, warehouse, facade, townhouse, train station,
    bus station, post office, police station, fire station, apartment block, office block
wall
fence, railing, fencing, guard rail, guardrail
pole, lamppost, lamp post, light post, signal post, flagpole, streetlight, streetlamp,
    street light, street lamp
traffic light, traffic signal, stoplight, stop light, pedestrian light, pedestrian signal
traffic sign, road sign, street sign, stop sign, yield sign, parking sign, warning sign,
    speed limit sign, direction sign, signpost
vegetation, tree, bush, hedge, shrub, plant, foliage, greenery, flower, flower bed, palm
grass, lawn, verge, terrain
sky, cloud
person, people, pedestrian, man, woman, child, boy, girl, kid, crowd, commuter, shopper, walker,
    jogger, runner, family, couple, worker, tourist, officer, passerby, passersby, mother, father,
    student, lady, teenager, friend, street vendor, street musician, street performer,
    street sweeper, road worker
rider, cyclist, bicyclist, biker, motorcyclist
car, taxi, cab, sedan, hatchback, suv, minivan, van, automobile, jeep
truck, lorry, pickup, fire engine
bus, minibus, coach
train, tram, streetcar, locomotive
motorcycle, motorbike, moped, scooter
bicycle, bike
"""
# Compounds that contain the name of a class but name none.
_NO_CLASS = """bus stop, bus shelter, bike rack, bicycle rack, train track, car park, cable car,
    car wash, street food, street art, plant pot, road trip"""

_PLURALS = {"man": "men", "woman": "women", "child": "children"}
_FORMS = ("photo",), ("photo", "picture", "snapshot")  # strict, loose

_LIGHT = frozenset("""
light lighting daylight sunlight sun sunshine sunset sunrise dawn dusk twilight daybreak nightfall
morning noon midday afternoon evening night midnight day moonlight lamplight streetlight
streetlights streetlamps shade shadow shadows dark darkness glow gloom haze weather rain drizzle
downpour shower showers fog mist snow snowfall sleet wind breeze storm thunderstorm overcast
conditions skies hour rainfall
""".split())  # fmt: skip
_QUALITIES = frozenset("""
bright clear soft warm cool cold heavy gentle thick thin dense fine early late golden blue grey gray
pale harsh low high strong weak dim faint diffuse diffused dappled natural even ordinary normal
direct hazy foggy misty rainy snowy sunny cloudy windy stormy wet dry damp humid hot chilly freezing
crisp calm mild fresh moderate steady partly mostly slightly very still filtered fading setting
rising scattered passing broken open muted gloomy dull nice good fine quiet full half first last
deep orange pink yellow falling melting drifting pouring drizzling wintry winter summer spring
autumn fall mid patchy sky clouds cloud sunlit moonlit shady flat hard clean icy frosty cloudless
lightly heavily brightly blowing
""".split())  # fmt: skip
_LINKS = frozenset(
    "a an the with and of after before at on under during from just no some or by over".split()
)
# A description with words of both sets contradicts itself.
_SUN = frozenset("sun sunny sunshine sunlight sunlit midday noon daylight".split())
_GLOOM = frozenset(
    "dark darkness night midnight moonlight moonlit stormy storm cloudy overcast gloom".split()
)
# Words that language models like to add and that are no ordinary street scene.
_ELSEWHERE = frozenset("""
beach ocean sea mountain forest desert jungle field river lake island canyon farm village hill
countryside bedroom kitchen bathroom museum indoor underwater space moon castle boat ship plane
airplane jet aircraft helicopter airport horse cow sheep elephant animal wilderness valley cave
dragon robot cartoon painting room sofa couch bed ceiling furniture movie rooftop balcony ballroom
theater stadium golf smoke explosion accident crash wreck overturned burning gun blood dead rainbow
hedgehog tub crevasse cliff knife egg image portrait toy statue
""".split())  # fmt: skip
_CLAUSES = frozenset("or but that which who whose because if as it its".split())

REASONS = {
    "cut": "the text ends before the line does",
    "form": "it does not begin with 'a photo of'",
    "length": "too few or too many words",
    "characters": "other characters than letters, commas, apostrophes and hyphens",
    "loop": "words are repeated",
    "split": "there is no 'in Z'",
    "light": "no Z is a short description of ordinary light or weather",
    "class": "X names none of the classes",
    "clause": "it says more than a simple phrase does: or, but, that, which, it, ...",
    "scene": "X is no ordinary scene of a street",
    "duplicate": "it was accepted before, or is one of the examples",
    "surplus": "its classes are taken often enough, or a place is kept for a missing class",
}

_WORDS = (6, 24)  # smallest and largest number of words in a prompt
_MAX_LIGHT_WORDS = 8


@dataclasses.dataclass(frozen=True)
class Sentence:
    """An accepted prompt.

    Attributes:
        text: the prompt, without capital letter and period.
        classes: classes that X names, in the order of `CLASSES`.
    """

    text: str
    classes: tuple[str, ...]


def lines(text: str) -> list[str]:
    """The non-empty lines of a text."""
    return [line for line in text.splitlines() if line.strip()]


def parse(line: str, *, loose: bool = False) -> Sentence | str:
    """Parses a line: the sentence, or a key of `REASONS` why it is rejected.

    Numbers, bullets and quotes around the sentence are stripped; a capital first letter and a final
    period are allowed.

    Args:
        line: a line of sampled text.
        loose: also accept pictures and snapshots, and sentences without "in Z".
    """
    line = unicodedata.normalize("NFKC", line).replace("\u2019", "'")
    line = re.sub(r"^\s*(?:[-*\u2022]\s+|\(?\d{1,4}[.):]\s*)*", "", line)
    line = " ".join(line.strip("\"'`*\u201c\u201d \t,").split())
    if line.endswith("..."):  # NFKC has replaced the ellipsis
        return "cut"
    text = line.removesuffix(".").rstrip("\"'\u201d ")
    start = re.match(rf"[Aa] (?:{'|'.join(_FORMS[loose])}) of (?=\S)", text)
    if not start:
        return "form"
    text, body = "a" + text[1:], text[start.end() :]
    words = body.casefold().replace("-", " ").replace(",", " ").split()
    if not _WORDS[0] <= len(words) + 3 <= _WORDS[1]:
        return "length"
    if not re.fullmatch(r"[A-Za-z ,'-]+", body):
        return "characters"
    if _loops(words):
        return "loop"
    if not _CLAUSES.isdisjoint(words):
        return "clause"
    if not _ELSEWHERE.isdisjoint(map(_stem, words)):
        return "scene"
    classes = find_classes(body) if loose else _of_template(words)
    if isinstance(classes, str):
        return classes
    return Sentence(text, classes) if classes else "class"


def find_classes(text: str) -> tuple[str, ...]:
    """The classes that a text names, in their order; of nested names the longest counts."""
    text = text.casefold().replace("-", " ")
    named = {_CLASS_OF[match[0]] for match in _ANY_NAME.finditer(text)}
    return tuple(name for name in CLASSES if name in named)


def describes_light(words: list[str]) -> bool:
    """Whether the words describe ordinary light or weather, and nothing else."""
    words = re.sub(r"\bstreet (?=light|lamp)", "street", " ".join(words)).split()
    return (
        len(words) <= _MAX_LIGHT_WORDS
        and not _LIGHT.isdisjoint(words)
        and all(word in _LIGHT or word in _QUALITIES or word in _LINKS for word in words)
        and (words[-1] in _LIGHT or words[-1] in ("sky", "clouds"))
        and (_SUN.isdisjoint(words) or _GLOOM.isdisjoint(words))
    )


def _of_template(words: list[str]) -> tuple[str, ...] | str:
    """The classes of X, with Z a description of light; otherwise a key of `REASONS`."""
    splits = [i for i, word in enumerate(words) if word == "in" and 0 < i < len(words) - 1]
    if not splits:
        return "split"
    lit = [i for i in splits if describes_light(words[i + 1 :])]
    if not lit:
        return "light"
    if all(_repeats(words[:i]) or _repeats([word[:3] for word in words[i + 1 :]]) for i in lit):
        return "loop"
    return max((find_classes(" ".join(words[:i])) for i in lit), key=len)


def _loops(words: list[str]) -> bool:
    triples = list(zip(words, words[1:], words[2:], strict=False))
    doubled = any(a == b for a, b in zip(words, words[1:], strict=False))
    return doubled or len(set(triples)) < len(triples)


def _repeats(words: list[str]) -> bool:
    content = [_stem(word) for word in words if word not in _LINKS and word != "in"]
    return len(set(content)) < len(content)


def _stem(word: str) -> str:
    return word.removesuffix("s")


def _plural(name: str) -> str:
    start, _, last = name.rpartition(" ")
    if last.endswith("y") and last[-2] not in "aeou":
        last = last[:-1] + "ies"
    elif last.endswith(("s", "sh", "ch")):
        last += "es"
    else:
        last = _PLURALS.get(last, last + "s")
    return f"{start} {last}".strip()


def _vocabulary() -> dict[str, str]:
    table = _NAMES.replace(",\n   ", ",").split("\n")[1:-1]
    named = [(name, line.split(", ")) for name, line in zip(CLASSES, table, strict=True)]
    named.append(("", _NO_CLASS.replace(",\n   ", ",").split(", ")))
    return {form: name for name, nouns in named for noun in nouns for form in (noun, _plural(noun))}


_CLASS_OF = _vocabulary()
_ANY_NAME = re.compile(rf"\b(?:{'|'.join(sorted(_CLASS_OF, key=len, reverse=True))})\b")
