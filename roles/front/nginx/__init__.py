"""nginx in front of the relay: port 80 in `http`, TLS in `https`, its removal in `removal`.

Other programs' servers stay as they are (`neighbours`).
"""

from __future__ import annotations

from roles.front.nginx.http import ASK as ASK
from roles.front.nginx.http import RELOAD as RELOAD
from roles.front.nginx.http import TEST as TEST
from roles.front.nginx.http import absent_test_units as absent_test_units
from roles.front.nginx.http import callers as callers
from roles.front.nginx.http import challenge as challenge
from roles.front.nginx.http import http_resources as http_resources
from roles.front.nginx.http import test_units as test_units
from roles.front.nginx.https import https_resources as https_resources
from roles.front.nginx.neighbours import open_ports as open_ports
from roles.front.nginx.neighbours import other_sites as other_sites
from roles.front.nginx.neighbours import shares as shares
from roles.front.nginx.refusals import absence_refusals as absence_refusals
from roles.front.nginx.refusals import refusals as refusals
from roles.front.nginx.refusals import warnings as warnings
from roles.front.nginx.removal import ASK_ABSENT as ASK_ABSENT
from roles.front.nginx.removal import absent as absent
from roles.front.nginx.removal import replaced as replaced
