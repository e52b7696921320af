"""Numbers as small integers, so that a protocol that adds integers modulo 2^32 adds numbers without error.

A number is cut into limbs, digits of `bits` bits, which are added separately; the carries are done when the sums are
put together again. SecAgg+ of Flower quantizes what it is given at random; integers below its range go through it
unchanged where a quantization step is 1, which `secure` sees to.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp_training.detectors.base import Floats

MODULUS_BITS = 32
"""SecAgg+ of Flower adds modulo 2^32."""


def limb_bits(clients: int) -> int:
    """Bits of a limb such that the sum over so many clients stays below the modulus, with a bit for the sign.

    Raises:
        ValueError: more clients than have room.
    """
    bits = int(np.floor(np.log2((2**MODULUS_BITS - 1) / clients))) - 1
    if bits < 12:
        raise ValueError(f"{clients:,} clients are too many for one secure sum")
    return min(bits, 29)


@dataclass(frozen=True)
class Form:
    """How numbers become limbs: multiples of 2^-fraction, in `limbs` digits.

    Attributes:
        fraction: bits behind the binary point.
        limbs: digits, the lowest first, each with the number's sign.
    """

    fraction: int
    limbs: int

    def encode(self, values: Floats, bits: int) -> NDArray[np.int64]:
        """Limbs `[limbs, ...]` of numbers, each rounded to the nearest multiple.

        Raises:
            ValueError: a number is not finite, or too large for the limbs.
        """
        numbers = np.asarray(values, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            left = np.rint(np.ldexp(np.abs(numbers), self.fraction))
        limbs = np.empty((self.limbs, *left.shape), np.int64)
        for k in range(self.limbs - 1, -1, -1):
            whole = np.floor(np.ldexp(left, -bits * k))
            if not (np.isfinite(whole).all() and (whole < 2.0**bits).all()):
                raise ValueError("a number is too large or not finite")
            limbs[k] = whole
            left = left - np.ldexp(whole, bits * k)  # exact: the leading bits go
        return np.where(numbers < 0, -limbs, limbs)

    def decode(self, sums: NDArray[np.int64], bits: int) -> Floats:
        """The sum of numbers, `[...]`, from the sums of their limbs `[limbs, ...]`; rounded once."""
        total = sums[0].astype(object)
        for k in range(1, self.limbs):
            total = total + (sums[k].astype(object) << (bits * k))
        flat = [_over(int(number), self.fraction) for number in np.ravel(total)]
        return np.array(flat, np.float64).reshape(np.shape(sums[0]))


def _over(number: int, fraction: int) -> float:
    """`number / 2^fraction`, correctly rounded, as Python divides whole numbers."""
    return number / (1 << fraction)


def weight_form(bits: int) -> Form:
    """Of a network's weights: one limb, between -16 and 16."""
    return Form(bits - 4, 1)


COUNTS = Form(0, 2)
"""Of whole numbers."""

PRECISE = Form(128, 16)
"""Of statistics in whatever unit: multiples of 3e-39."""
