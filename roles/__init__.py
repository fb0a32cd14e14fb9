"""WHAT: the desired state of hosts.

Pure functions from a host, its site and its facts to resources; no I/O. `roles.relay_host` joins
the roles. The folders relay, front, certificate and firewall each have a table of variants.
"""

from __future__ import annotations

from roles.distributions import for_programs as for_programs
from roles.relay_host import ROLES as ROLES
from roles.relay_host import absence_refusals as absence_refusals
from roles.relay_host import ask as ask
from roles.relay_host import ask_absent as ask_absent
from roles.relay_host import compile_absent as compile_absent
from roles.relay_host import compile_host as compile_host
from roles.relay_host import in_service as in_service
from roles.relay_host import other_sites as other_sites
from roles.relay_host import refusals as refusals
from roles.relay_host import warnings as warnings
