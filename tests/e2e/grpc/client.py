"""A gRPC client of bytes. Says a line for each kind of call that went as it should.

client.py TARGET AUTHORITY ROOT|- KIND
"""
import queue
import sys
import threading

import grpc

SERVICE = "/test.Echo/"


def channel(target, authority, root):
    options = [("grpc.default_authority", authority), ("grpc.enable_retries", 0)]
    if root == "-":
        return grpc.insecure_channel(target, options)
    options.append(("grpc.ssl_target_name_override", authority))
    with open(root, "rb") as file:
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(file.read()), options)


def error_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it has succeeded")


def unary(to):
    answer, call = to.unary_unary(SERVICE + "Unary").with_call(b"abc", metadata=(("x-asked", "this"),))
    assert answer == b"cba", answer
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert initial["x-initial"] == "this", initial
    assert trailing["x-trailing"] == "t" and trailing["x-trailing-bin"] == b"\0\xff", trailing
    large = bytes(range(256)) * 8000
    answer = to.unary_unary(SERVICE + "Unary")(large)
    assert answer == large[::-1], len(answer)


def server_stream(to):
    got = list(to.unary_stream(SERVICE + "ServerStream")(b"2000"))
    assert got == [b"%d" % number for number in range(2000)], len(got)
    assert list(to.unary_stream(SERVICE + "ServerStream")(b"0")) == []


def client_stream(to):
    answer = to.stream_unary(SERVICE + "ClientStream")(b"x" * number for number in range(500))
    assert answer == b"500 124750", answer


def bidi(to):
    """The next message is made only when the last one has come back."""
    outgoing = queue.Queue()
    answers = to.stream_stream(SERVICE + "Bidi")(iter(outgoing.get, None))
    for number in range(200):
        message = b"%d " % number * number
        outgoing.put(message)
        assert next(answers) == message, number
    outgoing.put(None)
    assert list(answers) == []


def fail(to):
    error = error_of(lambda: to.unary_unary(SERVICE + "Fail")(b""))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == "not \u00e9 today\n100%", error.details()
    assert dict(error.trailing_metadata())["x-why"] == "asked for", error.trailing_metadata()
    error = error_of(lambda: to.unary_unary(SERVICE + "None")(b""))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


def deadline(to):
    left = float(to.unary_unary(SERVICE + "Left")(b"", timeout=500))
    assert 400 < left < 510, left
    error = error_of(lambda: to.unary_unary(SERVICE + "Sleep")(b"", timeout=0.3))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert to.unary_unary(SERVICE + "WasCancelled")(b"") == b"yes"


def cancel(to):
    """The server hears of it when a client gives up."""
    call = to.unary_unary(SERVICE + "Sleep").future(b"")
    threading.Timer(0.2, call.cancel).start()
    try:
        call.result()
    except grpc.FutureCancelledError:
        pass
    assert to.unary_unary(SERVICE + "WasCancelled")(b"") == b"yes"


def refused(to):
    error = error_of(lambda: to.unary_unary(SERVICE + "Unary")(b""))
    assert error.code() == grpc.StatusCode.UNAVAILABLE, error


def many(to):
    """A thousand calls at once, and each gets its own answer."""
    call = to.unary_unary(SERVICE + "Unary")
    calls = [(b"%d" % number, call.future(b"%d" % number)) for number in range(1000)]
    for message, answer in calls:
        assert answer.result() == message[::-1], message


def long(to):
    """Answers line by line, as it is asked on its own input, over one call."""
    answers = to.stream_stream(SERVICE + "Bidi")(iter(sys.stdin.buffer.readline, b""))
    for answer in answers:
        print(answer.decode().strip(), flush=True)


def main():
    target, authority, root, kinds = sys.argv[1:]
    with channel(target, authority, root) as to:
        for kind in kinds.split(","):
            globals()[kind](to)
            print("ok", kind, flush=True)


main()
