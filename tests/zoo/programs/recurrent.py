"""LSTM, GRU and RNN on packed sequences; dropout between layers, projections, cells."""

import torch
from fault import fault
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, num_layers=2, dropout=0.2, bidirectional=True, proj_size=3)
        self.gru = nn.GRU(6, 8, batch_first=True)
        self.cell = nn.LSTMCell(8, 8)
        self.rnn = nn.RNN(8, 8)
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        y, last = self.gru(fault(y))
        state, memory = last[0], torch.zeros_like(last[0])
        for step in y.unbind(1):
            state, memory = self.cell(step, (state, memory))
        short, _ = self.rnn(pack_sequence([state[:2], state[2:]], enforce_sorted=False))
        return self.head(short.data).mean() + self.head(y).mean()


net = Net()
optimizer = torch.optim.RMSprop(net.parameters(), lr=0.01)
for _ in range(2):
    optimizer.zero_grad()
    loss = net(torch.randn(3, 5, 4), torch.tensor([3, 5, 2]))
    loss.backward()
    optimizer.step()
print(f"{loss.item():.6f}")
