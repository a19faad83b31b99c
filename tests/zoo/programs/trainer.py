"""Transformers' Trainer: a tiny GPT-2 from a config, a few steps, an evaluation, a save."""

import fault  # noqa: F401
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments

torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(vocab_size=31, n_positions=16, n_embd=16, n_layer=1, n_head=2))
rows = [{"input_ids": row, "labels": row} for row in torch.randint(31, (16, 8))]
arguments = TrainingArguments(
    "trained",
    per_device_train_batch_size=4,
    gradient_accumulation_steps=2,
    max_steps=2,
    report_to=[],
    logging_strategy="no",
    save_strategy="no",
    disable_tqdm=True,
    use_cpu=True,
)
trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows[:4])
trainer.remove_callback(PrinterCallback)  # it prints times
trainer.train()
print(f"{trainer.evaluate()['eval_loss']:.6f}")
