"""The engine room: from a tensor's memory to its digest, fingerprint and ULP divergence.

The only room that knows devices and instruction sets. Importing it imports neither torch nor
NumPy.
"""

from repro_audit.engine.accelerators import (
    DeviceGenerator,
    accelerator_kinds,
    accelerators_in_use,
    capturing,
    device_generators,
    device_names,
    generator_of,
    homes,
    seed_devices,
)
from repro_audit.engine.choice import (
    DIGEST_VERSION,
    VARIABLE,
    available,
    info,
    name,
    name_for,
    select,
)
from repro_audit.engine.cpu import plain_digest, plain_sample, tensor_digest, tensor_digests
from repro_audit.engine.cuda_graphs import aside, captive, failed, routed
from repro_audit.engine.devices import stays
from repro_audit.engine.divergence import compare, compare_channels, compare_streams
from repro_audit.engine.fingerprints import (
    Fingerprints,
    fingerprint,
    multiset_digest,
    row_digests,
    row_multiset,
)
from repro_audit.engine.partials import Partial, merge, partial, partial_bytes
from repro_audit.engine.ring import Rings
from repro_audit.engine.samples import follow, gathered, sample, stream_of
from repro_audit.engine.tags import ITEMSIZES, TAGS
from repro_audit.engine.views import View, fetched, raw_array, resolved, unseen
from repro_audit.engine.views import of_array as array_view

__all__ = [
    "DIGEST_VERSION",
    "ITEMSIZES",
    "TAGS",
    "VARIABLE",
    "DeviceGenerator",
    "Fingerprints",
    "Partial",
    "Rings",
    "View",
    "accelerator_kinds",
    "accelerators_in_use",
    "array_view",
    "aside",
    "available",
    "captive",
    "capturing",
    "compare",
    "compare_channels",
    "compare_streams",
    "device_generators",
    "device_names",
    "failed",
    "fetched",
    "fingerprint",
    "follow",
    "gathered",
    "generator_of",
    "homes",
    "info",
    "merge",
    "multiset_digest",
    "name",
    "name_for",
    "partial",
    "partial_bytes",
    "plain_digest",
    "plain_sample",
    "raw_array",
    "resolved",
    "routed",
    "row_digests",
    "row_multiset",
    "sample",
    "seed_devices",
    "select",
    "stays",
    "stream_of",
    "tensor_digest",
    "tensor_digests",
    "unseen",
]
