"""Training GPT-2 (124M parameters, from its config) on fixed tokens; see GPT2_DTYPE and STEPS."""

import os

import torch
from transformers import GPT2Config, GPT2LMHeadModel

dtype = getattr(torch, os.environ.get("GPT2_DTYPE", "float32"))
torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config()).to(dtype).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
tokens = torch.arange(1, 129).reshape(1, 128) * 37 % 50257
for step in range(int(os.environ.get("STEPS", "1"))):
    loss = model(tokens, labels=tokens).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
