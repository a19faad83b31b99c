"""Maxima that a thread may pass by: what it takes for too small to raise one, to the last bit.

One block reads all, so that its threads have many pairs each, and know of each other's.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from repro_audit import _engine
from repro_audit.engine import cupy_kernels, reference_ulp
from repro_audit.engine.tags import ITEMSIZES, TAGS

from .launches import QUEUE, Device
from .test_kernels import FEW, NUMBERS, ORDERS, codes

Codes = np.ndarray[Any, Any]
Pair = tuple[float, float]
# The threads of a block, and the bytes that each reads at once.
THREADS, QUAD = 128, 16


def by_one_block(device: Device, dtype: str, a: Codes, b: Codes) -> dict[str, Any]:
    device.memory.clear()
    record = device.memory.reserve(cupy_kernels.RECORD_BYTES)
    held = [
        np.array([device.memory.put(x.tobytes()), 0, x.nbytes], np.uint64).tobytes() for x in (a, b)
    ]
    name = cupy_kernels.ulp_kernel(dtype, "Contiguous<16>")
    cupy_kernels._launch(name, 1, "ulp_threads", (*held, len(a), record), *QUEUE)
    found = np.frombuffer(device.memory.get(record, cupy_kernels.RECORD_BYTES), np.uint8)
    return dict(_engine.ulp_merge(found, len(a)))


def check(device: Device, dtype: str, a: Codes, b: Codes) -> None:
    wanted = reference_ulp.divergence(a, b, reference_ulp.format_of(TAGS[dtype]))
    assert repr(by_one_block(device, dtype, a, b)) == repr(wanted)


def spread(pairs: Codes, thread: int) -> Codes:
    """Pairs as one thread meets them, one after another; all others are 0."""
    each = QUAD // pairs.dtype.itemsize
    steps = -(-len(pairs) // each)
    every = np.zeros((steps, THREADS, each), pairs.dtype)
    every[:, thread] = np.resize(pairs, steps * each).reshape(steps, each)
    return every.ravel()


def fractions_below(target: Fraction, most: int) -> list[tuple[int, int]]:
    """(p, q), q up to `most`, whose quotients ascend to a target, by some 1 / q^2 at the end."""
    found = {
        Fraction(target.numerator * q // target.denominator, q) for q in range(most - 900, most)
    }
    low, high = Fraction(0), Fraction(1)
    while True:
        mediant = Fraction(low.numerator + high.numerator, low.denominator + high.denominator)
        if mediant.denominator >= most:
            break
        low, high = (mediant, high) if mediant < target else (low, mediant)
        found.add(low)
    ascending = sorted(f for f in found if f > 0)
    return [(f.numerator, f.denominator) for f in ascending[-120:]]


def rising_quotients(scale: float, most: int = 1 << 24) -> list[Pair]:
    """Of which each is hardly larger than the one before."""
    golden = Fraction(1346269, 2178309) + Fraction(1, 1 << 50)
    return [(q * scale, (q - p) * scale) for p, q in fractions_below(golden, most)]


def just_above(scale: float) -> list[Pair]:
    """As `rising_quotients`, of quotients that a float32, 3 / 4, is hardly less than."""
    return [((4 * k + 1) * scale, k * scale) for k in range(1 << 22, (1 << 22) - 150, -1)][1:]


ULP = 2.0**-23
SEQUENCES: dict[str, list[Pair]] = {
    "quotients": rising_quotients(1.0),
    "quotients above a bound": just_above(1.0),
    "huge quotients above a bound": just_above(2.0**103),
    "tiny quotients": rising_quotients(2.0**-149),
    "subnormal quotients": rising_quotients(2.0**-149, 1 << 23),
    "quotients of subnormal differences": [(1 + i * ULP, 1.0) for i in range(40)]
    + [(2.0**-126 + i * 2.0**-149, 2.0**-126) for i in range(60)],
    "huge quotients": rising_quotients(2.0**104),
    # No float32 holds these differences; the first pair has the most of all else.
    "absolute": [(0.5, -0.5)] + [(1.0, -(2.0**-30 + k * 2.0**-53)) for k in range(150)],
    "below one": [(0.5, -0.25), (-0.25, 0.5)]
    + [(1.0, 2.0**-30 - k * 2.0**-54) for k in range(150)],
    "subnormal differences": [(k * 2.0**-149, 3 * 2.0**-149) for k in range(150)],
    "overflow": [(3e38, -3.0e38 - k * 2.0**104) for k in range(100)],
    "to infinity": [
        *((3e38, -(2.0**120) * (1 + k)) for k in range(60)),
        (np.inf, 1.0),
        (0.0, 1e-45),
    ],
    "zeros": [(0.0, 2.0**k) for k in range(-149, 128)] + [(-0.0, 0.0), (1.0, -1.0), (0.0, -3e38)],
    "ties": [(1.0, 1 + ULP)] * 90 + [(2.0, 2 + 2 * ULP), (-1.0, -1 - ULP)] * 9,
    "NaN between": [(1.0, 1 + ULP), (np.nan, 1.0), (1.0, 1 + ULP), (np.nan, -np.nan)] * 20
    + [(1.0, 1 + 2 * ULP)],
    "infinities": [
        *[(np.inf, np.inf), (1.0, 2.0), (-np.inf, np.inf), (0.0, -0.0)] * 10,
        (0.0, 1e38),
    ],
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(device: Device, name: str) -> None:
    """In one thread, in two, turned round, and spread over all; the last pair alone is the most."""
    pairs = np.array(SEQUENCES[name], np.float32).view(np.uint32)
    a, b = pairs[:, 0], pairs[:, 1]
    check(device, "float32", spread(a, 0), spread(b, 0))
    check(device, "float32", spread(b, 77), spread(a, 77))
    both = spread(a, 5) | spread(a[::-1], 64)
    check(device, "float32", both, spread(b, 5) | spread(b[::-1], 64))
    check(device, "float32", np.tile(a, 4), np.tile(b, 4))
    calm = np.full(1024, 0x3F800000, np.uint32)
    check(device, "float32", np.append(calm, a[-1:]), np.append(calm, b[-1:]))
    check(device, "float32", np.append(calm, a[-1:]), np.append(calm | 1, b[-1:]))


@pytest.mark.parametrize("order", ORDERS)
def test_ties_have_the_least_index(device: Device, order: Any) -> None:
    """Whichever thread comes first."""
    device.order = order
    a = np.full(3000, 0x3F800000, np.uint32)
    b = a.copy()
    b[40:] += 1
    check(device, "float32", a, b)
    b[1111::100] += 4
    # What other pairs have more of than these does not have them looked at.
    for at in (0, 4 * THREADS - 4):
        a[at : at + 2], b[at : at + 2] = (1, 0x49800000), (2, 0x49800001)
    check(device, "float32", a, b)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_many_pairs_for_each_thread(device: Device, dtype: str) -> None:
    f = reference_ulp.format_of(TAGS[dtype])
    generator = np.random.default_rng(5)
    count = 128 * QUAD // ITEMSIZES[dtype] * 5
    a = codes(dtype, 1)
    # Few are NaN or infinite, which would be all that is looked at.
    plain = a if f.kind in {"signed", "unsigned"} else a[np.isfinite(reference_ulp.values(a, f))]
    first, second = generator.choice(plain, (2, count))
    near = first ^ generator.integers(0, 2, count).astype(f.bits)
    for x, y in ((first, second), (first, near)):
        check(device, dtype, x, y)
        y[-1] = a[np.argmax(a)]
        check(device, dtype, x, y)


@pytest.mark.parametrize("other_device", [("cupy", "120", FEW)], indirect=True, ids=["cupy-120"])
@pytest.mark.parametrize("name", ["subnormal quotients", "subnormal differences", "zeros"])
def test_subnormals_elsewhere(other_device: Device, name: str) -> None:
    pairs = np.array(SEQUENCES[name], np.float32).view(np.uint32)
    check(other_device, "float32", spread(pairs[:, 0], 3), spread(pairs[:, 1], 3))
    # The upper halves of bfloat16's numbers, as they come.
    for shift in (0, 6):
        a, b = ((pairs[:, i] >> shift).astype(np.uint16) for i in (0, 1))
        check(other_device, "bfloat16", spread(a, 3), spread(b, 3))
