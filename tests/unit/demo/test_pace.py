from datetime import timedelta

from exporter.demo.pace import CATCH_UP, TICK, Wave, ticks
from tests.harness.demo import START


def test_ticks_are_the_whole_seconds_since_the_last_one() -> None:
    now = START + timedelta(seconds=2.9)
    assert list(ticks(START, now)) == [START + TICK, START + 2 * TICK]


def test_there_are_no_ticks_twice_or_backwards() -> None:
    assert list(ticks(START, START)) == []
    assert list(ticks(START, START - timedelta(hours=1))) == []


def test_after_a_long_sleep_only_the_last_ticks_are_played() -> None:
    now = START + timedelta(days=400)
    played = list(ticks(START, now))
    assert len(played) == CATCH_UP // TICK
    assert played[-1] == now


def test_a_wave_surges_once_in_its_period_and_trickles_otherwise() -> None:
    wave = Wave(0.0, 3.0, period=100, starts=10, lasts=20)
    arrivals = [wave.arrivals(second) for second in range(-100, 200)]
    busy = {second for second, count in zip(range(-100, 200), arrivals, strict=True) if count}
    assert busy <= {second for second in range(-100, 200) if 10 <= second % 100 < 30}
    # A half sine of height 3 and 20 s width is 38 arrivals, three times over.
    assert 3 * 38 <= sum(arrivals) <= 3 * 39
