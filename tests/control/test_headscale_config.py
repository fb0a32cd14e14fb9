"""headscale's configuration: the settings that are read, and the one line that is added."""

import difflib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.headscale.config import BadConfig, Embedded, HeadscaleConfig, parse_config, with_path

SAMPLE = (Path(__file__).parent / "headscale" / "config.yaml").read_text()
OURS = "/etc/headscale/derp.yaml"

READ = HeadscaleConfig(
    paths=(),
    urls=("https://controlplane.tailscale.com/derpmap/default",),
    update_s=10800.0,
    embedded=None,
    base_domain="tail.example.net",
    listen="127.0.0.1:8080",
    tls=False,
    metrics="127.0.0.1:9090",
)


def test_the_sample():
    assert parse_config(SAMPLE) == READ


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        (
            "paths: []",
            "paths: [derp.yaml, /a/../b.yaml]",
            {"paths": ("/var/lib/headscale/derp.yaml", "/b.yaml")},
        ),
        ("paths: []", "paths: /a.yaml /b.yaml", {"paths": ("/a.yaml", "/b.yaml")}),
        ("  paths: []\n", "", {"paths": ()}),
        ("paths: []", "Paths: [/a.yaml]", {"paths": ("/a.yaml",)}),  # viper ignores the case of keys
        ("auto_update_enabled: true", "auto_update_enabled: false", {"update_s": None}),
        ("  auto_update_enabled: true\n", "", {"update_s": None}),  # no default: absent means off
        ("update_frequency: 3h", "update_frequency: 1m30s", {"update_s": 90.0}),
        ("update_frequency: 3h", "update_frequency: 500ms", {"update_s": 0.5}),
        ("update_frequency: 3h", "update_frequency: +1.5h", {"update_s": 5400.0}),
        ("update_frequency: 3h", "update_frequency: 0", {"update_s": None}),
        ("update_frequency: 3h", "update_frequency: soon", {"update_s": None}),
        ("update_frequency: 3h", "update_frequency: 5000000000", {"update_s": 5.0}),
        ("    enabled: false\n", "    enabled: true\n", {"embedded": Embedded(999, "headscale")}),
        ("magic_dns: true", "magic_dns: false", {"base_domain": ""}),
        ("listen_addr: 127.0.0.1:8080", "listen_addr: 0.0.0.0:80", {"listen": "127.0.0.1:80"}),
        ("listen_addr: 127.0.0.1:8080", "listen_addr: '[::]:80'", {"listen": "127.0.0.1:80"}),
        ("listen_addr: 127.0.0.1:8080", "listen_addr: 10.0.0.1:80", {"listen": "10.0.0.1:80"}),
        ('tls_cert_path: ""', 'tls_cert_path: "/etc/tls.pem"', {"tls": True}),
        ("metrics_listen_addr: 127.0.0.1:9090", 'metrics_listen_addr: ""', {"metrics": ""}),
        ("metrics_listen_addr: 127.0.0.1:9090", "metrics_listen_addr: :9100", {"metrics": "127.0.0.1:9100"}),
    ],
)
def test_the_settings_that_are_read(old, new, change):
    assert old in SAMPLE
    assert parse_config(SAMPLE.replace(old, new, 1)) == replace(READ, **change)


@pytest.mark.parametrize(
    ("old", "new", "diff"),
    [
        ("", "", ["-   paths: []", f'+   paths: ["{OURS}"]']),
        ("  paths: []\n", "", ["+   paths:", f'+     - "{OURS}"']),
        ("paths: []", "paths:", ["-   paths:", f'+   paths: ["{OURS}"]']),
        ("paths: []", "paths:\n  - /a.yaml # a", [f'+   - "{OURS}"']),
        ("paths: []", "paths:\n      - /a.yaml\n      # more", [f'+       - "{OURS}"']),
        ("paths: []", "paths: [/a.yaml]", ["-   paths: [/a.yaml]", f'+   paths: [/a.yaml, "{OURS}"]']),
        ("paths: []", "PATHS: []", ["-   PATHS: []", f'+   PATHS: ["{OURS}"]']),
        ("paths: []", "paths: /a.yaml", ["-   paths: /a.yaml", f'+   paths: ["/a.yaml", "{OURS}"]']),
        ("paths: []", f"paths: [{OURS}]", []),
        ("paths: []", "paths: [../../../etc/headscale/derp.yaml]", []),
    ],
)
def test_the_one_line_that_is_added(old, new, diff):
    before = SAMPLE.replace(old, new, 1)
    after = with_path(before, OURS)
    assert [
        line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"
    ] == diff
    assert OURS in parse_config(after).paths
    assert with_path(after, OURS) == after


@pytest.mark.parametrize(
    "text",
    [
        "server_url: http://x\n",
        "server_url: http://x\nderp:\n",
        "derp: {server: {enabled: false}}\n",
        "derp: {}",
    ],
)
def test_a_section_that_is_not_there_is_made(text):
    assert parse_config(with_path(text, OURS)).paths == (OURS,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is not a mapping"),
        ("- a\n", "it is not a mapping"),
        ("a: [\n", "line 2: while parsing a flow node: expected the node content, but found '<stream end>'"),
        ("a: 1\na: 2\n", "line 2: the key a is here twice"),
        ("derp: 7\n", "derp is not a mapping"),
        ("derp: {paths: {a: 1}}\n", "derp.paths is not a list of texts"),
        ("derp: {urls: [1]}\n", "derp.urls is not a list of texts"),
    ],
)
def test_a_file_that_cannot_be_read(text, words):
    with pytest.raises(BadConfig) as caught:
        parse_config(text)
    assert str(caught.value) == words


def test_a_file_that_cannot_be_changed_in_place_is_left_to_a_person():
    text = "x: &none []\nderp: {paths: *none}\n"
    with pytest.raises(BadConfig, match="by hand, restart headscale"):
        with_path(text, OURS)


@settings(max_examples=100)
@given(st.data())
def test_any_text_is_changed_or_refused_with_a_reason(data):
    text = SAMPLE[SAMPLE.index("derp:") : SAMPLE.index("database:")]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 9)) :]
    try:
        assert OURS in parse_config(with_path(text, OURS)).paths
    except BadConfig as error:
        assert str(error)
