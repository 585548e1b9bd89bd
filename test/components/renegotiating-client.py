# An attacker's client of TLS 1.2: shakes hands with one certificate (or none), renegotiates with another, and only then sends its request.
# Arguments: port, request target, files of the first pair ("-": none) and of the second. Prints the status of the answer, or what refused it.
# OpenSSL is called directly, as no library lets the certificate of an open connection be changed.
import ctypes
import ctypes.util
import socket
import sys

SSL_CTRL_SET_MAX_PROTO_VERSION = 124
SSL_CTRL_SET_TLSEXT_HOSTNAME = 55
TLS1_2 = 0x0303
PEM = 1

port, target, first_cert, first_key, second_cert, second_key = sys.argv[1:]
libssl = ctypes.CDLL(ctypes.util.find_library("ssl"))
pointer = ctypes.c_void_p
for function in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
    getattr(libssl, function).restype = pointer


def check(what, result):
    if result != 1:
        print(what)
        sys.exit(0)


context = pointer(libssl.SSL_CTX_new(pointer(libssl.TLS_client_method())))
libssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, TLS1_2, None)
if first_cert != "-":
    check("no certificate", libssl.SSL_CTX_use_certificate_file(context, first_cert.encode(), PEM))
    check("no key", libssl.SSL_CTX_use_PrivateKey_file(context, first_key.encode(), PEM))
plain = socket.create_connection(("127.0.0.1", int(port)))
connection = pointer(libssl.SSL_new(context))
libssl.SSL_set_fd(connection, plain.fileno())
libssl.SSL_ctrl(connection, SSL_CTRL_SET_TLSEXT_HOSTNAME, 0, b"localhost")
check("handshake refused", libssl.SSL_connect(connection))
check("no certificate", libssl.SSL_use_certificate_file(connection, second_cert.encode(), PEM))
check("no key", libssl.SSL_use_PrivateKey_file(connection, second_key.encode(), PEM))
check("not begun", libssl.SSL_renegotiate(connection))
check("renegotiation refused", libssl.SSL_do_handshake(connection))
request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
libssl.SSL_write(connection, request, len(request))
buffer = ctypes.create_string_buffer(65536)
length = libssl.SSL_read(connection, buffer, len(buffer))
print(buffer.raw[: max(length, 0)].decode().split(" ")[1] if length > 0 else "no answer")
