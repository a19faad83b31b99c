"""What rounding explains: how far two correct computations of one thing may be apart.

A result that n numbers go into, each step of which rounds by at most u (half a unit in the last
place, relative), is off by λ·√n·u with a probability of at most 2·exp(-λ²/2), where roundings are
independent and of mean zero (Higham and Mary, A New Approach to Probabilistic Rounding Error
Analysis, SIAM J. Sci. Comput. 41(5), 2019). Two of them are √2 of that apart. What an event
inherits adds up alike: n is then the sum of all that was added up until there.
"""

from __future__ import annotations

import math

# Such a difference is left to chance by 0.07%.
LAMBDA = 4.0

# Half a unit in the last place of 1: 2 to the minus number of bits of the significand.
ROUNDOFF = {
    "float64": 2.0**-53,
    "complex128": 2.0**-53,
    "float32": 2.0**-24,
    "complex64": 2.0**-24,
    "float16": 2.0**-11,
    "complex32": 2.0**-11,
    "bfloat16": 2.0**-8,
    "float8_e4m3fn": 2.0**-4,
    "float8_e4m3fnuz": 2.0**-4,
    "float8_e5m2": 2.0**-3,
    "float8_e5m2fnuz": 2.0**-3,
}


def expected(length: float, dtypes: tuple[str, str]) -> float | None:
    """The relative difference that rounding explains of a result that `length` numbers go into.

    Of two dtypes the coarser one counts. None where a dtype rounds nothing: integers are equal, or
    they are not.
    """
    units = [ROUNDOFF.get(dtype) for dtype in dtypes]
    known = [unit for unit in units if unit is not None]
    if len(known) < len(units):
        return None
    return LAMBDA * math.sqrt(2.0) * max(known) * math.sqrt(max(length, 1.0))
