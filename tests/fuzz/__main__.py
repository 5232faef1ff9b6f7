"""`make fuzz`: coverage-guided fuzzing by atheris (libFuzzer), each target in a process of its own; prints what it did.

An input that breaks a target is left in tests/fuzz/crashers/<target>, where tests/fuzz/test_fuzz.py finds it.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.fuzz import targets, upstream
from tests.harness.figures import publish
from tests.harness.prometheus import promtool_check_metrics

HERE: Final = Path(__file__).parent
CRASHERS: Final = HERE / "crashers"
NAMES: Final = ("answers", "config", "web-config", "headers", "request", "parameters")
MOST_MEMORY_MIB: Final = 1024
MOST_SECONDS: Final = 20
"""For one input, with all that watches it: a poll has a deadline of 5 s."""


def seeds(target: str) -> list[bytes]:
    """What the fuzzer begins with."""
    root = HERE.parents[1]
    match target:
        case "answers":
            return list(upstream.seeds())
        case "config" | "web-config":
            texts = [text for path in sorted(root.glob("docs/*.md")) for text in _yaml(path)]
            return [*(text.encode() for text in texts), b"a: &a {<<: *b}\n", b"? [a]\n: !!set {b}\n"]
        case "headers":
            return [
                b"application/openmetrics-text;version=1.0.0,*/*;q=0.1",
                b"Basic YTpi",
                b"gzip;q=0.5, identity",
                b"YTpi",
            ]
        case "parameters":
            return [
                b"",
                b"source=s&pool=p&queue=q",
                b"source=s&pool=p&queue=q&kind=tag&limit=l&kind=tag&limit=l",
                b"source=s&kind=tag&limit=l",
                b"text=Q&source=s&system=prefect&full=true&waiting=false&paused=&page=1",
                b"source=old&queue=%F0%9F%92%A5&pool=",
                b"source=s&queue=%00%f0%9f%92%a5",
                b"page=2&text=%ff",
                b"full&full&&=;a=1",
            ]
        case _:
            head = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n"
            chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
            return [
                head,
                head * 2,
                chunked,
                chunked.replace(b"1\r\na", b"zzz"),
                head.replace(b"/metrics", b"/sd?source=s"),
                head.replace(b"GET", b"CONNECT"),
                head.replace(
                    b"Accept-Encoding: gzip", b"Connection: upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue"
                ),
            ]


def _yaml(path: Path) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


_VALUES: Final = r"""
"\ud800" "\u0000" "\\\"" "\u2028\u0085" 1e400 -0 9223372036854775808 9007199254740993 NaN null true 1.5 [] {}
"2026-11-21T23:24:16Z" "9999-12-31T23:59:59Z" "00000000-0000-4000-8000-000000000010"
"""
_YAML_WORDS: Final = r"""
sources: system: prefect cloro name: url: interval: collect: basic_auth_users: tls_server_config: 30s <<: &a *a !!set
!!omap !!binary ? --- %YAML |+ \ud800
"""
_PARAMETERS: Final = """
source=s &pool=p &queue=q &kind=tag &limit=l text= system=prefect full=true waiting=false paused=on page=1 page=-1
%00 %ff %ed%a0%80 & = + ;
"""
_HTTP_WORDS: Final = "Content-Length: Transfer-Encoding:chunked Host:x Basic ;q= gzip HTTP/1.1 Expect:100-continue"


def words(target: str) -> list[bytes]:
    """What libFuzzer puts in: it finds out most by itself, but not what a library compares in C."""
    match target:
        case "answers":
            names = [f'"{name}":' for name in sorted(set(re.findall(r'"([A-Za-z_]+)":', json.dumps(upstream.GOOD))))]
            return [upstream.SEPARATOR, b"HTTP/1.1 200 OK\r\n", *(word.encode() for word in (*names, *_VALUES.split()))]
        case "config" | "web-config":
            return [word.encode() for word in _YAML_WORDS.split()]
        case "parameters":
            return [word.encode() for word in _PARAMETERS.split()]
        case _:
            return [b"\r\n\r\n", *(word.encode() for word in _HTTP_WORDS.split())]


def run(target: str, seconds: int) -> tuple[str, str]:
    """Fuzz one target: a row of figures, and what was found, if anything."""
    crashers = CRASHERS / target
    crashers.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory, "corpus")
        corpus.mkdir()
        for number, seed in enumerate([*seeds(target), *(path.read_bytes() for path in crashers.iterdir())]):
            (corpus / f"seed-{number:03}").write_bytes(seed)
        dictionary = Path(directory, "words")
        dictionary.write_text(
            "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words(target))
        )
        done = subprocess.run(
            [
                sys.executable, "-m", "tests.fuzz.atheris_target", target, str(corpus),
                f"-dict={dictionary}", f"-artifact_prefix={crashers}/", f"-max_total_time={seconds}", "-max_len=4096",
                f"-rss_limit_mb={MOST_MEMORY_MIB}", f"-timeout={MOST_SECONDS}", "-print_final_stats=1", "-verbosity=1",
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )  # fmt: skip
        found = done.stdout[-4000:] if done.returncode else ""
        if target == "answers" and not found:
            found = refused_by_promtool(corpus)
        return _row(target, done.stdout, len(list(corpus.iterdir())), found=bool(found)), found


def refused_by_promtool(corpus: Path) -> str:
    """What promtool says against what is published for the inputs of this folder; empty if nothing.

    A process for each takes too long while atheris runs. Where there is no promtool, this says so, and nothing else.
    """
    if not shutil.which("promtool"):
        print("promtool is not on PATH, and so was not asked: apt install prometheus", file=sys.stderr)
        return ""
    expositions = {targets.exposition(path.read_bytes()): path for path in sorted(corpus.iterdir())}
    expositions.pop("", None)
    said = {path: promtool_check_metrics(text) for text, path in expositions.items()}
    print(f"promtool has read what {len(said)} of the inputs kept make.", file=sys.stderr)
    return "\n".join(f"{path.read_bytes()!r}: {complaints}" for path, complaints in said.items() if complaints)


def _row(target: str, output: str, inputs: int, *, found: bool) -> str:
    def last(pattern: str) -> str:
        return str((re.findall(pattern, output) or ["?"])[-1])

    if not (runs := last(r"stat::number_of_executed_units: *(\d+)")).isdigit():
        return f"| {target} | did not run to its end |"
    each, edges = last(r"stat::average_exec_per_sec: *(\d+)"), last(r"cov: (\d+)")
    memory, what = last(r"stat::peak_rss_mb: *(\d+)"), "something: see below" if found else "nothing"
    return f"| {target} | {int(runs):,} | {each} | {edges} | {inputs} | {memory} | {what} |"


def main() -> int:
    """Fuzz the targets one after the other, for as long as was said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=NAMES, metavar="TARGET", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=int, default=150, help="for all of the targets together")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/reliability.md")
    flags = parser.parse_args()
    rows = ["| target | inputs run | each second | edges covered | inputs kept | MiB | found |", f"|{' --- |' * 7}"]
    print(*rows, sep="\n", flush=True)
    # Most of what a stranger can send is in the answers, and a file takes a hundred times as long as headers.
    shares = {name: {"answers": 6, "config": 3, "web-config": 2}.get(name, 1) for name in flags.targets}
    broken = []
    for name, share in shares.items():
        row, found = run(name, max(1, flags.seconds * share // sum(shares.values())))
        rows.append(row)
        print(row, found, sep="\n" if found else "", flush=True)
        broken += [name] if found else []
    if flags.write:
        publish("fuzz", "\n".join(rows))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
