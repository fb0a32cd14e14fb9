"""A site with headscale, and the facts of its headscale host."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from control.headscale.transaction import resources
from engine.facts import FileFact, Output
from engine.resource import File, Service
from tests.support.facts import DEBIAN_12
from tests.support.site_text import GOOD, SECOND, compiled

FOLDER = Path(__file__).parent / "headscale"
CONFIG = (FOLDER / "config.yaml").read_text()
MAP = (FOLDER / "derp.yaml").read_text()
CONFIG_PATH, MAP_PATH = "/etc/headscale/config.yaml", "/etc/headscale/derp.yaml"

HK1 = """\
  900:
    regionid: 900
    regioncode: hk
    regionname: Hong Kong
    nodes: [{name: 900a, regionid: 900, hostname: hk1.example.org}]
"""

# A region of somebody else, with hk1's id.
STRANGERS = HK1.replace("regioncode: hk", "regioncode: x").replace("hk1.example.org", "x.example.net")

SITE = GOOD + SECOND + "headscale:\n  url: https://headscale.example.org\n"


def site_of(text=SITE):
    return compiled(text)


def file(text, **more):
    return FileFact(
        **{
            "content": text,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "mode": "0640",
            "owner": "root",
            "group": "headscale",
        }
        | more
    )


def facts(
    config=CONFIG,
    map=MAP,
    version="headscale version v0.29.2\ncommit: x\n",
    unit="LoadState=loaded\nUnitFileState=enabled\nCanReload=yes\n",
    **files,
):
    there = {CONFIG_PATH: config, MAP_PATH: map, **files}
    return replace(
        DEBIAN_12,
        files={path: file(text) for path, text in there.items() if text is not None},
        commands={
            "headscale-version": Output(status=0 if version else 127, stdout=version, stderr=""),
            "headscale-unit": Output(status=0, stdout=unit, stderr=""),
        },
    )


def made(site=None, proved=("hk1",), withdrawn=(), **seen):
    site = site or site_of()
    map_file, config, service = resources(
        site, facts(**seen), [site.hosts[name] for name in proved], withdrawn
    )
    assert isinstance(map_file, File) and isinstance(config, File) and isinstance(service, Service)
    return map_file, config, service


def served(document, **seen):
    whole = facts(**seen)
    said = Output(status=0, stdout=json.dumps(document), stderr="")
    return replace(whole, commands={**whole.commands, "served": said})
