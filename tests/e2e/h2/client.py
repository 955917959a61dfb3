"""A client of HTTP/2 that breaks it, in frames of hyperframe's and blocks of hpack's, and says what it gets for that.

Arguments: the address, and the authority whose certificate is good. Says a line for each case and way, and ends with 1 where
any differs. `/` is answered by a backend, `/sound` at once.
"""
import socket
import ssl
import sys

from hpack import Decoder, Encoder
from hyperframe.frame import (
    AltSvcFrame, ContinuationFrame, DataFrame, ExtensionFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame,
    PriorityFrame, PushPromiseFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 1, 3, 5, 9, 11
PATIENCE = 20


class Client:
    def __init__(self, way, address, authority):
        peer = socket.create_connection((address, 8443 if way == "tls" else 8080), PATIENCE)
        self.scheme = "http"
        if way == "tls":
            context = ssl.create_default_context(cafile=authority)
            context.set_alpn_protocols(["h2"])
            peer = context.wrap_socket(peer, server_hostname="a.test")
            assert peer.selected_alpn_protocol() == "h2"
            self.scheme = "https"
        self.peer = peer
        self.coming = peer.makefile("rb")
        self.encoder, self.decoder = Encoder(), Decoder()
        self.peer.sendall(PREFACE + SettingsFrame(0).serialize())

    def send(self, *frames):
        self.peer.sendall(b"".join(one if isinstance(one, bytes) else one.serialize() for one in frames))

    def block(self, method="GET", path="/sound", more=()):
        fields = [(":method", method), (":scheme", self.scheme), (":authority", "a.test"), (":path", path)]
        return self.encoder.encode(fields + list(more))

    def get(self, stream, **how):
        return head(stream, self.block(**how))

    def open(self, stream, **how):
        """A request whose body is to come, to who says nothing before its end."""
        return head(stream, self.block(method="POST", path="/", **how), ends=False)

    def frame(self):
        start = self.coming.read(9)
        if len(start) < 9:
            return None
        frame, length = Frame.parse_frame_header(memoryview(start))
        frame.parse_body(memoryview(self.coming.read(length)))
        return frame

    def hears(self, stream):
        """What becomes of a stream, or of all of them."""
        while True:
            try:
                frame = self.frame()
            except ConnectionError:
                return "cut"
            if frame is None:
                return "end"
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                self.send(SettingsFrame(0, flags=["ACK"]))
            elif isinstance(frame, GoAwayFrame):
                return f"goaway {frame.error_code}"
            elif isinstance(frame, RstStreamFrame) and frame.stream_id == stream:
                return f"reset {frame.error_code}"
            elif isinstance(frame, HeadersFrame):
                status = dict(self.decoder.decode(frame.data))[":status"]
                if frame.stream_id == stream:
                    return f"status {status}"


def head(stream, block, ends=True, flags=("END_HEADERS",)):
    return HeadersFrame(stream, block, flags=[*flags] + (["END_STREAM"] if ends else []))


def data(stream, text, ends=False):
    return DataFrame(stream, text, flags=["END_STREAM"] if ends else [])


def padded(stream, text, padding):
    """A length of padding that hyperframe would not write."""
    body = data(stream, text).serialize()
    return body[:4] + b"\x08" + body[5:9] + bytes([padding]) + body[10:]


def split(client, length, more=()):
    """A head in pieces of so many bytes."""
    block = client.block(more=more)
    yield head(1, block[:length], flags=())
    for at in range(length, len(block), length):
        is_last = at + length >= len(block)
        yield ContinuationFrame(1, block[at:at + length], flags=["END_HEADERS"] if is_last else [])


def learned(client):
    """What is in the table by one request is named by its place in the next."""
    more = [("x-learned", "a" * 100)]
    yield client.get(1, more=more)
    block = client.block(more=more)
    assert len(block) < 20
    yield head(3, block)


def resized(client):
    client.encoder.header_table_size = 0
    yield client.get(1)
    client.encoder.header_table_size = 4096
    yield client.get(3)


def closed(client, make):
    """Behind the end of a stream that nobody has answered yet."""
    yield client.open(1)
    yield data(1, b"x", ends=True)
    yield make()


# What is sent, the stream that is looked at, and what comes of it.
CASES = {
    # Sound, though few clients do it.
    "a head in pieces": (lambda c: split(c, 8), 1, "status 200"),
    "a head by what was learned": (learned, 3, "status 200"),
    "a table of another size": (resized, 3, "status 200"),
    "frames of an extension": (lambda c: [ExtensionFrame(0xbe, 1, 0xff), c.get(1)], 1, "status 200"),
    "ALTSVC by a client": (lambda c: [AltSvcFrame(0, b"https://a.test", b'h2=":1"'), c.get(1)], 1, "status 200"),
    "PING that answers nothing": (lambda c: [PingFrame(0, b"12345678", flags=["ACK"]), c.get(1)], 1, "status 200"),
    "PRIORITY of a stream to come": (lambda c: [PriorityFrame(1, depends_on=0, stream_weight=7), c.get(1)], 1, "status 200"),
    "a stream left out": (lambda c: [c.get(7)], 7, "status 200"),
    "padding alone": (
        lambda c: [
            head(1, c.block(method="POST"), ends=False),
            DataFrame(1, b"", pad_length=200, flags=["PADDED", "END_STREAM"]),
        ],
        1, "status 200",
    ),
    "a head in pieces of one byte": (
        lambda c: split(c, 1, more=[("x", "a" * 100)]), 1, f"goaway {ENHANCE_YOUR_CALM}",
    ),
    # Of tables and blocks (RFC 9113, 4.3).
    "index 0": (lambda c: [head(1, c.block() + b"\x80")], 1, f"goaway {COMPRESSION_ERROR}"),
    "an index of nothing": (lambda c: [head(1, c.block() + b"\xff\x00")], 1, f"goaway {COMPRESSION_ERROR}"),
    "a table larger than may be": (lambda c: [head(1, b"\x3f\xe2\x1f" + c.block())], 1, f"goaway {COMPRESSION_ERROR}"),
    "a table resized behind a field": (lambda c: [head(1, c.block() + b"\x20")], 1, f"goaway {COMPRESSION_ERROR}"),
    "letters of Huffman that end in none": (
        lambda c: [head(1, c.block() + b"\x00\x01x\x81\x00")], 1, f"goaway {COMPRESSION_ERROR}",
    ),
    "a block that breaks off": (lambda c: [head(1, c.block() + b"\x00\x05ab")], 1, f"goaway {COMPRESSION_ERROR}"),
    "a block that is ruined on a stream that is over": (
        lambda c: [c.get(1), head(1, b"\x80")], 1, f"goaway {COMPRESSION_ERROR}",
    ),
    # Of frames and streams.
    "a stream that depends on itself": (lambda c: [PriorityFrame(1, depends_on=1), c.get(1)], 1, "status 200"),
    "more padding than frame": (lambda c: [c.open(1), padded(1, b"abcd", 200)], 1, f"goaway {PROTOCOL_ERROR}"),
    "a promise": (lambda c: [c.open(1), PushPromiseFrame(1, 2, c.block(), flags=["END_HEADERS"])], 1, f"goaway {PROTOCOL_ERROR}"),
    "DATA within a head": (
        lambda c: [head(1, c.block(), flags=()), data(1, b"x")], 1, f"goaway {PROTOCOL_ERROR}",
    ),
    "DATA behind an end": (lambda c: closed(c, lambda: data(1, b"x")), 1, f"reset {STREAM_CLOSED}"),
    "a head behind an end": (lambda c: closed(c, lambda: head(1, c.block())), 1, f"reset {STREAM_CLOSED}"),
    "trailers that do not end": (
        lambda c: [c.open(1), head(1, c.encoder.encode([("x", "y")]), ends=False)], 1, f"reset {PROTOCOL_ERROR}",
    ),
    "less than was said": (
        lambda c: [c.open(1, more=[("content-length", "5")]), data(1, b"abc", ends=True)], 1, f"reset {PROTOCOL_ERROR}",
    ),
    "windows beyond what they may be by a setting": (
        lambda c: [
            c.open(1), WindowUpdateFrame(1, window_increment=2**31 - 1 - 65535),
            SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65536}),
        ],
        1, f"goaway {FLOW_CONTROL_ERROR}",
    ),
}


def main():
    address, authority = sys.argv[1:]
    wrong = 0
    for name, (make, stream, expected) in CASES.items():
        for way in ["clear", "tls"]:
            client = Client(way, address, authority)
            try:
                client.send(*make(client))
            except ConnectionError:
                pass
            got = client.hears(stream)
            if expected.startswith("goaway") and got.startswith("status"):
                # What was asked before had its answer already.
                got = client.hears(stream)
            if not got.startswith(("goaway", "end", "cut")):
                # All others go on.
                client.send(client.get(101))
                got += "" if (after := client.hears(101)) == "status 200" else f", then {after}"
            wrong += got != expected
            print("ok" if got == expected else "WRONG", way, name, f"{expected} expected, {got}", sep=": ")
            client.peer.close()
    sys.exit(wrong > 0)


main()
