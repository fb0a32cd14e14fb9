#!/usr/bin/env python3
"""Get, renew and serve one host's certificate.

Installed on hosts as /opt/derpfleet/bin/certificate. Standard library only.

    certificate valid             exit 0 when the certificate on disk is good: right ACME server
                                  and name, and not overdue
    certificate obtain [--force]  ask the ACME server when certbot finds it necessary, or always
    certificate copied | copy     check whether the relay's copies are up to date | update them
    certificate served | deploy   check whether the host serves the certificate on disk | copy,
                                  reload, and wait until it does
                                  (with --unless-served only if it does not yet)
    certificate renew [--force]   obtain, deploy if another certificate is served, and fail if
                                  that does not help
    certificate younger SECONDS   exit 0 when the certificate was written after that moment
    certificate pause [--force]   if an order is due, stop the program that has the challenge's port
    certificate resume            start it again

certbot runs `deploy --hook` after each new certificate that another program orders, such as
certbot's own timer. The hook copies and reloads, and checks nothing. The configuration is written
by roles/certificate/program.py.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
sys.dont_write_bytecode = True  # nothing is to be left beside the program
import pause  # noqa: E402
from ledger import FAILED_CHALLENGES, Ledger  # noqa: E402
from lineage import IN_ORDER, KEPT, Lineage, Problem, is_address, order, read, remove, run, unfit, wrong_clock  # noqa: E402

CONFIG = "/etc/derpfleet/certificate.json"
OVERDUE = 0.25  # of the lifetime left; certbot renews at a third, so it has failed for a while


def leaf(path):
    """Return the first certificate of a PEM file, in DER. Raises Problem."""
    try:
        with open(path) as file:
            text = file.read()
    except OSError as error:
        raise Problem("%s: %s" % (path, error.strerror))
    match = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.S)
    if not match:
        raise Problem("%s holds no certificate" % path)
    return ssl.PEM_cert_to_DER_cert(match.group(0))


def fingerprint(der):
    return hashlib.sha256(der).hexdigest()


class HostCertificate:
    """The certificate that the configuration names."""

    def __init__(self, config):
        self.domain, self.fullchain, self.key = config["domain"], config["fullchain"], config["key"]
        self.acme, self.copies = config["acme"], config["copies"]
        self.test, self.reload, self.withdrawal = config["test"], config["reload"], config["withdrawal"]
        self.served_at, self.patience_s = config["served_at"], config["patience_s"]
        live = os.path.dirname(self.fullchain)
        self.lineage = Lineage(os.path.dirname(os.path.dirname(live)), os.path.basename(live))
        server, limits = (self.acme["server"], self.acme["limits"]) if self.acme else ("", {})
        orders = os.path.join(self.lineage.base, KEPT, self.domain + ".orders")
        self.ledger = Ledger(orders, server, limits)

    # the certificate on disk

    def problem(self):
        """Return why another certificate is needed, or ""."""
        try:
            leaf(self.fullchain)
            dates, names = self.shown()
        except Problem as problem:
            return str(problem)
        missing = [name for name in self.wanted() if name not in names]
        if missing:
            return "%s is not for %s" % (self.fullchain, " and ".join(missing))
        start, end = pause.life(dates)
        if end - time.time() < OVERDUE * (end - start):
            return "%s ends on %s" % (self.fullchain, dates["notAfter"])
        if self.issuer() != self.acme["server"]:
            issuer = self.issuer() or "somewhere else"
            return "%s is from %s, not from %s" % (self.fullchain, issuer, self.acme["server"])
        broken = "" if self.shared_with() else self.lineage.broken()
        return "certbot cannot renew it: " + broken if broken else unfit(self.fullchain, self.key)

    def due(self, force):
        """Whether an order is due: by `force`, by age, or because the certificate is not good."""
        return force or not self.lineage.stopped() and bool(self.problem() or pause.is_past(self.shown()[0]))

    def wanted(self):
        """Return the names that the certificate is to have."""
        return [name.lower() for name in (self.acme["names"] if self.acme else [self.domain])]

    def shown(self):
        """Return the dates and names of the certificate on disk. Raises Problem.

        The dates are a dict of notBefore and notAfter.
        """
        argv = ["openssl", "x509", "-noout", "-dates", "-ext", "subjectAltName", "-in", self.fullchain]
        status, text = run(argv)
        dates = dict(re.findall(r"^(notBefore|notAfter)=(.*)$", text, re.M))
        if status or len(dates) != 2:
            raise Problem("%s cannot be read: %s" % (self.fullchain, text.strip()))
        return dates, [name.lower() for name in re.findall(r"(?:DNS|IP Address):([^,\s]+)", text)]

    def shared_with(self):
        """Return other names of the certificate on disk: it was ordered for other sites as well."""
        ours = self.ledger.names().union(self.wanted())
        try:
            return [name for name in self.shown()[1] if name not in ours]
        except Problem:
            return []

    def issuer(self):
        """Return the ACME server in certbot's renewal configuration, or ""."""
        match = re.search(rb"^server\s*=\s*(\S+)", read(self.lineage.renewal) or b"", re.M)
        return match.group(1).decode(errors="replace") if match else ""

    def younger(self, seconds):
        """Return "" if the certificate was written after that time of the clock, else a problem."""
        return "" if os.stat(self.fullchain).st_mtime > seconds else "it is older"

    # ordering a certificate

    def obtain(self, force):
        """Run certbot, which orders only if it has to. Raises Problem with the server's reason.

        The files that the host serves change only when there is a new certificate.
        """
        try:
            self.get(force)
        except Problem as problem:
            paused = pause.is_made()  # it is said when the program runs again
            raise Problem("%s%s" % (problem, "" if paused else "\n" + self.serving()))

    def get(self, force):
        """Obtain, without words about the certificate that is served."""
        if self.shared_with():
            self.leave_to_others(force)
            return
        wrong = wrong_clock(self.acme["server"])
        if wrong:
            raise Problem(wrong)
        if self.lineage.stopped() and not force:
            raise Problem(self.lineage.stopped())
        if self.acme["stops"] and not pause.is_made():  # certbot would find the port taken
            if self.due(force):
                pause.order(self.acme["hook"], force)
            return
        broken = self.lineage.broken()
        if broken:
            print(self.lineage.replaced(broken, lambda new: self.order(new, True)))
        else:
            # certbot may accept a certificate that we replace, such as one of another server.
            force = self.due(force) if self.acme["stops"] else force
            self.order(self.lineage, force or (os.path.exists(self.fullchain) and bool(self.problem())))
        if self.problem():
            self.lineage.stop_orders("certbot reported no problem, but: %s" % self.problem())
        remove(self.lineage.stop)

    def order(self, lineage, force):
        """Order as `lineage`. Raises Problem, also when certbot puts the certificate elsewhere."""
        before = read(lineage.fullchain)
        refusal = self.ledger.refusal(self.wanted()) if force or not before else ""
        if refusal:
            raise Problem(refusal)
        try:
            saved = order(self.acme, lineage, force)
        except Problem as problem:
            if problem.kind in FAILED_CHALLENGES:
                self.ledger.note(self.wanted(), "failed")
            raise
        if read(saved) != before:
            self.ledger.note(self.wanted(), "issued")
        if saved != os.path.normpath(lineage.fullchain):
            words = "certbot saved the new certificate as %s, but the host serves %s: it cannot read %s"
            self.lineage.stop_orders(words % (saved, self.fullchain, lineage.renewal))

    def leave_to_others(self, force):
        """Order nothing: an order for our name alone would replace the certificate of other sites.

        Raises Problem when a new one is needed.
        """
        problem = self.problem() or ("a new one was asked for" if force else "")
        if problem:
            words = "%s: it is for %s, too, and is left to the program that ordered it\n"
            words += "change: renew it as it was ordered (certbot renew --cert-name %s); or, if nothing else "
            words += "serves it, remove it (certbot delete --cert-name %s) and deploy again"
            names = ", ".join(self.shared_with())
            raise Problem(words % (problem, names, self.domain, self.domain))

    # the relay's own copies, for a relay that terminates TLS itself

    def pairs(self):
        """Return (file, its copy) of chain and key."""
        if not self.copies:
            return []
        base = os.path.join(self.copies["directory"], self.domain)
        return [(self.fullchain, base + ".crt"), (self.key, base + ".key")]

    def copied(self):
        """Return "" if the copies are up to date and of this name alone, else a problem."""
        same = all(read(source) == read(copy) is not None for source, copy in self.pairs())
        return "" if same and not self.outdated() else "the relay's copies differ"

    def outdated(self):
        """Return the copies of names that the host had before."""
        kept = {copy for _, copy in self.pairs()}
        folder = self.copies["directory"] if self.copies else ""
        there = [os.path.join(folder, name) for name in os.listdir(folder)] if folder else []
        return [path for path in there if path.endswith((".crt", ".key")) and path not in kept]

    def copy(self):
        """Copy the chain and key, if they are a pair. Raises Problem."""
        taken = {}
        try:
            for source, copy in self.pairs():
                taken[source] = self.take(source, os.path.dirname(copy))
            # What was read is checked: the sandboxed part could put a link to another secret there,
            # and another program may have written only one of both.
            unusable = unfit(*taken.values()) if taken else ""
            for source, temp in taken.items():
                unusable = unusable.replace(temp, source)
            if unusable:
                raise Problem(unusable)
            for source, copy in self.pairs():
                shutil.chown(taken[source], group=self.copies["group"])
                os.chmod(taken[source], 0o640)
                os.rename(taken[source], copy)
            for path in self.outdated():
                remove(path)
        finally:
            for temp in taken.values():
                remove(temp)

    @staticmethod
    def take(source, folder):
        """Return a file of ours in `folder` with the content of `source`. Raises Problem."""
        content = read(source)
        if content is None:
            raise Problem("%s is not there" % source)
        handle, temp = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return temp

    # the served certificate

    def withdrawn(self):
        """Whether the relay was taken out of service on purpose, rather than being down."""
        return bool(self.withdrawal) and run(self.withdrawal["argv"])[1].strip() == self.withdrawal["says"]

    def mismatch(self):
        """Return why the host does not serve the certificate on disk, or "".

        A withdrawn relay serves nothing, and that is not a problem.
        """
        wanted = fingerprint(leaf(self.fullchain))
        if self.withdrawn():
            return ""
        try:
            served = fingerprint(self.presented())
        except OSError as error:
            return "%s on this host: %s" % (self.served_at, error)
        if served != wanted:
            words = "%s serves the certificate %s…, on disk is %s…"
            return words % (self.served_at, served[:16], wanted[:16])
        return ""

    def presented(self):
        """Return the certificate that this host serves, in DER. Raises OSError."""
        # clients send no server name to a relay with a bare address
        name = None if is_address(self.domain) else self.domain
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the host's roots takes 20 ms
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        address, _, port = self.served_at.rpartition(":")
        with socket.create_connection((address.strip("[]"), int(port)), timeout=5) as plain:
            with context.wrap_socket(plain, server_hostname=name) as tls:
                return tls.getpeercert(binary_form=True)

    def serving(self):
        """Return a sentence about the certificate that this host serves now."""
        if self.withdrawn():
            return "the relay is withdrawn and serves no certificate"
        try:
            pem = ssl.DER_cert_to_PEM_cert(self.presented()).encode()
        except OSError as error:
            return "%s on this host serves NO certificate: %s" % (self.served_at, error)
        ends = run(["openssl", "x509", "-noout", "-enddate"], given=pem)[1].strip().partition("=")[2]
        return "%s still serves a certificate, which ends on %s" % (self.served_at, ends)

    def deploy(self, hook):
        """Copy and reload. Unless run as a hook, wait until the new certificate is served.

        Raises Problem.
        """
        if hook and os.environ.get(IN_ORDER):
            return
        self.copy()
        said = broken = self.breakage()
        if not broken:
            status, output = run(self.reload)
            said = "%s: %s" % (" ".join(self.reload), output.strip()) if status else ""
        if hook:
            return
        deadline = time.monotonic() + (0 if broken else self.patience_s)
        mismatch = self.mismatch()
        while mismatch and time.monotonic() < deadline:
            time.sleep(0.2)
            mismatch = self.mismatch()  # asked once: the next answer may be an old worker's again
        if mismatch:
            words = "the new certificate is NOT served: " + mismatch
            raise Problem(words + ("\n" + said if said else ""))

    def deploy_unserved(self):
        """Deploy unless the host serves the certificate on disk. Raises Problem."""
        if self.mismatch():
            self.deploy(hook=False)

    def renew(self, force):
        """Obtain, and deploy unless the new one is served. Raises Problem."""
        self.obtain(force)
        self.deploy_unserved()

    def breakage(self):
        """Return why the front must not be reloaded now, or ""."""
        if not self.test or not run(self.test["argv"])[0]:
            return ""
        said = run(self.test["words"])[1].strip()
        reason = ([line for line in said.splitlines() if self.test["mark"] in line] or [said])[-1]
        words = "%s was not reloaded, because its configuration is broken:\n%s\n"
        words += "change: fix it until `%s` passes; until then the old certificate is served"
        return words % (self.test["program"], reason, self.test["by_hand"])


# Each returns a problem, which is then printed, or nothing; it may also raise Problem.
VERBS = {
    "valid": lambda certificate, words: certificate.problem(),
    "obtain": lambda certificate, words: certificate.obtain(words.force),
    "copied": lambda certificate, words: certificate.copied(),
    "copy": lambda certificate, words: certificate.copy(),
    "served": lambda certificate, words: certificate.mismatch(),
    "deploy": lambda certificate, words: (
        certificate.deploy_unserved() if words.unless_served else certificate.deploy(words.hook)
    ),
    "renew": lambda certificate, words: certificate.renew(words.force),
    "pause": lambda certificate, words: certificate.due(words.force) and pause.pause(certificate.acme),
    "resume": lambda certificate, words: pause.resume(),
    "younger": lambda certificate, words: certificate.younger(words.seconds),
}


def parse(argv):
    parser = argparse.ArgumentParser(prog="certificate", description="one host's certificate")
    parser.add_argument("--config", default=CONFIG)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    verbs.required = True
    parsers = {name: verbs.add_parser(name) for name in VERBS}
    for name in ("obtain", "renew", "pause"):
        parsers[name].add_argument("--force", action="store_true")
    parsers["deploy"].add_argument("--hook", action="store_true")
    parsers["deploy"].add_argument("--unless-served", action="store_true")
    parsers["younger"].add_argument("seconds", type=float)
    return parser.parse_args(argv)


def main(argv):
    words = parse(argv)
    with open(words.config) as file:
        certificate = HostCertificate(json.load(file))
    try:
        problem = VERBS[words.verb](certificate, words)
    except Problem as error:
        problem = error
    except OSError as error:  # a disk that is full or read-only, a file in a folder's place
        problem = "%s: %s" % (error.filename, error.strerror)
    if problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main(sys.argv[1:])
