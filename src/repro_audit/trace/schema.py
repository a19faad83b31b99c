"""The trace file: one SQLite database a process of a run. This is its documentation.

A file is whole only if `meta` has the row `closing`, written last in a transaction of its own, and
the seal (`trace.seal`) after the last page agrees with every byte before it.
Versions are in `PRAGMA user_version`; one that is not known is refused, never guessed at.
"""

from __future__ import annotations

VERSION = 6
SCHEMA = f"repro-audit/trace/{VERSION}"
# "RAud": tells a trace from any other SQLite file.
APPLICATION_ID = 0x52417564

# Roles of a payload.
MEMORY, OUTPUT, STATE = range(3)
# A blob is read whole by SQLite; 16 MiB keeps a large tensor's reading in bounds.
CHUNK = 16 << 20

DDL = """
CREATE TABLE meta (
  key   TEXT PRIMARY KEY, -- schema, run, process ('' the program's own), plan, manifest, closing
  value TEXT NOT NULL     -- text, or JSON for plan, manifest and closing
) WITHOUT ROWID;
CREATE TABLE site (
  id     INTEGER PRIMARY KEY,
  module TEXT NOT NULL,   -- qualified module path, '' outside modules and in the root itself
  op     TEXT NOT NULL    -- aten.addmm.default; param:weight; state:AdamW; rng:torch
);
CREATE TABLE code (
  id          INTEGER PRIMARY KEY,
  location    TEXT NOT NULL, -- call site, path:line
  called_from TEXT           -- the program's line, where `location` is an installed package's
);
CREATE TABLE spec (
  id     INTEGER PRIMARY KEY,
  dtype  TEXT NOT NULL,   -- torch's name without 'torch.'; 'python' for plain values
  shape  TEXT NOT NULL,   -- JSON list of sizes
  device TEXT NOT NULL    -- cpu, cuda:0
);
CREATE TABLE thread (
  id    INTEGER PRIMARY KEY, -- 0 the main thread
  name  TEXT NOT NULL,       -- '' the main thread; 2 the second it started, 2.1 the first of 2
  ended INTEGER NOT NULL     -- 1 once it came to its end; of one that did not, only a part is here
);
CREATE TABLE event (
  id         INTEGER PRIMARY KEY, -- order of execution, from 0
  kind       INTEGER NOT NULL,    -- 0 op, 1 param, 2 batch, 3 rng, 4 module, 5 state
  step       INTEGER NOT NULL,    -- training or inference step, from 0
  phase      INTEGER NOT NULL,    -- 0 data, 1 rng, 2 weights, 3 forward, 4 backward, 5 optimizer
  thread     INTEGER NOT NULL,    -- thread.id
  site       INTEGER NOT NULL,    -- site.id
  call_index INTEGER NOT NULL,    -- how many events of this step, phase and site came before
  code       INTEGER,             -- code.id of the call site
  cause      INTEGER,             -- for a backward op, event.id of its forward op or parameter
  flags      INTEGER NOT NULL     -- 1 read unwritten memory, 2 random, 4 recompute, 8 inputs kept,
                                  -- 16 random, from a generator of the program's own,
                                  -- 32 called by Python code that runs within a backward
);
CREATE TABLE clock (
  event INTEGER PRIMARY KEY,      -- event.id; only where the run has several processes
  ns    INTEGER NOT NULL          -- when it had ended, by the machine's monotonic clock
);
CREATE TABLE output (
  event    INTEGER NOT NULL,      -- event.id
  position INTEGER NOT NULL,      -- written arguments first, then results
  spec     INTEGER NOT NULL,      -- spec.id
  digest   BLOB,                  -- 16 bytes, or NULL where none was taken
  name     TEXT,                  -- place in a batch; of a parameter, state, output
  PRIMARY KEY (event, position)
) WITHOUT ROWID;
CREATE TABLE input (
  event    INTEGER NOT NULL,      -- as output, for events whose inputs were kept
  position INTEGER NOT NULL,
  spec     INTEGER NOT NULL,
  digest   BLOB,
  name     TEXT,
  PRIMARY KEY (event, position)
) WITHOUT ROWID;
CREATE TABLE sample (
  event    INTEGER NOT NULL,      -- event.id
  position INTEGER NOT NULL,      -- as output
  data     BLOB NOT NULL,         -- elements evenly spread over the stream: SPEC.md, section 11
  PRIMARY KEY (event, position)
) WITHOUT ROWID;
CREATE TABLE reduction (
  site   INTEGER NOT NULL,        -- site.id of an operator
  spec   INTEGER NOT NULL,        -- spec.id of its first output
  length INTEGER NOT NULL,        -- how many numbers go into one of its results, at most
  PRIMARY KEY (site, spec)
) WITHOUT ROWID;
CREATE TABLE measured (
  event    INTEGER NOT NULL,      -- event.id, where the run was given another's values
  position INTEGER NOT NULL,      -- as output
  against  INTEGER NOT NULL,      -- 0 own result against the other's, 1 own against float64, 2 the
                                  -- other's against float64, 3 the condition
  figures  TEXT NOT NULL,         -- JSON of model.Deviation; of 3 the factor, null for infinite,
                                  -- and the dtype rounded to, where it is coarser than the result's
  PRIMARY KEY (event, position, against)
) WITHOUT ROWID;
CREATE TABLE call (
  event INTEGER PRIMARY KEY,      -- event.id of an operator whose call was kept
  call  TEXT NOT NULL             -- JSON: its arguments, how they lie in memory, the settings
);
CREATE TABLE payload (
  event    INTEGER NOT NULL,      -- event.id
  role     INTEGER NOT NULL,      -- 0 memory of arguments, 1 output, 2 state of a generator
  position INTEGER NOT NULL,      -- in the call's memory, in output, in the call's generators
  chunk    INTEGER NOT NULL,      -- from 0; 16 MiB each but the last
  data     BLOB NOT NULL,         -- of an output its logical row-major stream
  PRIMARY KEY (event, role, position, chunk)
) WITHOUT ROWID;
"""
