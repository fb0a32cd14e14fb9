#!/usr/bin/env python3
"""Get, renew and serve one host's certificate.

Installed on hosts as /opt/derpfleet/bin/certificate. Standard library only.

    certificate valid             exit 0 when the certificate on disk is good: right ACME server
                                  and name, and not overdue
    certificate obtain [--force]  ask the ACME server when certbot finds it necessary, or always
    certificate copied | copy     check whether the relay's copies are up to date | update them
    certificate served | deploy   check whether the host serves the certificate on disk | copy,
                                  reload, and wait until it does
    certificate renew [--force]   obtain, deploy if another certificate is served, and fail if
                                  that does not help
    certificate younger SECONDS   exit 0 when the certificate was written after that moment

certbot runs `deploy --hook` after each new certificate. The hook copies and reloads, and checks
nothing. The configuration is written by roles/certificate/program.py.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

CONFIG = "/etc/derpfleet/certificate.json"
OVERDUE = 0.25  # of the lifetime left; certbot renews at a third, so it has failed for a while
# certbot retries a nonce only once
TRANSIENT = ("Another instance of Certbot is already running", "invalid anti-replay nonce")
TRANSIENT_S = 90  # keep retrying transient errors for this long

ADVICE = {
    "dns": "look at the A and AAAA records of the name: both must lead to this host, or not exist",
    "connection": "port 80 must be reachable from everywhere: check the provider's firewall and AAAA record",
    "unauthorized": "the name leads to another machine, or something in front of this host answers port 80",
    "caa": "the domain's CAA record does not allow this certificate authority",
    "rateLimited": "wait until the time that it names, or set certificate.source: letsencrypt-staging",
    "rejectedIdentifier": "the certificate authority does not give certificates for this name",
    "externalAccountRequired": "this ACME server needs an external account (EAB), which is not supported",
    "invalidContact": "fix certificate.contact",
    "userActionRequired": "the certificate authority has new terms: read them, then deploy again",
    "serverInternal": "the certificate authority has a fault of its own: try again later",
    "tls": "the ACME server's own certificate is not trusted here: name its CA with certificate.ca",
}
# Words that certbot prints when it prints no type.
SPOKEN = (
    ("too many", "rateLimited"),
    ("rate limit", "rateLimited"),
    ("CERTIFICATE_VERIFY_FAILED", "tls"),
    ("Unable to register an account", "userActionRequired"),
)
# The beginnings of lines of certbot that hold no reason.
NOISE = (
    *("Saving debug log", "Ask for help", "Some challenges", "- - -", "Requesting a certificate"),
    *("Renewing an existing", "Account reg", "An unexpected error occurred"),
)


class Problem(Exception):
    """The problem, in plain words."""


def run(argv, env=None):
    """Return (exit status, standard output and error together)."""
    try:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(argv, env=env, cwd="/", **pipes)
    except OSError as error:
        return 127, "%s: %s" % (argv[0], error.strerror)
    output = process.communicate()[0]
    return process.returncode, output.decode(errors="replace")


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


class Certificate:
    """The certificate that the configuration names."""

    def __init__(self, config):
        self.domain, self.fullchain, self.key = config["domain"], config["fullchain"], config["key"]
        self.acme, self.copies = config["acme"], config["copies"]
        self.test, self.reload, self.withdrawal = config["test"], config["reload"], config["withdrawal"]
        self.https_port, self.patience_s = config["https_port"], config["patience_s"]
        # certbot's folders and its renewal configuration for this certificate
        self.live = os.path.dirname(self.fullchain)
        base, name = os.path.dirname(os.path.dirname(self.live)), os.path.basename(self.live)
        self.archive = os.path.join(base, "archive", name)
        self.renewal = os.path.join(base, "renewal", name + ".conf")

    # the certificate on disk

    def problem(self):
        """Return why another certificate is needed, or ""."""
        try:
            leaf(self.fullchain)
            if not read(self.key):
                raise Problem("%s holds no key" % self.key)
            dates, names = self.shown()
        except Problem as problem:
            return str(problem)
        if self.domain.lower() not in names:
            return "%s is not for %s" % (self.fullchain, self.domain)
        start, end = (ssl.cert_time_to_seconds(dates[key]) for key in ("notBefore", "notAfter"))
        if end - time.time() < OVERDUE * (end - start):
            return "%s ends on %s" % (self.fullchain, dates["notAfter"])
        if self.issuer() != self.acme["server"]:
            issuer = self.issuer() or "somewhere else"
            return "%s is from %s, not from %s" % (self.fullchain, issuer, self.acme["server"])
        return ""

    def shown(self):
        """Return the dates and names of the certificate on disk. Raises Problem.

        The dates are a dict of notBefore and notAfter.
        """
        argv = ["openssl", "x509", "-noout", "-dates", "-ext", "subjectAltName", "-in", self.fullchain]
        status, text = run(argv)
        dates = dict(re.findall(r"^(notBefore|notAfter)=(.*)$", text, re.M))
        if status or len(dates) != 2:
            raise Problem("%s cannot be read: %s" % (self.fullchain, text.strip()))
        return dates, [name.lower() for name in re.findall(r"DNS:([^,\s]+)", text)]

    def shared_with(self):
        """Return other names of the certificate on disk: it was ordered for other sites as well."""
        try:
            return [name for name in self.shown()[1] if name != self.domain.lower()]
        except Problem:
            return []

    def issuer(self):
        """Return the ACME server in certbot's renewal configuration, or ""."""
        match = re.search(rb"^server\s*=\s*(\S+)", read(self.renewal) or b"", re.M)
        return match.group(1).decode(errors="replace") if match else ""

    def younger(self, seconds):
        """Return "" if the certificate was written after that time of the clock, else a problem."""
        return "" if os.stat(self.fullchain).st_mtime > seconds else "it is older"

    # ordering a certificate

    def torn(self):
        """Return the paths to move away so that certbot can start again, or [].

        A power cut can leave one of its files empty, and certbot cannot go on from that.
        """
        names = ("fullchain.pem", "cert.pem", "chain.pem", "privkey.pem")
        files = [self.renewal] + [os.path.join(self.live, name) for name in names]
        if all(read(path) != b"" for path in files):
            return []
        return [path for path in (self.renewal, self.live, self.archive) if os.path.lexists(path)]

    def obtain(self, force):
        """Run certbot, which orders only if it has to. Raises Problem with the server's reason."""
        if self.shared_with():
            self.leave_to_others(force)
            return
        # certbot may accept a certificate that we replace, such as one of another server.
        force = force or (os.path.exists(self.fullchain) and bool(self.problem()))
        aside = [(path, path + ".torn") for path in self.torn()]
        for path, torn in aside:
            remove(torn)
            os.rename(path, torn)
        status, output = self.order(force)
        for path, torn in aside:
            remove(path if status else torn)
            if status:
                os.rename(torn, path)
        if status:
            raise Problem(explain(output))
        saved = re.search(r"^Certificate is saved at:\s*(\S+)", output, re.M)
        if saved and os.path.normpath(saved.group(1)) != os.path.normpath(self.fullchain):
            words = "certbot saved the new certificate as %s, but the host serves %s\n"
            words += "change: certbot cannot read %s: fix it"
            raise Problem(words % (saved.group(1), self.fullchain, self.renewal))
        if self.problem():
            raise Problem("certbot reported no problem, but: %s" % self.problem())

    def order(self, force):
        """Run certbot, and again after transient errors. Return (exit status, output)."""
        acme = self.acme
        argv = acme["certbot"] + ["certonly", "--non-interactive", "--agree-tos", "--server", acme["server"]]
        argv += ["--email", acme["contact"]] if acme["contact"] else ["--register-unsafely-without-email"]
        argv += ["--cert-name", self.domain, "--domain", self.domain] + acme["authenticator"]
        argv += ["--deploy-hook", "%s deploy --hook" % acme["hook"]]
        argv += ["--force-renewal"] if force else ["--keep-until-expiring"]
        env = dict(os.environ, **({"REQUESTS_CA_BUNDLE": acme["ca"]} if acme["ca"] else {}))
        deadline = time.monotonic() + TRANSIENT_S
        status, output = run(argv, env)
        while status and any(text in output for text in TRANSIENT) and time.monotonic() < deadline:
            time.sleep(3)
            status, output = run(argv, env)
        return status, output

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
        """Return "" if the copies are up to date, else a problem."""
        same = all(read(source) == read(copy) is not None for source, copy in self.pairs())
        return "" if same else "the relay's copies differ"

    def copy(self):
        for source, copy in self.pairs():
            content = read(source)
            if content is None:
                raise Problem("%s is not there" % source)
            handle, temp = tempfile.mkstemp(dir=os.path.dirname(copy))
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), 0o640)
                file.flush()
                os.fsync(file.fileno())
            shutil.chown(temp, group=self.copies["group"])
            os.rename(temp, copy)

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
        # clients send no server name to a relay with a bare address
        name = None if re.search(r"^[0-9.]+$|:", self.domain) else self.domain
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with socket.create_connection(("127.0.0.1", self.https_port), timeout=5) as plain:
                with context.wrap_socket(plain, server_hostname=name) as tls:
                    served = fingerprint(tls.getpeercert(binary_form=True))
        except OSError as error:
            return "port %d of this host: %s" % (self.https_port, error)
        if served != wanted:
            words = "port %d serves the certificate %s…, on disk is %s…"
            return words % (self.https_port, served[:16], wanted[:16])
        return ""

    def deploy(self, hook):
        """Copy and reload. Unless run as a hook, wait until the new certificate is served.

        Raises Problem.
        """
        self.copy()
        said = broken = self.breakage()
        if not broken:
            status, output = run(self.reload)
            said = "%s: %s" % (" ".join(self.reload), output.strip()) if status else ""
        if hook:
            return
        deadline = time.monotonic() + (0 if broken else self.patience_s)
        while self.mismatch() and time.monotonic() < deadline:
            time.sleep(0.2)
        if self.mismatch():
            words = "the new certificate is NOT served: " + self.mismatch()
            raise Problem(words + ("\n" + said if said else ""))

    def renew(self, force, within_s):
        """Sleep a random part of `within_s`, obtain, and deploy unless the new one is served."""
        time.sleep(random.uniform(0, within_s))
        self.obtain(force)
        if self.mismatch():
            self.deploy(hook=False)

    def breakage(self):
        """Return why the front must not be reloaded now, or ""."""
        if not self.test or not run(self.test["argv"])[0]:
            return ""
        said = run(self.test["words"])[1].strip()
        reason = ([line for line in said.splitlines() if "[emerg]" in line] or [said])[-1]
        words = "nginx was not reloaded, because its configuration is broken:\n%s\n"
        words += "change: fix it until `nginx -t` passes; until then the old certificate is served"
        return words % reason


def read(path):
    """Return the content, or None when there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def remove(path):
    """Remove the file, link or folder at `path`, if there is one."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def explain(output):
    """Return the ACME server's reason in words, taken from certbot's output."""
    kinds = re.findall(r"^\s*Type:\s*(\S+)", output, re.M)
    kinds += re.findall(r"urn:ietf:params:acme:error:(\w+)", output)
    kinds += [kind for text, kind in SPOKEN if text in output]
    details = [detail.strip() for detail in re.findall(r"^\s*Detail:\s*(.*)$", output, re.M)]
    if not details:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        details = [line for line in lines if not line.startswith(NOISE)][-4:]
    lines = ["no certificate: " + (kinds[0] + ": " if kinds else "") + " ".join(details)]
    if kinds and kinds[0] in ADVICE:
        lines.append("change: " + ADVICE[kinds[0]])
    lines.append("nothing that the host serves was changed")
    lines.append("certbot's log is /var/log/letsencrypt/letsencrypt.log")
    return "\n".join(lines)


# Each returns a problem, which is then printed, or nothing; it may also raise Problem.
VERBS = {
    "valid": lambda certificate, words: certificate.problem(),
    "obtain": lambda certificate, words: certificate.obtain(words.force),
    "copied": lambda certificate, words: certificate.copied(),
    "copy": lambda certificate, words: certificate.copy(),
    "served": lambda certificate, words: certificate.mismatch(),
    "deploy": lambda certificate, words: certificate.deploy(words.hook),
    "renew": lambda certificate, words: certificate.renew(words.force, words.within),
    "younger": lambda certificate, words: certificate.younger(words.seconds),
}


def parse(argv):
    parser = argparse.ArgumentParser(prog="certificate", description="one host's certificate")
    parser.add_argument("--config", default=CONFIG)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    verbs.required = True
    parsers = {name: verbs.add_parser(name) for name in VERBS}
    for name in ("obtain", "renew"):
        parsers[name].add_argument("--force", action="store_true")
    parsers["deploy"].add_argument("--hook", action="store_true")
    parsers["younger"].add_argument("seconds", type=float)
    parsers["renew"].add_argument("--within", type=float, default=0, help="first sleep up to so many seconds")
    return parser.parse_args(argv)


def main(argv):
    words = parse(argv)
    with open(words.config) as file:
        certificate = Certificate(json.load(file))
    try:
        problem = VERBS[words.verb](certificate, words)
    except Problem as error:
        problem = error
    if problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main(sys.argv[1:])
