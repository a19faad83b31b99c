"""The battery's figures as docs/quality.md."""

from __future__ import annotations

from typing import Any

HEAD = """# How good the {checksum} is

Written by `{command}`; all figures are in
[`benchmarks/results/`](../benchmarks/results/). Do not edit it by hand.

Each family below is a set of tensors, {different}. All pairs
of a family are compared: {comparisons:.2e} comparisons in all. A checksum is bad where different
tensors agree.

## The {checksum} and its truncations

A truncation to b bits that behaves as a random function lets m comparisons collide m / 2^b times:
*observed* stands beside *expected*. Columns give bits of the 32 hexadecimal digits, from the left.
The run fails where two tensors share it or a 64-bit half, or where a truncation is more
than 6 standard deviations (and 6 collisions) away from what is expected.

"""

PEERS = """
## Beside others

*Missed*: of the changed tensors, those whose checksum is that of the first one. *Colliding*: of all
pairs, those that agree. `torch.hash_tensor` and the L1 norm are what `torch.utils._debug_mode`
prints; of float8 tensors, which it does not take, `hash_tensor` is given the bytes.{more}

"""

SEQUENTIAL = """ XXH3 sees all
of this too; it is sequential, so its answer depends on the order in which bytes arrive: parts on
other threads, devices or ranks do not add up."""

DIFFERENT = {
    "digest": """all different from one another, that differ as tensors do
when a program diverges""",
    "multiset": """no two of which hold the same values equally often; the
multiset digest is blind to their order""",
}


def page(report: dict[str, Any]) -> str:
    """The whole page, the same for the same figures."""
    families = report["families"]
    total = sum(family["comparisons"] for family in families)
    parts = report["parts"]
    checksum = report["checksum"]
    lines = [
        HEAD.format(
            command=report["command"],
            comparisons=total,
            checksum="digest" if checksum == "digest" else "multiset digest",
            different=DIFFERENT[checksum],
        )
    ]
    wide = [name for name, (_, bits) in parts.items() if bits >= 64]
    narrow = [name for name, (_, bits) in parts.items() if bits < 64]
    lines += row(["family", "tensors", "comparisons", *wide, *narrow])
    lines += row(["---"] * (3 + len(parts)))
    for family in families:
        cells = [family["what"], f"{family['tensors']:,}", f"{family['comparisons']:.2e}"]
        cells += [str(family["parts"][name]) for name in wide]
        cells += [both(family, name, parts[name][1]) for name in narrow]
        lines += row(cells)
    cells = ["**all**", f"{sum(family['tensors'] for family in families):,}", f"{total:.2e}"]
    cells += [str(sum(family["parts"][name] for family in families)) for name in wide]
    everything = {
        "parts": {name: sum(family["parts"][name] for family in families) for name in narrow},
        "comparisons": total,
    }
    cells += [both(everything, name, parts[name][1]) for name in narrow]
    lines += row(cells)
    lines += [PEERS.format(more=SEQUENTIAL if checksum == "digest" else "")]
    peers = list(families[0]["contenders"])
    lines += row(["family", *(f"{name}: missed, colliding" for name in peers)])
    lines += row(["---"] * (1 + len(peers)))
    for family in families:
        found = [family["contenders"][name] for name in peers]
        lines += row([family["what"], *(outcome(family, peer) for peer in found)])
    return "".join(lines)


def row(cells: list[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |\n"]


def both(family: dict[str, Any], name: str, bits: int) -> str:
    """Observed beside expected."""
    return f"{family['parts'][name]} / {family['comparisons'] / 2**bits:.3g}"


def outcome(family: dict[str, Any], found: dict[str, Any]) -> str:
    """Shares of missed changes and of colliding pairs; 0 only where there is none."""
    return ", ".join(
        share(count, whole)
        for count, whole in (
            (found["missed"], family["tensors"] - 1),
            (found["collisions"], family["comparisons"]),
        )
    )


def share(count: int, whole: int) -> str:
    if count in {0, whole}:
        return "0" if count == 0 else "all"
    return f"{100 * count / whole:.2g}%"
