"""Prints as JSON what a page of headscale's says: `map URL`, or `homes URL REGION …` for the nodes online whose home is one of these.

The pages answer on loopback alone, and what they know of nodes and keys stays on headscale's host.
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
