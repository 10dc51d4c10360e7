"""What docs/cluster-beyond.rst promises of a shovel. Its transcripts do the rest."""

from __future__ import annotations

import json

import pika
from broker.cluster import Cluster
from conftest import connected, poll, ready
from shells.chapters import EXAMPLES, said
from test_cluster import run

SHOVEL = json.loads((EXAMPLES / "cluster/shovel.json").read_text())
FEW, MANY = 5, 20


def test_a_shovel_keeps_what_the_other_side_does_not_take(cluster: Cluster) -> None:
    """Nothing is acked here before it is confirmed there, and keys go with it."""
    assert run(cluster, 1, "rabbitmq-plugins", "enable", "rabbitmq_shovel").returncode == 0
    api = cluster.node(1)
    api.call_api("PUT", "vhosts/east")
    here, there = cluster.urls[0], f"{cluster.urls[0]}east"
    kept: dict[str, str | int] = {"x-queue-type": "quorum"}
    if [int(part) for part in cluster.version.split(".")[:2]] < [4, 3]:
        kept["x-delivery-limit"] = int(said("cluster-beyond", r"an ``x-delivery-limit`` of (-\d)"))
    full = {"x-max-length": FEW, "x-overflow": "reject-publish"}
    with connected(here) as source, connected(there) as target:
        source.queue_declare(SHOVEL["src-queue"], durable=True, arguments=kept)
        target.queue_declare(SHOVEL["dest-queue"], durable=True, arguments=full)
        for number in range(MANY):
            its = pika.BasicProperties(message_id=str(number), delivery_mode=2)
            source.basic_publish("", SHOVEL["src-queue"], b"alice 5", its, mandatory=True)
        api.call_api("PUT", "parameters/shovel/east/from-west", {"value": SHOVEL})
        poll(lambda: ready(target, SHOVEL["dest-queue"]), FEW)
        arrived: set[str | None] = set()

        def take() -> int:
            method, properties, _ = target.basic_get(SHOVEL["dest-queue"], auto_ack=True)
            if method and properties:
                arrived.add(properties.message_id)
            return len(arrived)

        poll(take, MANY)
        assert arrived == {str(number) for number in range(MANY)}
        poll(lambda: ready(source, SHOVEL["src-queue"]), 0)
