"""Random number generators: their states at step boundaries, and every call that seeds one."""

from __future__ import annotations

import functools
import hashlib
import random
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from repro_audit import engine
from repro_audit.capture.guards import paused
from repro_audit.capture.replaced import Replaced
from repro_audit.model.codes import SEEDINGS

if TYPE_CHECKING:
    from repro_audit.capture.recorder import Recorder


# Seedings whose generators are looked at again: NumPy's are kept alive for that.
_LOOKED_AT = 256


def digest_of(value: Any) -> bytes:
    """16 bytes that stand for a plain Python value."""
    return hashlib.blake2b(repr(value).encode(), digest_size=16).digest()


def states() -> list[tuple[str, bytes]]:
    """(name, digest) of the global generators of torch, for each device that has one in use, Python
    and, if imported, NumPy.

    Reads without drawing, and waits for no device. While a graph is captured devices have none.
    """
    with paused():
        found = [("torch", engine.tensor_digest(torch.default_generator.get_state()))]
        if not engine.capturing():
            found += [
                (f"torch.{device}", engine.tensor_digest(generator.get_state()))
                for device, generator in engine.device_generators()
            ]
    found.append(("python", digest_of(random.getstate())))
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        state = numpy_random.get_state(legacy=False)
        # The program may have put another bit generator in the Mersenne Twister's place.
        key = state["state"].pop("key", None)
        found.append(("numpy", digest_of((key is not None and key.tobytes(), state))))
    return found


class Generators:
    """Wraps the functions that seed generators; each call is an event with its call site.

    Not seen: `torch.Generator().manual_seed` (a method of a C type; what such a generator draws
    is seen as an operator), NumPy's `RandomState()`, and generators that a library makes as it is
    imported: sympy's, which torch imports, number its symbols.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._replaced = Replaced()
        self._wrapped: set[str] = set()
        # Of generators that were seeded: the event, how to read the state, and what it then was.
        self._seeded: list[tuple[int, Callable[[], Any], bytes]] = []

    def undrawn(self) -> list[int]:
        """The seedings after which nobody has drawn from the generator.

        Libraries make generators when they are imported. Of one that is gone it is not known.
        """
        return [event for event, state, seeded in self._seeded if digest_of(state()) == seeded]

    def forget(self) -> None:
        """Number anew: what was seeded is another process's."""
        self._seeded.clear()

    def states(self, *only: str) -> None:
        """Record all states, or those of these generators."""
        for name, digest in states():
            if not only or name in only:
                self._recorder.generator(f"rng:{name}", digest)

    def install(self) -> None:
        """Wrap the seeding functions of torch, Python and, if imported, NumPy."""
        for owner, attribute in ((torch, "manual_seed"), (torch.random, "manual_seed")):
            self._wrap(
                owner, attribute, "torch.manual_seed", lambda args, result: torch.initial_seed()
            )
        for owner, attribute in ((torch, "seed"), (torch.random, "seed")):
            self._wrap(owner, attribute, "torch.seed", lambda args, result: result)
        for kind in engine.accelerator_kinds():
            self._wrap_device(kind)
        self._replaced.wrap(torch, "_register_device_module", self._registering)
        self._wrap(
            random,
            "seed",
            "random.seed",
            lambda args, result: random.getstate(),
            lambda args, result: random.getstate,
        )
        self._wrap(
            random.Random,
            "seed",
            "random.Random.seed",
            lambda args, result: args[0].getstate(),
            lambda args, result: _state_of(weakref.ref(args[0])),
            own=True,
        )
        self.install_numpy()

    def install_numpy(self) -> None:
        """Wrap NumPy's seeding functions, if it is imported."""
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is None:
            return
        self._wrap(
            numpy_random,
            "seed",
            "numpy.random.seed",
            lambda args, result: dict(states())["numpy"],
            lambda args, result: lambda: dict(states())["numpy"],
        )
        self._wrap(
            numpy_random,
            "default_rng",
            "numpy.random.default_rng",
            lambda args, result: result.bit_generator.state,
            lambda args, result: functools.partial(getattr, result.bit_generator, "state"),
            own=True,
        )

    def uninstall(self) -> None:
        """Give the functions back."""
        self._replaced.give_back()
        self._wrapped.clear()

    def _wrap_device(self, kind: str) -> None:
        module = getattr(torch, kind)
        self._wrapped.add(kind)
        for owner in engine.homes(module):
            for attribute in SEEDINGS:
                if hasattr(owner, attribute):
                    self._wrap(owner, attribute, f"torch.{kind}.{attribute}", _of(kind))

    def _registering(self, original: Callable[..., None]) -> Callable[..., None]:
        """Another maker's devices are there from when the program imports its package."""

        def registered(*args: Any, **kwargs: Any) -> None:
            original(*args, **kwargs)
            for kind in engine.accelerator_kinds():
                if kind not in self._wrapped:
                    self._wrap_device(kind)

        return registered

    def _wrap(
        self,
        owner: Any,
        attribute: str,
        label: str,
        what: Callable[[Any, Any], Any],
        again: Callable[[Any, Any], Callable[[], Any]] | None = None,
        *,
        own: bool = False,
    ) -> None:
        """Have each call recorded with the digest of `what`; `again` reads it later.

        `own` are generators that belong to whoever made them, not the global ones.
        """
        recorder = self._recorder
        original = getattr(owner, attribute)

        @functools.wraps(original)
        def seeding(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            # Libraries seed generators of their own (names of temporary files): not the program's.
            frame = sys._getframe(1)
            code = recorder.locator.direct(frame, random.__file__)
            if own and code is not None and recorder.locator.importing(frame):
                code = None
            if recorder.active and code is not None:
                given = (*args, *kwargs.values())
                seed = digest_of(what(given, result))
                event = recorder.generator(f"seed:{label}", seed, code)
                if again is not None and event is not None and len(self._seeded) < _LOOKED_AT:
                    self._seeded.append((event, again(given, result), seed))
            return result

        self._replaced.put(owner, attribute, seeding)


def _of(kind: str) -> Callable[[Any, Any], Any]:
    """What devices' generators were given; what they will be given, before those are in use."""

    def given(args: Any, result: Any) -> Any:
        if engine.capturing():
            return args
        # By name: what is called CUDA's may be another maker's, put in its place.
        generators = engine.device_generators()
        return [_seed_of(g) for name, g in generators if name.partition(":")[0] == kind] or args

    return given


def _seed_of(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.initial_seed()
    return engine.tensor_digest(generator.get_state())


def _state_of(generator: weakref.ref[random.Random]) -> Callable[[], Any]:
    def state() -> Any:
        there = generator()
        return None if there is None else there.getstate()

    return state
