"""The promises of docs/http-queue.rst: the queue in a broker, whoever else writes to it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from apps.http_queue import LETTER, Client, module, run
from apps.serving import book, letters
from broker import Broker
from conftest import connected, ready
from pika import BasicProperties

NOBODY = "0" * 32


def test_the_same_on_a_broker(url: str) -> None:
    async def use(api: Client) -> None:
        ids = await api.create(3)
        first = await api.claim(2)
        assert [each["id"] for each in first["messages"]] == ids[:2]
        assert (await api.counts())["leased"] == 2
        await api.tell(first, "complete")
        await api.tell(first, "complete")
        await api.post(
            f"/v1/messages/{ids[1]}/complete",
            {"token": NOBODY},
            409,
        )
        first["messages"].pop(0)
        told = await api.tell(first, "fail", reason="no paper")
        assert told["retry_in_seconds"] == 0.2
        third = await api.claim()
        assert third["messages"][0]["id"] == ids[2]
        await api.tell(third, "release")
        again = await api.claim()
        assert (again["messages"][0]["id"], again["messages"][0]["attempts"]) == (ids[2], 1)
        await api.tell(again, "complete")
        last = await api.claim(wait=20)  # its backoff is over
        assert (last["messages"][0]["id"], last["messages"][0]["attempts"]) == (ids[1], 2)
        assert (await api.tell(last, "fail", reason="still none"))["state"] == "dead"
        for _ in range(3):  # looking changes nothing
            await api.get("/v1/dead")
        (dead,) = (await api.get("/v1/dead"))["messages"]
        assert (dead["id"], dead["error"], dead["attempts"]) == (ids[1], "still none", 2)
        assert await api.post(f"/v1/dead/{ids[1]}/requeue") == {"requeued": 1}
        final = await api.claim(wait=10)
        assert final["messages"][0]["attempts"] == 1
        await api.tell(final, "complete")
        # A broker cannot be asked, and the document doesn't say it can.
        assert (await api.http.get(f"/v1/messages/{ids[0]}")).status_code == 404
        assert "get" not in (await api.get("/openapi.json"))["paths"]["/v1/messages"]

    run(use, broker=url, policy={"max_attempts": 2, "backoff": 0.2})


def test_a_lease_on_a_broker_runs_out(url: str) -> None:
    async def use(api: Client) -> None:
        await api.create()
        first = await api.claim(lease=60)
        await api.tell(first, "extend", lease_seconds=0.2)  # from now on
        second = await api.claim(lease=0.2, wait=20)
        assert second["messages"][0]["attempts"] == 2
        await api.tell(first, "complete", 409)
        async with asyncio.timeout(20):
            while not (dead := (await api.get("/v1/dead"))["messages"]):
                await asyncio.sleep(0.1)
        assert "lease ran out" in dead[0]["error"]

    run(use, broker=url, policy={"max_attempts": 2})


def test_the_broker_takes_back_what_a_lost_api_had_claimed(url: str, broker: Broker) -> None:
    async def lose(api: Client) -> None:
        await api.create(2)
        assert len((await api.claim(2))["messages"]) == 2

    async def find(api: Client) -> Any:
        return await api.claim(2, wait=20)

    run(lose, broker=url)
    found = run(find, broker=url)
    assert len(found["messages"]) >= 1
    assert found["messages"][0]["payload"]["recipient"] == LETTER["recipient"]


def test_a_file_comes_in_whole(url: str, tmp_path: Path) -> None:
    path = book(tmp_path / "many.xlsx", letters(2_500))

    async def use(api: Client) -> None:
        status, told = await api.upload(path)
        assert (status, told["files"][0]["rows"]) == (201, 2_500)
        claimed = await api.claim(500)
        assert [each["row"] for each in claimed["messages"]] == [*range(2, 502)]
        assert claimed["messages"][0]["upload"] == "many.xlsx"
        with connected(url) as channel:
            assert ready(channel, "http_queue") == 2_000
            channel.queue_delete("http_queue")
        status, _ = await api.upload(path)  # there is no queue to take it
        assert status == 503

    run(use, broker=url)


# --- What the app did not write ----------------------------------------------


def put(url: str, body: Any, queue: str = "http_queue", **properties: Any) -> None:
    """Publish as somebody else would."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with connected(url) as channel:
        channel.basic_publish("", queue, raw, BasicProperties(**properties), mandatory=True)


FINE = {"message_id": "a" * 32}
FOREIGN: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no id": (LETTER, {}, "no id of ours"),
    "an id of another kind": (LETTER, {"message_id": "17"}, "no id of ours"),
    "an id and more": (LETTER, {"message_id": "a" * 32 + "\n"}, "no id of ours"),
    "not text": (b"\xff\x00", FINE, "Invalid JSON"),
    "nothing": (b"", FINE, "Invalid JSON"),
    "half of it": (b'{"recipient": "ann"', FINE, "Invalid JSON"),
    "a list": ([1], FINE, "object"),
    "a number": (1, FINE, "object"),
    "null": (None, FINE, "object"),
    "too deep": (b"[" * 100_000, FINE, "Invalid JSON"),
    "half a sign": (b'{"recipient": "\\ud800", "text": "a"}', FINE, "Invalid JSON"),
    "a field too many": ({**LETTER, "colour": "red"}, FINE, "colour"),
    "a field missing": ({"recipient": "ann"}, FINE, "text: Field required"),
    "a text for a number": ({**LETTER, "copies": "2"}, FINE, "copies"),
    "neither id nor text": (b"\xff\x00", {}, "no id of ours"),
}


def test_what_others_put_in_is_dead_and_the_rest_is_claimed(url: str) -> None:
    async def use(api: Client) -> None:
        ids = []
        for body, properties, _ in FOREIGN.values():
            put(url, body, **properties)
            ids += await api.create()
        claimed = await api.claim(2)
        found = [each["id"] for each in claimed["messages"]]
        assert found == ids[:2]
        rest = await api.claim(100)
        assert [each["id"] for each in rest["messages"]] == ids[2:]
        dead = []
        for _ in range(2):  # looking changes nothing
            dead = (await api.get("/v1/dead"))["messages"]
            assert len(dead) == len(FOREIGN)
            for each, (_, _, reason) in zip(dead, FOREIGN.values(), strict=True):
                assert reason in each["error"]
        assert dead[3]["payload"] == {"body": "\\xff\x00"}
        assert dead[-1]["payload"] == {"body": "\\xff\x00"}
        # The first lacked an id only, and has one now.
        assert await api.post(f"/v1/dead/{dead[0]['id']}/requeue") == {"requeued": 1}
        (mended,) = (await api.claim(10))["messages"]
        assert (mended["id"], mended["payload"]) == (dead[0]["id"], LETTER)
        # All others are the same as before; of two it was only the id.
        left = await api.post("/v1/dead/requeue")
        assert left == {"requeued": len(FOREIGN) - 1}
        mended = (await api.claim(10))["messages"]
        assert [each["payload"] for each in mended] == [LETTER] * 2
        assert len((await api.get("/v1/dead"))["messages"]) == len(FOREIGN) - 3

    run(use, broker=url)


def test_what_others_put_among_the_dead_is_shown(url: str) -> None:
    async def use(api: Client) -> None:
        put(url, b"\xff\x00", "http_queue.dead")
        put(url, b'{"a": NaN}', "http_queue.dead", headers={"x-error": 17})
        (first, second) = (await api.get("/v1/dead"))["messages"]
        assert (first["payload"], first["error"]) == ({"body": "\\xff\x00"}, None)
        assert second["payload"] == {"body": '{"a": NaN}'}
        for each in (first, second):
            assert await api.post(f"/v1/dead/{each['id']}/requeue") == {"requeued": 1}
        assert (await api.claim(5))["messages"] == []

    run(use, broker=url)


def test_headers_of_others_mean_nothing(url: str) -> None:
    odd = {
        "CC": ["http_queue"],
        "BCC": ["http_queue"],
        "created_at": "yesterday",
        "upload": 17,
        "row": True,
        "x-attempts": -7,
        "x-error": "e" * 5_000,
        "more": "x" * 50_000,
    }

    async def use(api: Client) -> None:
        await api.create()
        first = await api.claim()
        # Published without CC, which the broker would follow; and as guest.
        plain = {key: value for key, value in odd.items() if key not in ("CC", "BCC")}
        put(url, LETTER, headers=plain, message_id="b" * 32, user_id="guest", priority=9)
        claimed = await api.claim()
        (message,) = claimed["messages"]
        assert (message["id"], message["attempts"]) == ("b" * 32, 1)
        assert (message["upload"], message["row"], message["created_at"]) == (None,) * 3
        told = await api.tell(claimed, "fail", reason="no")
        assert told["retry_in_seconds"] == 0.1
        again = await api.claim(wait=20)
        assert again["messages"][0]["attempts"] == 2
        await api.tell(again, "fail", reason="no", retry=False)
        with connected(url) as channel:
            _, properties, _ = channel.basic_get("http_queue.dead")
            assert properties is not None
            kept = set(properties.headers or {})
            assert kept <= {"x-error", "x-attempts", "x-delivery-count"}
            assert (properties.user_id, properties.expiration) == (None, None)
        await api.tell(first, "complete")

    run(use, broker=url, policy={"backoff": 0.1})


@pytest.mark.parametrize("at", [2**32, 9223372036854775, 2**63 - 1, 2**64 - 1])
def test_a_time_that_no_calendar_has_harms_nobody(
    url: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Java's last millisecond, in the year 292278994, and others as odd."""
    now = datetime.now(UTC)

    async def use(api: Client) -> None:
        with monkeypatch.context() as patched:
            patched.setattr("pika.data.calendar.timegm", lambda _: at)
            put(url, LETTER, timestamp=at, headers={"when": now, "in": [now]}, **FINE)
        put(url, b"\xff", timestamp=at)
        (id,) = await api.create()
        claimed = await api.claim(5, wait=20)
        assert [each["id"] for each in claimed["messages"]] == [FINE["message_id"], id]
        assert (await api.counts())["dead"] == 1
        assert len((await api.get("/v1/dead"))["messages"]) == 1
        await api.tell(claimed, "fail", reason="no", retry=False)
        assert await api.post("/v1/dead/requeue") == {"requeued": 2}

    run(use, broker=url)


def test_two_of_one_id_are_two_messages(url: str) -> None:
    async def use(api: Client) -> None:
        for n in (1, 2):
            put(url, {**LETTER, "text": f"Letter {n}"}, **FINE)
        claimed = await api.claim(5)
        assert {each["payload"]["text"] for each in claimed["messages"]} == {
            "Letter 1",
            "Letter 2",
        }
        ids = [each["id"] for each in claimed["messages"]]
        assert len({*ids}) == 2
        body = {"token": claimed["token"], "ids": ids}
        assert (await api.post("/v1/completions", body))["refused"] == []

    run(use, broker=url)


def test_a_claim_that_fails_halfway_keeps_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = module("broker_queue").BrokerQueue

    async def use(api: Client) -> None:
        ids = await api.create(3)
        get, calls = queues._get, []

        async def broken(self: Any, name: str) -> Any:
            calls.append(name)
            if len(calls) == 3:
                raise OSError("gone")
            return await get(self, name)

        with monkeypatch.context() as patched:
            patched.setattr(queues, "_get", broken)
            assert (await api.http.post("/v1/claims", json={"count": 3})).status_code == 503
        found = await asyncio.wait_for(api.claim(3, wait=20), 30)
        async with asyncio.timeout(30):
            while len(found["messages"]) < 3:
                found["messages"] += (await api.claim(3))["messages"]
        assert sorted(each["id"] for each in found["messages"]) == ids

    run(use, broker=url)
