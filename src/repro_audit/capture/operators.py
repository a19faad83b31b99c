"""What each operator writes, draws and leaves unwritten: read once from its schema, then cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from repro_audit.capture.beneath import caller_of, chooses

# Their results share the input's memory although the schema does not say so, or their result was
# fingerprinted when it was made; a second digest would cost a read and say nothing new.
_ALIASES = frozenset({"_unsafe_view", "_reshape_alias", "alias", "detach", "lift", "set_data"})
# Bring memory in from outside torch: `torch.tensor`, `from_numpy`, `as_tensor`; `torch.load`, whose
# tensors are an event once they are read.
_OUTSIDE = frozenset({"lift_fresh", "set_"})
_EMPTY = frozenset(
    {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
)
# What they give a tensor need not have been written: `resize_` may grow it, and `torch.load` of an
# old file sets the storage before it reads the contents.
_BLIND = frozenset({"resize_", "resize_as_", "set_"})
# Overwrite some elements of their first argument; the others may never be written, nor be read.
_PARTIAL = frozenset(
    {
        "_index_put_impl_",
        "copy_",
        "index_copy_",
        "index_fill_",
        "index_put_",
        "masked_fill_",
        "masked_scatter_",
        "put_",
        "scatter_",
    }
)
# Overwrite their first argument without reading it.
_FILLS = frozenset(
    {
        "bernoulli_",
        "cauchy_",
        "copy_",
        "exponential_",
        "fill_",
        "geometric_",
        "log_normal_",
        "normal_",
        "random_",
        "uniform_",
        "zero_",
    }
)
# Overwrite what they keep of the steps before (the position of the argument), where this is the
# first.
_FIRST = {"_fused_sgd_": 2}
# Their schemas hide that running statistics are written in training (positions of the arguments).
_HIDDEN_WRITES = {
    "batch_norm_gather_stats": (3, 4),
    "batch_norm_gather_stats_with_counts": (3, 4),
    "batch_norm_update_stats": (1, 2),
    "native_batch_norm": (3, 4),
    "cudnn_batch_norm": (3, 4),
    "miopen_batch_norm": (3, 4),
}
# Their schemas say that they write these arguments, and they do not: `record_stream` is called on a
# stream that may not have what the tensor will hold, noise is drawn in training alone.
_NO_WRITES = {
    "record_stream": "self",
    "rrelu_with_noise": "noise",
    "rrelu_with_noise_": "noise",
}
# Scratch that they are given (the position of the argument), which in evaluation nobody writes.
_NOISE = {"rrelu_with_noise": 1, "rrelu_with_noise_": 1, "rrelu_with_noise_backward": 2}
# Copy the elements of an argument (its position), to another device's memory too.
_COPIES = {"_foreach_copy_": 1, "_to_copy": 0, "copy_": 1}
# Results that are scratch for the backward, with padding that is never written (positions of the
# results); two identical runs differ there.
_SCRATCH = {
    "_batch_norm_no_update": (3,),
    "_batch_norm_with_update": (3,),
    "_batch_norm_with_update_functional": (3,),
    "_ctc_loss": (1,),
    # CUDA counts no last bag where the last offset is but an end.
    "_embedding_bag": (2,),
    "_embedding_bag_forward_only": (2,),
    "mkldnn_rnn_layer": (3,),
    "_cudnn_rnn": (3, 4),
    "cudnn_batch_norm": (3,),
    "miopen_rnn": (3, 4),
    # CUDA sums no weights where losses are not reduced.
    "nll_loss2d_forward": (1,),
    # Seed and offset of the dropout, which nothing sets where there is none, and of sequences of
    # several lengths the sums of exponentials, as many as the longest has.
    "_cudnn_attention_forward": (1, 6, 7),
    "_efficient_attention_forward": (1, 2, 3),
    "_flash_attention_forward": (1, 2, 3),
    "_scaled_dot_product_cudnn_attention": (6, 7),
    "_scaled_dot_product_efficient_attention": (2, 3),
    "_scaled_dot_product_flash_attention": (6, 7),
    # What a rank is to receive: its own part alone is there.
    "fsdp.all_gather_copy_in": (1,),
}


# Between processes: they return before their results are there, and say not what they write.
_COLLECTIVE = frozenset({"c10d", "_c10d_functional", "_c10d_functional_autograd"})


class Operator:
    """How to record one overload.

    `returns` lists the result positions to fingerprint, `scratch` those never to be; `labels` are
    the names of what is written and then returned, where that is more than one tensor; `call` runs
    it as it runs where no mode is on, and its node `chooses` a formula by whether one is;
    `many` says that it writes or returns lists. `unread` counts the calls that left nothing to
    fingerprint: of a `view`, or of memory that is `empty`.
    """

    __slots__ = (
        "blind",
        "call",
        "chooses",
        "collective",
        "copied",
        "empty",
        "fills",
        "first",
        "labels",
        "many",
        "name",
        "noise",
        "outs",
        "outside",
        "partial",
        "random",
        "returns",
        "scratch",
        "single",
        "skip",
        "unread",
        "view",
        "writes",
    )

    def __init__(self, func: Any) -> None:
        schema = getattr(func, "_schema", None)
        self.call: Callable[..., Any] = func
        self.skip = self.chooses = False
        self.empty = self.fills = self.outside = self.random = False
        self.blind = self.partial = self.collective = self.many = False
        self.first: int | None = None
        self.noise: int | None = None
        self.copied: int | None = None
        self.outs: frozenset[str] = frozenset()
        self.writes: tuple[tuple[int, str], ...] = ()
        self.returns: tuple[int, ...] | None = None
        self.labels: tuple[str | None, ...] = ()
        self.scratch: tuple[int, ...] = ()
        self.single = self.view = False
        self.unread = 0
        if schema is None:  # a higher-order operator: whatever tensors it returns
            self.name = f"higher_order.{func.name()}"
            return
        namespace, _, base = schema.name.partition("::")
        overload = schema.overload_name or "default"
        self.name = f"{namespace}.{base}.{overload}"
        self.skip = namespace in {"profiler", "prim", "_inductor_test"}
        aten = namespace == "aten"
        self.empty = aten and base in _EMPTY
        self.fills = aten and base in _FILLS
        self.blind = aten and base in _BLIND
        self.partial = aten and base in _PARTIAL
        self.chooses = chooses(schema)
        self.outside = aten and base in _OUTSIDE
        self.first = _FIRST.get(base) if aten else None
        self.noise = _NOISE.get(base) if aten else None
        self.copied = _COPIES.get(base) if aten else None
        self.outs = frozenset(argument.name for argument in schema.arguments if argument.is_out)
        self.random = any(tag.name == "nondeterministic_seeded" for tag in func.tags)
        hidden = _HIDDEN_WRITES.get(base, ()) if aten else ()
        spared = _NO_WRITES.get(base) if aten else None
        self.writes = tuple(
            (position, argument.name)
            for position, argument in enumerate(schema.arguments)
            if argument.name != spared
            and (
                (argument.alias_info is not None and argument.alias_info.is_write)
                or position in hidden
            )
        )
        alias = self.empty or (aten and base in _ALIASES)
        scratch = _SCRATCH.get(base if aten else f"{namespace}.{base}", ())
        self.scratch = scratch
        fresh = tuple(
            position
            for position, result in enumerate(schema.returns)
            if result.alias_info is None and not alias and position not in scratch
        )
        if aten and base == "lift_fresh":
            fresh = (0,)
        self.collective = namespace in _COLLECTIVE and base != "wait_tensor"
        if self.collective:
            self.writes = fresh = ()
        self.returns = fresh
        self.labels = (
            *(name for _, name in self.writes),
            *(schema.returns[at].name or (str(at) if at or self.writes else None) for at in fresh),
        )
        if len(self.labels) == 1:
            self.labels = (None,)
        self.single = len(schema.returns) == 1
        written = [schema.arguments[position] for position, _ in self.writes]
        self.view = not (fresh or self.writes or self.empty or self.collective) and any(
            "Tensor" in str(result.type) for result in schema.returns
        )
        self.many = any(isinstance(x.type, torch.ListType) for x in (*written, *schema.returns))
        if not self.view:
            self.call = caller_of(func, schema)

    def read(self, args: Any, kwargs: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
        """The arguments of a call but for those that it overwrites without reading them."""
        spares = self.first is not None or self.noise is not None
        if not (self.fills or self.outs or spares):
            return args, kwargs or {}
        positional = list(args)
        if self.fills:
            del positional[:1]
        elif self.noise is not None:
            del positional[self.noise]
        elif self.first is not None and kwargs and kwargs.get("is_first_step"):
            del positional[self.first]
        named = {name: kwargs[name] for name in kwargs if name not in self.outs} if kwargs else {}
        return positional, named

    def outputs(
        self, args: Any, kwargs: Any, result: Any
    ) -> Iterator[tuple[torch.Tensor, bool, str | None]]:
        """What a call wrote: its mutable arguments, then its fresh results, scratch left out.

        With each tensor, whether it is one of an argument's list, and its name where it needs one:
        that of the argument or result in the schema, else the result's number.
        """
        labels = iter(self.labels)
        for at, name in self.writes:
            written = (
                args[at] if at < len(args) else kwargs.get(name) if kwargs is not None else None
            )
            label = next(labels)
            if isinstance(written, torch.Tensor):
                yield written, False, label
            else:
                for tensor in tensors_in(written):
                    yield tensor, True, None
        if self.returns is None:
            fresh = [result]
        elif self.single:
            fresh = [result] if self.returns else []
        else:
            fresh = [result[at] for at in self.returns]
        for value in fresh:
            label = next(labels, None)
            if isinstance(value, torch.Tensor):
                yield value, False, label
            else:
                for tensor in tensors_in(value):
                    yield tensor, False, None


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of an argument or result: itself, or those of nested lists, tuples, dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
