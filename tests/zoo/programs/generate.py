"""A small language model that generates, its cache growing or static: `generate.py dynamic`."""

import sys

import fault  # noqa: F401
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=31,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=32,
    bos_token_id=1,
    eos_token_id=None,
    pad_token_id=0,
)
model = LlamaForCausalLM(config).eval()
prompt = torch.tensor([[1, 5, 9], [1, 7, 3]])
options = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 5}
if sys.argv[1] == "static":
    options |= {"cache_implementation": "static", "disable_compile": True}
greedy = model.generate(prompt, do_sample=False, **options)
drawn = model.generate(prompt, do_sample=True, temperature=1.5, top_k=8, **options)
print(greedy.tolist(), drawn.tolist())
