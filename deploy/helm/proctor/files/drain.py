"""Wait until a replica has no more requests: the preStop hook of its pods.

vLLM finishes running requests after SIGTERM, but refuses the calls to its workers by which their
records of attempts are read. So SIGTERM comes when it is idle.
"""

import re
import sys
import time
import urllib.request

METRICS = "http://127.0.0.1:8000/metrics"
REQUESTS = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:\{.*\})? (\S+)$", re.MULTILINE)


def count_requests(url: str) -> float:
    """Return how many requests run or wait; 0 if vLLM does not answer any more."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310
            return sum(map(float, REQUESTS.findall(response.read().decode())))
    except OSError:
        return 0


def drain(wait_seconds: float, limit_seconds: float, url: str = METRICS) -> None:
    """Wait for gateways to notice that the pod ends, then for requests, up to a limit."""
    end = time.monotonic() + wait_seconds + limit_seconds
    time.sleep(wait_seconds)
    while count_requests(url) and time.monotonic() < end:
        time.sleep(1)


if __name__ == "__main__":
    drain(float(sys.argv[1]), float(sys.argv[2]))
