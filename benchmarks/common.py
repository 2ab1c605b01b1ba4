"""What the benchmarks share: figures of a process, the machine, tables and JSON."""

from __future__ import annotations

import json
import os
import platform
import socket
import statistics
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from psi.bench_processes import cores, processor

Json = dict[str, Any]

_WIDTH = 120
"""Of tables, where the terminal does not say."""


# --- figures --------------------------------------------------------------------------------------------------------


def median(numbers: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(numbers)


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median of the ratios of what was measured in the same repeat."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def resident_mb() -> float:
    """Return the resident memory of this process now; 0 where the system does not say."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """Return the most resident memory of this process since `reset_peak`; 0 where the system does not say."""
    return _status_mb("VmHWM")


def reset_peak() -> bool:
    """Let `peak_mb` count from now on; False where the system cannot do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status_mb(name: str) -> float:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return 0.0


_TCP_INFO_BYTES = 136
_BYTES_ACKED_AT = 120  # struct tcp_info of linux/tcp.h: tcpi_bytes_acked, then tcpi_bytes_received
_ESTABLISHED = 1


def tcp_bytes() -> tuple[int, int] | None:
    """Return what the TCP connections of this process have carried: bytes sent and acknowledged, bytes received.

    All that the sockets above TCP have made of the messages is in it, encryption and heartbeats too; headers of TCP
    and IP are not. None where the system does not say (anywhere but on Linux).
    """
    if not hasattr(socket, "TCP_INFO") or not Path("/proc/self/fd").is_dir():
        return None
    sent = received = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError, ValueError):
            if not str(each.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(each.name))) as connection:
                if connection.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
                if info[0] == _ESTABLISHED:
                    acked, came = struct.unpack_from("=QQ", info, _BYTES_ACKED_AT)
                    sent += acked
                    received += came
    return sent, received


def machine() -> Json:
    """Describe what the figures were measured on."""
    import torch
    import zmq

    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_gb": round(memory_gb, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "libzmq": zmq.zmq_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


# --- what is printed ------------------------------------------------------------------------------------------------


def show_machine(described: Mapping[str, Any]) -> None:
    """Print one line on the machine."""
    hardware = f"{described['processor']}, {described['cores']} cores, {described['memory_gb']:.0f} GB"
    software = f"Python {described['python']}, torch {described['torch']}, ZeroMQ {described['libzmq']}"
    load = f"{described['load_before']} processes wanted a core in the minute before"
    print(f"{hardware}; {described['system']}, {software}; {load}", flush=True)


def show_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for place, header in enumerate(headers):
        table.add_column(header, justify="right" if place else "left", no_wrap=place > 0)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def show_json(result: Mapping[str, Any], wanted: bool) -> None:
    """Print the result as one line of JSON, if that is wanted; nothing comes after it."""
    if wanted:
        print(json.dumps(result), flush=True)
