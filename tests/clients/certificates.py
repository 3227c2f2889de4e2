"""Certificates for the tests, made by the openssl program: a root, and what it signs."""
import pathlib
import subprocess

OPENSSL = "openssl"


def openssl(*arguments):
    subprocess.run([OPENSSL, *map(str, arguments)], check=True, capture_output=True)


class Pair:
    """A certificate and its key, as files."""

    def __init__(self, folder, name, signer=None, serial=1):
        folder = pathlib.Path(folder)
        self.certificate, self.key = folder / f"{name}.crt", folder / f"{name}.key"
        self.serial = serial
        subject = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                   self.key, "-subj", f"/CN={name}"]
        if signer is None:
            openssl("req", "-x509", *subject, "-days", "2", "-set_serial", serial, "-out",
                    self.certificate)
            return
        request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
        openssl("req", *subject, "-out", request)
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", request, "-CA", signer.certificate, "-CAkey", signer.key,
                "-set_serial", serial, "-days", "2", "-extfile", extensions, "-out",
                self.certificate)

    def copy_to(self, other):
        """Writes this one over the files of another one."""
        other.key.write_bytes(self.key.read_bytes())
        other.certificate.write_bytes(self.certificate.read_bytes())


class Authority:
    """A root with a server, a second certificate for the server, a client, and a stranger's client."""

    def __init__(self, folder):
        self.root = Pair(folder, "root")
        self.server = Pair(folder, "server", self.root, 11)
        self.renewed = Pair(folder, "renewed", self.root, 12)
        self.client = Pair(folder, "client", self.root, 13)
        self.other_root = Pair(folder, "other_root")
        self.stranger = Pair(folder, "stranger", self.other_root, 14)

    def flags(self, *ports, mutual=False):
        """The server's flags; ports: "http", "grpc"."""
        use = "use-ssl-mutual" if mutual else "use-ssl"
        return [flag for port in ports for flag in (
            f"--{port}-{use}", f"--{port}-server-cert={self.server.certificate}",
            f"--{port}-server-key={self.server.key}",
            f"--{port}-root-cert={self.root.certificate}")]
