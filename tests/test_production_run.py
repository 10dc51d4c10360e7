"""What docs/production-run.rst says, and the files that start and test a worker."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from broker import Broker
from conftest import Starter, poll
from pika.adapters.blocking_connection import BlockingChannel
from shells.chapters import CLIENTS, EXAMPLES, figure, page, said
from test_production_copy import WORKER
from test_production_observe import Observed

CHAPTER = "production-worker"
DEPLOY = EXAMPLES / CHAPTER / "deploy"
TEXT = page("production-run").read_text(encoding="utf-8")
SOURCE = (EXAMPLES / CHAPTER / "pika" / WORKER).read_text(encoding="utf-8")
# What worker.py reads from its environment; a number has its default.
SETTINGS = {*re.findall(r'(?:environ\.get|number)\(\s*"([A-Z_]+)"', SOURCE)}
STOP_WITHIN = re.search(r'number\("STOP_WITHIN", (\d+)\)', SOURCE)


def documents(name: str) -> list[dict[str, Any]]:
    return [*yaml.safe_load_all((DEPLOY / name).read_text())]


def patient(grace: str | int, environment: dict[str, str]) -> None:
    """Who stops it waits for its deadline and five seconds, as the page says."""
    assert STOP_WITHIN
    assert {*environment} <= SETTINGS
    stop_within = int(environment.get("STOP_WITHIN", STOP_WITHIN[1]))
    seconds = int(f"{grace}".removesuffix("s"))
    assert seconds >= stop_within + 5
    assert f"{seconds}" == said("production-run", r"each of these files waits for (\d+) s")
    assert f"{stop_within}" == said("production-run", r"``STOP_WITHIN`` seconds \((\d+)\)")


# --- systemd ------------------------------------------------------------------------


def unit() -> dict[str, list[str]]:
    """By name, the values of the unit's settings."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "worker@.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_systemd_knows_every_word_of_the_unit(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze")
    (program,) = {value.split()[0] for value in unit()["ExecStart"]}
    copy = tmp_path / "worker@1.service"
    text = (DEPLOY / "worker@.service").read_text()
    copy.write_text(text.replace(program, sys.executable))  # it looks whether it is there
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_fits_the_worker() -> None:
    found = unit()
    environment = dict(value.split("=", 1) for value in found["Environment"])
    patient(found["TimeoutStopSec"][0], environment)
    assert environment["HTTP_PORT"] == "800%i"
    assert "ports 8001 and 8002" in " ".join(TEXT.split())
    assert found["ExecStart"] == [f"{found['WorkingDirectory'][0]}/.venv/bin/python {WORKER}"]
    assert (found["Restart"], found["StartLimitIntervalSec"]) == (["always"], ["0"])
    later = figure("production-run", r"has to be there (\w+) second later")
    assert found["RestartSec"] == [f"{later}"]
    system = Path("/etc/systemd/system.conf")  # with the defaults, as comments
    if system.exists() and (
        burst := re.search(r"^#DefaultStartLimitBurst=(\d+)", system.read_text(), re.M)
    ):
        interval = re.search(r"^#DefaultStartLimitIntervalSec=(\d+)s", system.read_text(), re.M)
        assert interval
        assert int(burst[1]) == figure("production-run", r"started (\w+) times in")
        assert int(interval[1]) == figure("production-run", r"times in (\w+) seconds")
    # The one folder that it may write to is where its database is.
    (state,) = found["StateDirectory"]
    assert environment["DATABASE"].startswith(f"/var/lib/{state}/")


# --- Compose ------------------------------------------------------------------------


def test_compose_has_every_word_in_its_schema() -> None:
    vendored = "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads((resources.files("check_jsonschema") / vendored).read_text())
    (made,) = documents("compose.yaml")
    jsonschema.validate(made, schema)
    if "Docker Compose" in subprocess.getoutput("docker compose version"):
        command = ["docker", "compose", "-f", DEPLOY / "compose.yaml", "config", "--quiet"]
        assert subprocess.run(command).returncode == 0


def test_compose_fits_the_worker() -> None:
    (made,) = documents("compose.yaml")
    worker, first = made["services"]["worker"], made["services"]["queues"]
    patient(worker["stop_grace_period"], worker["environment"])
    assert worker["restart"] == "always"
    assert f"{worker['deploy']['replicas']}" == "2"
    assert "Two workers start" in TEXT
    assert "container_name" not in worker  # else there can be one only
    assert "ports" not in worker
    for service in made["services"].values():
        for name in service.get("depends_on", {}):
            assert name in made["services"]
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in made["volumes"]
    (mounted,) = (each.partition(":")[2] for each in worker["volumes"])
    assert worker["environment"]["DATABASE"].startswith(f"{mounted}/")
    for client in CLIENTS:
        assert (EXAMPLES / CHAPTER / client / first["command"][1]).exists()
        folder = EXAMPLES / CHAPTER / client
        assert (folder / worker["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


def test_the_image_has_what_the_worker_needs() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = re.search(r"^COPY (.*) \./$", text, re.MULTILINE)
    installed = re.search(r"pip install --no-cache-dir (.*)$", text, re.MULTILINE)
    assert copied
    assert installed
    assert {WORKER, "handler.py", "declare_queues.py"} == set(copied[1].split())
    assert {*CLIENTS, "prometheus-client"} == set(installed[1].split())
    assert json.loads(re.findall(r"^CMD (.*)$", text, re.MULTILINE)[0]) == ["python", WORKER]
    assert "USER nobody" in text
    (made,) = documents("compose.yaml")
    (mounted,) = (x.partition(":")[2] for x in made["services"]["worker"]["volumes"])
    assert f"install -d -o nobody {mounted}\n" in text


def test_compose_asks_what_the_worker_answers(
    start: Starter, client: str, payments: BlockingChannel, tmp_path: Path
) -> None:
    """Its health check, run as it runs there."""
    (made,) = documents("compose.yaml")
    service = made["services"]["worker"]
    worker = Observed(
        partial(start, CHAPTER), client, name=WORKER, DATABASE=f"{tmp_path}/own.sqlite3"
    )
    kind, program, *words = service["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    port = service["environment"]["HTTP_PORT"]
    here = [word.replace(f"localhost:{port}/", f"localhost:{worker.port}/") for word in words]
    assert here != words

    def status() -> int:
        return subprocess.run([sys.executable, *here], capture_output=True).returncode

    poll(status, 0)
    payments.queue_delete("payments")
    poll(status, 1)


# --- Kubernetes -----------------------------------------------------------------------


def test_kubernetes_has_every_word_in_its_schemas() -> None:
    found = documents("kubernetes.yaml")
    assert [each["kind"] for each in found] == ["Deployment", "PersistentVolumeClaim"]
    for each in found:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_keda_has_every_word_in_its_schemas() -> None:
    # Two seconds of processor time, which each of the processes would take at its start.
    from cloudcoil.models.keda import v1alpha1 as keda

    scaled, trigger = documents("keda.yaml")
    keda.ScaledObject.model_validate(scaled, extra="forbid")
    keda.TriggerAuthentication.model_validate(trigger, extra="forbid")


def test_kubernetes_fits_the_worker(start: Starter, client: str, url: str, tmp_path: Path) -> None:
    deployment, claim = documents("kubernetes.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    patient(pod["terminationGracePeriodSeconds"], environment)
    (port,) = container["ports"]
    assert f"{port['containerPort']}" == environment["HTTP_PORT"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    (volume,), (mount,) = pod["volumes"], container["volumeMounts"]
    assert volume["name"] == mount["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert environment["DATABASE"].startswith(f"{mount['mountPath']}/")
    live, ready = (container[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness"))
    assert (live["path"], ready["path"]) == ("/live", "/ready")
    assert {live["port"], ready["port"]} == {port["name"]}
    probe = container["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 30
    assert "# No for half a minute: a new process." in (DEPLOY / "kubernetes.yaml").read_text()
    # The worker answers there, and where Prometheus is sent to.
    scrape = deployment["spec"]["template"]["metadata"]["annotations"]
    assert scrape["prometheus.io/port"] == environment["HTTP_PORT"]
    with_no_queues = {"AMQP_URLS": "amqp://guest:guest@127.0.0.1:9/"}
    worker = Observed(
        partial(start, CHAPTER),
        client,
        name=WORKER,
        DATABASE=f"{tmp_path}/own.sqlite3",
        **with_no_queues,
    )
    worker.becomes(live["path"], 200)
    assert worker.ask(ready["path"])[0] == 503
    assert "worker_ready" in worker.ask(scrape["prometheus.io/path"])[1]


def test_keda_scales_that_deployment_by_the_queue_that_it_consumes() -> None:
    scaled, trigger = documents("keda.yaml")
    deployment, _ = documents("kubernetes.yaml")
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]  # else each apply would undo what KEDA has done
    (rule,) = scaled["spec"]["triggers"]
    assert (rule["type"], rule["metadata"]["mode"]) == ("rabbitmq", "QueueLength")
    default = re.search(r'environ\.get\("QUEUE"\) or "(\w+)"', SOURCE)
    assert default
    assert rule["metadata"]["queueName"] == default[1]
    assert rule["authenticationRef"]["name"] == trigger["metadata"]["name"]
    (secret,) = trigger["spec"]["secretTargetRef"]
    (source,) = deployment["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert secret["name"] == source["secretRef"]["name"]
    assert secret["key"] in SETTINGS
    assert scaled["spec"]["minReplicaCount"] > 0  # what is in hand does not count, on AMQP
    least, most = scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]
    comment = (DEPLOY / "keda.yaml").read_text().splitlines()[0]
    assert f"each {rule['metadata']['value']} messages, {least} to {most}." in comment


# --- The example of a test ----------------------------------------------------------------


@pytest.fixture
def example(tmp_path: Path, client: str) -> Path:
    """A copy of the folder that a test may change."""
    return shutil.copytree(EXAMPLES / CHAPTER / client, tmp_path / client)


def pytest_in(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the example as a reader does."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PYTHON", "AMQP"))}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "test_worker.py"]
    return subprocess.run(
        command, cwd=folder, env={**own, **environment}, capture_output=True, text=True
    )


def test_the_example_passes(example: Path, url: str) -> None:
    done = pytest_in(example, AMQP_URL=url)
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


@pytest.mark.parametrize("client", ["pika"])
def test_the_example_passes_with_a_container_of_its_own(example: Path, broker: Broker) -> None:
    if "in Docker" not in broker.title:
        pytest.skip("there is no Docker")
    image = broker.title.removesuffix(" in Docker")
    loopback = {
        "TESTCONTAINERS_RYUK_DISABLED": "true",
        "TESTCONTAINERS_CONNECTION_MODE": "docker_host",
        "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
    }
    done = pytest_in(example, RABBITMQ_IMAGE=image, **loopback)
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


@pytest.mark.parametrize(
    ("client", "name", "old", "new"),
    [
        ("pika", WORKER, "VALUES (?, datetime())", "VALUES (? || random(), datetime())"),
        ("aio-pika", "handler.py", "balance + excluded.balance", "excluded.balance"),
        ("aio-pika", WORKER, "signal.SIGTERM", "signal.SIGUSR1"),
    ],
)
def test_the_example_fails_when_the_worker_is_broken(
    example: Path, url: str, name: str, old: str, new: str
) -> None:
    text = (example / name).read_text()
    assert old in text
    (example / name).unlink()
    (example / name).write_text(text.replace(old, new))
    test = (example / "test_worker.py").read_text()
    assert "monotonic() + 60" in test
    (example / "test_worker.py").write_text(test.replace("monotonic() + 60", "monotonic() + 20"))
    done = pytest_in(example, AMQP_URL=url)
    assert done.returncode == 1, done.stdout
