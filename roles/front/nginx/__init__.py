"""nginx in front of the relay: port 80 in `http`, TLS in `https`. Servers of others stay as they are (`roles.sites`)."""

from __future__ import annotations

from roles.front.nginx.http import ASK as ASK
from roles.front.nginx.http import RELOAD as RELOAD
from roles.front.nginx.http import TEST as TEST
from roles.front.nginx.http import absence_refusals as absence_refusals
from roles.front.nginx.http import absent as absent
from roles.front.nginx.http import absent_test_units as absent_test_units
from roles.front.nginx.http import challenge as challenge
from roles.front.nginx.http import http_resources as http_resources
from roles.front.nginx.http import reached_at as reached_at
from roles.front.nginx.http import refusals as refusals
from roles.front.nginx.http import test_units as test_units
from roles.front.nginx.https import https_resources as https_resources
