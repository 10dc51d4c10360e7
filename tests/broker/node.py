"""A private node of an installed rabbitmq-server."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from broker import certificates, reaper
from broker.base import LOOPBACK, NO_BUSY_WAIT, BrokerError, OwnedBroker, Place, say

PROGRAMS = ("rabbitmqctl",)
MORE_PROGRAMS = tuple(f"rabbitmq-{each}" for each in ("queues", "streams", "upgrade", "plugins"))


class PrivateNode(OwnedBroker):
    """An installed rabbitmq-server, run as this user in a folder of its own."""

    def __init__(
        self, port: int | None = None, tls: bool = False, place: Place | None = None
    ) -> None:
        super().__init__("a private node of the installed rabbitmq-server", port, False, tls)
        programs = installed_programs()
        assert programs
        epmd_port, distribution_port = self.more_ports
        node = f"{self.tag}@localhost"
        self.place = place
        if place:
            epmd_port, node = place.epmd_port, place.node
        conf = self.folder / "rabbitmq.conf"
        conf.write_text(
            f"listeners.tcp.1 = {LOOPBACK}:{self.port}\n"
            f"management.tcp.ip = {LOOPBACK}\n"
            f"management.tcp.port = {self.api_port}\n"
            # The default of 50 MB can exceed what a small /tmp has left.
            "disk_free_limit.absolute = 1MB\n"
            + f"listeners.ssl.1 = {LOOPBACK}:{self.tls_port}\n" * tls
            + certificates.SETTINGS.format(folder=self.folder / "tls") * tls
            + (place.configuration if place else "")
        )
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (self.folder / "empty.conf").touch()
        private = {
            "HOME": str(self.folder),  # the Erlang cookie is made there
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
        }
        if place:
            private["ERL_INETRC"] = str(self.folder / "hosts")
            hosts = ", ".join(f'"{each.host}"' for each in place.all)
            text = f"{{lookup, [file, native]}}.\n{{host, {{127,0,0,1}}, [{hosts}]}}.\n"
            (self.folder / "hosts").write_text(text)
            cookie = self.folder / ".erlang.cookie"
            cookie.write_text(place.tag)
            cookie.chmod(0o400)
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("RABBITMQ_")},
            **private,
            reaper.TAG_VARIABLE: self.tag,
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "empty.conf"),
            "RABBITMQ_CONFIG_FILE": str(conf),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"{NO_BUSY_WAIT} -kernel inet_dist_use_interface {{127,0,0,1}}"
            ),
        }
        self._server = programs["rabbitmq-server"]
        settings = [f"{name}={value}" for name, value in private.items()]
        for name in (*PROGRAMS, *(MORE_PROGRAMS if place else ())):
            there = Path(programs["rabbitmqctl"]).with_name(name)
            command = shlex.join(["env", *settings, str(there), "-n", node])
            program = self.folder / name
            # Without its standard input, as in Docker: it would swallow what the
            # reader types meanwhile.
            program.write_text(f'#!/bin/sh\nexec {command} "$@" </dev/null\n')
            program.chmod(0o755)
        self.rabbitmqctl = (self.program("rabbitmqctl"),)
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._server],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def check_alive(self) -> None:
        if self._process and self._process.poll() is not None:
            output = (self.folder / "output").read_text(errors="replace")
            raise BrokerError(
                f"rabbitmq-server ended with status {self._process.returncode}:\n"
                + "\n".join(output.splitlines()[-15:])
            )

    def kill(self) -> None:
        # The first node's epmd is that of all nodes of a cluster.
        reaper.kill_processes(self.tag, spared="epmd" if self.place else "")
        self.wait_stopped()

    def _signal(self, number: signal.Signals) -> None:
        for process in reaper.processes(self.tag):
            if not reaper.named(process, "epmd"):
                process.send_signal(number)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    # Without rights on the network: it takes the others' cookie for a wrong one.
    def cut(self) -> None:
        self._cookie("cut", "erlang:disconnect_node(N)")

    def heal(self) -> None:
        assert self.place
        self._cookie(self.place.tag, "net_kernel:connect_node(N)")

    def _cookie(self, cookie: str, then: str) -> None:
        assert self.place
        others = ",".join(f"'{each.node}'" for each in self.place.all if each != self.place)
        each = f"begin erlang:set_cookie(N, '{cookie}'), {then} end"
        self.ctl("eval", f"[{each} || N <- [{others}]].")

    def program(self, name: str) -> str:
        return str(self.folder / name)

    def wait_stopped(self) -> None:
        if self._process:
            self._process.wait(timeout=60)

    def close(self) -> None:
        super().close()
        self.wait_stopped()


def installed_programs() -> dict[str, str] | None:
    """Where rabbitmq-server and rabbitmqctl are; None where they aren't.

    Debian's /usr/sbin/rabbitmq-server is a wrapper that only root and the user
    rabbitmq may run; the programs behind it work for everybody.
    """
    behind = "/usr/lib/rabbitmq/bin"
    path = os.pathsep.join([behind, os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
    found = {name: shutil.which(name, path=path) for name in ("rabbitmq-server", "rabbitmqctl")}
    return {name: place for name, place in found.items() if place} if all(found.values()) else None


def can_install() -> bool:
    return os.geteuid() == 0 and bool(shutil.which("apt-get"))


def install_from_debian(*packages: str) -> None:
    """Install Debian's packages without starting their services.

    Raises BrokerError where apt-get fails.
    """
    say(f"Installing Debian's {' '.join(packages)} with apt-get (services stay off) …")
    policy = Path("/usr/sbin/policy-rc.d")  # Debian's way to say "start nothing"
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-q", "--no-install-recommends"]
        for command in (["apt-get", "update", "-q"], [*install, *packages]):
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
            if done.returncode:
                tail = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
                raise BrokerError(f"{shlex.join(command)} failed:\n{tail}")
    finally:
        if ours:
            policy.unlink(missing_ok=True)
