"""Tolerances between JAX and PyTorch: one table for all parity checks.

Errors are divided by the standard deviation of the reference, so that one number serves features of
any scale. JAX multiplies in full float32 on every platform (`MATMUL_PRECISION`), whatever the
environment says; PyTorch always runs on the CPU, which knows nothing less.
"""

import dataclasses

MATMUL_PRECISION = "float32"  # of JAX's products of float32 numbers, in every comparison


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Bounds of one dtype on one kind of device.

    Attributes:
        op: largest absolute error of one operation on values of order 1.
        block: largest error over standard deviation of one block, on the reference's input.
        model: the same for all blocks in a chain.
        agreement: smallest share of positions whose argmax over the last axis is the same.
    """

    op: float
    block: float
    model: float
    agreement: float


# bfloat16 keeps 8 bits, so the largest values of a tensor, 6 to 8 standard deviations, are rounded
# by up to 0.03 of one; small random encoders differ by up to 0.07 in a block and 0.08 in the chain.
# Which channel is the largest is then chance, and not judged.
_BFLOAT16 = Tolerance(op=1e-2, block=0.1, model=0.2, agreement=0.0)

TOLERANCES: dict[tuple[str, str], Tolerance] = {
    ("bfloat16", "cpu"): _BFLOAT16,
    ("bfloat16", "gpu"): _BFLOAT16,
    ("float32", "cpu"): Tolerance(op=1e-5, block=5e-5, model=1e-4, agreement=0.9999),
    ("float32", "gpu"): Tolerance(op=1e-5, block=1e-4, model=5e-4, agreement=0.9999),
}


# Largest difference of mIoU (0..1) on the same images: 0.05 points.
MIOU_BOUND = 5e-4


def get_tolerance(dtype: str, device: str) -> Tolerance:
    """The bounds for a dtype on a device.

    Raises:
        KeyError: there are none; the message lists those that exist.
    """
    if (dtype, device) not in TOLERANCES:
        known = ", ".join(f"{d} on {where}" for d, where in TOLERANCES)
        raise KeyError(f"TOLERANCES has no row for {dtype} on {device}; it has: {known}.")
    return TOLERANCES[dtype, device]
