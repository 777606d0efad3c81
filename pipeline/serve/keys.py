"""`gigawatch keys`: what door and board need beyond one machine, made where it is missing.

A users file with one user and its password, a certificate that signs itself with its key, and a password for
Grafana's administrator.  What is there stays: so an installation keeps its passwords, and may bring its own.
"""

from __future__ import annotations

import datetime
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline.errors import SettingsError
from pipeline.serve.users import entry

USERS, PASSWORD, CERT, KEY, ADMIN = "users", "grafana-password", "cert.pem", "key.pem", "grafana-admin"
USER = "grafana"
DAYS = 825
"""How long the certificate holds: the most that browsers on Apple's systems take."""
SHARED, OWN = 0o644, 0o600
"""Rights of what another service's user reads (the directory is what keeps strangers out), and of the rest."""


def make_keys(folder: Path, hosts: Sequence[str]) -> Iterator[tuple[Path, bool]]:
    """Each file and whether it was made now; `hosts` are the names and addresses that the certificate is for.

    Raises SettingsError when half of a pair is there, or the folder cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield from _pair(folder, (USERS, OWN), (PASSWORD, SHARED), _user)
        yield from _pair(folder, (CERT, SHARED), (KEY, OWN), lambda: _certificate(hosts))
        admin = folder / ADMIN
        made = not admin.exists()
        if made:
            _write(admin, secrets.token_urlsafe(24), SHARED)
        yield admin, made
    except OSError as error:
        raise SettingsError(
            f"{folder}: keys cannot be written there ({error.strerror}); name a directory of your own"
        ) from error


def _pair(
    folder: Path, one: tuple[str, int], other: tuple[str, int], make: Callable[[], tuple[str, str]]
) -> Iterator[tuple[Path, bool]]:
    """Two files, each as (name, rights), that belong together."""
    files = [folder / name for name, _ in (one, other)]
    there = [file.exists() for file in files]
    if any(there) and not all(there):
        found, missing = sorted(files, key=lambda file: not file.exists())
        raise SettingsError(
            f"{folder}: found {found.name} without {missing.name}, expected both or none; put it there, or take "
            f"{found.name} away to have both made anew"
        )
    if not all(there):
        for file, text, mode in zip(files, make(), (one[1], other[1]), strict=True):
            _write(file, text, mode)
    for file in files:
        yield file, not all(there)


def _user() -> tuple[str, str]:
    """A line of a users file, and the password."""
    password = secrets.token_urlsafe(24)
    return f"{entry(USER, password)}\n", password


def _certificate(hosts: Sequence[str]) -> tuple[str, str]:
    """A certificate and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # of a client whose clock is behind
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([_named(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def _named(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise SettingsError(
            f"--host: found {host!r}, expected a host name or an address ({error})"
        ) from error


def _write(file: Path, text: str, mode: int) -> None:
    """The file as a whole, or not at all."""
    staged = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as out:
        os.fchmod(out.fileno(), mode)  # whatever the umask is
        out.write(text)
    os.replace(staged, file)
