"""A request by the byte from a test that blocks: one connection, its requests, their answers."""

import socket
from urllib.parse import urlsplit

from tests.fakes.tap import CONTINUE, Message, read_answer

PATIENCE_SECONDS = 30.0


def ask(url: str, line: str, *fields: str, body: bytes | None = None, chunked: bool = False) -> Message:
    """Send `line` (method and target) with `fields`; `body` with its length, or in two chunks."""
    address = urlsplit(url).netloc
    framing = []
    payload = body or b""
    if chunked:
        framing = ["Transfer-Encoding: chunked"]
        half = len(payload) // 2
        payload = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (payload[:half], payload[half:]) if part)
        payload += b"0\r\n\r\n"
    elif body is not None:
        framing = [f"Content-Length: {len(body)}"]
    head = [f"{line} HTTP/1.1", f"Host: {address}", "User-Agent: a-test", "Connection: close", *fields, *framing]
    data = "".join(f"{each}\r\n" for each in head).encode() + b"\r\n" + payload
    (answer,) = say(url, data, method=line.partition(" ")[0])
    return answer


def say(url: str, data: bytes, *, method: str = "POST") -> list[Message]:
    """Send these bytes, which ask for the connection to be closed, and read until it is: the answers."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), PATIENCE_SECONDS) as line:
        line.sendall(data)
        received = b"".join(iter(lambda: line.recv(1 << 20), b""))
    answers = []
    while received:
        answer, received = read_answer(received, method)
        if answer.status != CONTINUE:
            answers.append(answer)
    return answers
