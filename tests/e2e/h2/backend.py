"""A backend of HTTP/2 that breaks it as the path of each request says, in frames of hyperframe's and blocks of hpack's."""
import collections
import socket
import sys
import threading

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, PushPromiseFrame, RstStreamFrame,
    SettingsFrame, WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
OK = [(":status", "200")]
# How often each path was asked for.
asked = collections.Counter()


class Connection:
    def __init__(self, peer, settings):
        self.peer = peer
        self.coming = peer.makefile("rb")
        self.encoder = Encoder()
        self.decoder = Decoder()
        # Requests that have not ended: their paths, and bytes of their bodies.
        self.going = {}
        # What a stream may send, where it grows.
        self.granted = 0
        assert self.coming.read(len(PREFACE)) == PREFACE
        self.send(SettingsFrame(0, settings=settings))

    def send(self, *frames):
        self.peer.sendall(b"".join(frame.serialize() for frame in frames))

    def grow(self, granted):
        if granted > self.granted:
            self.granted = granted
            self.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: granted}))

    def head(self, stream, fields, end=False):
        flags = ["END_HEADERS"] + (["END_STREAM"] if end else [])
        return HeadersFrame(stream, self.encoder.encode(fields), flags=flags)

    def raw_head(self, stream, block, end=False):
        """Fields that no encoder writes: never indexed, as they are."""
        block = b"".join(
            b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in block
        )
        return HeadersFrame(stream, block, flags=["END_HEADERS"] + (["END_STREAM"] if end else []))

    def read(self):
        head = self.coming.read(9)
        if len(head) < 9:
            return None
        frame, length = Frame.parse_frame_header(memoryview(head))
        frame.parse_body(memoryview(self.coming.read(length)))
        return frame

    def answer(self, stream, text):
        text = text.encode()
        self.send(
            self.head(stream, OK + [("content-length", str(len(text)))]),
            data(stream, text, end=True),
        )

    def run(self):
        while (frame := self.read()) is not None:
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                self.send(SettingsFrame(0, flags=["ACK"]))
            elif isinstance(frame, HeadersFrame):
                path = dict(self.decoder.decode(frame.data))[":path"].strip("/")
                asked[path] += 1
                self.going[frame.stream_id] = [path, 0]
                case = case_of(path)
                if "END_STREAM" in frame.flags or case in AT_ONCE:
                    self.end(frame.stream_id, case)
            elif isinstance(frame, DataFrame):
                length = frame.flow_controlled_length
                # Also of streams that are over.
                if length:
                    self.send(window(0, length))
                if frame.stream_id not in self.going:
                    continue
                one = self.going[frame.stream_id]
                one[1] += len(frame.data)
                if one[0].startswith("window"):
                    # The stream's grows by settings, which say it anew for all, once all of it is used up.
                    if one[1] >= self.granted:
                        self.grow(one[1] + 20000)
                elif "END_STREAM" not in frame.flags and length:
                    self.send(window(frame.stream_id, length))
                if "END_STREAM" in frame.flags:
                    self.end(frame.stream_id, case_of(one[0]))

    def end(self, stream, case):
        path, length = self.going.pop(stream)
        case(self, stream, path, length)


def case_of(path):
    """What follows the case tells its askers apart."""
    return CASES.get(path.split("/")[0], whole)


def data(stream, text, end=False):
    return DataFrame(stream, text, flags=["END_STREAM"] if end else [])


def window(stream, by):
    return WindowUpdateFrame(stream, window_increment=by)


def whole(to, stream, path, length):
    to.answer(stream, f"{path} {asked[path]} {length}\n")


def count(to, stream, path, length):
    to.answer(stream, str(asked[path.removeprefix("asked/")]))


def once(first):
    """The first who asks gets this, the others an answer."""

    def case(to, stream, path, length):
        if asked[path] == 1:
            first(to, stream)
        else:
            whole(to, stream, path, length)

    return case


def frames(*make):
    """Sends what these make."""

    def case(to, stream, path, length):
        to.send(*(frame for one in make for frame in one(to, stream)))

    return case


def head(*fields, status="200", end=False):
    return lambda to, stream: [to.head(stream, [(":status", status), *fields], end)]


def raw(*fields, end=True):
    return lambda to, stream: [to.raw_head(stream, [(b":status", b"200"), *fields], end)]


def bare(*fields):
    return lambda to, stream: [to.head(stream, list(fields), True)]


def body(text, end=True):
    return lambda to, stream: [data(stream, text, end)]


def reset(code):
    return lambda to, stream: [RstStreamFrame(stream, error_code=code)]


def promise(to, stream):
    block = to.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/x")])
    return [PushPromiseFrame(stream, promised_stream_id=2, data=block, flags=["END_HEADERS"])]


def goaway(to, stream):
    to.send(GoAwayFrame(0, last_stream_id=max(stream - 2, 0)))


def refused(to, stream):
    to.send(RstStreamFrame(stream, error_code=7))


def long_block(to, stream):
    block = to.encoder.encode([(":status", "200"), ("x", "y" * 300000)], huffman=False)
    pieces = [block[at : at + 16000] for at in range(0, len(block), 16000)]
    rest = [ContinuationFrame(stream, piece) for piece in pieces[1:]]
    rest[-1].flags.add("END_HEADERS")
    return [HeadersFrame(stream, pieces[0], flags=["END_STREAM"]), *rest]


def bomb(to, stream):
    """A field of the table, told of again and again."""
    entry = b"\x40\x01x\x7f\xa1\x1e" + b"a" * 4000
    return [HeadersFrame(stream, b"\x88" + entry + b"\xbe" * 3000, flags=["END_HEADERS", "END_STREAM"])]


# Set by whoever asks for the end of those that part.
ended = threading.Event()


def part(to, stream, path, length):
    """An answer that goes on behind the word that nothing more is taken."""
    to.send(to.head(stream, OK), data(stream, b"some"), GoAwayFrame(0, last_stream_id=stream))

    def finish():
        ended.wait(60)
        to.send(data(stream, b" more", end=True))

    threading.Thread(target=finish, daemon=True).start()


def end_all(to, stream, path, length):
    ended.set()
    whole(to, stream, path, length)


def close(to, stream, path, length):
    to.peer.shutdown(socket.SHUT_RDWR)


def close_within(to, stream, path, length):
    to.send(to.head(stream, OK), data(stream, b"some"))
    to.peer.shutdown(socket.SHUT_RDWR)


def alive(to, stream):
    """Somebody waits for the answer of another stream on this connection."""
    return [PingFrame(0, opaque_data=b"\x07" * 8)]


SIZED = ("content-length", "5")
# Cases by the path that asks for them.
CASES = {
    "data-first": frames(body(b"hello")),
    "data-first-then-head": frames(body(b"hello", False), head(end=True)),
    "two-heads": frames(head(), head(), body(b"hello")),
    "two-heads-ended": frames(head(), body(b"hello", False), head(end=True)),
    "pseudo-trailer": frames(head(), body(b"hello", False), bare((":path", "/x"), ("x-sum", "1"))),
    "trailer": frames(head(), body(b"hello", False), bare(("x-sum", "1"))),
    "trailer-of-connection": frames(head(), body(b"hello", False), bare(("connection", "close"))),
    "promise": frames(promise, head(end=True)),
    "long": frames(head(SIZED), body(b"hello, you")),
    "short": frames(head(SIZED), body(b"hel")),
    "short-without-any": frames(head(SIZED, end=True)),
    "two-lengths": frames(head(SIZED, ("content-length", "6")), body(b"hello")),
    "no-length": frames(head(("content-length", "five")), body(b"hello")),
    "signed-length": frames(head(("content-length", "+5")), body(b"hello")),
    "early": frames(head(end=True), reset(0)),
    "early-no": frames(head(status="413", end=True), reset(0)),
    "goaway": once(goaway),
    "refused": once(refused),
    "refused-always": frames(reset(7)),
    "asked": count,
    "reset": frames(reset(2)),
    "reset-within": frames(head(), body(b"some", False), reset(2)),
    "reset-at-the-end": frames(head(SIZED), body(b"hello", False), reset(0)),
    "close": close,
    "close-within": close_within,
    "cr": frames(raw((b"x", b"a\rb"))),
    "lf": frames(raw((b"x", b"a\nb: c"))),
    "nul": frames(raw((b"x", b"a\x00b"))),
    "blank": frames(raw((b"x", b" a"))),
    "upper": frames(raw((b"X-Upper", b"a"))),
    "colon": frames(raw((b"x:y", b"a"))),
    "nameless": frames(raw((b"", b"a"))),
    "connection": frames(raw((b"connection", b"close"))),
    "keep-alive": frames(raw((b"keep-alive", b"timeout=5"))),
    "transfer-encoding": frames(raw((b"transfer-encoding", b"chunked"), end=False), body(b"5\r\nhello\r\n0\r\n\r\n")),
    "upgrade": frames(raw((b"upgrade", b"x"))),
    "no-status": frames(bare(("x", "y"))),
    "two-statuses": frames(bare((":status", "200"), (":status", "204"))),
    "late-status": frames(bare(("x", "y"), (":status", "200"))),
    "odd-status": frames(bare((":status", "abc"))),
    "status-99": frames(bare((":status", "99"))),
    "status-600": frames(head(status="600", end=True)),
    "request-like": frames(bare((":status", "200"), (":path", "/"))),
    "block": frames(long_block),
    "bomb": frames(bomb),
    "interim": frames(head(("link", "x"), status="103"), head(status="100"), head(SIZED), body(b"hello")),
    "interim-ended": frames(head(status="103", end=True)),
    "interim-for-ever": frames(*[head(status="103")] * 2000),
    "switch": frames(head(status="101"), head(end=True)),
    "none-204": frames(head(status="204"), body(b"hello")),
    "none-304": frames(head(SIZED, status="304"), body(b"hello")),
    "head": frames(head(SIZED), body(b"hello")),
    "ended-twice": frames(head(end=True), body(b"hello")),
    "idle-stream": frames(lambda to, stream: [data(stream + 100, b"x")]),
    "even-stream": frames(lambda to, stream: [to.head(2, OK)]),
    "window-of-0": lambda to, stream, path, length: to.peer.sendall(b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0"),
    "settings": frames(*[lambda to, stream: [SettingsFrame(0)]] * 200),
    "pings": frames(*[alive] * 500),
    "part": part,
    "end": end_all,
    "alive": frames(alive, head(SIZED), body(b"hello")),
}
# Those that are not to wait for the end of the request.
AT_ONCE = [CASES["early"], CASES["early-no"]]


def serve(address, port, settings, then=None):
    listener = socket.create_server((address, port))

    def run(peer):
        try:
            to = Connection(peer, settings)
            if then:
                threading.Timer(0.3, then, [to]).start()
            to.run()
        except (OSError, AssertionError):
            pass
        peer.close()

    while True:
        threading.Thread(target=run, args=[listener.accept()[0]], daemon=True).start()


def old(address, port):
    """One that speaks HTTP/1.1."""
    listener = socket.create_server((address, port))
    while True:
        peer = listener.accept()[0]
        peer.recv(4096)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        peer.close()


def main():
    address = sys.argv[1]
    most, first = SettingsFrame.MAX_CONCURRENT_STREAMS, SettingsFrame.INITIAL_WINDOW_SIZE
    servers = [
        (serve, 6000, {}),
        (serve, 6001, {first: 0}, lambda to: to.grow(20000)),
        (serve, 6002, {most: 1}),
        (serve, 6003, {most: 0}, lambda to: to.send(SettingsFrame(0, settings={most: 1}))),
        (serve, 6004, {most: 0}),
    ]
    for run, port, *more in servers:
        threading.Thread(target=run, args=[address, port, *more], daemon=True).start()
    print("ready", flush=True)
    old(address, 6005)


main()
