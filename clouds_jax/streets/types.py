"""Types that all drawing shares: numbers, colours, places."""

from collections.abc import Sequence

Number = float | int
Colour = Sequence[Number]  # RGB, 0..255, or a gain per channel
Flat = Sequence[Number]  # (x, y) in pixels, or metres right of and above a foot
Point = Sequence[Number]  # (x, y, z) in metres
Range = tuple[Number, Number]  # least and most
