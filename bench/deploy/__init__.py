"""The same 26 resources by derpfleet and by its peers, on one host behind one delaying proxy.

See bench/README.md.
"""
