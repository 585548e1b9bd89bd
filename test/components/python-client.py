# Clients of Python's standard library: reads a list of cases as JSON, prints one answer for each.
# A case: port, version ("1.1", "1.2", "1.3"), name (null: none is sent, the address is verified), ca, cert and key (files or null), alpn (list).
# An answer: version, subject, alpn, status and body, or error.
import http.client
import json
import socket
import ssl
import sys
import warnings

# That TLS 1.1 is asked for is the point.
warnings.simplefilter("ignore", DeprecationWarning)


def answer(case):
    context = ssl.create_default_context(cafile=case["ca"])
    version = getattr(ssl.TLSVersion, "TLSv" + case["version"].replace(".", "_"))
    if case["version"] == "1.1":
        context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    if case["cert"] is not None:
        context.load_cert_chain(case["cert"], case["key"])
    if case["alpn"]:
        context.set_alpn_protocols(case["alpn"])
    try:
        plain = socket.create_connection(("127.0.0.1", case["port"]), timeout=10)
        # For an address no server name is sent.
        with context.wrap_socket(plain, server_hostname=case["name"] or "127.0.0.1") as secure:
            subject = dict(pair[0] for pair in secure.getpeercert()["subject"])["commonName"]
            connection = http.client.HTTPConnection("localhost")
            connection.sock = secure
            connection.request("GET", "/", headers={"Connection": "close"})
            response = connection.getresponse()
            seen = {"version": secure.version(), "subject": subject, "alpn": secure.selected_alpn_protocol()}
            return {**seen, "status": response.status, "body": response.read().decode()}
    except (OSError, http.client.HTTPException) as error:
        return {"error": f"{type(error).__name__}: {error}"}


print(json.dumps([answer(case) for case in json.load(sys.stdin)]))
