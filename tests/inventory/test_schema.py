"""The file that editors read: it is current, and agrees with the loader."""

import json

import pytest

from inventory.example import FILE as EXAMPLE
from inventory.example import init_text
from inventory.model import Site
from inventory.schema import FILE, json_schema, schema_at
from inventory.site_file import compile_site


def test_the_file_is_current():
    assert json.loads(FILE.read_text()) == json_schema(), "python -m inventory.schema"


def test_it_describes_the_file_and_not_the_model():
    schema = json_schema()
    assert set(schema["properties"]) == {
        *("defaults", "hosts", "headscale", "tailscale", "derpmap"),
        *("known_hosts", "prover", "notify", "rollout"),
    }
    assert schema["required"] == ["hosts"]
    assert schema["$defs"]["Host"]["required"] == ["domain", "region"]
    assert "name" not in schema["$defs"]["Host"]["properties"]
    assert schema["properties"]["hosts"]["additionalProperties"] is False
    defaults = schema["$defs"]["Defaults"]
    assert defaults["required"] == []
    assert not {"domain", "region", "ipv4", "ipv6"} & set(defaults["properties"])


def test_every_value_is_found_by_its_path():
    schema = json_schema()
    assert schema_at(schema, ("hosts", "hk1", "region", "id"))["maximum"] == 999
    assert schema_at(schema, ("defaults", "ssh", "port"))["minimum"] == 1
    assert (
        schema_at(schema, ("hosts", "hk1", "firewall", "allow", 0))["patternErrorMessage"]
        == "a port, as 8443/tcp or 60000-61000/udp"
    )
    assert schema_at(schema, ("hosts", "hk1", "nonsense", "x")) == {}


def patterns(part):
    if isinstance(part, dict):
        yield from [part] if isinstance(part.get("pattern"), str) else []
        for value in part.values():
            yield from patterns(value)
    elif isinstance(part, list):
        for value in part:
            yield from patterns(value)


def test_every_pattern_has_words():
    assert [part["pattern"] for part in patterns(json_schema()) if "patternErrorMessage" not in part] == []


def test_the_example_is_a_site(tmp_path):
    site = compile_site(EXAMPLE.read_text(), tmp_path / "site.yml")
    assert isinstance(site, Site)
    assert (site.hosts["hk1"].domain, site.headscale.url) == (
        "hk1.example.org",
        "https://headscale.example.org",
    )


def test_the_first_site_file_lacks_only_the_operators_own_values(tmp_path):
    found = compile_site(init_text(), tmp_path / "site.yml")
    assert sorted((problem.path, problem.message.partition(":")[0]) for problem in found) == [
        ("defaults.certificate.agree_terms", "must be true"),
        ("headscale.url", "CHANGE-ME is only a placeholder"),
        ("hosts.hk1.domain", "CHANGE-ME is only a placeholder"),
        ("hosts.hk1.ipv4", "CHANGE-ME is only a placeholder"),
    ]


@pytest.mark.parametrize(
    "line",
    [line for line in EXAMPLE.read_text().splitlines() if line.lstrip().startswith("# ") and ":" in line],
)
def test_the_keys_in_the_comments_of_the_example_exist(line):
    """Check that a commented line that looks like YAML names a key of the schema."""
    key = line.lstrip().removeprefix("#").strip().partition(":")[0]
    known = {
        name
        for part in [json_schema(), *json_schema()["$defs"].values()]
        for name in part.get("properties", {})
    }
    if key.isidentifier() and line.count("#") <= 2 and not key[0].isupper():
        assert key in known | {"sg1"}
