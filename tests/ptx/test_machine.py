"""Threads that part, wait and meet, and what may not be done: as the PTX ISA manual has it."""

from __future__ import annotations

import numpy as np
import pytest

from .machine import Machine, Order
from .memory import Arena
from .parser import PtxError, parse
from .snippets import BASE, HEAD, REGISTERS, run

LOOP = """mov.u64 %rd2, 0; mov.u32 %r4, 0;
$again: setp.ge.u32 %p1, %r4, %r0; @%p1 bra $done;
add.s32 %r4, %r4, 1; cvt.u64.u32 %rd4, %r4; add.s64 %rd2, %rd2, %rd4; bra.uni $again;
$done:"""
ADD = "cvt.u64.u32 %rd4, %r5; add.s64 %rd2, %rd2, %rd4;"


@pytest.mark.parametrize("order", ["together", "forward", "backward"])
def test_threads_part_and_meet_again(order: Order) -> None:
    code = f"{LOOP} shfl.sync.idx.b32 %r5, %r4, 31, 31, -1; {ADD}"
    wanted = [thread * (thread + 1) // 2 + thread // 32 * 32 + 31 for thread in range(64)]
    assert run(code, 64, 2, order) == wanted * 2
    # Code of some alone is below where they meet.
    code = """setp.lt.u32 %p1, %r0, 7; @%p1 bra $few; mov.u64 %rd2, 1; bra.uni $meet;
    $few: mov.u64 %rd2, 2; bra.uni $meet;
    $meet: shfl.sync.bfly.b32 %r5, %r0, 1, 31, -1;"""
    assert run(code + ADD) == [(2 if lane < 7 else 1) + (lane ^ 1) for lane in range(32)]


def test_guards() -> None:
    code = "and.b32 %r4, %r0, 1; setp.eq.s32 %p1, %r4, 0; mov.u64 %rd2, 1;"
    code += "@!%p1 add.s64 %rd2, %rd2, 9;"
    assert run(code) == [1, 10] * 16
    # A half of a warp may shuffle by itself.
    code = """setp.ge.u32 %p1, %r0, 16; mov.u64 %rd2, 7; @%p1 bra $end;
    shfl.sync.idx.b32 %r5, %r0, 3, 31, 0xFFFF; cvt.u64.u32 %rd2, %r5; $end:"""
    assert run(code) == [3] * 16 + [7] * 16


SHARED = """mov.u32 %r4, shared; shl.b32 %r5, %r0, 2; add.s32 %r6, %r4, %r5;
st.shared.u32 [%r6], %r0; {}
xor.b32 %r5, %r5, 128; add.s32 %r6, %r4, %r5; ld.shared.u32 %rd2, [%r6];"""


@pytest.mark.parametrize("order", ["together", "forward", "backward"])
def test_barriers(order: Order) -> None:
    assert run(SHARED.format("bar.sync 0;"), 64, 2, order) == [i ^ 32 for i in range(64)] * 2
    with pytest.raises(PtxError, match=r"no barrier between|nothing was written"):
        run(SHARED.format(""), 64, 2, order)
    for code in (
        "setp.lt.u32 %p1, %r0, 33; @%p1 bra $on; bar.sync 0; $on:",
        "setp.lt.u32 %p1, %r0, 33; @%p1 ret; bar.sync 0;",
    ):
        with pytest.raises(PtxError, match="wait for others that never come"):
            run(f"{code} mov.u64 %rd2, 0;", 64, 1, order)


def test_what_a_barrier_does_not_order() -> None:
    """Other blocks; and what comes after it again."""
    later = SHARED.format("bar.sync 0;") + "st.shared.u32 [%r6], %r0;"
    assert run(later + "bar.sync 0;", 64) == [i ^ 32 for i in range(64)]
    again = later + "xor.b32 %r5, %r5, 64; add.s32 %r6, %r4, %r5; ld.shared.u32 %rd2, [%r6];"
    with pytest.raises(PtxError, match="no barrier between"):
        run(again, 64)
    with pytest.raises(PtxError, match=r"no barrier between|write at once"):
        run("bar.sync 0; st.global.u32 [%rd0], %r1; mov.u64 %rd2, 0;", 32, 2)


@pytest.mark.parametrize("order", ["together", "forward", "backward"])
def test_atomic_operations(order: Order) -> None:
    sum_ = "mov.u64 %rd4, 1; atom.global.add.u64 %rd2, [%rd0+8], %rd4;"
    assert sorted(run(sum_, 64, 3, order)) == list(range(192))
    code = """mov.u32 %r4, shared; setp.ne.s32 %p1, %r0, 0; @%p1 bra $on; st.shared.u32 [%r4], 5;
    $on: bar.sync 0; and.b32 %r5, %r0, 3; atom.shared.max.u32 %r5, [%r4], %r5; bar.sync 0;
    atom.shared.add.u32 %r6, [%r4], 2; bar.sync 0; ld.shared.u32 %rd2, [%r4];"""
    assert run(code, 64, 2, order) == [5 + 128] * 128
    code = code.replace("atom.shared.add.u32 %r6, ", "red.shared.add.u32 ")
    assert run(code, 64, 2, order) == [5 + 128] * 128
    plain = "ld.global.u64 %rd2, [%rd0]; add.s64 %rd2, %rd2, 1; st.global.u64 [%rd0], %rd2;"
    with pytest.raises(PtxError, match=r"no barrier between|write at once"):
        run(plain, 64, 1, order)
    with pytest.raises(PtxError, match="no barrier between"):
        run(f"{sum_} ld.global.u64 %rd2, [%rd0+8];", 64, 1, order)


@pytest.mark.parametrize("order", ["together", "forward", "backward"])
def test_volatile_loads(order: Order) -> None:
    """They may meet atomic operations, as plain loads may not; but no plain store."""
    code = """mov.u32 %r4, shared; setp.ne.s32 %p1, %r0, 0; @%p1 bra $on; st.shared.u32 [%r4], 5;
    $on: bar.sync 0; {}.u32 %r5, [%r4]; atom.shared.max.u32 %r6, [%r4], 7; setp.ge.u32 %p1, %r5, 5;
    selp.u64 %rd2, 1, 0, %p1;"""
    assert run(code.format("ld.volatile.shared"), 64, 2, order) == [1] * 128
    with pytest.raises(PtxError, match="no barrier between"):
        run(code.format("ld.shared"), 64, 2, order)
    store = code.replace("atom.shared.max.u32 %r6, [%r4], 7", "st.shared.u32 [%r4], 6")
    with pytest.raises(PtxError, match=r"no barrier between|write at once"):
        run(store.format("ld.volatile.shared"), 64, 2, order)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ld.volatile.global.u64 %rd2, [%rd0];", "unknown instruction"),
        ("sub.f32 %f1, %f2, %f3;", "unknown instruction"),
        ("add.s64 %rd2, %rd5, 1;", "%rd5 is read before it is set"),
        ("@%p2 mov.u64 %rd6, 1; add.s64 %rd2, %rd6, 1;", "%rd6 is read before it is set"),
        ("ld.global.u64 %rd2, [%rd0+4];", "unaligned"),
        ("ld.global.v2.u64 {%rd2, %rd4}, [%rd0+8];", "unaligned"),
        ("ld.global.u64 %rd2, [%rd0+64];", "nothing was written"),
        ("ld.global.u64 %rd2, [%rd0+-8];", "nothing was written"),
        ("ld.global.u64 %rd2, [%rd1];", "nothing was written"),
        ("ld.global.nc.u64 %rd2, [%rd0];", "what the kernel may write"),
        ("mov.u64 %rd2, 3; st.global.u64 [%rd0+512], %rd2;", "nothing may be written"),
        ("mov.u64 %rd4, 8; ld.global.u64 %rd2, [%rd4];", "0x8 is no address"),
        ("ld.shared.u64 %rd2, [shared+8];", "nothing was written"),
        ("mov.u64 %rd4, 1; st.shared.u64 [shared+1024], %rd4;", "nothing may be written"),
        ("mov.u64 %rd4, 0; div.u64 %rd2, %rd4, %rd4;", "division by zero"),
        (
            "@%p1 bra $x; shfl.sync.idx.b32 %r5, %r0, 0, 31, -1; $x:",
            "never come",
        ),
        ("@%p1 ret; shfl.sync.idx.b32 %r5, %r0, 0, 31, -1;", "never come"),
        ("shfl.sync.idx.b32 %r5, %r0, 0, 31, 1;", "not themselves"),
        (
            "@!%p2 bra $x; shfl.sync.idx.b32 %r5, %r0, 20, 31, 0xFFFF; $x:",
            "no member",
        ),
        ("add.f64 %fd1, 0d0000000000000000, 0d0000000000000000;", "unknown instruction"),
        ("fma.rn.f64 %fd1, %fd2, %fd3, %fd4;", "unknown instruction"),
        ("add.sat.s32 %r5, %r0, 1;", "unknown instruction"),
        ("ld.global.ca.u64 %rd2, [%rd0];", "unknown instruction"),
        ("ld.local.u64 %rd2, [%rd0];", "unknown instruction"),
        ("atom.global.cas.b64 %rd2, [%rd0], %rd2, %rd2;", "unknown instruction"),
        ("@%p1 bar.sync 0;", "barrier of a whole block"),
        ("add.s32 %r5, %rd0, 1;", "%rd0 as s32"),
        ("mov.u64 %rd2, %r0;", "%r0 as u64"),
        ("mov.u32 %r4, %clock;", "%clock is not known"),
        ("add.s64 %rd2, %rd0;", "a wrong number of operands"),
        ("bra $nowhere;", "nowhere"),
    ],
)
def test_what_is_refused(code: str, words: str) -> None:
    with pytest.raises((PtxError, KeyError), match=words.replace("$", r"\$")):
        run(f"mov.u64 %rd2, 0; setp.lt.u32 %p1, %r0, 9; setp.lt.u32 %p2, %r0, 16; {code}")


CALLED = """.func (.param .b64 result) half(.param .b64 a, .param .b32 b) {
.reg .b64 %rd<4>; .reg .b32 %r<4>; .reg .pred %p<2>;
ld.param.u64 %rd1, [a]; ld.param.u32 %r1, [b]; setp.eq.s32 %p1, %r1, 0; @%p1 bra $zero;
shr.u64 %rd2, %rd1, 1; bra.uni $out;
$zero: mov.u64 %rd2, 77; $out: st.param.b64 [result], %rd2; ret; }"""


def test_calls() -> None:
    """Of some threads, in a scope whose names come again; with a parameter of the launch."""
    call = """{{ .param .b64 x; st.param.b64 [x+0], {0}; .param .b32 y; st.param.b32 [y+0], %r4;
    .param .b64 back; call.uni (back), half, (x, y); ld.param.b64 %rd2, [back+0]; }}"""
    text = f"""{HEAD} {CALLED}
    .visible .entry kernel(.param .align 8 .b8 table[32], .param .u64 out) .maxntid 32, 1, 1 {{
    {REGISTERS} mov.u32 %r0, %tid.x; and.b32 %r4, %r0, 1; and.b32 %r5, %r0, 3;
    mov.b64 %rd4, table; cvta.param.u64 %rd5, %rd4;
    mul.wide.u32 %rd6, %r5, 8; add.s64 %rd5, %rd5, %rd6;
    ld.u64 %rd7, [%rd5]; ld.param.u64 %rd8, [table+24]; add.s64 %rd7, %rd7, %rd8;
    setp.lt.u32 %p1, %r0, 8; mov.u64 %rd2, 5; @!%p1 bra $on;
    {call.format("%rd7")} {call.format("%rd2")}
    $on: ld.param.u64 %rd1, [out]; mul.wide.u32 %rd3, %r0, 8; add.s64 %rd1, %rd1, %rd3;
    st.global.u64 [%rd1], %rd2; ret; }}"""
    memory = Arena(1 << 16, BASE)
    out = memory.reserve(256)
    table = np.array([100, 200, 300, 400], np.uint64).tobytes()
    machine = Machine(parse(text))
    machine.launch("kernel", 1, 32, [table, out.to_bytes(8, "little")], memory)
    found = np.frombuffer(memory.get(out, 256), np.uint64).tolist()
    assert found == [77, 150, 77, 200] * 2 + [5] * 24
    assert machine.executed()["call.uni"] == 16
    with pytest.raises(PtxError, match="in blocks of 64 threads"):
        machine.launch("kernel", 1, 64, [table, bytes(8)], memory)
    with pytest.raises(PtxError, match="24 bytes for table"):
        machine.launch("kernel", 1, 32, [table[8:], bytes(8)], memory)


@pytest.mark.parametrize(
    "text",
    [
        ".version 9.0 .target sm_90 .address_size 32",
        f"{HEAD} .tex .u32 t;",
        f"{HEAD} .entry k() {{ .local .b8 depot[8]; ret; }}",
        f'{HEAD} .entry k() {{ .pragma "unknown"; ret; }}',
        f"{HEAD} .entry k() .maxntid 8, 8, 1 {{ ret; }}",
        f"{HEAD} .entry k() {{ ret; # }}",
    ],
)
def test_modules_that_are_refused(text: str) -> None:
    with pytest.raises(PtxError):
        parse(text)
