"""Two threads that play two processes with shards of the training rows."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from skdiffsmooth._utils.shards import Shards


class Meeting:
    """Where two threads exchange values."""

    def __init__(self):
        self.values = [None, None]
        self.barrier = threading.Barrier(2, timeout=20)


class ThreadShards(Shards):
    """One of two threads that play processes."""

    alone = False

    def __init__(self, rank, meeting):
        self.rank, self.meeting = rank, meeting

    def gather(self, value):
        self.meeting.values[self.rank] = value
        self.meeting.barrier.wait()
        values = list(self.meeting.values)
        self.meeting.barrier.wait()
        return values

    def reduce_(self, tensor, how):
        both = torch.stack(self.gather(tensor))
        return both.amax(0) if how == "max" else both.sum(0)


def in_two_threads(work):
    """Return what work(shards) returns in each of two threads."""
    meeting = Meeting()

    def run(rank):
        try:
            return work(ThreadShards(rank, meeting))
        except Exception:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(2)))
