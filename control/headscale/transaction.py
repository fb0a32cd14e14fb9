"""The transaction that changes headscale's map: all at once or not at all. Regions of others stay.

A file is replaced only if it is still the one that was read (`only_if_sha256`), and it is written
whole. headscale loads it, and has to be healthy then and to report that it serves these regions.
Otherwise the agent puts the previous files back and restarts headscale. SIGHUP does not make
headscale read its map again, and `headscale configtest` does not load it, so neither proves
anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil

from control import official
from control.derpmap import Pins, missing_pin, yaml_official, yaml_region
from control.headscale.clashes import lost, present, taken
from control.headscale.config import BadConfig, with_path
from control.headscale.facts import STRICT_SINCE, VERIFY_SINCE, HeadscaleFacts, HeadscaleRefused, read_facts
from control.headscale.merge import merge, plan_registration
from control.headscale.pages import served_regions
from control.headscale.reader import BadMap
from control.official import Other
from control.regions import Region, called, hostnames, renumbered
from engine.facts import Facts, FileFact
from engine.health import Http
from engine.resource import File, Resource, Service
from inventory.admission import verify_url
from inventory.model import Host, Site

ROLE = "headscale"
# headscale is restarted unless it reads its map at least this often. Else the run waits for that.
_TICK_MAX_S = 60
_START_S = 30  # how long a start may take
_LASTS_S = 3  # headscale may answer, and end by the next line of its log
_URL_S = 30  # headscale's own limit for each URL that it fetches at the start


def resources(
    site: Site,
    facts: Facts,
    proved: Sequence[Host],
    withdrawn: Sequence[Host] = (),
    *,
    pins: Pins | None = None,
) -> list[Resource]:
    """Return the map file, config.yaml with that file under derp.paths, and headscale itself.

    `proved`: hosts whose region is added or changed. `withdrawn`: hosts whose region is removed;
    their relay has to be stopped before (see `control.headscale.merge.plan_registration`). A region
    whose id was changed in the site file stays until the hosts of `to_withdraw` are passed here.
    Raises HeadscaleRefused.
    """
    seen = read_facts(site, facts)
    if reasons := list(refusals(site, facts, proved, withdrawn, pins)):
        raise HeadscaleRefused(
            "headscale's map was not changed",
            why="\n".join(reasons),
            next="fix this, then deploy again",
        )
    put = {host.region.id: yaml_region(host, pin=(pins or {}).get(host.name)) for host in proved}
    of_tailscale = yaml_official(site)
    gone = [*(host.region.id for host in withdrawn), *official.left_out(site, seen.regions)]
    steps = plan_registration(seen.regions, proved, pins=pins)
    try:
        map_text = merge(seen.map_text, put=put | of_tailscale, remove=gone)
        config_text = with_path(seen.config_text, seen.headscale.derp_map)
    except (BadMap, BadConfig) as error:
        raise HeadscaleRefused(
            "headscale's map was not changed",
            why=str(error),
            next="fix this on the headscale host, then deploy again",
        ) from None
    map_file = _file(seen.headscale.derp_map, map_text, seen.map_file, like=seen.config_file)
    config_file = _file(seen.headscale.config, config_text, seen.config_file, like=seen.config_file)
    changes = any(step.action == "change" for step in steps) or any(
        seen.regions.get(id) not in (None, region) for id, region in of_tailscale.items()
    )
    only_added = not changes and not any(id in seen.regions for id in gone)
    put |= of_tailscale
    return [map_file, config_file, _service(seen, map_file, config_file, put, only_added=only_added)]


def to_withdraw(site: Site, facts: Facts) -> list[Host]:
    """Return hosts with their former ids: ids that the map has and the site no longer has.

    They are the `withdrawn` of `resources`, once their relay was stopped.
    """
    return [
        host.model_copy(update={"region": host.region.model_copy(update={"id": id})})
        for id, host in renumbered(read_facts(site, facts).regions, tuple(site.hosts.values())).items()
    ]


def warnings(site: Site, facts: Facts) -> list[str]:
    """Return sentences about settings that work now and will cause trouble later."""
    seen = read_facts(site, facts)
    config = seen.headscale.config
    found = []
    if seen.config.urls and site.official and site.official.taken:
        found.append(
            f"{config}: derp.urls brings Tailscale's regions into the map, so the choice of "
            "`invoke official` changes nothing: set `urls: []` there, or delete the file of the choice."
        )
    if seen.config.urls:
        found.append(
            f"{config}: derp.urls is fetched at every start ({', '.join(seen.config.urls)}). "
            + ("headscale does not start" if seen.version >= STRICT_SINCE else "Regions are missing")
            + " when that fails, as in mainland China or when DNS comes up late; "
            "if your own relays are enough, `urls: []` avoids it."
        )
        if site.derpmap.omit_default_regions:
            found.append(
                f"{config}: derpmap.omit_default_regions is set in the site file, "
                "but derp.urls brings regions of others into the map."
            )
    if seen.headscale.url.startswith("http://"):
        found.append(
            f"{seen.headscale.url} is not https. A node that loses such a server uses only port 443 for two "
            "minutes after each attempt. So after a restart of headscale it may stay away until it is "
            "restarted itself. Give headscale a certificate."
        )
    if seen.config.update_s is None:
        found.append(
            f"{config}: derp.auto_update_enabled is off, so each change of the map restarts headscale. "
            "Traffic goes on, and nodes see the new map about 10 s later. "
            "With auto_update_enabled: true and update_frequency: 30s, a new region needs no restart."
        )
    if seen.version < STRICT_SINCE:
        number = ".".join(map(str, seen.version))
        found.append(
            f"headscale {number} starts even when it cannot read a file or URL of the map, "
            "and then lacks its regions. 0.27 does not start then."
        )
    if seen.served(()) is None:
        found.append(
            "headscale does not show which map it serves: that needs metrics_listen_addr, and 0.26 or newer. "
            "So a deploy waits only for its /health."
        )
    found += [
        f"{config}: {path} under derp.paths was not read, so a region in it may conflict with ours."
        for path in seen.unseen
    ]
    return found


def refusals(
    site: Site, facts: Facts, proved: Sequence[Host], withdrawn: Sequence[Host] = (), pins: Pins | None = None
) -> Iterator[str]:
    """Yield the reasons why the map may not be changed, each a sentence.

    Raises HeadscaleRefused when the files cannot be read.
    """
    seen = read_facts(site, facts)
    headscale = seen.headscale
    if seen.unit.get("LoadState") == "not-found":
        yield f"There is no unit {headscale.unit} on the headscale host: set headscale.unit in the site file."
    registered = {host.name for host in withdrawn if host.region == site.hosts[host.name].region}
    if twice := {host.name for host in proved} & registered:
        yield f"{', '.join(sorted(twice))} cannot be registered and withdrawn at once."
    for host in proved:
        yield from _clashes(site, seen, host)
        if problem := missing_pin(host, pins):
            yield problem
    yield from official.refusals(site, [*present(seen.maps), *_embedded(seen)])
    yield from _clashes_as_served(site, seen, served_regions(facts), proved)
    for host in (*proved, *withdrawn):
        yield from lost(seen.maps, host)
    gone = {host.region.id for host in withdrawn}
    left = [id for id, region in seen.regions.items() if region and id not in gone] or proved
    others = seen.config.urls or seen.config.embedded or any(seen.elsewhere.values()) or seen.unseen
    if gone and not left and not others:
        yield "No region would be left, and headscale does not start with none: register another relay first."


def _embedded(seen: HeadscaleFacts) -> Iterator[Other]:
    if relay := seen.config.embedded:
        yield Other("headscale's own relay (derp.server)", relay.id, relay.code)


def _clashes(site: Site, seen: HeadscaleFacts, host: Host) -> Iterator[str]:
    id, code, domain = host.region.id, host.region.code, host.domain
    embedded = seen.config.embedded
    if embedded and embedded.id == id:
        yield (
            f"Region {id} is that of headscale's own relay (derp.server.region_id): "
            f"give {host.name} another id."
        )
    if embedded and embedded.code == code:
        yield (
            f"The code {code} is that of headscale's own relay (derp.server.region_code): "
            f"give {host.name} another code."
        )
    if seen.config.base_domain and f".{domain}".endswith(f".{seen.config.base_domain}"):
        yield (
            f"{domain} is under dns.base_domain {seen.config.base_domain}: nodes would ask MagicDNS for it, "
            "through the tunnel that needs the relay. Give the relay a name outside of that domain."
        )
    if seen.version < VERIFY_SINCE and verify_url(host, site) == seen.headscale.verify_url:
        yield (
            f"headscale {'.'.join(map(str, seen.version))} has no /verify, so {host.name} would refuse every "
            "client: upgrade headscale to 0.24 or newer, "
            f"or set hosts.{host.name}.relay.open or .verify_client_url."
        )
    yield from taken(site, seen.maps, host)


def _clashes_as_served(
    site: Site, seen: HeadscaleFacts, served: Mapping[int, Region], proved: Sequence[Host]
) -> Iterator[str]:
    """Yield a sentence for each region of others in the served map that is in none of the files.

    It comes from derp.urls, or from a file that was not read.
    """
    in_files = [seen.regions, *seen.elsewhere.values()]
    ours = {other.region.id for other in site.hosts.values()}
    source = f"derp.urls ({', '.join(seen.config.urls)})" if seen.config.urls else "another file"
    for host in proved:
        names = {host.domain, *hostnames(seen.regions.get(host.region.id))}
        for id, region in served.items():
            if any(id in regions for regions in in_files[1:]) or _is_embedded(seen, id):
                continue
            what = f"region {id} ({called(region)}), which headscale serves from {source}"
            if id == host.region.id and not names.issuperset(hostnames(region)):
                yield f"The id {id} of {host.name} is that of {what}: give {host.name} another id."
            elif id not in ours and id not in seen.regions and region.get("regioncode") == host.region.code:
                yield f"The code of {host.name} is that of {what}: give {host.name} another code."


def _is_embedded(seen: HeadscaleFacts, id: int) -> bool:
    return seen.config.embedded is not None and seen.config.embedded.id == id




def _file(path: str, text: str, found: FileFact | None, *, like: FileFact) -> File:
    """Return the file with its present mode and owner. A link is written through: it stays.

    A new file gets those of config.yaml, which headscale's user can read.
    """
    owned = found or like
    return File(
        path=(found.link if found else "") or path,
        content=text.encode(),
        mode=owned.mode,
        owner=owned.owner,
        group=owned.group,
        only_if_sha256=found.sha256 if found else "",
        role=ROLE,
    )


def _service(
    seen: HeadscaleFacts, map_file: File, config_file: File, put: Mapping[int, Region], *, only_added: bool
) -> Service:
    contains: list[str] = []
    for id, region in sorted(put.items()):
        contains += [f'"{id}":', *(f'"{name}"' for name in hostnames(region))]
    served = seen.served(tuple(contains))
    healthy: tuple[Http, ...] = (seen.health,) if served is None else (seen.health, served)
    loads_s = _URL_S * len(seen.config.urls)
    # No restart is needed if headscale soon reads the map again by itself and shows the change.
    # Only an added region can be seen to arrive.
    tick_s = seen.config.update_s
    ticks = tick_s is not None and tick_s <= _TICK_MAX_S and seen.version >= STRICT_SINCE
    waits = ticks and seen.unit.get("CanReload") == "yes" and only_added and served is not None
    return Service(
        unit=seen.headscale.unit,
        enabled=seen.unit.get("UnitFileState") != "disabled",
        restart_on=(config_file.id,) if waits else (map_file.id, config_file.id),
        # A reload reads the policy again, not the map. It is there to make the agent wait.
        reload_on=(map_file.id,) if waits else (),
        healthy=healthy,
        timeout_s=_START_S + loads_s + (ceil(tick_s) if waits and tick_s is not None else 0),
        lasts_s=_LASTS_S,
        needs=(map_file.id, config_file.id),
        role=ROLE,
    )
