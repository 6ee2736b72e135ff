"""gRPC with the library that its makers wrote, either end of it. One JSON object per line on stdout.

    calls.py serve                 a service; tells of each call that its client gave up
    calls.py call ADDRESS          calls of every kind, and what came of each
    calls.py refused ADDRESS       calls that a proxy on the way refuses
"""

import json
import queue
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

SERVICE = "signet.test.Peer"
DEADLINE = 60
LARGE = 2_000_000


def say(**fields):
    print(json.dumps(fields), flush=True)


def metadata(pairs):
    """Our own; the way may add to it, such as a date."""
    own = [(key, value) for key, value in pairs or () if key.startswith("x-")]
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in own}


def echo(request, context):
    context.send_initial_metadata([("x-first", "before"), ("x-first-bin", b"\x00\xfe")])
    context.set_trailing_metadata([("x-length", str(len(request))), ("x-last-bin", b"\x00\xff")])
    return request


def refuse(_, context):
    context.set_trailing_metadata([("x-why", "because")])
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no, and that is final \u2713")


def talk(words, context):
    for word in words:
        if word == b"stop":
            context.set_trailing_metadata([("x-why", "you said so")])
            context.abort(grpc.StatusCode.OUT_OF_RANGE, "stopped")
        yield word
    context.set_trailing_metadata([("x-end", "whole")])


def watch(_, context):
    context.add_callback(lambda: say(given_up=True))
    yield b"first"
    while context.is_active():
        yield b"more" * 10_000


def serve():
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
    }
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(address=f"127.0.0.1:{port}")
    server.wait_for_termination()


def dial(address):
    return grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])


def unary(channel, method):
    return channel.unary_unary(f"/{SERVICE}/{method}")


def ended(call):
    return {"code": call.code().name, "details": call.details(), "trailers": metadata(call.trailing_metadata())}


def fails(ask):
    """How a call ends that must not end well."""
    try:
        answer = ask()
    except grpc.RpcError as error:
        return ended(error)
    raise AssertionError(f"answered with {answer!r}")


def echoes(channel, size):
    message = bytes(size)
    answer, call = unary(channel, "Echo").with_call(message, timeout=DEADLINE)
    assert answer == message
    return {**ended(call), "first": metadata(call.initial_metadata())}


def converses(channel, last):
    """One word each at a time: neither side can say its next one before it has heard the other's."""
    said = queue.Queue()
    call = channel.stream_stream(f"/{SERVICE}/Talk")(iter(said.get, None), timeout=DEADLINE)
    for number in range(100):
        said.put(str(number).encode())
        assert next(call) == str(number).encode()
    said.put(last)
    over = None
    try:
        assert next(call, None) is None
    except grpc.RpcError as error:
        over = ended(error)
    return {"words": 100, **(over or ended(call))}


def gives_up(channel):
    call = channel.unary_stream(f"/{SERVICE}/Watch")(b"", timeout=DEADLINE)
    first = next(call)
    call.cancel()
    return {"first": first.decode(), "code": call.code().name}


def call(address):
    with dial(address) as channel:
        for size in (0, 5, LARGE):
            say(echo=echoes(channel, size))
        say(refuse=fails(lambda: unary(channel, "Refuse")(b"", timeout=DEADLINE)))
        say(whole=converses(channel, None))
        say(stopped=converses(channel, b"stop"))
        say(unknown=fails(lambda: unary(channel, "Unknown")(b"", timeout=DEADLINE)))
        say(given_up=gives_up(channel))


def refused(address):
    with dial(address) as channel:
        say(unary=fails(lambda: unary(channel, "Echo")(b"hello", timeout=DEADLINE)))
        words = channel.stream_stream(f"/{SERVICE}/Talk")
        say(stream=fails(lambda: list(words(iter([b"hello"]), timeout=DEADLINE))))


def main(arguments):
    match arguments:
        case ["serve"]:
            serve()
        case ["call", address]:
            call(address)
        case ["refused", address]:
            refused(address)
        case _:
            sys.exit(__doc__)


main(sys.argv[1:])
