"""Fetching from the web: nothing inside the network can be reached by naming it, and nothing endless is read."""

import datetime
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from veridical.flows.files import fetch
from veridical.flows.files.fetch import NotFetched

INSIDE = (
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
    "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:1",
    "fec0::1", "192.0.0.8", "192.88.99.1", "3fff::1", "64:ff9b:1::7f00:1", "::7f00:1", "2001:db8::1",
)  # fmt: skip


class Server(BaseHTTPRequestHandler):
    """/image gives ten bytes; the others misbehave."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Host"]))
        kind = self.path.split("?")[0]
        if kind == "/odd":
            self.wfile.write("HTTP/1.0 302 Found\r\nLocation: /image?ü\r\n\r\n".encode())
        elif kind in ("/away", "/round", "/file"):
            self.send_response(302)
            here = {"/away": "http://inside.example/image", "/round": "/round", "/file": "file:///etc/passwd"}
            self.send_header("Location", here[kind])
            self.end_headers()
        elif kind in ("/image", "/large", "/short"):
            self.send_response(200)
            if kind != "/large":
                self.send_header("Content-Length", "10" if kind == "/image" else "20")
            self.end_headers()
            self.wfile.write(b"0123456789" * (1000 if kind == "/large" else 1))
        elif kind == "/said":
            self.send_response(200)
            self.send_header("Content-Length", "999999999999")
            self.end_headers()
        elif kind == "/slow":
            self.wfile.write(b"HTTP/1.0 200 OK\r\n")
            for number in range(100):
                self.wfile.write(f"X-{number}: 1\r\n".encode())
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self.send_error(404)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    made.asked, made.daemon_threads = [], True
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def get(server):
    """Fetches from the server under a name that this test alone may look up."""

    def resolve(host, port):
        if host != "pictures.example":
            raise NotFetched(f"{host} is 10.0.0.1, which is not an address of the open internet")
        return "127.0.0.1"

    def one(path, most=100, timeout=5.0):
        return fetch.fetch(f"http://pictures.example:{server.server_port}{path}", most, timeout, resolve)

    return one


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_not_public(address):
    assert not fetch.is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07::1", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are(address):
    assert fetch.is_public(address)


def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch):
    entry = lambda address: (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [entry("93.184.215.14"), entry("10.1.1.1")])
    with pytest.raises(NotFetched, match=r"mixed\.example is 10\.1\.1\.1, which is not an address of the open intern"):
        fetch.public_address("mixed.example", 80)


def test_the_address_that_was_checked_is_the_one_that_is_used(server, monkeypatch):
    """A name server that answers differently the second time is not asked a second time."""
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: asked.append(host) or REAL("127.0.0.1", *a, **k))
    content = fetch.fetch(
        f"http://twice.example:{server.server_port}/image", 100, resolve=lambda host, port: "127.0.0.1"
    )
    assert content == b"0123456789"
    assert set(asked) <= {"127.0.0.1"}
    assert server.asked[-1] == ("/image", f"twice.example:{server.server_port}")


REAL = socket.getaddrinfo


@pytest.mark.parametrize(
    ("path", "asked"),
    [("/image?ü a", "/image?%C3%BC%20a"), ("/image?%20%C3%BC&a=b", "/image?%20%C3%BC&a=b"), ("/odd", "/image?%C3%BC")],
)
def test_an_address_with_other_letters_and_blanks_is_asked_for_as_a_browser_does(server, get, path, asked):
    assert get(path) == b"0123456789"
    assert server.asked[-1][0] == asked


def test_a_redirect_is_looked_up_and_checked_before_anything_is_connected_to(server, monkeypatch):
    """Everything is as always but for the name server, and that the internet is this test's server."""
    known = {"pictures.example": "93.184.215.14", "inside.example": "10.0.0.1"}
    entry = lambda host, port, **k: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host], port))]
    connect, reached = socket.create_connection, []

    def connected(address, timeout):
        reached.append(address)
        monkeypatch.setattr(socket, "getaddrinfo", REAL)
        try:
            return connect(("127.0.0.1", server.server_port), timeout)
        finally:
            monkeypatch.setattr(socket, "getaddrinfo", entry)

    monkeypatch.setattr(socket, "getaddrinfo", entry)
    monkeypatch.setattr(socket, "create_connection", connected)
    assert fetch.fetch("http://pictures.example/image", 100) == b"0123456789"
    with pytest.raises(NotFetched, match=r"redirects, could not be fetched: inside\.example is 10\.0\.0\.1, which"):
        fetch.fetch("http://pictures.example/away", 100)
    assert reached == [("93.184.215.14", 80)] * 2


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """A server with a certificate for "pictures.example" that it signed itself. Gives it and the certificate's file."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pictures.example")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pictures.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("secure")
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "certificate").write_bytes(made.public_bytes(pem))
    (folder / "key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate", folder / "key")
    served = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    served.asked, served.daemon_threads = [], True
    served.handle_error = lambda *arguments: None
    served.socket = context.wrap_socket(served.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served, folder / "certificate"
    served.shutdown()
    served.server_close()


@pytest.mark.parametrize(
    ("host", "trusted", "fetched"),
    [("pictures.example", True, True), ("other.example", True, False), ("pictures.example", False, False)],
)
def test_https_is_under_the_name_of_the_host_though_the_address_is_given(secure, monkeypatch, host, trusted, fetched):
    server, certificate = secure
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    get = lambda: fetch.fetch(f"https://{host}:{server.server_port}/image", 100, resolve=lambda *a: "127.0.0.1")
    if fetched:
        assert get() == b"0123456789"
        assert server.asked[-1] == ("/image", f"{host}:{server.server_port}")
    else:
        with pytest.raises(NotFetched, match="could not be fetched: SSLCertVerificationError"):
            get()


def test_a_file_is_fetched(get):
    assert get("/image?size=1") == b"0123456789"


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/image", "http://localhost:{port}/image",
                                 "http://[::1]:{port}/image", "http://0x7f000001:{port}/image",
                                 "http://2130706433:{port}/image"])  # fmt: skip
def test_this_machine_is_never_reached_by_default(server, url):
    before = len(server.asked)
    with pytest.raises(NotFetched, match=r"not an address of the open internet|no address is known"):
        fetch.fetch(url.format(port=server.server_port), 100)
    assert len(server.asked) == before


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/away", r"http://inside\.example/image, to which .*/away redirects, could not be fetched: inside.example"),
        ("/round", "redirects more than 3 times"),
        ("/file", "file:///etc/passwd, to which .* only http and https"),
        ("/large", "it has more than 100 bytes"),
        ("/said", "it has 999,999,999,999 bytes; at most 100 are read"),
        ("/short", "the connection ended 10 bytes too early|IncompleteRead"),
        ("/nowhere", "the server answered 404"),
    ],
)
def test_what_is_not_fetched_says_why(get, path, said):
    with pytest.raises(NotFetched, match=said):
        get(path)


def test_a_server_that_sends_a_byte_now_and_then_does_not_hold_a_thread(get):
    began = time.monotonic()
    with pytest.raises(NotFetched, match=r"was not fetched within 0\.5 s"):
        get("/slow", timeout=0.5)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://a.example/x", "only http and https"),
        ("http://user:word@a.example/x", "a user name or password"),
        ("http:///x", "with a host"),
        ("http://a.example:99999/x", "the port is no number up to 65535"),
    ],
)
def test_odd_addresses_are_refused(url, said):
    with pytest.raises(NotFetched, match=said):
        fetch.fetch(url, 100, resolve=lambda host, port: pytest.fail("looked up"))
