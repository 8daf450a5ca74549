"""Trains Stable-Baselines3's DQN and sb3-contrib's MaskablePPO on a weighted coverage problem:

    python agents.py <problem.json> <steps> <seed> [threads]

The problem is written by `cargo run --release --example coverage_agents`, which trains tamis's agents on it. What the networks
observe is what tamis's flat network reads: which actions are legal, which are taken, and how far the episode is. The settings are
those of tamis's plain DQN wherever the other program has them; batch, rate, network, targets, exploration and replay are the same.
Two things are not:

- Their DQN knows no legal actions. One that is not legal earns nothing and changes nothing, and an episode is cut off after
  four times as many steps as there are picks. Their steps are counted with those. At the end, the illegal actions are left out
  for them.
- MaskablePPO has its own rate, batch and number of passes, the defaults, except that it learns every 256 steps instead of 2,048,
  so that it learns at all in so short a run.

The last line is JSON, by agent; `seconds` are those of the whole run with the environment, `seconds_in_training` those inside the
agent's `train` alone. One thread by default: more are slower for networks as small as these.
"""

import json
import pathlib
import sys
import time

import gymnasium
import numpy
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback

PATIENCE = 4
GRADIENT_STEPS = 2  # training steps an environment step
TAU = 0.01  # a training step


class Coverage(gymnasium.Env):
    """Each action covers items that count once; the reward is the change of the covered weight less the costs."""

    def __init__(self, problem):
        self.weights = numpy.array(problem["weights"])
        self.total = self.weights.sum()
        self.costs = numpy.array(problem["costs"])
        self.picks = problem["picks"]
        self.covers = numpy.zeros((len(self.costs), len(self.weights)), dtype=bool)
        for action, items in enumerate(problem["covers"]):
            self.covers[action, items] = True
        actions = len(self.costs)
        self.action_space = gymnasium.spaces.Discrete(actions)
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (2 * actions + 1,), dtype=numpy.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.taken = numpy.zeros(len(self.costs), dtype=bool)
        self.covered = numpy.zeros(len(self.weights), dtype=bool)
        self.count = self.steps = 0
        return self.observe(), {}

    def action_masks(self):
        return ~self.taken if self.count < self.picks else numpy.zeros_like(self.taken)

    def observe(self):
        progress = [self.count / self.picks]
        return numpy.concatenate([self.action_masks(), self.taken, progress]).astype(numpy.float32)

    def step(self, action):
        self.steps += 1
        reward = 0.0
        if not self.taken[action]:
            new = self.covers[action] & ~self.covered
            reward = float((self.weights[new].sum() - self.costs[action]) / self.total)
            self.covered |= new
            self.taken[action] = True
            self.count += 1
        terminated = self.count == self.picks
        truncated = not terminated and self.steps >= PATIENCE * self.picks
        return self.observe(), reward, terminated, truncated, {}


class Returns(BaseCallback):
    """The returns of the episodes of a training run."""

    def __init__(self):
        super().__init__()
        self.sum, self.returns = 0.0, []

    def _on_step(self):
        self.sum += float(self.locals["rewards"][0])
        if self.locals["dones"][0]:
            self.returns.append(self.sum)
            self.sum = 0.0
        return True


def greedy(env, choose):
    """The return of the episode that takes what `choose` says of an observation and the legal actions."""
    observation, _ = env.reset()
    value, done = 0.0, False
    while not done:
        observation, reward, terminated, truncated, _ = env.step(choose(observation, env.action_masks()))
        value += reward
        done = terminated or truncated
    return value


def measured(agent, steps, training_steps, choose, env):
    seconds_in_training = 0.0
    train = agent.train

    def timed(*arguments, **settings):
        nonlocal seconds_in_training
        began = time.perf_counter()
        train(*arguments, **settings)
        seconds_in_training += time.perf_counter() - began

    agent.train = timed
    returns = Returns()
    began = time.perf_counter()
    agent.learn(steps, callback=returns)
    seconds = time.perf_counter() - began
    updates = training_steps(agent)
    return {
        "environment_steps": agent.num_timesteps,
        "training_steps": updates,
        "seconds": seconds,
        "seconds_in_training": seconds_in_training,
        "training_steps_per_second": updates / seconds,
        "last_return": greedy(env, choose),
        "best_return": max(returns.returns, default=None),
    }


def dqn(problem, steps, seed):
    env = Coverage(problem)
    agent = DQN(
        "MlpPolicy", env, learning_rate=1e-3, buffer_size=10_000, learning_starts=200, batch_size=32, gamma=1.0, train_freq=1,
        gradient_steps=GRADIENT_STEPS, n_steps=5, tau=1 - (1 - TAU) ** GRADIENT_STEPS, target_update_interval=1,
        exploration_fraction=1.0, exploration_initial_eps=0.5, exploration_final_eps=0.05, max_grad_norm=10,
        policy_kwargs={"net_arch": [64, 64]}, seed=seed, device="cpu",
    )

    def choose(observation, mask):
        with torch.no_grad():
            q = agent.q_net(torch.from_numpy(observation)[None])[0].numpy()
        return int(numpy.where(mask, q, -numpy.inf).argmax())

    return measured(agent, steps, lambda agent: agent._n_updates, choose, env)


def ppo(problem, steps, seed):
    env = Coverage(problem)
    agent = MaskablePPO(
        "MlpPolicy", env, n_steps=256, gamma=1.0, policy_kwargs={"net_arch": [64, 64]}, seed=seed, device="cpu",
    )

    def choose(observation, mask):
        return int(agent.predict(observation, action_masks=mask, deterministic=True)[0])

    batches = agent.n_steps // agent.batch_size
    return measured(agent, steps, lambda agent: agent._n_updates * batches, choose, env)


def main():
    path, steps, seed, *threads = sys.argv[1:]
    torch.set_num_threads(int(threads[0]) if threads else 1)
    problem = json.loads(pathlib.Path(path).read_text())
    print(json.dumps({
        "Stable-Baselines3, DQN": dqn(problem, int(steps), int(seed)),
        "sb3-contrib, MaskablePPO": ppo(problem, int(steps), int(seed)),
    }))


if __name__ == "__main__":
    main()
