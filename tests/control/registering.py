"""Register relays as `invoke deploy` does, from within a lab, and print the outcome as JSON.

`python -m tests.control.registering '{"site_file": …, "mode": "apply", "proved": […]}'`. `spoil`
makes the map invalid for headscale, after our own checks.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import inventory
from control.headscale import facts, transaction
from engine.login import Login
from engine.run import Job, Verb, converge


def main(site_file, mode, proved, withdrawn=(), ports=None, spoil=False):
    site = inventory.load(site_file)
    hosts = {
        name: host.model_copy(update={"ports": host.ports.model_copy(update=(ports or {}).get(name, {}))})
        for name, host in site.hosts.items()
    }

    def compiled(session):
        map_file, config, service = transaction.resources(
            site, session.facts, [hosts[name] for name in proved], [hosts[name] for name in withdrawn]
        )
        if spoil:
            map_file = replace(map_file, content=map_file.content.replace(b"derpport: 443", b"derpport: x"))
            service = replace(service, restart_on=(map_file.id, config.id), reload_on=(), timeout_s=5)
        return [map_file, config, service]

    ssh = site.headscale.ssh
    login = Login(
        "headscale", ssh, address=ssh.address, known_hosts=Path(site.known_hosts), base=Path(site.path).parent
    )
    verb = Verb.CHECK if mode == "check" else Verb.REGISTER
    job = Job(verb=verb, plan=compiled, ask=facts.ask(site))
    outcome = converge(login, job, runs=Path(site.path).parent / "runs")
    return {
        "changed": outcome.changed,
        "failed": [[failure.id, failure.what, failure.why] for failure in outcome.failures],
    }


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
