"""Numbers that every room agrees on."""

IGNORE = 255  # class id of pixels that are neither learned from nor scored
