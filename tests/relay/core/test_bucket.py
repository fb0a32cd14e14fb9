import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.bucket import MIN_BURST, Bucket, RateConfig, parse_rate_config


def test_the_reference_vector():
    """100,000 B/s, burst raised to 65,568, four frames of 60,032 back to back: 0, 0.545, 1.145,
    1.746 s.
    """
    config = parse_rate_config(b'{"PerClientRateLimitBytesPerSec": 100000, "PerClientRateBurstBytes": 10}')
    limiter = config.limiter(0.0)
    now, passed = 0.0, []
    for _ in range(4):
        now += limiter.take(60_032, 1, now)
        passed.append(round(now, 3))
    assert passed == [0, 0.545, 1.145, 1.746]


def test_a_frame_above_the_burst_counts_as_the_burst():
    bucket = Bucket(10, 100, 0.0)
    assert bucket.take(10**9, 0.0) == 0.0
    assert bucket.take(10**9, 0.0) == 10.0


def test_allow_is_the_not_here_limiter():
    bucket = Bucket(1, 3, 0.0)
    assert [bucket.allow(0.0) for _ in range(10)] == [True] * 3 + [False] * 7
    assert [bucket.allow(1.05) for _ in range(2)] == [True, False]


def test_a_clock_that_jumps():
    bucket = Bucket(1, 3, 1000.0)
    assert all(bucket.allow(1000.0) for _ in range(3))
    assert not bucket.allow(5.0), "back: nothing is given"
    assert bucket.allow(6.0), "and from there it counts on"
    assert [bucket.allow(1e12) for _ in range(4)] == [True, True, True, False], "forth: a burst, no more"


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 200)), max_size=50))
def test_a_reader_that_waits_never_gets_more_than_rate_and_burst(steps):
    bucket, now, total = Bucket(50, 100, 0.0), 0.0, 0
    for pause, amount in steps:
        now += pause
        now += bucket.take(amount, now)
        total += min(amount, 100)
        assert total <= 100 + 50 * now + 1e-6


def test_both_limits_count():
    limiter = RateConfig(1000, 65_568, 10, 2).limiter(0.0)
    assert limiter.take(100, 2, 0.0) == 0
    assert limiter.take(100, 1, 0.0) == pytest.approx(0.1), "packets"
    assert limiter.take(65_568, 0, 0.0) == pytest.approx(0.2), "bytes"
    assert RateConfig(packets_per_s=1, burst_packets=1).limiter(0.0).take(10**6, 1, 0.0) == 0
    assert RateConfig().limiter(0.0) is None


def test_a_rate_config_in_full():
    text = {
        "PerClientRateLimitBytesPerSec": 5,
        "perclientrateburstbytes": 10**6,
        "PerClientRateLimitPacketsPerSec": 7,
        "x": "y",
    }
    assert parse_rate_config(json.dumps(text).encode()) == RateConfig(5, 10**6, 7, 1)


@pytest.mark.parametrize(
    "text, config",
    [
        ("{}", RateConfig()),
        ('{"PerClientRateBurstBytes": 9}', RateConfig()),
        ("null", RateConfig()),
        ('{"PerClientRateLimitBytesPerSec": null, "PerClientRateBurstBytes": null}', RateConfig()),
    ],
)
def test_no_rate_is_no_limit(text, config):
    assert parse_rate_config(text.encode()) == config


def test_a_burst_is_raised():
    assert parse_rate_config(b'{"PerClientRateLimitBytesPerSec": 1}') == RateConfig(1, MIN_BURST)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"PerClientRateLimitBytesPerSec": -1}', "PerClientRateLimitBytesPerSec is not a whole number"),
        ('{"PerClientRateLimitBytesPerSec": 1.5}', "is not a whole number"),
        ('{"PerClientRateLimitBytesPerSec": true}', "is not a whole number"),
        ('{"PerClientRateBurstBytes": 18446744073709551616}', "is not a whole number"),
    ],
)
def test_a_bad_rate_config(text, says):
    with pytest.raises(ValueError, match=says):
        parse_rate_config(text.encode())
