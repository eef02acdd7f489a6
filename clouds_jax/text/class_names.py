"""Names of the classes, and the sentence templates that CLIP embeds them in.

Source: FC-CLIP's names for Cityscapes, which CLOUDS uses unchanged; the 14 templates of ViLD that
    most open-vocabulary segmenters use.
"""

from clouds_jax.data.classes import SPACES, LabelSpace

Names = tuple[tuple[str, ...], ...]

_SIZES = ("small", "medium", "large")
TEMPLATES = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in _SIZES),
    *(f"This is a photo of a {size} {{}}." for size in _SIZES),
    *(f"There is a {size} {{}} in the scene." for size in _SIZES),
)

_CITYSCAPES = """
road, railroad
sidewalk, pavement
building, buildings, edifice, edifices, house, ceiling
wall, walls, brick wall, stone wall, tile wall, wood wall
fence, fences
pole, poles
traffic light, traffic lights
traffic sign, stop sign
vegetation, tree, trees, palm tree, bushes
terrain, river, sand, sea, snow, water, mountain, grass, dirt, rock
sky, clouds
person
rider
car, cars
truck, trucks
bus, buses
train, trains, locomotive, locomotives, freight train
motorcycle, motorcycles
bicycle, bicycles, bike, bikes
"""
# Label space -> synonyms of each class; classes of other spaces have no synonyms.
_SYNONYMS: dict[str, Names] = {
    "cityscapes19": tuple(tuple(line.split(", ")) for line in _CITYSCAPES.split("\n")[1:-1])
}


def class_names(space: LabelSpace) -> Names:
    """For each class of a label space, its synonyms."""
    if space == SPACES.get(space.name) and space.name in _SYNONYMS:
        return _SYNONYMS[space.name]
    return tuple((name,) for name in space.names)


def class_of_row(names: Names) -> tuple[int, ...]:
    """For each name in order, its class."""
    return tuple(k for k, synonyms in enumerate(names) for _ in synonyms)


def seen_classes(names: Names, trained: Names) -> tuple[bool, ...]:
    """For each class, whether it shares a name with a trained class.

    Args:
        names: names of the evaluated classes.
        trained: names of the classes of the training.
    """
    trained_names = {name for synonyms in trained for name in synonyms}
    return tuple(any(name in trained_names for name in synonyms) for synonyms in names)
