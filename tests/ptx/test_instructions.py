"""What instructions make of numbers and of a warp's: expectations are the PTX ISA manual's."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from .snippets import run


def one(code: str) -> int:
    """The same of code that gives all threads one result."""
    (found,) = set(run(code))
    return found


INF = float("inf")
# 1 and the largest float64, by their codes.
ONE, LARGEST = 0x3FF0000000000000, 0x7FEFFFFFFFFFFFFF


def u64(value: int) -> int:
    return value % (1 << 64)


def f64(value: float) -> int:
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def of_32(code: str) -> str:
    """%r5 in %rd2."""
    return f"{code} cvt.u64.u32 %rd2, %r5;"


def of_single(code: str) -> str:
    """The bits of %f1 in %rd2."""
    return of_32(f"{code} mov.b32 %r5, %f1;")


def of_signs(code: str) -> str:
    """%r5, with its sign, in %rd2."""
    return f"{code} cvt.s64.s32 %rd2, %r5;"


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        # Shifts by more than the width are clamped to it.
        (of_32("mov.u32 %r4, 31; shl.b32 %r5, 3, %r4;"), 1 << 31),
        (of_32("mov.u32 %r4, 32; shl.b32 %r5, 3, %r4;"), 0),
        (of_32("mov.u32 %r4, 257; shl.b32 %r5, 3, %r4;"), 0),
        (of_32("shr.u32 %r5, 0x80000000, 32;"), 0),
        (of_signs("shr.s32 %r5, 0x80000000, 4000000000;"), u64(-1)),
        (of_signs("shr.s32 %r5, 0x80000000, 30;"), u64(-2)),
        ("shl.b64 %rd2, 1, 63;", 1 << 63),
        ("shl.b64 %rd2, 1, 64;", 0),
        ("shr.s64 %rd2, -5, 1;", u64(-3)),
        ("shr.u64 %rd2, -1, 63;", 1),
        ("mov.u16 %rs1, -32768; shr.s16 %rs2, %rs1, 99; cvt.s64.s16 %rd2, %rs2;", u64(-1)),
        # Funnel shifts: [b, a] by n mod 32, or by 32 at most.
        (of_32("shf.l.wrap.b32 %r5, 0x11111111, 0x22222222, 36;"), 0x22222221),
        (of_32("shf.l.wrap.b32 %r5, 0x11111111, 0x22222222, 32;"), 0x22222222),
        (of_32("shf.l.clamp.b32 %r5, 0x11111111, 0x22222222, 36;"), 0x11111111),
        (of_32("shf.r.wrap.b32 %r5, 0x11111111, 0x22222222, 4;"), 0x21111111),
        (of_32("shf.r.clamp.b32 %r5, 0x11111111, 0x22222222, 32;"), 0x22222222),
        # Bytes 0 ... 3 are a's, 4 ... 7 b's; 8 and above replicate the sign.
        (of_32("prmt.b32 %r5, 0x33221180, 0x77665544, 0x7430;"), 0x77443380),
        (of_32("prmt.b32 %r5, 0x33221180, 0x77665544, 0x1198;"), 0x111100FF),
        (of_32("prmt.b32 %r5, 0x33221180, 0x77665544, 0xFFFF8888;"), 0xFFFFFFFF),
        # Fields: beyond the top there is nothing, or the sign.
        (of_32("bfe.u32 %r5, 0xABCD1234, 28, 8;"), 0xA),
        (of_signs("bfe.s32 %r5, 0xABCD1234, 28, 8;"), u64(-6)),
        (of_signs("bfe.s32 %r5, 0xABCD1234, 4, 4;"), 3),
        (of_signs("bfe.s32 %r5, 0xABCD1234, 40, 8;"), u64(-1)),
        (of_32("bfe.s32 %r5, 0xFFFFFFFF, 3, 0;"), 0),
        ("bfe.u64 %rd2, -1, 60, 255;", 15),
        ("bfi.b64 %rd2, 0xFF, 0, 60, 16;", 0xF << 60),
        ("bfi.b64 %rd2, 0xAB, -1, 8, 8;", u64(-1) & ~0xFF00 | 0xAB00),
        (of_32("bfi.b32 %r5, 7, 0x100, 32, 8;"), 0x100),
        ("clz.b64 %r5, 0; cvt.u64.u32 %rd2, %r5;", 64),
        ("clz.b64 %r5, 0x10; cvt.u64.u32 %rd2, %r5;", 59),
        # Products: the low half, the high one, or both.
        (of_32("mul.lo.s32 %r5, 0x10001, 0x10001;"), 0x20001),
        (of_32("mul.hi.u32 %r5, 0xFFFFFFFF, 0xFFFFFFFF;"), 0xFFFFFFFE),
        (of_32("mul.hi.s32 %r5, -1, 5;"), 0xFFFFFFFF),
        ("mul.hi.u64 %rd2, -1, -1;", u64(-2)),
        ("mul.hi.u64 %rd2, 0x123456789ABCDEF0, 0xFEDCBA9876543210;", 0x121FA00AD77D7422),
        ("mul.wide.s32 %rd2, -2, 3;", u64(-6)),
        ("mul.wide.u32 %rd2, -1, -1;", 0xFFFFFFFE00000001),
        ("mul.lo.s64 %rd2, 0x100000001, 0x100000001;", 0x200000001),
        (of_32("mad.lo.s32 %r5, 0x10000, 0x10000, 7;"), 7),
        (of_32("mov.u16 %rs1, 65535; mul.wide.u16 %r5, %rs1, %rs1;"), 0xFFFE0001),
        # By their signs, or without.
        (of_signs("min.s32 %r5, -1, 1;"), u64(-1)),
        (of_32("min.u32 %r5, -1, 1;"), 1),
        ("max.u64 %rd2, -1, 1;", u64(-1)),
        ("setp.lt.s64 %p1, -1, 1; selp.b64 %rd2, 5, 6, %p1;", 5),
        ("setp.lt.u64 %p1, -1, 1; selp.b64 %rd2, 5, 6, !%p1;", 5),
        ("div.u64 %rd2, -1, 10;", (1 << 64) // 10),
        # Conversions: the low bits of a register, extended by the type of what is read.
        ("mov.u16 %rs1, 0x1280; cvt.s16.s8 %rs2, %rs1; cvt.s64.s16 %rd2, %rs2;", u64(-128)),
        ("mov.u16 %rs1, 0x1280; cvt.u64.u8 %rd2, %rs1;", 0x80),
        (of_32("cvt.u32.u64 %r5, 0x123456789ABCDEF0;"), 0x9ABCDEF0),
        (of_32("mov.u32 %r4, 0x8765; cvt.u16.u32 %rs1, %r4; cvt.s32.s16 %r5, %rs1;"), 0xFFFF8765),
        ("mov.b64 %rd2, {1, 2};", 0x200000001),
        ("mov.b64 {%r4, %r5}, 0x200000001; cvt.u64.u32 %rd2, %r5;", 2),
        # To the nearest, ties to even.
        ("cvt.rn.f64.u64 %fd1, 9007199254740993; mov.b64 %rd2, %fd1;", f64(2.0**53)),
        ("cvt.rn.f64.u64 %fd1, 9007199254740995; mov.b64 %rd2, %fd1;", f64(2.0**53 + 4)),
        ("cvt.rn.f64.u64 %fd1, -1; mov.b64 %rd2, %fd1;", f64(2.0**64)),
        ("cvt.rn.f64.s64 %fd1, -9007199254740993; mov.b64 %rd2, %fd1;", f64(-(2.0**53))),
        ("cvt.rn.f64.s32 %fd1, -7; mov.b64 %rd2, %fd1;", f64(-7.0)),
        # Subnormal float32 numbers are numbers, but where they are flushed, with their sign.
        ("cvt.f64.f32 %fd1, 0f00000001; mov.b64 %rd2, %fd1;", f64(2.0**-149)),
        ("cvt.f64.f32 %fd1, 0f807FFFFF; mov.b64 %rd2, %fd1;", f64(-(2.0**-126) + 2.0**-149)),
        ("cvt.ftz.f64.f32 %fd1, 0f007FFFFF; mov.b64 %rd2, %fd1;", 0),
        ("cvt.ftz.f64.f32 %fd1, 0f80000001; mov.b64 %rd2, %fd1;", f64(-0.0)),
        ("cvt.ftz.f64.f32 %fd1, 0f00800000; mov.b64 %rd2, %fd1;", f64(2.0**-126)),
        ("cvt.ftz.f64.f32 %fd1, 0fFF800000; mov.b64 %rd2, %fd1;", f64(-np.inf)),
        ("add.rn.f64 %fd1, 0d0000000000000001, 0d0000000000000002; mov.b64 %rd2, %fd1;", 3),
        (
            "div.rn.f64 %fd1, 0d3FF0000000000000, 0d4008000000000000; mov.b64 %rd2, %fd1;",
            f64(1 / 3),
        ),
        ("abs.f64 %fd1, 0dBFF0000000000000; mov.b64 %rd2, %fd1;", f64(1.0)),
        # Toward zero, up or down: 1 + 2^-52 times itself is more than 1 + 2^-51 by 2^-104.
        ("mul.rz.f64 %fd1, 0d3FF0000000000001, 0d3FF0000000000001; mov.b64 %rd2, %fd1;", ONE + 2),
        ("mul.rz.f64 %fd1, 0d3FF0000000000001, 0d3FEFFFFFFFFFFFFF; mov.b64 %rd2, %fd1;", ONE),
        ("mul.rz.f64 %fd1, 0d3FEFFFFFFFFFFFFF, 0d3FEFFFFFFFFFFFFF; mov.b64 %rd2, %fd1;", ONE - 2),
        ("mul.rz.f64 %fd1, 0d7FE0000000000000, 0d7FE0000000000000; mov.b64 %rd2, %fd1;", LARGEST),
        ("mul.rz.f64 %fd1, 0dFFF0000000000000, 0d4000000000000000; mov.b64 %rd2, %fd1;", f64(-INF)),
        ("max.f64 %fd1, 0dBFF0000000000000, 0d0000000000000000; mov.b64 %rd2, %fd1;", 0),
        ("max.f64 %fd1, 0d7FF8000000000000, 0d3FF0000000000000; mov.b64 %rd2, %fd1;", ONE),
        (of_single("mul.rz.f32 %f1, 0f3F800001, 0f3F800001;"), 0x3F800002),
        (of_single("mul.rz.f32 %f1, 0f3F7FFFFF, 0fBF7FFFFF;"), 0xBF7FFFFE),
        (of_single("mul.rz.f32 %f1, 0f00000001, 0f3F7FFFFF;"), 0),
        (of_single("mul.rz.f32 %f1, 0f7F000000, 0f40000001;"), 0x7F7FFFFF),
        (of_single("mul.rz.f32 %f1, 0f7F800000, 0f40000000;"), 0x7F800000),
        (of_single("mul.rn.f32 %f1, 0f00000003, 0f3F000000;"), 2),
        (of_single("sub.rp.f32 %f1, 0f3F800000, 0f00000001;"), 0x3F800000),
        (of_single("sub.rm.f32 %f1, 0f3F800000, 0f00000001;"), 0x3F7FFFFF),
        (of_single("sub.rp.f32 %f1, 0f3F800000, 0f80000001;"), 0x3F800001),
        (of_single("sub.rm.f32 %f1, 0f3F800000, 0f80000001;"), 0x3F800000),
        (of_single("sub.rp.f32 %f1, 0f00000001, 0f3F800000;"), 0xBF7FFFFF),
        (of_single("sub.rp.f32 %f1, 0f00000003, 0f00000001;"), 2),
        (of_single("sub.rp.f32 %f1, 0f7F7FFFFF, 0fFF7FFFFF;"), 0x7F800000),
        (of_single("sub.rm.f32 %f1, 0f7F7FFFFF, 0fFF7FFFFF;"), 0x7F7FFFFF),
        (of_single("sub.rm.f32 %f1, 0f7F800000, 0f3F800000;"), 0x7F800000),
        (of_single("sub.rm.f32 %f1, 0f7F800000, 0f7F800000;"), 0x7FFFFFFF),
        (of_single("abs.f32 %f1, 0f80000001;"), 1),
        # "If one of the inputs is NaN, the result is the other", and subnormals are numbers.
        (of_single("max.f32 %f1, 0f7FC00000, 0f3F800000;"), 0x3F800000),
        (of_single("max.f32 %f1, 0f7FC00001, 0fFFC00000;"), 0x7FFFFFFF),
        (of_single("max.f32 %f1, 0f00000001, 0f00000000;"), 1),
        (of_single("mov.b64 %fd1, 0x3FF0000010000000; cvt.rz.f32.f64 %f1, %fd1;"), 0x3F800000),
        (of_single("mov.b64 %fd1, 0x3FF000003FFFFFFF; cvt.rz.f32.f64 %f1, %fd1;"), 0x3F800001),
        (of_single("mov.b64 %fd1, 0x7FE0000000000000; cvt.rz.f32.f64 %f1, %fd1;"), 0x7F7FFFFF),
        (of_single("mov.b64 %fd1, 0x36AFFFFFFFFFFFFF; cvt.rz.f32.f64 %f1, %fd1;"), 1),
        (of_single("mov.b64 %fd1, 0x369FFFFFFFFFFFFF; cvt.rz.f32.f64 %f1, %fd1;"), 0),
        (of_single("cvt.rp.f32.u32 %f1, 0x01000001;"), 0x4B800001),
        (of_single("cvt.rm.f32.u32 %f1, 0x01000003;"), 0x4B800001),
        (of_single("cvt.rm.f32.u32 %f1, 0xFFFFFFFF;"), 0x4F7FFFFF),
        (of_single("mov.u16 %rs1, 1; cvt.f32.f16 %f1, %rs1;"), 0x33800000),
        (of_single("mov.u16 %rs1, 0xFC00; cvt.f32.f16 %f1, %rs1;"), 0xFF800000),
        # "Position of the most significant 1-bit", all ones where there is none.
        (of_32("bfind.u32 %r5, 0x00010001;"), 16),
        (of_32("bfind.u32 %r5, 0;"), 0xFFFFFFFF),
        (of_32("bfind.u64 %r5, 0x8000000000000000;"), 63),
    ],
)
def test_instructions(code: str, wanted: int) -> None:
    assert one(code) == wanted


@pytest.mark.parametrize(
    ("name", "less", "equal", "greater", "unordered"),
    [
        ("lt", 1, 0, 0, 0),
        ("ltu", 1, 0, 0, 1),
        ("ge", 0, 1, 1, 0),
        ("geu", 0, 1, 1, 1),
        ("eq", 0, 1, 0, 0),
        ("equ", 0, 1, 0, 1),
        ("ne", 1, 0, 1, 0),
        ("neu", 1, 0, 1, 1),
    ],
)
def test_comparisons_of_floats(
    name: str, less: int, equal: int, greater: int, unordered: int
) -> None:
    one_, two, nan = "0d3FF0000000000000", "0d4000000000000000", "0d7FF8000000000000"
    for x, y, wanted in (
        (one_, two, less),
        (two, two, equal),
        ("0d0000000000000000", "0d8000000000000000", equal),
        (two, one_, greater),
        (nan, one_, unordered),
        (one_, nan, unordered),
        (nan, nan, unordered),
    ):
        code = f"setp.{name}.f64 %p1, {x}, {y}; selp.u64 %rd2, 1, 0, %p1;"
        assert one(code) == wanted, (x, y)


@pytest.mark.parametrize(
    ("mode", "b", "c", "source"),
    [
        ("up", 1, 0, lambda lane: lane - 1 if lane else None),
        ("up", 3, 0x1800, lambda lane: lane - 3 if lane % 8 >= 3 else None),
        ("down", 4, 0x1F, lambda lane: lane + 4 if lane + 4 <= 31 else None),
        ("down", 1, 0x1807, lambda lane: lane + 1 if lane % 8 != 7 else None),
        ("bfly", 16, 0x1F, lambda lane: lane ^ 16),
        ("bfly", 12, 0x1807, lambda lane: lane ^ 12 if lane ^ 12 < lane | 7 else None),
        ("idx", 5, 0x1F, lambda lane: 5),
        ("idx", 37, 0x1F, lambda lane: 5),
        ("idx", 2, 0x1807, lambda lane: lane & 24 | 2),
        ("idx", 9, 0x1803, lambda lane: lane & 24 | 1),
        ("idx", 6, 0x1803, lambda lane: None),
    ],
)
def test_shuffles(mode: str, b: int, c: int, source: Callable[[int], int | None]) -> None:
    """Out of range a lane has its own value, and is told so."""
    code = f"""add.s32 %r4, %r0, 100;
    shfl.sync.{mode}.b32 %r5|%p1, %r4, {b}, {c}, -1;
    selp.u32 %r6, 1000, 0, %p1; add.s32 %r5, %r5, %r6;"""
    wanted = []
    for lane in range(32):
        at = source(lane)
        wanted.append(100 + lane if at is None else 1100 + at)
    assert run(of_32(code)) == wanted
