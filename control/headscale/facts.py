"""Facts of the headscale host: version, unit, configuration, map file and the files beside it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from control.headscale.clashes import Maps
from control.headscale.config import BadConfig, HeadscaleConfig, parse_config
from control.headscale.reader import BadMap, parse_map
from control.regions import Regions
from engine.facts import Ask, Facts, FileFact
from engine.health import Http
from inventory.errors import DerpfleetError
from inventory.model import Headscale, Site

Version = tuple[int, int, int]

NEWEST: Version = (99, 0, 0)  # assumed for a development build, which shows no number
VERIFY_SINCE: Version = (0, 24, 0)  # POST /verify
# A map that does not load stops the start. There are /debug/derp and /debug/nodestore. A file is
# used before a URL.
STRICT_SINCE: Version = (0, 27, 0)
_DEBUG_SINCE: Version = (0, 26, 0)  # /debug/derpmap
_UNIT = ("LoadState", "UnitFileState", "CanReload", "NRestarts", "ExecMainStartTimestampMonotonic")
_AGAIN, _RECENT_S = 2, 60  # starts by systemd itself, and the time since the last one


class HeadscaleRefused(DerpfleetError):
    """headscale's map was not changed, because a person has to fix something first."""


@dataclass(frozen=True)
class HeadscaleFacts:
    """The headscale host, as read from the answers to `ask`.

    `elsewhere`: the regions of the other files in derp.paths, by file. `unseen`: those files that
    were not read.
    """

    headscale: Headscale
    version: Version
    unit: Mapping[str, str]
    uptime_s: float
    config: HeadscaleConfig
    config_file: FileFact
    map_file: FileFact | None
    regions: Regions
    elsewhere: Mapping[str, Regions]
    unseen: tuple[str, ...]

    @property
    def maps(self) -> Maps:
        """Return the regions of the files, to look for clashes."""
        return Maps(self.headscale.derp_map, self.regions, self.elsewhere)

    @property
    def looping(self) -> str:
        """Say that headscale ends and is started again and again; "" when it does not."""
        starts = int(self.unit.get("NRestarts") or 0)
        age_s = self.uptime_s - int(self.unit.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
        if starts < _AGAIN or age_s > _RECENT_S:
            return ""
        return f"headscale was started {starts} times by itself, the last time {age_s:.0f} s ago"

    @property
    def config_text(self) -> str:
        """Return the text of config.yaml."""
        return self.config_file.content or ""

    @property
    def map_text(self) -> str:
        """Return the text of the map file; "" when there is none yet."""
        return (self.map_file.content if self.map_file else "") or ""

    @property
    def health(self) -> Http:
        """Return the question for /health.

        It goes to the site's own address, or else to the one on which headscale listens.
        """
        if "health" in self.headscale.model_fields_set:
            return Http(url=self.headscale.health)
        if not self.config.tls:
            return Http(url=f"http://{self.config.listen}/health")
        name = urlsplit(self.headscale.url).hostname
        # On loopback, so the certificate need not be checked.
        return Http(url=f"https://{name}/health", connect=self.config.listen, insecure=True)

    def served(self, contains: tuple[str, ...] = ()) -> Http | None:
        """Return the question for the map that headscale serves.

        None when this version or configuration has no such page.
        """
        page = self._debug("derp" if self.version >= STRICT_SINCE else "derpmap", since=_DEBUG_SINCE)
        return Http(url=page, accept="application/json", contains=contains) if page else None

    @property
    def nodes(self) -> str:
        """Return the URL of the page about all nodes, in JSON.

        "" when this version or configuration has no such page.
        """
        return self._debug("nodestore", since=STRICT_SINCE)

    def _debug(self, page: str, *, since: Version) -> str:
        explicit = "metrics" in self.headscale.model_fields_set
        listener = f"http://{self.config.metrics}" if self.config.metrics else ""
        base = self.headscale.metrics if explicit else listener
        return f"{base.rstrip('/')}/debug/{page}" if base and self.version >= since else ""


def ask(site: Site, facts: Facts | None = None) -> Ask:
    """Return the question whose answers `read_facts` needs.

    With the `facts` of a first answer, also ask for the files of derp.paths in other folders.
    """
    headscale = _headscale(site)
    files = {headscale.config, headscale.derp_map, *_beside(headscale)}
    if facts is not None and (config := facts.files.get(headscale.config)) is not None:
        files |= set(_config(headscale, config).paths)
    return Ask(
        files=tuple(sorted(files)),
        commands={
            "headscale-version": ("headscale", "version"),
            "uptime": ("cat", "/proc/uptime"),
            "headscale-unit": ("systemctl", "show", headscale.unit, f"--property={','.join(_UNIT)}"),
        },
    )


def read_facts(site: Site, facts: Facts) -> HeadscaleFacts:
    """Read the answers to `ask`.

    Raises HeadscaleRefused when a file is missing or malformed, with everything that is wrong.
    """
    headscale = _headscale(site)
    config_file = facts.files.get(headscale.config)
    if config_file is None:
        raise HeadscaleRefused(
            f"there is no {headscale.config} on the headscale host",
            next=(
                "set headscale.config in the site file; or remove that section: "
                "`invoke derpmap` then says what to paste where"
            ),
        )
    config = _config(headscale, config_file)
    others = [path for path in config.paths if path != headscale.derp_map]
    seen = [path for path in others if path in facts.files]
    map_file, unit = facts.files.get(headscale.derp_map), _stdout(facts, "headscale-unit")
    return HeadscaleFacts(
        headscale=headscale,
        version=parse_version(_stdout(facts, "headscale-version")),
        unit=dict(line.split("=", 1) for line in unit.splitlines() if "=" in line),
        uptime_s=float((_stdout(facts, "uptime").split() or ["inf"])[0]),
        config=config,
        config_file=config_file,
        map_file=map_file,
        regions=_regions(headscale.derp_map, map_file) if map_file else {},
        elsewhere={path: _regions(path, facts.files[path]) for path in seen},
        unseen=tuple(path for path in others if path not in facts.files),
    )


def parse_version(text: str) -> Version:
    """Read the output of `headscale version`.

    It is `v0.26.1`, or `headscale version v0.29.2` with more lines.
    """
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else NEWEST


def _headscale(site: Site) -> Headscale:
    """Return the settings of headscale. `control.servers` calls this package for no other kind."""
    return cast("Headscale", site.control)


def _beside(headscale: Headscale) -> list[str]:
    folder = posixpath.dirname(headscale.derp_map)
    return [f"{folder}/*.yaml", f"{folder}/*.yml"]


def _stdout(facts: Facts, command: str) -> str:
    output = facts.commands.get(command)
    return output.stdout if output and output.status == 0 else ""


def _config(headscale: Headscale, file: FileFact) -> HeadscaleConfig:
    try:
        return parse_config(_content(headscale.config, file))
    except BadConfig as error:
        raise HeadscaleRefused(
            f"{headscale.config} cannot be read",
            why=str(error),
            next="fix the file; headscale would not start with it",
        ) from None


def _regions(path: str, file: FileFact) -> Regions:
    try:
        return parse_map(_content(path, file))
    except BadMap as error:
        raise HeadscaleRefused(
            f"headscale would not read {path} as it is meant",
            why="\n".join(error.complaints),
            next="fix these lines, then deploy again",
        ) from None


def _content(path: str, file: FileFact) -> str:
    if file.content is None:
        raise HeadscaleRefused(
            f"{path} is not a text file of up to 256 KiB", next="look at it on the headscale host"
        )
    return file.content
