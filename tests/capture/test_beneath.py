"""What torch composes otherwise under a mode: seen, and composed as it is without one."""

from __future__ import annotations

import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from repro_audit.capture import beneath


class Lengths(torch.nn.Module):
    def forward(self, x, targets, lengths, target_lengths):
        return torch.ctc_loss(x, targets, lengths, target_lengths)


SOURCE = Path(__file__).read_text().splitlines(keepends=True)


class Others(TorchDispatchMode):
    """A mode of the program's own."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def factors(*shape, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.rand(shape, dtype=dtype).mul(0.2).add(0.9).requires_grad_()


def smoothed(reduction="mean"):
    torch.manual_seed(0)
    scores = torch.randn(1000, 101, requires_grad=True)
    classes = torch.randint(0, 101, (1000,))
    classes[::7] = -100
    weights = torch.rand(101)
    F.cross_entropy(
        scores, classes, weight=weights, label_smoothing=0.1, reduction=reduction
    ).sum().backward()
    return scores.grad


def all_of_them():
    x = factors(5000)
    x.prod().backward()
    return x.grad


def of_rows():
    x = factors(50, 60)
    x.prod(1).log().sum().backward()
    return x.grad


def given_a_gradient():
    x = factors(5000)
    y = x.prod()
    return torch.autograd.grad(y, x, torch.tensor(1.5))[0]


def with_zeros():
    x = factors(5, 40, dtype=torch.complex64)
    with torch.no_grad():
        x[2, 3] = 0
    x.cumprod(1).abs().sum().backward()
    return x.grad


def twice():
    x = factors(500)
    (grad,) = torch.autograd.grad(x.prod().log(), x, create_graph=True)
    grad.square().sum().backward()
    return x.grad


def symmetric(n=200):
    torch.manual_seed(0)
    x = torch.randn(n, n)
    return x + x.T


def of_values():
    x = symmetric()
    return torch.cat(
        [
            torch.linalg.eigvalsh(x),
            torch.linalg.svdvals(x),
            torch.linalg.norm(x, 2)[None],
            torch.linalg.matrix_norm(x, -2)[None],
            torch.linalg.cond(x)[None],
        ]
    )


def other_values():
    return torch.view_as_real(torch.linalg.eigvals(symmetric(300).triu()))


def maximum():
    x = factors(50)
    x.max().neg().backward()
    return x.grad.view(torch.int32)


def mixed():
    x = factors(5000, dtype=torch.bfloat16)
    torch.nn.functional.binary_cross_entropy_with_logits(
        x, torch.rand(5000), weight=torch.rand(5000)
    ).backward()
    return x.grad.float()


def determinant():
    x = factors(3, 3)
    (grad,) = torch.autograd.grad(x.det(), x, create_graph=True)
    return grad.detach()


def value():
    x = factors()
    weights = torch.randn(50_001)
    torch.ones(50_001).masked_fill(torch.rand(50_001) > 0.5, x).mul(weights).sum().backward()
    return x.grad


def through_a_view():
    x = factors()
    weights = torch.randn(2, 50_001)
    base = torch.ones(2, 50_001)
    base[0].masked_fill_(torch.rand(50_001) > 0.5, x)
    base.mul(weights).sum().backward()
    return x.grad


def in_another_thread():
    x = factors(5000)
    y = x.prod()
    runs = threading.Thread(target=y.backward)
    runs.start()
    runs.join()
    return x.grad


def of_a_thread_that_ended():
    x = factors(5000)
    made = []
    makes = threading.Thread(target=lambda: made.append(x.prod()))
    makes.start()
    makes.join()
    made[0].backward()
    return x.grad


def of_a_pool():
    x = factors(5000)
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(x.prod).result()
        made.backward()
    return x.grad


def singular():
    x = symmetric()
    values = torch.svd(x, compute_uv=False).S
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.cat([values, torch.nuclear_norm(x)[None]])


class Slopes(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, item):
        return all_of_them()


def in_a_worker():
    return next(iter(torch.utils.data.DataLoader(Slopes(), num_workers=1)))


CHANGED = [
    smoothed,
    all_of_them,
    given_a_gradient,
    of_rows,
    twice,
    of_values,
    maximum,
    mixed,
    determinant,
    value,
    through_a_view,
    singular,
]
# A mode is on in the thread that it was put on in alone.
WORK = [
    *CHANGED,
    with_zeros,
    other_values,
    in_another_thread,
    of_a_thread_that_ended,
    of_a_pool,
    in_a_worker,
]


def forget():
    for library in beneath._libraries:
        library._destroy()
    beneath._libraries.clear()
    beneath._key.cache_clear()


@pytest.fixture(params=["Fake", "CustomRNGKeyId"])
def key(request, monkeypatch):
    """Each of the keys; one that this torch lacks is as good as none."""
    if torch._C._parse_dispatch_key(request.param) is None:
        pytest.skip(f"this torch has no key {request.param}")
    forget()
    monkeypatch.setattr(beneath, "_UNUSED", (request.param,))
    yield request.param
    forget()


@pytest.mark.parametrize("work", WORK)
def test_bits_are_those_of_an_unobserved_run(record, key, work):
    plain = work()
    seen = record(work).result
    assert plain.numpy(force=True).tobytes() == seen.numpy(force=True).tobytes()


@pytest.mark.parametrize("work", WORK)
def test_bits_are_those_where_operators_are_no_events(record, work):
    """Other memory is poisoned below the operators, with a mode on that records modules alone."""
    plain = work()
    seen = record(work, level="modules", poison=0x7F).result
    assert plain.numpy(force=True).tobytes() == seen.numpy(force=True).tobytes()


@pytest.mark.parametrize("work", CHANGED)
def test_a_mode_would_change_them(work):
    plain = work()
    with Others():
        assert not torch.equal(plain, work())


def test_operators_are_seen_as_under_a_mode(record, key):
    class Volume(torch.nn.Module):
        def forward(self, x):
            return x.prod()

    def work():
        x = factors(5000)
        y = Volume()(x)
        y.backward()
        return x.grad + 1

    run = record(work)
    events = [event for event in run.seen if event.kind == "op"]
    product = next(event for event in events if event.op == "aten.prod.default")
    backward = [event for event in events if event.cause == product.index]
    quotient = next(event for event in backward if event.op.startswith("aten.div."))
    assert quotient.op == ("aten.div.Tensor" if key == "Fake" else "aten.div.out")
    assert quotient.phase == "backward"
    assert quotient.outputs[0][:2] == ("float32", (5000,))
    assert quotient.call_site is not None
    assert quotient.call_site.startswith("test_beneath.py:")
    assert events[-1].op == "aten.add.Tensor"


def test_operators_of_a_function_belong_to_the_line_that_calls_it(record, key):
    run = record(smoothed)
    lines = {event.call_site for event in run.seen if event.op.startswith("aten.masked_select.")}
    (line,) = (n for n, text in enumerate(SOURCE, 1) if "F.cross_entropy(\n" in text)
    assert lines == {f"test_beneath.py:{line}"}


def test_a_node_that_fails_gives_the_mode_back(record, key):
    def work():
        x = factors(50)
        y = x.prod()

        def fails(*_):
            raise RuntimeError("not this time")

        y.grad_fn.register_hook(fails)
        with pytest.raises(RuntimeError, match="not this time"):
            y.backward()
        return x + 1

    ops = [event.op for event in record(work).seen if event.kind == "op"]
    assert ops[-1] == "aten.add.Tensor"


def test_an_operator_that_fails_gives_the_mode_back(record, key):
    def work():
        with pytest.raises(IndexError, match="out of bounds"):
            F.cross_entropy(torch.ones(2, 3), torch.tensor([1, 5]), torch.ones(3))
        return torch.ones(2) + 1

    ops = [event.op for event in record(work).seen if event.kind == "op"]
    assert ops[-1] == "aten.add.Tensor"


def test_where_a_mode_is_on_anyway_nothing_is_changed(record, key):
    def work():
        with Others():
            return all_of_them()

    assert torch.equal(record(work).result, work())


def test_what_nobody_leaves_to_us_is_composed_as_under_a_mode(record, monkeypatch):
    forget()
    monkeypatch.setattr(beneath, "_UNUSED", ("Conjugate",))
    run = record(all_of_them)
    forget()
    with Others():
        assert torch.equal(run.result, all_of_them())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_torchscript_knows_the_functions_that_are_replaced(record):
    def work():
        @torch.jit.script
        def losses(x, classes, weights):
            a = F.cross_entropy(x, classes, weight=weights, label_smoothing=0.1)
            b = F.ctc_loss(
                x[:, None].log_softmax(2), classes[None, :2], torch.tensor([4]), torch.tensor([2])
            )
            return a, b

        return losses(torch.randn(4, 5), torch.tensor([1, 2, 3, -100]), torch.rand(5))

    record(work)
    assert torch.jit._builtins._find_builtin(torch.ctc_loss) == "aten::ctc_loss"


def test_functions_that_are_replaced_are_pickled_as_plainly(record):
    functions = (torch.linalg.norm, torch.linalg.svdvals, torch._C._nn.cross_entropy_loss)
    plain = pickle.dumps(functions)

    def work():
        held = (torch.linalg.norm, torch.linalg.svdvals, torch._C._nn.cross_entropy_loss)
        assert pickle.loads(pickle.dumps(held)) == held
        return pickle.dumps(held)

    assert record(work).result == plain
    assert (torch.linalg.norm, torch.linalg.svdvals) == functions[:2]


def test_ctc_loss_is_told_what_it_was_given(record):
    def work():
        traced = torch.fx.symbolic_trace(Lengths())
        with pytest.raises(TypeError, match=r"invalid combination of arguments"):
            torch.ctc_loss(torch.ones(2))
        return traced.code

    assert "ctc_loss(x, targets, lengths, target_lengths);" in record(work).result


def test_compiled_code_is_not_broken_into_pieces(record):
    @torch.compile(backend="eager", fullgraph=True)
    def loss(x, classes, weights):
        return F.cross_entropy(x, classes, weight=weights, label_smoothing=0.1) * x.prod()

    def work():
        torch._dynamo.reset()
        torch.manual_seed(0)
        return loss(torch.randn(4, 5), torch.tensor([1, 2, 3, -100]), torch.rand(5))

    plain = work()
    assert torch.equal(record(work).result, plain)
    torch._dynamo.reset()


def conjugates():
    torch.manual_seed(0)
    return torch.randn(5, 5, dtype=torch.complex64), torch.randn(5, 5, dtype=torch.complex64)


def inverse():
    return torch.linalg.pinv(conjugates()[0])


def in_inference():
    with torch.inference_mode():
        return torch.linalg.vecdot(*conjugates())


def of_real_numbers():
    with torch.inference_mode():
        return torch.fft.hfft2(conjugates()[0].real.clone())


def of_a_custom_operator():
    if not hasattr(torch.ops, "beneath") or not hasattr(torch.ops.beneath, "rotated"):

        @torch.library.custom_op("beneath::rotated", mutates_args=())
        def rotated(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.conj() * y

    return torch.ops.beneath.rotated(*conjugates())


@pytest.mark.parametrize("work", [inverse, in_inference, of_real_numbers, of_a_custom_operator])
def test_lazy_views_that_an_operator_makes_are_what_they_view(record, work):
    """Under any mode such an operator takes them for the tensors that they are views of."""
    plain = work()
    with Others():
        assert not torch.allclose(plain, work())
    assert torch.equal(record(work).result, plain)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_compiled_autograd_runs_through_the_nodes(record):
    def work():
        torch._dynamo.reset()
        with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
            return all_of_them()

    assert torch.allclose(record(work).result, all_of_them())
    torch._dynamo.reset()
