"""The appearance domains: a city, which is a palette and a geometry, under a condition.

Colours are RGB, 0..255, as the camera would show them by plain daylight; lengths are metres.
"""

import dataclasses

from clouds_jax.streets.types import Colour, Number, Range


@dataclasses.dataclass(frozen=True)
class City:
    """Palette and geometry of a city.

    Attributes:
        lanes: driving lanes per direction, least and most.
        lane: width of a lane.
        parking: chance that a side has a parking lane.
        sidewalk: width.
        setback: of the facades behind the sidewalk; where it is wide there are gardens.
        median: chance of a strip of grass between the directions.
        paving: of the sidewalk, "slabs" or "cobbles".
        cobbled: chance that the road itself is cobbled.
        pavement, asphalt: colours.
        styles: weights of the facade styles (`facades.STYLES`).
        walls, roofs: colours of facades and roofs.
        floors: least and most.
        width: of one building.
        gap: chance that a gap follows a building.
        trees: chance of a tree at each place for one.
        leaves: colours of tree crowns.
        tram: chance that trams run here.
        traffic: weights of what drives.
        people: expected number per 10 m of sidewalk.
    """

    lanes: tuple[int, int]
    lane: Number
    parking: Number
    sidewalk: Range
    setback: Range
    median: Number
    paving: str
    cobbled: Number
    pavement: Colour
    asphalt: Colour
    styles: dict[str, Number]
    walls: tuple[Colour, ...]
    roofs: tuple[Colour, ...]
    floors: tuple[int, int]
    width: Range
    gap: Number
    trees: Number
    leaves: tuple[Colour, ...]
    tram: Number
    traffic: dict[str, Number]
    people: Number


@dataclasses.dataclass(frozen=True)
class Condition:
    """Light and weather.

    Attributes:
        zenith, horizon: colours of the sky above and at the horizon.
        clouds: colour of the clouds.
        cover: share of the sky that clouds hide, least and most.
        sun: strength and colour of direct light, per channel, 1 = plain daylight.
        ambient: the same of the light from the sky.
        elevation: sine of the sun's height, least and most.
        haze: colour that distance takes on.
        visibility: depth in metres at which about a third of the contrast is left.
        lamps: 0 to 1, brightness of street lamps, headlights and windows.
        wet, snow: 0 to 1.
        noise: standard deviation of the sensor's noise in 1/255.
        streaks, flakes: rain streaks and snow flakes per megapixel.
    """

    zenith: Colour
    horizon: Colour
    clouds: Colour
    cover: Range
    sun: Colour
    ambient: Colour
    elevation: Range
    haze: Colour
    visibility: Number
    lamps: Number = 0.0
    wet: Number = 0.0
    snow: Number = 0.0
    noise: Number = 2.0
    streaks: int = 0
    flakes: int = 0


@dataclasses.dataclass(frozen=True)
class Domain:
    """A city under a condition; `name` is `city-condition`."""

    name: str
    city: City
    condition: Condition


CITIES: dict[str, City] = {
    "oldtown": City(
        lanes=(1, 1),
        lane=3.3,
        parking=0.75,
        sidewalk=(2.6, 4.4),
        setback=(0.0, 0.3),
        median=0.0,
        paving="cobbles",
        cobbled=0.45,
        pavement=(150, 140, 126),
        asphalt=(104, 101, 98),
        styles={"plaster": 5, "brick": 3, "timber": 1},
        walls=(
            (214, 178, 116),
            (198, 140, 92),
            (172, 84, 62),
            (224, 206, 168),
            (186, 122, 96),
            (206, 190, 146),
            (160, 152, 128),
            (226, 190, 160),
        ),
        roofs=((150, 72, 52), (132, 64, 50), (98, 84, 80), (168, 90, 62)),
        floors=(2, 5),
        width=(8.0, 17.0),
        gap=0.16,
        trees=0.65,
        leaves=((88, 112, 44), (106, 124, 50), (74, 102, 46), (122, 128, 52)),
        tram=0.5,
        traffic={"car": 10, "van": 2, "truck": 1, "bus": 1, "motorcycle": 1.2, "bicycle": 2},
        people=0.8,
    ),
    "newtown": City(
        lanes=(2, 3),
        lane=3.5,
        parking=0.35,
        sidewalk=(4.0, 7.0),
        setback=(0.5, 5.0),
        median=0.45,
        paving="slabs",
        cobbled=0.0,
        pavement=(168, 170, 172),
        asphalt=(102, 104, 108),
        styles={"glass": 4, "concrete": 3, "office": 4},
        walls=(
            (176, 184, 190),
            (148, 156, 164),
            (200, 202, 200),
            (120, 134, 148),
            (188, 178, 166),
            (108, 118, 126),
        ),
        roofs=((120, 122, 126), (96, 98, 102)),
        floors=(5, 22),
        width=(18.0, 42.0),
        gap=0.3,
        trees=0.6,
        leaves=((64, 104, 58), (72, 112, 66), (84, 118, 62)),
        tram=0.25,
        traffic={"car": 12, "van": 2, "truck": 2.2, "bus": 2, "motorcycle": 1, "bicycle": 0.8},
        people=0.6,
    ),
    "suburb": City(
        lanes=(1, 1),
        lane=3.5,
        parking=0.3,
        sidewalk=(1.8, 2.6),
        setback=(4.5, 8.0),
        median=0.0,
        paving="slabs",
        cobbled=0.0,
        pavement=(176, 170, 160),
        asphalt=(116, 114, 112),
        styles={"house": 1},
        walls=(
            (232, 226, 212),
            (196, 118, 90),
            (214, 200, 170),
            (178, 192, 200),
            (228, 214, 180),
            (166, 96, 76),
            (240, 236, 230),
        ),
        roofs=((138, 74, 58), (88, 84, 88), (112, 92, 80), (70, 76, 88)),
        floors=(1, 2),
        width=(10.0, 15.0),
        gap=0.85,
        trees=0.5,
        leaves=((84, 122, 48), (98, 130, 56), (70, 108, 52), (132, 138, 60)),
        tram=0.06,
        traffic={"car": 10, "van": 2, "truck": 1.2, "bus": 0.8, "motorcycle": 1, "bicycle": 2},
        people=0.3,
    ),
}

CONDITIONS: dict[str, Condition] = {
    "day": Condition(
        zenith=(86, 136, 206),
        horizon=(196, 218, 238),
        clouds=(250, 250, 250),
        cover=(0.1, 0.6),
        sun=(0.74, 0.69, 0.58),
        ambient=(0.69, 0.72, 0.78),
        elevation=(0.45, 0.85),
        haze=(190, 208, 226),
        visibility=420.0,
    ),
    "dusk": Condition(
        zenith=(72, 84, 140),
        horizon=(250, 168, 104),
        clouds=(214, 138, 128),
        cover=(0.3, 0.7),
        sun=(0.70, 0.42, 0.22),
        ambient=(0.50, 0.45, 0.53),
        elevation=(0.16, 0.26),
        haze=(216, 156, 122),
        visibility=260.0,
        lamps=0.55,
        noise=3.0,
    ),
    "night": Condition(
        zenith=(10, 14, 30),
        horizon=(38, 36, 46),
        clouds=(44, 42, 50),
        cover=(0.2, 0.7),
        sun=(0.0, 0.0, 0.0),
        ambient=(0.30, 0.305, 0.37),
        elevation=(0.6, 0.7),
        haze=(26, 26, 38),
        visibility=200.0,
        lamps=1.0,
        noise=4.0,
    ),
    "rain": Condition(
        zenith=(146, 154, 164),
        horizon=(190, 194, 198),
        clouds=(172, 178, 186),
        cover=(0.8, 1.0),
        sun=(0.0, 0.0, 0.0),
        ambient=(0.84, 0.87, 0.91),
        elevation=(0.8, 0.95),
        haze=(182, 188, 194),
        visibility=110.0,
        lamps=0.5,
        wet=1.0,
        noise=3.0,
        streaks=700,
    ),
    "fog": Condition(
        zenith=(192, 196, 198),
        horizon=(204, 206, 206),
        clouds=(200, 203, 204),
        cover=(0.0, 0.2),
        sun=(0.0, 0.0, 0.0),
        ambient=(0.90, 0.91, 0.92),
        elevation=(0.8, 0.95),
        haze=(203, 206, 207),
        visibility=34.0,
        lamps=0.4,
        wet=0.15,
        noise=2.0,
    ),
    "snow": Condition(
        zenith=(188, 196, 206),
        horizon=(216, 220, 224),
        clouds=(226, 229, 232),
        cover=(0.6, 1.0),
        sun=(0.0, 0.0, 0.0),
        ambient=(0.93, 0.95, 0.99),
        elevation=(0.8, 0.95),
        haze=(214, 219, 224),
        visibility=90.0,
        lamps=0.3,
        snow=1.0,
        noise=2.0,
        flakes=1100,
    ),
}

DOMAINS: dict[str, Domain] = {
    f"{city}-{condition}": Domain(f"{city}-{condition}", CITIES[city], CONDITIONS[condition])
    for city in CITIES
    for condition in CONDITIONS
}


def get_domain(name: str) -> Domain:
    """Returns the domain of that name."""
    if name not in DOMAINS:
        raise KeyError(f"DOMAINS has no {name!r}; it has: {', '.join(DOMAINS)}.")
    return DOMAINS[name]
