"""The CPU time that an idle server uses, by process.

    .venv/bin/proctor serve --port 8000
    .venv/bin/python -m bench.idle --port 8000

Each line is a process that used any: its share of one core over the interval.
"""

import argparse
import time

import psutil

MIN_SECONDS = 0.01


def processes(port: int) -> list[psutil.Process]:
    """Return the process that listens on the port, and its descendants."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            server = psutil.Process(connection.pid)
            return [server, *server.children(recursive=True)]
    raise SystemExit(f"no process of this user listens on port {port}")


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--seconds", type=float, default=60.0, help="the interval")
    options = parser.parse_args()
    before = {process: cpu_seconds(process) for process in processes(options.port)}
    time.sleep(options.seconds)
    used = {process: cpu_seconds(process) - seconds for process, seconds in before.items()}
    for process, seconds in used.items():
        if seconds >= MIN_SECONDS:
            print(f"{seconds / options.seconds:7.2%}  {' '.join(process.cmdline())[:60]}")
    print(f"{sum(used.values()) / options.seconds:7.2%}  all")


if __name__ == "__main__":
    main()
