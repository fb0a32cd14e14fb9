"""Tailscale's own programs as judges: gitops-pusher of the stand-in, its reader and formatter of
our text."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from artefacts import go
from control.hujson import NotHujson, parse, standard
from control.hujson_text import put, remove
from control.tailscale.policy import read_policy, with_regions
from inventory.checkout import CACHE
from tests.control.hujson_texts import PATH, REGION, Writer
from tests.control.tailscale.policies import POLICY, hosts, site
from tests.support.tailscale_api import (
    CLIENT,
    CLIENT_SECRET,
    READS,
    TAILNET,
    WRITES,
    Tailnet,
    sum_of,
    tailnet,
)

SOURCE = Path(__file__).parents[2] / "gitops"
TEXTS = 400


@pytest.fixture(scope="module")
def programs() -> Path:
    """Return the folder of gitops-pusher and of tests/gitops, built once from checked-in sums."""
    return go.build(SOURCE, cache=CACHE, progress=print, packages=("tool", "."))


def judged(programs: Path, texts: list[str]) -> list[dict[str, str]]:
    """Return what Tailscale's reader and formatter make of each text."""
    lines = "".join(f"{json.dumps(text)}\n" for text in texts)
    argv = [str(programs / "gitops")]
    done = subprocess.run(argv, input=lines, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_takes_and_refuses_the_same_texts(programs: Path) -> None:
    texts = [Writer(seed).policy() for seed in range(TEXTS)]
    texts += [Writer(seed).spoiled() for seed in range(TEXTS)]
    texts += ["", "{}\n// end", "{}// end\n", "/**/{}", "[1,]", "[,]", "{,}", '"\\x"', '"\\ud800"', "01"]
    texts += ["-", "1.", "1e5", "+1", "\ufeff{}", "[" * 99 + "]" * 99, "NaN", "nul", "truefalse", "/*/ */1"]
    taken = 0
    for text, answer in zip(texts, judged(programs, texts), strict=True):
        try:
            parse(text)
        except NotHujson:
            assert answer["error"], text
            continue
        assert not answer["error"], (text, answer["error"])
        assert json.loads(answer["standard"]) == json.loads(standard(text)), text
        taken += 1
    assert TEXTS < taken < len(texts)


def test_its_formatter_sees_our_region_and_the_rest_as_it_was(programs: Path) -> None:
    texts = [Writer(seed).policy() for seed in range(TEXTS)]
    both = texts + [put(text, PATH, REGION) for text in texts] + [remove(text, PATH) for text in texts]
    answers = judged(programs, both)
    assert not any(answer["error"] for answer in answers)
    thirds = (answers[at : at + TEXTS] for at in range(0, 3 * TEXTS, TEXTS))
    for before, added, removed in zip(*thirds, strict=True):
        data = [json.loads(answer["standard"]) for answer in (before, added, removed)]
        assert _of_region(data[1]) is not None and _of_region(data[2]) is None
        assert [_without_region(one) for one in data[1:]] == [_without_region(data[0])] * 2


def _regions(policy: dict[str, Any]) -> dict[str, Any]:
    found: Any = policy
    for wanted in ("derpmap", "regions"):
        found = next((value for key, value in found.items() if key.lower() == wanted), None) or {}
    assert isinstance(found, dict)
    return found


def _of_region(policy: dict[str, Any]) -> Any:
    return _regions(policy).get("900")


def _without_region(policy: dict[str, Any]) -> dict[str, Any]:
    """Return the policy without region 900, and without what would be empty then."""
    _regions(policy).pop("900", None)
    for key in [key for key in policy if key.lower() == "derpmap"]:
        kept = {name: value for name, value in (policy[key] or {}).items() if value or name[0] in "Oo"}
        policy[key] = kept
        if not kept:
            del policy[key]
    return policy


@pytest.fixture
def net(tmp_path: Path, programs: Path) -> Iterator[Tailnet]:
    """Serve the stand-in with the ETag that Tailscale has: of the formatted text."""

    def etag(text: str) -> str:
        return sum_of(judged(programs, [text])[0]["format"])

    with tailnet(tmp_path, POLICY, etag_of=etag) as served:
        yield served


def pusher(programs: Path, net: Tailnet, folder: Path, verb: str, text: str, **env: str) -> tuple[int, str]:
    """Run gitops-pusher with this policy. Returns its exit status and all that it prints."""
    (folder / "policy.hujson").write_text(text)
    argv = [str(programs / "gitops-pusher"), "-api-server", net.url.removeprefix("https://")]
    argv += ["-policy-file", "policy.hujson", "-cache-file", "cache.json", "-github-syntax=false", verb]
    trust = {"SSL_CERT_FILE": str(net.ca), "NO_PROXY": "127.0.0.1"}
    whole = {**os.environ, **trust, "TS_TAILNET": TAILNET, **(env or {"TS_API_KEY": WRITES})}
    done = subprocess.run(
        argv, cwd=folder, env=whole, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_gitops_pusher_is_a_client_of_the_stand_in(programs: Path, net: Tailnet, tmp_path: Path) -> None:
    ours = with_regions(read_policy(POLICY), hosts(site(), "hk1"), omit=False).text
    assert pusher(programs, net, tmp_path, "test", ours)[0] == 0
    assert net.writes == 0
    assert pusher(programs, net, tmp_path, "apply", ours)[0] == 0
    assert (net.text, net.writes) == (ours, 1)
    code, shown = pusher(programs, net, tmp_path, "apply", ours)
    assert (code, net.writes) == (0, 1) and "no update needed" in shown


def test_it_reads_the_stand_ins_refusals(programs: Path, net: Tailnet, tmp_path: Path) -> None:
    code, shown = pusher(programs, net, tmp_path, "test", '{"aclz": []}')
    assert code == 1 and 'json: unknown field "aclz"' in shown
    code, shown = pusher(programs, net, tmp_path, "apply", "{}", TS_API_KEY=READS)
    assert code == 1 and "does not have enough permissions" in shown
    code, shown = pusher(programs, net, tmp_path, "apply", "{}", TS_API_KEY="none")
    assert code == 1 and "API token invalid" in shown
    assert net.text == POLICY


def test_it_gets_a_token_as_an_oauth_client(programs: Path, net: Tailnet, tmp_path: Path) -> None:
    client = {"TS_OAUTH_ID": CLIENT, "TS_OAUTH_SECRET": CLIENT_SECRET}
    assert pusher(programs, net, tmp_path, "apply", '{"acls": []}', **client)[0] == 0
    assert net.text == '{"acls": []}'


def test_it_finds_the_policy_that_we_wrote_unchanged(
    programs: Path, net: Tailnet, tmp_path: Path
) -> None:
    ours = with_regions(read_policy(POLICY), hosts(site(), "hk1", "sg1"), omit=False).text
    net.text = ours
    code, shown = pusher(programs, net, tmp_path, "checksum", ours)
    assert code == 0
    sums = re.findall(r"(?:control|local): +([0-9a-f]{64})", shown)
    assert len(sums) == 2 and len(set(sums)) == 1
