"""Properties of what is read: any JSON of an upstream, any name, any number, any header, any settings.

The examples are the same at each run of the tests; `make fuzz` runs more, and others each time.
"""

import json
import os
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from exporter import config
from exporter.metrics.body import Body
from exporter.metrics.text import Format
from exporter.polling.store import SourceState
from exporter.sources import SYSTEMS
from exporter.sources.prefect import PrefectConfig
from exporter.sources.prefect.api import MAX_NAME
from exporter.web.config import WebConfig
from exporter.web.tls import TlsServerConfig
from tests.fuzz import strict, targets
from tests.fuzz.upstream import GOOD, ident, ok
from tests.harness.json_places import changed, places
from tests.harness.upstream import Request, answer, serve

LONG = int(os.environ.get("FUZZ_EXAMPLES", "0"))
settings.register_profile(
    "fuzz",
    max_examples=LONG or 40,
    derandomize=not LONG,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fuzz")

NASTY = [
    "",
    "\x00",
    "\n",
    '"',
    "\\",
    "\\n",
    '\\"',
    "{}",
    "a\r\nb",
    "\x85\u2028\u2029",
    "\u202e",
    "\ufeff",
    "\U0010ffff",
    "é",
    "é",
    "# EOF",
    "x" * MAX_NAME,
    "x" * 5000,
    "NaN",
    "<script>",
]
NAMES = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.booleans(),
    st.sampled_from([0, -0.0, 1.0, 1.5, 2**53, 2**53 + 1, 2**63, 2**64, -1, 10**400, 1e308, 5e-324]),
)  # fmt: skip
TEXTS = st.one_of(
    NAMES,
    st.text(max_size=5),
    st.sampled_from(
        ["RUNNING", "PENDING", "Late", "9999-12-31T23:59:59.999999+00:00", "0001-01-01T00:00:00Z", ident(1), ident(10)]
    ),
)
JSON = st.recursive(
    st.one_of(st.none(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def poll(kinds: dict[str, bytes], *, thorough: bool = True) -> SourceState:
    """Poll an upstream with these answers; every check of the fuzzer holds."""
    return targets._runner().run(targets.polls("cloro" if "A" in kinds else "prefect", kinds, thorough=thorough))


@given(st.data())
def test_any_value_in_any_place(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(GOOD)))
    document = GOOD[kind]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(document)))
        new = data.draw(JSON)
        document = changed(
            document, place, ... if place and data.draw(st.booleans()) and data.draw(st.booleans()) else new
        )
        if not isinstance(document, dict | list):
            break
    poll({kind: ok(json.dumps(document, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass"))})


@given(st.lists(NAMES.filter(lambda name: len(name) <= MAX_NAME), min_size=1, max_size=4, unique=True), st.booleans())
def test_every_name_is_published_as_it_is(names: list[str], ascii_: bool) -> None:
    pools = [GOOD["P"][0] | {"id": ident(100 + n), "name": name} for n, name in enumerate(names)]
    body = json.dumps(pools, ensure_ascii=ascii_).encode()
    state = poll({"P": ok(body), "Q": ok([])})
    assert state.outcome == "success", state.failure
    assert published(state, "concurrency_pool_active_slots", "pool") == dict.fromkeys(names, 1.0)


def published(state: SourceState, family: str, label: str) -> dict[str, float]:
    """The values of one family by one label, read from OpenMetrics."""
    assert state.published
    text = b"".join(Body([state.published.rendered], Format.OPENMETRICS).plain(b"# EOF\n"))
    series = strict.check(text, Format.OPENMETRICS)
    return {dict(labels)[label]: value for (name, labels), value in series.items() if name == family}


@pytest.mark.parametrize("kind", [kind for kind, body in GOOD.items() if isinstance(body, list) and "id" in body[0]])
@pytest.mark.parametrize("number", [0, -1])
def test_another_of_the_same_name_is_no_fault_of_ours(kind: str, number: int) -> None:
    twins = [*GOOD[kind], GOOD[kind][number] | {"id": ident(999)}]
    state = poll({kind: ok(twins)})
    assert state.outcome == {"P": "failure", "Q": "failure", "L": "partial"}.get(kind, "success")


def test_a_limit_with_the_id_of_a_deployment_in_its_name_is_a_limit() -> None:
    id_ = "ABCDEF00-0000-4000-8000-000000000000"
    names = [f"deployment:{id_.lower()}", f"deployment:{id_}", f"deployment:{{{id_}}}", f"deployment:urn:uuid:{id_}"]
    limits = [GOOD["L"][0] | {"id": ident(900 + n), "name": name} for n, name in enumerate(names)]
    state = poll({"L": ok(limits)})
    assert state.outcome == "success"
    assert set(published(state, "concurrency_limit_slots", "limit")) == {id_.lower(), *names[1:]}


@given(NUMBERS)
@example(2**53)
@example(2**53 + 1)
@example(-1)
@example(-0.0)
@example(True)
@example(1.0)
def test_a_count_is_published_exactly_or_refused(number: float) -> None:
    body = json.dumps([GOOD["P"][0] | {"active_slots": number}]).encode()
    state = poll({"P": ok(body), "Q": ok([])})
    if type(number) is int and 0 <= number <= 2**53:
        assert published(state, "concurrency_pool_active_slots", "pool") == {"a": number}
    else:
        assert state.failure
        assert state.failure.reason == "contract"


@pytest.mark.parametrize("text", ['"\\ud800"', '"\\udc00\\ud800"', '"a\\ud83d"', '"\\ud83d\\u0041"'])
@pytest.mark.parametrize("raw", [False, True])
def test_half_a_surrogate_pair_is_no_text(text: str, *, raw: bool) -> None:
    body = json.dumps([GOOD["P"][0] | {"name": "?"}]).encode()
    name = json.loads(text).encode("utf-8", "surrogatepass") if raw else text.encode()
    state = poll({"P": ok(body.replace(b'"?"', b'"' + name + b'"' if raw else name))})
    assert state.failure
    assert state.failure.reason == "contract"


@given(st.binary(max_size=200), st.sampled_from(sorted(GOOD)))
def test_any_bytes_for_an_answer(answer: bytes, kind: str) -> None:
    poll({kind: answer}, thorough=False)
    poll({kind: ok(answer)}, thorough=False)


@given(st.binary(max_size=60))
@example(b"q=\xff;\x85")
@example("Basic é".encode("latin-1"))
@example(b"AAA=")
def test_any_header(data: bytes) -> None:
    targets.headers(data)


@given(st.binary(max_size=300))
def test_any_bytes_to_the_listening_socket(data: bytes) -> None:
    targets.request(data)
    targets.request(b"GET /metrics HTTP/1.1\r\nHost: " + data)


KEYS = st.sampled_from(
    [
        *config.Config.model_fields,
        *PrefectConfig.model_fields,
        *WebConfig.model_fields,
        *TlsServerConfig.model_fields,
        "<<",
    ]
)
SETTINGS = st.recursive(
    st.one_of(
        JSON,
        KEYS,
        st.sampled_from(["30s", "prefect", "http://x/api", "/dev/null", ".", "(" * 50, "99999999999999999999w"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, TEXTS), inner, max_size=4)),
    max_leaves=12,
)


@given(SETTINGS)
def test_any_settings(document: Any) -> None:
    data = json.dumps(document).encode()
    targets.config_file(data)
    targets.web_config_file(data)


LETTERS = list(pairwise("abcdefghi"))
BOMBS = {
    "laughs": "a: &a [x,x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in LETTERS),
    "merges": "a: &a {k: 1}\n" + "".join(f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in LETTERS),
    "itself": "a: &a [*a]\nsources: *a\n",
    "merges-itself": "a: &a\n  <<: *a\n",
    "deep": "[" * 1_000,
    "deep-mapping": "{a: " * 1_000,
    "deep-block": "".join(" " * n + "a:\n" for n in range(1_000)),
    "long-number": "sources: " + "9" * 100_000,
    "long-hexadecimal": "sources: 0x" + "f" * 100_000,
    "long-float": "sources: 1e" + "9" * 10_000,
    "keys-of-keys": "? ? ? ? a\n: b\n",
    "a-set-in-a-key": "? [!!set {a}]\n: b\n",
    "a-date": "sources: 9999-99-99\n",
    "python": "sources: !!python/object/apply:os.system [id]\n",
    "documents": "--- {}\n" * 100,
    "laughing-sources": "a: &a {name: x, system: prefect, url: 'http://x'}\nb: &b [*a,*a]\nsources: [*b, *b, *a, *a]\n",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_bombs_do_not_go_off(text: str) -> None:
    targets.config_file(text.encode())


def test_any_bytes_over_a_real_socket() -> None:
    """The same over TCP, which the other tests leave out; fewer, since each takes longer."""

    @settings(max_examples=max(25, LONG // 10), phases=[Phase.generate])
    @given(st.binary(max_size=400), st.booleans(), st.sampled_from(["prefect", "cloro"]))
    def check(data: bytes, framed: bool, system: str) -> None:
        async def run() -> None:
            def reply(_: Request) -> bytes:
                return answer(data) if framed else data

            async with serve(reply) as fake:
                base = {"url": f"{fake.url}/api", "name": "s", "system": system, "timeout": "600ms", "interval": "10m"}
                exporter = targets._exporter()
                await exporter.poller.configure([SYSTEMS[system].model_validate(targets.SETTINGS[system] | base)])
                try:
                    await exporter.poller.poll("s")
                    view = exporter.store.view()
                    targets._outcome_is_known(*view.states)
                    targets._published(view, exporter.telemetry, thorough=True)
                finally:
                    await exporter.poller.configure([])

        targets._runner().run(run())

    check()
