"""A broker in a container, through testcontainers."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import closing
from typing import Any

import requests

from broker import certificates
from broker.base import LOOPBACK, NO_BUSY_WAIT, BrokerError, OwnedBroker, Place, say

DEFAULT_IMAGE = "rabbitmq:4.3-management"
ENABLED_PLUGINS = "/etc/rabbitmq/enabled_plugins"  # both in official and Debian's images


class DockerBroker(OwnedBroker):
    """A container, through testcontainers."""

    def __init__(
        self,
        image: str,
        port: int | None = None,
        lean: bool = False,
        tls: bool = False,
        place: Place | None = None,
    ) -> None:
        super().__init__(f"{image} in Docker", port, True, tls, place)
        self.place = place
        # Set before the import, which reads them. Loopback, not the bridge's
        # address; our own reaper, not an image that may not be had.
        os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
        os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", LOOPBACK)
        os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
        from testcontainers.community.rabbitmq import RabbitMqContainer

        self._container = RabbitMqContainer(image).with_name(self.tag)
        self._container.with_env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", NO_BUSY_WAIT)
        if lean:
            self._container.with_tmpfs_mount("/in-memory", "mode=1777")
            self._container.with_env("RABBITMQ_MNESIA_BASE", "/in-memory")
            self._container.with_env("RABBITMQ_LOG", "error")
        if place:
            conf = self.folder / "20-cluster.conf"
            conf.write_text(place.configuration)
            target = "/etc/rabbitmq/conf.d/20-cluster.conf"
            self._container.with_volume_mapping(str(conf), target, "ro")
            self._container.with_kwargs(hostname=place.host)
            self._container.with_env("RABBITMQ_NODENAME", place.node)
            self._container.with_env("RABBITMQ_ERLANG_COOKIE", place.tag)
        # A fixed port is the same after a restart, which a random one is not.
        ports: dict[str, Any] = self._container.ports
        ports.clear()
        ports["5672/tcp"] = (LOOPBACK, self.port)
        ports["15672/tcp"] = (LOOPBACK, self.api_port)
        if tls:
            ports["5671/tcp"] = (LOOPBACK, self.tls_port)
            # Copied, for an engine that does not see our files.
            inside = "/etc/rabbitmq/tls"
            for name in certificates.FILES:
                self._container.with_copy_into_container(
                    self.folder / "tls" / name, f"{inside}/{name}"
                )
            settings = f"listeners.ssl.1 = 5671\n{certificates.SETTINGS.format(folder=inside)}"
            self._container.with_copy_into_container(
                settings.encode(), "/etc/rabbitmq/conf.d/20-tls.conf"
            )
        self.rabbitmqctl = ("docker", "exec", self.tag, "rabbitmqctl")

    def launch(self) -> None:
        # RabbitMqContainer.start() would wait in its own way; `start` here
        # waits for the first start and for every restart alike.
        from docker.errors import APIError
        from testcontainers.core.container import DockerContainer

        try:
            if self._container._container:
                self._container.get_wrapped_container().start()
            else:
                DockerContainer.start(self._container)
                if self.place:
                    self.heal()  # it looks for the others in a moment
        except APIError as error:
            raise BrokerError(f"Docker cannot start {self.title}: {error.explanation}") from None

    def check_alive(self) -> None:
        container = self._container.get_wrapped_container()
        container.reload()
        if container.status not in ("created", "running", "restarting"):
            tail = container.logs(tail=15).decode(errors="replace")
            raise BrokerError(f"{self.title} ended ({container.status}):\n{tail}")

    def wait_for_api(self) -> None:
        container = self._container.get_wrapped_container()
        # Both the official and Debian's packages ship the plugin. Where it is on, it
        # may be a moment behind AMQP, and to enable it again is long work.
        enable = "rabbitmq-plugins enable rabbitmq_management"
        container.exec_run(["sh", "-c", f"grep -q management {ENABLED_PLUGINS} || {enable}"])
        super().wait_for_api()

    def pause(self) -> None:
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        self._container.get_wrapped_container().unpause()

    # Its clients come through Docker's bridge, and go on.
    def cut(self) -> None:
        assert self.place
        with closing(docker_engine()) as engine:
            engine.networks.get(self.place.tag).disconnect(self.tag)

    def heal(self) -> None:
        assert self.place
        with closing(docker_engine()) as engine:
            engine.networks.get(self.place.tag).connect(self.tag, aliases=[self.place.host])

    def program(self, name: str) -> str:
        return shlex.join(("docker", "exec", self.tag, name))

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()
        self.wait_stopped()

    def wait_stopped(self) -> None:
        self._container.get_wrapped_container().wait(timeout=60)


def docker_engine() -> Any:
    import docker

    return docker.from_env(timeout=60)


def docker_trouble(image: str, pull: bool = True) -> str:
    """Why no container of that image can be started; empty when one can."""
    import docker
    import docker.errors

    try:
        client = docker.from_env(timeout=300)
        client.ping()
    except (docker.errors.DockerException, OSError):
        return "no Docker engine answers"
    with closing(client):
        try:
            client.images.get(image)
            return ""
        except docker.errors.ImageNotFound:
            if not pull:
                return f"Docker has no image {image} yet"
        say(f"Pulling {image} …")
        try:
            client.images.pull(image)
        except (docker.errors.DockerException, requests.RequestException) as error:
            reason = str(getattr(error, "explanation", None) or error)
            if re.search("dial tcp|Client.Timeout|context deadline", reason):
                reason = "no registry answers"
            return f"Docker cannot get the image {image} ({reason})"
    return ""
