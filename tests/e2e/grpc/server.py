"""A gRPC server of bytes: every kind of call, in clear text and through TLS."""
import sys
import threading
from concurrent import futures

import grpc

cancelled = threading.Semaphore(0)


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", metadata.get("x-asked", "none")),))
    context.set_trailing_metadata((("x-trailing", "t"), ("x-trailing-bin", b"\0\xff")))
    return request[::-1]


def server_stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def client_stream(requests, context):
    messages = list(requests)
    return b"%d %d" % (len(messages), sum(map(len, messages)))


def bidi(requests, context):
    for request in requests:
        yield request


def fail(request, context):
    context.set_trailing_metadata((("x-why", "asked for"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not \u00e9 today\n100%")


def left(request, context):
    return b"%f" % (context.time_remaining() or -1)


def sleep(request, context):
    over = threading.Event()
    context.add_callback(over.set)
    over.wait()
    cancelled.release()
    return b""


def was_cancelled(request, context):
    return b"yes" if cancelled.acquire(timeout=60) else b"no"


def main():
    address, chain, key = sys.argv[1:]
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Left": grpc.unary_unary_rpc_method_handler(left),
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
        "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
    }
    server = grpc.server(futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    server.add_insecure_port(address + ":5000")
    with open(chain, "rb") as chain, open(key, "rb") as key:
        credentials = grpc.ssl_server_credentials([(key.read(), chain.read())])
    server.add_secure_port(address + ":5001", credentials)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


main()
