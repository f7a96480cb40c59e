"""`make bench`: workflows per second next to a raw floor, latency, CPU, WAL and commits.

usage: python -m tests.bench.bench [--workflows 1000] [--rounds 5] [--only steps|flows|flat]
                                   [--finished 1000000]

The raw floor is five commits a workflow over ten connections, with nothing else around them,
measured on the same server in the same round. Everything reported is the median of the rounds.
Machines are noisy: quote the ratios. `flat` fills the tables with finished instances, and is run
only where it is asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from pgflows.config import Settings
from pgflows.database.embedded import EmbeddedServer
from pgflows.database.migrations import migrate
from tests.bench import flat, flows, steps


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workflows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("steps", "flows", "flat"))
    parser.add_argument("--finished", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pgflows-bench-") as directory:
        server = EmbeddedServer(Path(directory))
        dsn = server.start()
        try:
            await migrate(dsn, Settings(dsn=dsn))
            if options.only in (None, "steps"):
                await steps.run(dsn, server.pid, options)
            if options.only in (None, "flows"):
                await flows.run(dsn, options)
            if options.only == "flat":
                await flat.run(dsn, options)
        finally:
            server.stop()


if __name__ == "__main__":
    asyncio.run(main())
