"""The checkpoint room: tensors and values in files of weights, read where they lie, without torch.

No pickle is loaded. What a file of torch.save's says is followed symbolically, so that a name of a
class stays a name and nothing of it runs.
"""

from repro_audit.checkpoint.contents import Checkpoint, Held, Value
from repro_audit.checkpoint.kept import to_json
from repro_audit.checkpoint.memory import reading
from repro_audit.checkpoint.opening import is_checkpoint, open_checkpoint

__all__ = ["Checkpoint", "Held", "Value", "is_checkpoint", "open_checkpoint", "reading", "to_json"]
