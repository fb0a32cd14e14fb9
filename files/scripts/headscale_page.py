"""Print a page of headscale as JSON: `map URL`, or `homes URL REGION …`.

`homes` prints the names of the nodes that are online and have one of these regions as their home.
The pages answer on loopback only. Headscale's other data about nodes and keys stays on its host.
"""

import json
import sys
import urllib.request


def home(node):
    return ((node.get("Hostinfo") or {}).get("NetInfo") or {}).get("PreferredDERP")


wanted, url, *regions = sys.argv[1:]
page = urllib.request.Request(url, headers={"Accept": "application/json"})
straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
found = json.loads(straight.open(page, timeout=5).read().decode())
if wanted == "homes":
    ids = set(map(int, regions))
    found = sorted(node["GivenName"] for node in found.values() if node.get("IsOnline") and home(node) in ids)
print(json.dumps(found))
