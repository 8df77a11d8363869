#!/usr/bin/env python3
"""A server whose capacity is known: `workers` each take a service time for a request, in the order of arrival.

    known.py PORT WORKERS SERVICE_MS [--law fixed|exponential] [--seed N] [--stall AFTER_S SECONDS]

The capacity is WORKERS / SERVICE_MS × 1000 requests per second, exactly: when an answer is due is computed, not slept, so
a late timer makes one answer late and costs no capacity. Once, so long after the first request, it can stall: what comes
meanwhile is answered at the end of the stall, in the order of arrival. On loopback only; ends with its parent's pipe on stdin.
"""

import argparse
import asyncio
import heapq
import random
import sys

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"


class Known(asyncio.Protocol):
    """One connection: requests without a body, one after another."""

    def __init__(self, service):
        self.service, self.rest, self.transport = service, b"", None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.rest += data
        while b"\r\n\r\n" in self.rest:
            _, self.rest = self.rest.split(b"\r\n\r\n", 1)
            loop = asyncio.get_running_loop()
            loop.call_at(self.service.due(loop.time()), self.answer)

    def answer(self):
        """Sends one answer, if anybody still waits for it."""
        if not self.transport.is_closing():
            self.transport.write(ANSWER)


class Service:
    """The workers: when each is free."""

    def __init__(self, workers, seconds, law, seed, stall=None):
        self.free, self.seconds, self.law = [0.0] * workers, seconds, law
        self.random = random.Random(seed)
        self.stall, self.began, self.last = stall, None, 0.0

    def due(self, now):
        """When a request that comes now is answered."""
        if self.stall:
            return self.stalled(now)
        return self.served(now)

    def stalled(self, now):
        """As `served`, but nothing is answered during the stall, nor does anything overtake."""
        self.began = now if self.began is None else self.began
        after, lasting = self.stall
        at, end = self.served(now), self.began + after + lasting
        if self.began + after <= at < end:
            at = end
        self.last = max(at, self.last + 1e-9)
        return self.last

    def served(self, now):
        """When it is, of one that came now."""
        takes = self.random.expovariate(1 / self.seconds) if self.law == "exponential" else self.seconds
        at = max(now, self.free[0]) + takes
        heapq.heapreplace(self.free, at)
        return at


async def serve(asked):
    """Until stdin ends."""
    loop = asyncio.get_running_loop()
    service = Service(asked.workers, asked.service_ms / 1e3, asked.law, asked.seed, asked.stall)
    server = await loop.create_server(lambda: Known(service), "127.0.0.1", asked.port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("workers", type=int)
    parser.add_argument("service_ms", type=float)
    parser.add_argument("--law", choices=("fixed", "exponential"), default="fixed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stall", type=float, nargs=2, metavar=("AFTER_S", "SECONDS"))
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
