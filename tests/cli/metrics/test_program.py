"""Metrics of the installed program: over HTTP, over the control socket, and scraped by Prometheus itself."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.cli.running import LIMIT_S, Instance, connect, talk
from tests.ports import steady_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import RunEsockd

pytestmark = pytest.mark.timeout(240)


def fetch(port: int, path: str) -> tuple[int, str]:
    """Ask for a path; give status and body."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)) as client:
        client.request("GET", path)
        answer = client.getresponse()
        return answer.status, answer.read().decode()


def values(text: str) -> dict[str, float]:
    """The sum of each metric over its labels."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_the_program_serves_its_metrics_until_its_last_connection_has_ended(
    loop: str, workers: tuple[str, ...]
) -> None:
    port = steady_port()
    given = ("echo", "127.0.0.1:0", "--loop", loop, "--metrics", f":{port}", "--shutdown-timeout", "60s")
    with Instance(*given, *workers) as instance:
        instance.read_port()
        instance.read_log_until(f"metrics on http://127.0.0.1:{port}/metrics")
        assert fetch(port, "/readyz") == (200, "ok\n")
        with connect(instance.port) as client:
            assert talk(client, b"hello") == b"hello"
            written = instance.run("metrics").out
            assert values(written)["esockd_accepts_total"] == 1
            assert instance.run("metrics", "--json").json["metrics"].startswith("# HELP ")
            instance.process.send_signal(signal.SIGTERM)
            instance.read_log_until("closing")
            deadline = time.monotonic() + LIMIT_S
            while (ready := fetch(port, "/readyz")) != (503, "draining\n"):
                assert time.monotonic() < deadline, ready
                time.sleep(0.05)
            scraped = values(fetch(port, "/metrics")[1])
            assert scraped["esockd_connections_active"] == 1
            assert scraped["esockd_transferred_bytes_total"] == 10
            assert fetch(port, "/healthz")[0] == 200
        assert instance.wait().status == 0


def test_metrics_of_a_configuration_are_served_where_it_says(tmp_path: Path) -> None:
    port = steady_port()
    file = tmp_path / "edge.toml"
    text = '[esockd]\nmetrics = ":{}"\n[listeners.edge]\nhandler = "echo"\nlisten = "127.0.0.1:0"\n'
    file.write_text(text.format(port))
    with Instance(str(file), command="run") as instance:
        instance.read_port()
        instance.read_log_until("metrics on ")
        assert 'listener="edge"' in fetch(port, "/metrics")[1]
        assert instance.run("check", str(file)).status == 0
        file.write_text(text.format("udp://*:9100").replace(":udp", "udp"))
        wrong = instance.run("check", str(file))
        assert wrong.status == 1
        assert "edge.toml:2: " in wrong.err
        assert "without TLS" in wrong.err


def test_an_address_that_cannot_be_opened_is_told_before_anybody_is_served(esockd: RunEsockd) -> None:
    with Instance("echo", "127.0.0.1:0") as other:
        port = other.read_port()
        status, out, err = esockd("open", "echo", "127.0.0.1:0", "--metrics", f"127.0.0.1:{port}")
        assert (status, out) == (3, "")
        assert f"127.0.0.1:{port} is already in use" in err
        status, _, err = esockd("open", "echo", "127.0.0.1:0", "--metrics", "udp://9100")
        assert status == 2
        assert err.startswith("error: --metrics udp://9100: ")


def test_prometheus_scrapes_the_program(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    prometheus, promtool = require_tool("prometheus"), require_tool("promtool")
    port, own = steady_port(), steady_port()
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "esockd", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [
        prometheus,
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{own}",
        "--log.level=error",
    ]
    with (
        Instance("echo", "127.0.0.1:0", "--metrics", f":{port}") as instance,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as scraper,
    ):
        try:
            instance.read_port()
            instance.read_log_until("metrics on ")
            with connect(instance.port) as client:
                assert talk(client, b"hello") == b"hello"
            text = fetch(port, "/metrics")[1]
            checked = subprocess.run(
                [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
            )
            assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
            deadline = time.monotonic() + 60
            while not (found := ask_prometheus(own, "esockd_accepts_total == 1")):
                assert time.monotonic() < deadline
                assert scraper.poll() is None
                time.sleep(0.2)
            assert found[0]["metric"]["listener"] == "echo"
            assert found[0]["metric"]["transport"] == "tcp"
        finally:
            scraper.terminate()


def ask_prometheus(port: int, query: str) -> list[Any]:
    """The answer of Prometheus to a query; nothing while it is not there yet."""
    try:
        status, body = fetch(port, f"/api/v1/query?query={query.replace(' ', '%20')}")
    except OSError:
        return []
    return json.loads(body)["data"]["result"] if status == 200 else []
