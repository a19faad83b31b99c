"""What a trace lacks is said: in JSON, and as text."""

from __future__ import annotations

import json

import pytest

TRAIN = """
import contextlib, sys, types
import torch
from torch.utils.data import DataLoader

x = torch.arange(6.0).view(2, 3)
x.t()
for batch in DataLoader(list(range(6)), batch_size=3, num_workers=2):
    batch + 1
torch.empty(4)
torch.empty(4).zero_()
torch.empty(4) * 0
"""

# Without a GPU there is no graph to replay, and what inductor writes is a module that it lists.
REMOTE = """
import tempfile
import torch
import torch.distributed.rpc as rpc

at = f"file://{tempfile.mkdtemp()}/group"
options = rpc.TensorPipeRpcBackendOptions(init_method=at)
rpc.init_rpc("alone", rank=0, world_size=1, rpc_backend_options=options)
print(rpc.rpc_sync("alone", torch.add, args=(torch.ones(2), 1)))
rpc.shutdown()
"""

FAKED = """
with contextlib.suppress(AttributeError):
    torch.cuda.CUDAGraph.replay(None)
modules = types.SimpleNamespace(modules=[object(), object()])
sys.modules["torch._inductor.codecache"] = types.SimpleNamespace(PyCodeCache=modules)
"""


@pytest.mark.interpreter
def test_what_native_threads_do_is_counted_and_disturbs_nothing(audit, program) -> None:
    program("remote.py", REMOTE)
    result = audit("remote.py", "--no-confirm", "--format", "json")
    assert result.code == 0, result.stderr
    unseen = {each["what"]: each["count"] for each in json.loads(result.stdout)["unseen"]}
    assert unseen["native-threads"] > 0


@pytest.mark.parametrize("command", ["run", "compare"])
def test_what_was_not_seen_is_said(audit, program, command: str) -> None:
    program("train.py", TRAIN + FAKED)
    if command == "run":
        words = ["train.py", "--no-confirm"]
    else:
        assert audit("record", "train.py", "-o", "a.audit").code == 0
        words = ["compare", "a.audit", "a.audit"]
    found = json.loads(audit(*words, "--format", "json").stdout)["unseen"]
    counts = {unseen["what"]: unseen["count"] for unseen in found}
    views = counts.pop("views")
    assert views >= 2
    assert counts == {
        # One is the loader's, for a seed.
        "empty": 4,
        "unwritten": 1,
        "compiled": 2,
        "cuda-graphs": 1,
        "loader-workers": 2,
    }
    again = ["report"] if command == "run" else words
    text = " ".join(audit(*again).stdout.split())
    assert (
        f"unseen {views} views, 4 empty tensors until they were written, "
        "1 op that read memory that no op had written, 2 compiled graphs inside, "
        "1 replay of a CUDA graph inside, 2 loader workers at work" in text
    )


def test_a_recording_around_a_loop_says_it_too(audit, plainly, program) -> None:
    program(
        "loop.py",
        """
        import torch, repro_audit
        with repro_audit.record("a.audit"):
            torch.ones(2, 3).t() + 1
            torch.empty(4)
        """,
    )
    assert plainly("loop.py").code == 0
    found = json.loads(audit("compare", "a.audit", "a.audit", "--format", "json").stdout)
    assert found["unseen"] == [{"what": "views", "count": 1}, {"what": "empty", "count": 1}]
