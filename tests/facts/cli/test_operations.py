"""The files of docs/operations.md and the Dockerfile, read as their programs read them."""

import configparser
import re
import shlex
from pathlib import Path

import pytest
import yaml

import veridical
from veridical.cli.main import app

ROOT = Path(veridical.__file__).parent
PAGE = ROOT / "docs" / "operations.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs are in the repository, not in the installed package")


def block(mark: str, language: str) -> str:
    return PAGE.read_text("utf-8").split(f"<!-- {mark} -->\n```{language}\n")[1].split("\n```")[0]


def options(command: str) -> set[str]:
    """The long options that a command of veridical has."""
    import typer

    found = typer.main.get_command(app).commands[command].params
    return {name for one in found for name in (*one.opts, *one.secondary_opts)}


def test_the_compose_file_has_a_server_with_its_database_a_worker_and_volumes_that_exist():
    services = (compose := yaml.safe_load(block("compose", "yaml")))["services"]
    assert {"database", "server", "worker"} <= set(services)
    for name, service in services.items():
        assert "image" in service or "build" in service
        tag = service["image"].partition(":")[2]
        assert tag, f"{name} names no version"
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services
            assert how["condition"] != "service_healthy" or "healthcheck" in services[needed]
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source.startswith(("/", "./")) or source in compose["volumes"], volume
    assert "@database:5432/" in services["server"]["environment"]["PREFECT_API_DATABASE_CONNECTION_URL"]
    assert services["worker"]["environment"]["PREFECT_API_URL"] == "http://server:4200/api"
    assert all(port.startswith("127.0.0.1:") for one in services.values() for port in one.get("ports", []))
    assert services["deploy"]["environment"] == services["worker"]["environment"]


def test_no_password_stands_in_the_compose_file():
    text = block("compose", "yaml")
    for line in re.findall(r".*(?:PASSWORD|AUTH).*", text):
        assert re.search(r"\$\{\w+:\?set it in \.env\}", line), line


def test_what_the_compose_file_deploys_is_in_prefect_yaml_and_goes_to_the_workers_pool():
    services = yaml.safe_load(block("compose", "yaml"))["services"]
    name = shlex.split(services["deploy"]["command"])[-1]
    [one] = [d for d in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"] if d["name"] == name]
    assert one["work_pool"]["name"] in services["worker"]["command"]


def test_the_systemd_unit_starts_a_command_that_exists_and_ends_as_it_should():
    unit = configparser.ConfigParser(delimiters=("=",), comment_prefixes=("#",), strict=True, interpolation=None)
    unit.optionxform = str
    unit.read_string(block("systemd", "ini").replace("\\\n", " "))
    service = unit["Service"]
    words = shlex.split(service["ExecStart"])
    assert words[0].endswith("/bin/veridical")
    named = {word for word in words if word.startswith("--")}
    assert named <= options(words[1])
    assert service["RestartPreventExitStatus"] == "2"
    out = words[words.index("--out") + 1]
    assert f"{out}/summary.json" in service["ExecCondition"]
    writable = service["ReadWritePaths"].split()
    for option in ("--out", "--log-file", "--metrics-file", "--heartbeat-file"):
        assert any(words[words.index(option) + 1].startswith(f"{folder}/") for folder in writable), option
    assert unit["Install"]["WantedBy"] == "multi-user.target"


def test_the_image_has_a_pinned_base_a_user_of_its_own_and_a_health_check():
    text = (ROOT / "Dockerfile").read_text("utf-8")
    assert re.search(r"^FROM python:3\.\d+\.\d+-slim-\w+$", text, re.M)
    user = re.search(r"^USER (\d+)$", text, re.M)
    assert user
    assert int(user[1]) >= 1000
    assert f"--uid {user[1]}" in text
    assert text.index("\nUSER") > text.index("\nRUN")
    assert re.search(r"^HEALTHCHECK .*\\\n +CMD ", text, re.M)
