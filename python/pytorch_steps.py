"""Training steps of the same net and loss in PyTorch, timed for benchmark.py.

    python pytorch_steps.py 64,128,512,256 100        the widths; images a step

A process of their own, for PyTorch 2.14.1's build for GPUs crashed where TensorFlow 2.21 was loaded, too. This prints
its version and device, and then a line for each that it reads, `eager N` or `captured N`: the seconds that N steps have
taken. Same net, loss, optimizer, batch size and float32; images, made up, on the device too. Captured is a CUDA graph,
which launches all kernels of a step at once. Unlike ours, they need not be deterministic.
"""

import sys
import time
from functools import cache

import torch
from torch import nn

import surroundings


def make_step(widths, batch_size, device, captured=False):
    """One training step, a function without arguments, and the net that it trains."""
    conv1, conv2, fc1, fc2 = widths
    hidden = [nn.Conv2d(1, conv1, 5, padding=2), nn.Conv2d(conv1, conv2, 5, padding=2),
              nn.Linear(7 * 7 * conv2, fc1), nn.Linear(fc1, fc2)]
    net = nn.Sequential(hidden[0], nn.ReLU(), nn.MaxPool2d(2), hidden[1], nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                        hidden[2], nn.ReLU(), nn.Dropout(0.2), hidden[3], nn.ReLU(), nn.Dropout(0.2),
                        nn.Linear(fc2, 10)).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0001, capturable=captured)
    images, labels = torch.rand(4000, 1, 28, 28, device=device), torch.randint(10, (4000,), device=device)

    def step():
        index = torch.randint(len(labels), (batch_size,), device=device)
        loss = nn.functional.cross_entropy(net(images[index]), labels[index])
        for layer in hidden:
            squared = layer.weight.flatten(1).square().sum(1)
            loss = loss + 0.001 * squared.sqrt().sum() + 0.01 / squared.var(unbiased=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    if not captured:
        return step, net
    stream = torch.cuda.Stream()  # PyTorch asks for some steps on another stream before a capture
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay, net


def main():
    torch.set_num_threads(surroundings.cores())
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    widths, batch_size = tuple(map(int, sys.argv[1].split(','))), int(sys.argv[2])
    made = cache(lambda kind: make_step(widths, batch_size, device, captured=kind == 'captured')[0])
    print(torch.__version__, device, flush=True)
    for line in sys.stdin:
        kind, count = line.split()
        step = made(kind)
        started = time.perf_counter()
        for _ in range(int(count)):
            step()
        if device == 'cuda':
            torch.cuda.synchronize()
        print(time.perf_counter() - started, flush=True)


if __name__ == '__main__':
    main()
