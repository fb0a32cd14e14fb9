"""What is known of the headscale host: version, unit, configuration, the map file and the other files beside it. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from control.headscale.config import BadConfig, Config, parse_config
from control.headscale.reader import BadMap, Regions, parse_map
from engine.facts import Ask, Facts, FileFact
from engine.resource import Http
from inventory.errors import DerpfleetError
from inventory.model import Headscale, Site

Version = tuple[int, int, int]

NEWEST: Version = (99, 0, 0)  # what a development build, which tells no number, is taken for
VERIFY_SINCE: Version = (0, 24, 0)  # POST /verify
STRICT_SINCE: Version = (0, 27, 0)  # a map that does not load stops the start; /debug/derp, /debug/nodestore; a file wins over a URL
_DEBUG_SINCE: Version = (0, 26, 0)  # /debug/derpmap


class HeadscaleRefused(DerpfleetError):
    """headscale's map was not touched, because something about it must be cleared up first."""


@dataclass(frozen=True)
class HeadscaleFacts:
    """`elsewhere`: the regions of the other files in derp.paths, by file; those in `unseen` were not read."""

    headscale: Headscale
    version: Version
    unit: Mapping[str, str]
    config: Config
    config_file: FileFact
    map_file: FileFact | None
    regions: Regions
    elsewhere: Mapping[str, Regions]
    unseen: tuple[str, ...]

    @property
    def config_text(self) -> str:
        """config.yaml as it is."""
        return self.config_file.content or ""

    @property
    def map_text(self) -> str:
        """The map file as it is; "" when there is none yet."""
        return (self.map_file.content if self.map_file else "") or ""

    @property
    def health(self) -> Http:
        """/health, where headscale listens according to its configuration, unless the site says otherwise."""
        if "health" in self.headscale.model_fields_set or not self.config.tls:
            given = self.headscale.health if "health" in self.headscale.model_fields_set else f"http://{self.config.listen}/health"
            return Http(url=given)
        name = urlsplit(self.headscale.url).hostname
        return Http(
            url=f"https://{name}/health", connect=self.config.listen, insecure=True
        )  # loopback: its own certificate's name is not at stake

    def served(self, contains: tuple[str, ...] = ()) -> Http | None:
        """headscale's own account of the map that it serves; None when this version or configuration has none."""
        page = self._debug("derp" if self.version >= STRICT_SINCE else "derpmap", since=_DEBUG_SINCE)
        return Http(url=page, accept="application/json", contains=contains) if page else None

    @property
    def nodes(self) -> str:
        """The URL of all that headscale knows of its nodes, in JSON; "" when this version or configuration has none."""
        return self._debug("nodestore", since=STRICT_SINCE)

    def _debug(self, page: str, *, since: Version) -> str:
        explicit = "metrics" in self.headscale.model_fields_set
        base = self.headscale.metrics if explicit else f"http://{self.config.metrics}" if self.config.metrics else ""
        return f"{base.rstrip('/')}/debug/{page}" if base and self.version >= since else ""


def ask(site: Site, facts: Facts | None = None) -> Ask:
    """What a look needs. With the `facts` of a first look, also the files of derp.paths that lie elsewhere."""
    headscale = _headscale(site)
    files = {headscale.config, headscale.derp_map, *_beside(headscale)}
    if facts is not None and (config := facts.files.get(headscale.config)) is not None:
        files |= set(_config(headscale, config).paths)
    return Ask(
        files=tuple(sorted(files)),
        commands={
            "headscale-version": ("headscale", "version"),
            "headscale-unit": ("systemctl", "show", headscale.unit, "--property=LoadState,UnitFileState,CanReload"),
        },
    )


def read_facts(site: Site, facts: Facts) -> HeadscaleFacts:
    """Reads the answers to `ask`. Raises HeadscaleRefused when a file is missing or malformed, telling all that is wrong with it."""
    headscale = _headscale(site)
    config_file = facts.files.get(headscale.config)
    if config_file is None:
        raise HeadscaleRefused(
            f"there is no {headscale.config} on the headscale host",
            next="set headscale.config in the site file, or take the section out: `invoke derpmap` then says what to paste where",
        )
    config = _config(headscale, config_file)
    others = [path for path in config.paths if path != headscale.derp_map]
    seen = [path for path in others if path in facts.files]
    map_file = facts.files.get(headscale.derp_map)
    return HeadscaleFacts(
        headscale=headscale,
        version=parse_version(_stdout(facts, "headscale-version")),
        unit=dict(line.split("=", 1) for line in _stdout(facts, "headscale-unit").splitlines() if "=" in line),
        config=config,
        config_file=config_file,
        map_file=map_file,
        regions=_regions(headscale.derp_map, map_file) if map_file else {},
        elsewhere={path: _regions(path, facts.files[path]) for path in seen},
        unseen=tuple(path for path in others if path not in facts.files),
    )


def parse_version(text: str) -> Version:
    """From what `headscale version` prints: `v0.26.1`, or `headscale version v0.29.2` and more lines."""
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else NEWEST


def _headscale(site: Site) -> Headscale:
    control = site.control
    if not isinstance(control, Headscale):
        raise HeadscaleRefused("the site has no headscale host", next="`invoke derpmap` says what to paste where")
    return control


def _beside(headscale: Headscale) -> list[str]:
    folder = posixpath.dirname(headscale.derp_map)
    return [f"{folder}/*.yaml", f"{folder}/*.yml"]


def _stdout(facts: Facts, command: str) -> str:
    output = facts.commands.get(command)
    return output.stdout if output and output.status == 0 else ""


def _config(headscale: Headscale, file: FileFact) -> Config:
    try:
        return parse_config(_content(headscale.config, file))
    except BadConfig as error:
        raise HeadscaleRefused(
            f"{headscale.config} cannot be read", why=str(error), next="mend it; headscale would not start with it"
        ) from None


def _regions(path: str, file: FileFact) -> Regions:
    try:
        return parse_map(_content(path, file))
    except BadMap as error:
        raise HeadscaleRefused(
            f"{path} is no map that headscale would read as it is meant",
            why="\n".join(error.complaints),
            next="mend these lines, then deploy again",
        ) from None


def _content(path: str, file: FileFact) -> str:
    if file.content is None:
        raise HeadscaleRefused(f"{path} is no text file of up to 256 KiB", next="look at it on the headscale host")
    return file.content
