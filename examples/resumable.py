"""Training that saves checkpoints and goes on from the latest: does it go on as if never ended?

`repro-audit resume examples/resumable.py --at 5` ends it in step 5 and lets it resume. It does not
restore the state of torch's random number generator, as many training scripts do not: dropout
draws other numbers. `--all` restores that too.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

CHECKPOINT = Path("checkpoint.pt")


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(32, 16, generator=generator)
    return x, x.sum(dim=1, keepdim=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--all", action="store_true", help="restore the generator's state too")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.steps)
    start = 0
    if CHECKPOINT.exists():
        saved = torch.load(CHECKPOINT, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        start = saved["step"]
        if arguments.all:
            torch.set_rng_state(saved["generator"])
        print(f"goes on at step {start}")

    for step in range(start, arguments.steps):
        x, y = batch(step)
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        print(f"step {step}: loss {loss.item():.4f}")
        if (step + 1) % 4 == 0:
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "generator": torch.get_rng_state(),
                    "step": step + 1,
                },
                CHECKPOINT,
            )


if __name__ == "__main__":
    main()
