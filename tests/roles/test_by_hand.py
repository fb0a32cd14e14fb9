"""docs/OPERATIONS.md, "Taking it off a host": its commands remove what `compile_absent` removes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import PurePosixPath

import pytest

import roles
from engine.resource import Conffile, Container, File, Service, Sysctl, User
from inventory.checkout import CHECKOUT
from tests.roles.cases import deployable, load, shipment
from tests.roles.test_absent import deployed

HEADING = "## Taking it off a host\n"
# The certificate stays, as the page says. Docker's files stay with its package.
STAYS = ("/etc/letsencrypt", "/var/lib/letsencrypt", "/var/log/letsencrypt", "/etc/docker")
NOT_OURS = {"nginx.service", "docker.service"}


def commands() -> list[list[str]]:
    """Return the words of each command of the section."""
    section = (CHECKOUT / "docs" / "OPERATIONS.md").read_text().partition(HEADING)[2].partition("\n## ")[0]
    lines = re.findall(r"^    (.*)$", section, re.M)
    return [shlex.split(command) for line in lines for command in re.split(r"; |&& ", line)]


def words_of(*start: str) -> Iterator[str]:
    """Yield the arguments of the commands that begin so."""
    for words in commands():
        if tuple(words[: len(start)]) == start:
            yield from (word for word in words[len(start) :] if not word.startswith("-"))


def is_removed(path: str) -> bool:
    """Whether a command removes the path or a folder above it, or the empty folder."""
    above = [path, *map(str, PurePosixPath(path).parents)]
    removed = any(fnmatch(one, pattern) for one in above for pattern in words_of("rm"))
    return removed or path in words_of("rmdir")


@pytest.mark.parametrize("name", deployable())
def test_the_page_leaves_no_path_unit_or_user_of_ours(name: str) -> None:
    host, site, facts = load(name)
    after = deployed(facts, roles.compile_host(host, site, facts, shipment(host.certificate.key)))
    gone = roles.compile_absent(host, after)
    paths = [path for one in gone if (path := one.owned_path()) and not isinstance(one, File | Conffile)]
    # files/agent/kernel.py names these files.
    paths += [f"/etc/sysctl.d/60-derpfleet-{one.key}.conf" for one in gone if isinstance(one, Sysctl)]
    left = [path for path in paths if not path.startswith(STAYS) and not is_removed(path)]
    units = {one.unit for one in gone if isinstance(one, Service)} - NOT_OURS
    assert left == []
    assert units <= set(words_of("systemctl", "disable"))
    assert {one.container for one in gone if isinstance(one, Container)} <= set(words_of("docker", "rm"))
    assert {one.user for one in gone if isinstance(one, User)} <= set(words_of("userdel"))


def test_the_page_removes_nothing_of_others() -> None:
    assert is_removed("/opt/derpfleet/current") and is_removed("/etc/sysctl.d/60-derpfleet-bbr.conf")
    assert not any(map(is_removed, ("/etc/nginx/sites-enabled/blog", "/etc/letsencrypt", "/var/www/html")))
    assert all("derpfleet" in word for word in words_of("rm"))
