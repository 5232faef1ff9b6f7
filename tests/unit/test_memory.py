"""Memory that was freed goes back to the system; in a process of its own, whose setting is no other test's."""

import subprocess
import sys

import pytest

CODE = """
from pathlib import Path
from exporter.memory import return_large_blocks

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

{first}
large = bytearray(16 * 2**20)  # one that is freed
del large
before = resident()
kept = []
for _ in range(64):
    large = bytearray(2**20)
    kept.append((large, bytearray(4_000)))
assert resident() - before >= 64
kept = [small for _, small in kept]
large = None
print(resident() - before)
"""


@pytest.mark.parametrize(
    ("first", "least", "most"), [("return_large_blocks()", 0, 4), ("", 40, 80)], ids=["ours", "glibc's"]
)
def test_large_blocks_go_back_although_small_ones_stay(first: str, least: int, most: int) -> None:
    """By itself, glibc keeps them: without that, the test would show nothing."""
    done = subprocess.run([sys.executable, "-c", CODE.format(first=first)], capture_output=True, text=True, check=True)
    assert least <= int(done.stdout) <= most
