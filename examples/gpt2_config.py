"""A model file: a small Transformers GPT-2 built from its configuration, nothing downloaded.

`repro-audit examples/gpt2_config.py` drives it: forward, backward, optimizer step.
"""

import torch
from transformers import GPT2Config, GPT2LMHeadModel


def build_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_head=4, n_embd=64, vocab_size=500, n_positions=64)
    )


def build_inputs() -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 500, (4, 32), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "labels": ids}


def build_optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3)
