"""passthrough, Envoy and LiteLLM on the same work: CPU, latency, throughput, lag and memory.

    uv run --group bench python benchmarks/compare.py [--litellm] [--bare] [--quick] [--json FILE] [--svg FILE]

One worker of each on a core of its own; the load, the upstream and PostgreSQL share the others, and nothing
leaves the machine. The contenders take turns, so that what else the machine does falls on all of them alike; the
figures are medians over the rounds. Compare them within one run only. Takes about seven minutes with all of them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import contenders
import uvloop
from contenders import Stage
from loading import Target, completions, paced, streaming, unary
from picture import picture
from processes import Cores, free_port, machine, resident_bytes, running, tree
from table import table

from passthrough.storage.embedded import embedded

STREAMS = 500
STREAMS_OF_LITELLM = 20  # a core of it carries about 4,000 frames a second, 80 streams
CALLS_PER_SECOND = 4000.0  # about half of what a core of passthrough serves
WAVES = 2
MICRO = 1e6
MILLI = 1e3

Figures = dict[str, float]


async def measure(target: Target, *, seconds: float, streams: int) -> Figures:
    """Everything about one contender. Times in the unit that the row's name says."""
    figures: Figures = {"memory_idle_mb": resident_bytes(tree(target.process)) / 1e6}
    await unary(target, connections=4, seconds=seconds / 2)  # warms up
    alone = await unary(target, connections=1, seconds=seconds)
    pace = await paced(target, connections=32, calls_per_second=CALLS_PER_SECOND, seconds=seconds * 2)
    if pace is not None:
        figures["cpu_us_per_paced_call"] = pace * MICRO
    many = await unary(target, connections=32, seconds=seconds * 2)
    calls = len(many.latencies)
    figures |= {
        "cpu_us_per_call": many.spent.proxy / calls * MICRO,
        "database_cpu_us_per_call": many.spent.database / calls * MICRO,
        "calls_per_second": calls / many.spent.seconds,
        "p50_ms_1": alone.percentile(0.50) * MILLI,
        "p99_ms_1": alone.percentile(0.99) * MILLI,
        "p50_ms_32": many.percentile(0.50) * MILLI,
        "p99_ms_32": many.percentile(0.99) * MILLI,
    }
    if not streams:
        return figures
    open_streams = await streaming(target, streams=streams, seconds=seconds * 2)
    figures |= {
        "cpu_us_per_frame": open_streams.spent.proxy / open_streams.frames * MICRO,
        "lag_p50_ms": open_streams.lag_p50 * MILLI,
        "lag_p99_ms": open_streams.lag_p99 * MILLI,
        "memory_kb_per_stream": open_streams.bytes_per_stream / 1e3,
        "cpu_us_per_completion": await completions(target, streams=streams // 2 or 1, waves=WAVES) * MICRO,
    }
    return figures


def rounds(stage: Stage, entries: dict[str, tuple[contenders.Contender, bool, int]], options: Any) -> dict[str, Any]:
    """Measure all in turn, several times; medians of each figure, and latency less that without a proxy."""
    found: dict[str, list[Figures]] = defaultdict(list)
    for number in range(options.rounds):
        for name, (contender, tls, streams) in entries.items():
            print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr, flush=True)
            with contender(stage, tls) as target:
                figures = uvloop.run(measure(target, seconds=options.seconds, streams=streams))
            found[name].append(figures)
    medians = {
        name: {row: statistics.median(run[row] for run in runs if row in run) for row in runs[0]}
        for name, runs in found.items()
    }
    base = medians.pop("direct")
    for figures in medians.values():
        for row in ("p50_ms_1", "p99_ms_1", "p50_ms_32", "p99_ms_32"):
            figures[f"added_{row}"] = figures[row] - base[row]
    return medians


@contextmanager
def stage_set() -> Iterator[Stage]:
    """The stand-in, a certificate for it, and PostgreSQL, beside the cores of the proxies."""
    cores = Cores()
    with tempfile.TemporaryDirectory(prefix="passthrough-benchmark-") as name:
        folder = Path(name)
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
        made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(made, check=True, capture_output=True)
        port, tls_port = free_port(), free_port()
        stand_in = Path(__file__).parent / "stand_in.py"
        command = [sys.executable, str(stand_in), str(port), str(tls_port), str(certificate), str(key)]
        log = folder / "stand_in.log"
        with (
            embedded(folder / "database") as database_url,
            running(command, port=port, cores=cores.others, environment={}, log=log),
        ):
            database = int((folder / "database" / "postgres" / "postmaster.pid").read_text().splitlines()[0])
            yield Stage(cores, folder, port, tls_port, certificate, database_url, database)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--litellm", action="store_true", help="measure LiteLLM too, in a throw-away environment")
    parser.add_argument("--bare", action="store_true", help="measure a relay that does nothing too (bare.py)")
    parser.add_argument("--plain", action="store_true", help="leave out the upstream with TLS")
    parser.add_argument("--alone", action="store_true", help="leave out Envoy: for work on passthrough itself")
    parser.add_argument("--quick", action="store_true", help="one round of short windows: a look, not a result")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of the shorter windows")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--svg", type=Path, help="draw them in this file")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    entries: dict[str, tuple[contenders.Contender, bool, int]] = {"direct": (contenders.direct, False, 0)}
    for tls in (False,) if options.plain else (False, True):
        entries["passthrough, TLS" if tls else "passthrough"] = (contenders.passthrough, tls, STREAMS)
        if not options.alone:
            entries["Envoy, TLS" if tls else "Envoy"] = (contenders.envoy, tls, STREAMS)
    if options.bare:
        entries["bare relay"] = (contenders.bare, False, STREAMS)
    if options.litellm:
        entries["LiteLLM"] = (contenders.litellm, False, STREAMS_OF_LITELLM)
    with stage_set() as stage:
        figures = rounds(stage, entries, options)
    title = f"{time.strftime('%Y-%m-%d', time.gmtime())}, {machine()}, medians of {options.rounds}"
    print(table(figures, title))
    if options.json:
        options.json.write_text(json.dumps({"title": title, "figures": figures}, indent=1) + "\n")
    if options.svg:
        options.svg.write_text(picture(figures, title))


if __name__ == "__main__":
    main()
