"""The code in Ray's proxies, with Ray's own gRPC server, an ASGI client, and replicas that die."""

import asyncio
import contextlib
import itertools

import grpc
import httpx
import pytest

from serving.engines.ray_proxy import TIME_KEY, RetryingApp, add_services

pytestmark = [
    pytest.mark.xdist_group("serving-ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Ray's imports
]

PREDICT = "/tensorflow.serving.PredictionService/Predict"
DEAD, ANSWER = b"", b"\0answer"


@contextlib.asynccontextmanager
async def proxy(ask):
    """Ray's gRPC server, whose replicas are a function; gives a channel to it."""
    from ray.serve._private.grpc_util import gRPCGenericServer

    server = gRPCGenericServer(lambda service_method, streaming_type: ask)
    add_services(None, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


async def answered_by(ask, path=PREDICT, **options):
    async with proxy(ask) as channel:
        try:
            return await channel.unary_unary(path)(b"message", **options)
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details()


def replicas(*answers):
    """Replicas that answer so one after the other, and the contexts that they got."""
    contexts, rest = [], itertools.chain(answers, itertools.repeat(answers[-1]))

    async def ask(message, context):
        assert message == b"message"
        contexts.append(context)
        context.set_code(grpc.StatusCode.OK if (answer := next(rest)) else grpc.StatusCode.INTERNAL)
        return answer

    return ask, contexts


@pytest.mark.slow
@pytest.mark.parametrize("num_dead", [0, 1, 2])
def test_call_is_asked_again_where_a_replica_dies(num_dead):
    ask, contexts = replicas(*[DEAD] * num_dead, ANSWER)
    assert asyncio.run(answered_by(ask)) == b"answer"
    assert len(contexts) == num_dead + 1


@pytest.mark.slow
def test_call_that_kills_its_replicas_does_not_kill_all():
    ask, contexts = replicas(DEAD)
    assert asyncio.run(answered_by(ask)) == ("UNAVAILABLE", "No replica has answered. Try again later.")
    assert len(contexts) == 3


@pytest.mark.slow
def test_error_of_a_replica_is_not_asked_again():
    ask, contexts = replicas(b"\x05no such model")
    assert asyncio.run(answered_by(ask)) == ("NOT_FOUND", "no such model")
    assert len(contexts) == 1


@pytest.mark.slow
def test_client_that_gives_up_is_not_asked_for_again():
    asked = []

    async def ask(message, context):
        asked.append(message)
        with contextlib.suppress(asyncio.CancelledError):  # as Ray does
            await asyncio.sleep(60)
        return DEAD

    async def run():
        async with proxy(ask) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(PREDICT)(b"message", timeout=1)
            await asyncio.sleep(1)

    asyncio.run(run())
    assert asked == [b"message"]


@pytest.mark.slow
def test_replica_gets_the_time_left_and_nothing_that_leads_ray_astray():
    ask, contexts = replicas(ANSWER)
    sent = (("authorization", "Bearer x"), ("application", "other"), (TIME_KEY, "1e9"))
    asyncio.run(answered_by(ask, metadata=sent, timeout=60))
    metadata = [each for each in contexts[0].invocation_metadata() if each[0] != "user-agent"]
    assert [key for key, _ in metadata] == ["authorization", TIME_KEY]
    assert 0 < float(metadata[1][1]) <= 60


@pytest.mark.slow
def test_unknown_method_is_refused_as_grpc_does():
    ask, contexts = replicas(ANSWER)
    assert asyncio.run(answered_by(ask, PREDICT + "s")) == ("UNIMPLEMENTED", "Method not found!")
    assert contexts == []


class Dying:
    """An ASGI application that says nothing, or only begins, so many times, and then echoes."""

    def __init__(self, num_dead, begins=False):
        self.num_calls = 0
        self._num_dead = num_dead
        self._begins = begins

    async def __call__(self, scope, receive, send):
        self.num_calls += 1
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event["body"], event["more_body"]
        is_dead = self.num_calls <= self._num_dead
        if not is_dead or self._begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if not is_dead:
            await send({"type": "http.response.body", "body": body})


async def posted(app):
    async def chunks():
        yield b"one "
        yield b"two"

    transport = httpx.ASGITransport(RetryingApp(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
        return await client.post("/v1/models/m:predict", content=chunks())


@pytest.mark.parametrize("app", [Dying(0), Dying(1), Dying(2), Dying(2, begins=True)])
def test_request_is_asked_again_where_a_replica_dies(app):
    response = asyncio.run(posted(app))
    assert (response.status_code, response.content) == (200, b"one two")


def test_request_that_kills_its_replicas_does_not_kill_all():
    app = Dying(99)
    response = asyncio.run(posted(app))
    assert (response.status_code, response.json()) == (503, {"error": "No replica has answered. Try again later."})
    assert app.num_calls == 3
