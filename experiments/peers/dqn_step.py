"""Milliseconds of the same training step in PyTorch, in each of its settings: python dqn_step.py."""

import copy
import json
import os
import time

import torch
from torch import nn

torch.manual_seed(0)
results = {}


def make_step(compiled, fused):
    online = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    target = copy.deepcopy(online)
    adam = torch.optim.Adam(online.parameters(), lr=1e-3, fused=fused, foreach=not fused)
    following = torch.rand(32 * 200, 32)
    inputs = torch.rand(160, 32)
    rewards = torch.rand(160)
    huber = nn.SmoothL1Loss(reduction="sum")

    def loss_of():
        with torch.no_grad():
            best = online(following).sum(1).view(32, 200).argmax(1, keepdim=True)
            ahead = target(following).sum(1).view(32, 200).gather(1, best).squeeze(1)
        out = online(inputs)
        return (huber(out[:, 0], rewards) + huber(out[:32, 1], ahead)) / 192

    loss_of = torch.compile(loss_of) if compiled else loss_of
    mine, theirs = list(online.parameters()), list(target.parameters())

    def step():
        loss = loss_of()
        loss.backward()
        nn.utils.clip_grad_norm_(mine, 10.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(theirs, mine, 0.01)

    return step


for threads in [1, os.cpu_count()]:
    torch.set_num_threads(threads)
    for compiled in [False, True]:
        for fused in [False, True]:
            name = f"{threads} threads, {'compiled' if compiled else 'eager'}, {'fused' if fused else 'foreach'} Adam"
            try:
                step = make_step(compiled, fused)
                for _ in range(50):
                    step()
                began = time.perf_counter()
                for _ in range(300):
                    step()
                results[name] = 1000 * (time.perf_counter() - began) / 300
            except Exception as error:
                results[name] = f"failed: {type(error).__name__}"
print(json.dumps(results))
