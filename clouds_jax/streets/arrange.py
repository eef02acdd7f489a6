"""Samples the layout of a street: its cross section, then buildings, gaps and gardens."""

from clouds_jax.streets import populate
from clouds_jax.streets.buildings import Building, sample_look
from clouds_jax.streets.camera import FAR
from clouds_jax.streets.domains import Domain
from clouds_jax.streets.layout import Barrier, Crossing, Layout, Side, Thing
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.types import Number


def sample_layout(domain: Domain, rng: Rng) -> Layout:
    """Samples the layout of one scene."""
    city = domain.city
    lanes = rng.integer(*city.lanes)
    median = rng.between(2.0, 4.5) if rng.chance(city.median) else 0.0
    lane = city.lane * rng.between(0.95, 1.05)
    edge = median / 2 + lanes * lane
    sides = (_sample_side(domain, rng, -1, edge), _sample_side(domain, rng, 1, edge))
    crossing = None
    if rng.chance(0.6):
        z0 = rng.between(16, 70)
        crossing = Crossing(z0, z0 + rng.between(7, 14), rng.chance(0.7))
    layout = Layout(
        lanes=lanes,
        lane=lane,
        median=median,
        cobbled=rng.chance(city.cobbled),
        rails=rng.chance(city.tram),
        sides=sides,
        crossing=crossing,
        camera_x=0.0,
    )
    layout.camera_x = layout.lane_x(rng.integer(0, lanes - 1)) + rng.between(-0.5, 0.5)
    for side in sides:
        _build_side(layout, domain, side, rng)
        populate.furnish(layout, domain, side, rng)
        populate.park(layout, domain, side, rng)
        populate.people(layout, domain, side, rng)
    populate.drive(layout, domain, rng)
    return layout


def _sample_side(domain: Domain, rng: Rng, sign: int, lane_end: Number) -> Side:
    city = domain.city
    parking = rng.chance(city.parking)
    kerb = lane_end + (2.2 if parking else 0.25)
    verge = rng.between(1.2, 2.2) if rng.chance(0.3) else 0.0
    walk = kerb + verge + rng.between(*city.sidewalk)
    return Side(sign, parking, lane_end, kerb, walk, walk + rng.between(*city.setback), verge)


def _build_side(layout: Layout, domain: Domain, side: Side, rng: Rng) -> None:
    """Rows of buildings with gaps; gaps get fences, hedges, walls and trees."""
    city = domain.city
    garden = side.front - side.walk > 3.0
    crossing = layout.crossing
    z, corner, free = rng.between(-12, 0), False, False
    while z < FAR - 20:
        width = rng.between(*city.width)
        if crossing and z < crossing.z1 + 3 and z + width > crossing.z0 - 3:
            if crossing.z0 - 3 - z > 6:
                width = crossing.z0 - 3 - z
            else:
                z, corner, free = crossing.z1 + 3, True, True
                continue
        if rng.chance(0.13) and not corner:
            _fill_gap(layout, side, z, z + width, garden, rng)
            z, free = z + width, True
            continue
        x = side.sign * (side.front + (rng.between(0, 2.5) if garden else 0.0))
        deep = 45.0 if corner else rng.between(9, 13)
        layout.buildings.append(
            Building(sample_look(city, rng), x, side.sign, z, z + width, deep, free, rng.seed())
        )
        z, corner, free = z + width, False, garden
        if rng.chance(city.gap):
            gap = rng.between(3, 9) if not garden else rng.between(4, 12)
            end = min(z + gap, crossing.z0 - 3) if crossing and z < crossing.z0 else z + gap
            if end - z > 2:
                _fill_gap(layout, side, z, end, garden, rng)
                z, free = end, True
    if garden:
        _garden(layout, side, rng)


def _fill_gap(layout, side, z0, z1, garden, rng) -> None:
    layout.gaps.append((side.sign, z0, z1))
    if not garden:
        kind = rng.weighted({"brick": 2, "stone": 1, "concrete": 2, "bars": 2, "planks": 1,
                              "mesh": 1, "hedge": 1})  # fmt: skip
        x = side.sign * (side.front + 0.3)
        height = rng.between(1.4, 2.3)
        layout.barriers.append(Barrier(kind, x, z0, z1, height, rng.seed()))
    for _ in range(rng.integer(1, 3) + int((z1 - z0) / 5)):
        x = side.sign * (side.front + rng.between(2.5, 12))
        height = rng.between(5, 11)
        layout.things.append(
            Thing("tree", x, rng.between(z0, z1), (1, 1, height), 0, 0, rng.seed())
        )


def _garden(layout: Layout, side: Side, rng: Rng) -> None:
    """Front gardens: something along the sidewalk, bushes and trees behind it."""
    z = rng.between(-4, 2)
    while z < 120:
        long = rng.between(8, 16)
        kind = rng.weighted({"hedge": 4, "planks": 2, "bars": 2, "brick": 2, "stone": 1,
                              "mesh": 1, "none": 3})  # fmt: skip
        if kind != "none":
            height = rng.between(0.7, 1.5)
            start, stop = z, z + long - rng.pick((0.0, 3.0))
            crossing = layout.crossing
            if crossing and start < crossing.z1 + 3 and stop > crossing.z0 - 3:
                start, stop = (start, crossing.z0 - 3) if start < crossing.z0 - 4 else (0, 0)
            if stop > start:
                x = side.sign * (side.walk + 0.2)
                layout.barriers.append(Barrier(kind, x, start, stop, height, rng.seed()))
        z += long
    z = rng.between(3, 8)
    while z < 150:
        if not layout.crossed(z, 4):
            x = side.sign * rng.between(side.walk + 1.2, max(side.front - 1.0, side.walk + 1.4))
            if rng.chance(0.35):
                size = (1.0, 1.0, rng.between(4.5, 9.5))
                layout.things.append(Thing("tree", x, z, size, 0, 0, rng.seed()))
            elif rng.chance(0.6):
                size = (1.0, 1.0, rng.between(0.7, 1.8))
                layout.things.append(Thing("bush", x, z, size, 0, 0, rng.seed()))
        z += rng.between(2.5, 7)
