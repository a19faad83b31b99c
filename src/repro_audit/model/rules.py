"""What the codes of warnings and the classes of causes mean, and what to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """`name` is a code, such as RA101, or a class of causes, such as data-order."""

    name: str
    means: str
    remedy: str


WARNINGS = (
    Rule(
        "RA101",
        "a run read a file that changed after the audit began: the runs may not have started equal",
        "`--isolate` gives each run its own copy of the directory; `resume` does so by itself: let "
        "the program keep its files there",
    ),
    Rule(
        "RA102",
        "something was not observed, so nothing is said of it: tensors without plain memory that "
        "are not made of others either (quantised, wrappers of the program's), threads of "
        "`multiprocessing.pool`",
        "let a step end with plain tensors, whose values then tell of it",
    ),
    Rule(
        "RA103",
        "the divergence did not recur in further runs: it is intermittent, and there are no ULP "
        "figures. Or it recurred in runs one after the other and in none of three pairs in "
        "lock-step, which speaks for a race, or comes of files that both then read as earlier runs "
        "left them",
        "`--runs 10` (of `screen`, `--rounds 10`) tells how often; `--isolate` leaves no files of "
        "earlier runs",
    ),
    Rule(
        "RA104",
        "the confirming run did not end well, so nothing is said of what control held still",
        "look at `confirm.err` in the audit's directory: the program needs what only control gives",
    ),
    Rule(
        "RA105",
        "a run that was to look closer failed, or could not be made; the divergence stands, "
        "without ULP figures",
        "look at that run's `.err` in the audit's directory",
    ),
    Rule(
        "RA106",
        "the runs printed different things; times are a harmless reason, a result that no event "
        "shows is not",
        "compare the two `.out` files that it names",
    ),
    Rule(
        "RA107",
        "the program started Python processes (loader workers apart) that are not observed, as "
        "with `-I`",
        "start them without `-I`, `-E` and `-S`",
    ),
    Rule(
        "RA108",
        "a recording that was compared ended early: by an exception, by a signal, or by `--steps` "
        "where another goes on",
        "what came before it is compared, and where that agrees the answer is inconclusive; record "
        "it again for the rest",
    ),
    Rule(
        "RA109",
        "threads or processes did not come to their end, and were compared as far as all runs came",
        "join them before the program ends",
    ),
    Rule(
        "RA110",
        "two runs in lock-step did not end well (they wanted the same port, file or memory); "
        "further ones ran one after the other",
        "`--isolate` gives each its own directory; let the system choose ports",
    ),
    Rule(
        "RA111",
        "`verify`: the program is not, byte by byte, the one that was recorded",
        "check out the commit that the recording's manifest names",
    ),
    Rule(
        "RA112",
        "a run that took random draws from a recording computed attention by the math backend, on "
        "a machine with a GPU",
        "fused attention draws inside its kernel: record in eval mode to compare that",
    ),
    Rule(
        "RA113",
        "a run was to take weights, inputs or draws from a recording that has none of that name "
        "and shape: it made its own; of a matrix, nothing that the baseline starts from could be "
        "kept",
        "record with `--capture full` and the same arguments",
    ),
    Rule(
        "RA114",
        "`matrix`: the run of a cell that was to be timed did not end well",
        "its results stand; look at its `.err` in the audit's directory",
    ),
    Rule(
        "RA115",
        "replica-drift: weights that had been the same on all ranks of a run differ after a step",
        "look at what one rank alone does in that step; `repro_audit.check_replicas` raises there",
    ),
    Rule(
        "RA116",
        "`screen`: a run failed beside others and did not by itself: they wanted the same port, "
        "file or memory",
        "`--jobs 1`, or `--isolate`",
    ),
)

CAUSES = (
    Rule(
        "nondeterministic-op",
        "the op gives several results for the same inputs: atomic additions, threads that add in "
        "the order in which they arrive",
        "`torch.use_deterministic_algorithms(True)`, or another op",
    ),
    Rule(
        "parallelism",
        "the number of threads, or the order of Python's threads, decides",
        "combine results in a fixed order",
    ),
    Rule(
        "data-order",
        "the same data in another order: sets, directory listings, finished workers",
        "`sorted()`, lists instead of sets, `DataLoader(in_order=True)`",
    ),
    Rule(
        "unseeded-rng",
        "a generator starts from another state in each run",
        "seed it with a fixed number",
    ),
    Rule(
        "rng-drift",
        "the same seed, but one run draws once more: what is drawn later shifts",
        "make every draw in every run, or give that place a generator of its own",
    ),
    Rule(
        "uninitialized-memory",
        "memory of `torch.empty` is read before it is written",
        "`torch.zeros`, or write before reading",
    ),
    Rule(
        "config-difference",
        "the runs' manifests differ in a setting that the op goes by, or the program's source or "
        "arguments do",
        "the same settings, source and arguments in both runs",
    ),
    Rule(
        "precision-mode",
        "TF32 or reduced-precision reductions",
        "set them explicitly",
    ),
    Rule(
        "kernel-selection",
        "another kernel is chosen by timing or by memory",
        "fix the backend",
    ),
    Rule(
        "unrestored-state",
        "a resumed run begins with other weights, generators, data or optimizer state than the "
        "straight run had",
        "save it, and load it",
    ),
    Rule(
        "replica-drift",
        "ranks that held the same weights do not any more",
        "look at what one rank alone does in that step",
    ),
    Rule(
        "suspected-hardware",
        "a device computes what others of its kind do not, a training step came out otherwise once "
        "and never again, or of two checkpoints a single bit differs",
        "screen the device longer, and take it out of service if it recurs; compare with another "
        "copy of the file",
    ),
    Rule(
        "unknown",
        "the evidence does not suffice",
        "`--explain` changes one condition at a time",
    ),
)
