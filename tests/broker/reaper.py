"""Clean up behind a throwaway broker, however its owner ended.

The owner starts this process before anything else exists and holds the other
end of its standard input. When that closes (the owner is done, was interrupted
or was killed with SIGKILL) everything that carries the broker's tag goes: the
container of that name, the processes with the tag in their environment, the
folder. There is no second way to clean up, so the one there is gets used, and
tested, at every run.

Testcontainers' own reaper does the same for containers only, and is an image
that has to be pulled first.
"""

import shutil
import signal
import sys
import time

import psutil

TAG_VARIABLE = "RABBITMQ_BY_EXAMPLE_TAG"


def processes(tag: str) -> list[psutil.Process]:
    """The processes of this user that inherited the tag, this one excepted."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TAG_VARIABLE) == tag:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    own = psutil.Process()
    return [process for process in found if process != own]


def named(process: psutil.Process, name: str) -> bool:
    try:
        return process.name() == name
    except psutil.Error:
        return False


def kill_processes(tag: str, spared: str = "") -> None:
    """SIGKILL them all, and those they started meanwhile; none of the name `spared`."""
    for _ in range(50):
        if not (running := [each for each in processes(tag) if not named(each, spared)]):
            return
        for process in running:
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(running, timeout=2)


def remove_container(name: str, patience: float = 5) -> None:
    """Remove a container and its anonymous volume.

    For `patience` seconds also one that the engine is still creating.
    """
    import docker
    import docker.errors

    client = docker.from_env(timeout=60)
    deadline = time.monotonic() + patience
    while True:
        try:
            client.containers.get(name).remove(force=True, v=True)
            return
        except docker.errors.NotFound:
            if time.monotonic() > deadline:
                return
        except docker.errors.APIError:  # "removal is already in progress"
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def remove_network(name: str, patience: float = 20) -> None:
    """Remove a network as soon as no container is in it; another reaper may be first."""
    import docker
    import docker.errors

    client = docker.from_env(timeout=60)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            client.networks.get(name).remove()
            return
        except docker.errors.NotFound:
            return
        except docker.errors.APIError:  # others are still in it
            time.sleep(0.2)


def main(tag: str, folder: str, container: str = "", network: str = "") -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    print("ready", flush=True)
    sys.stdin.read()
    if container:
        remove_container(container)
    if network:
        remove_network(network)
    kill_processes(tag)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
