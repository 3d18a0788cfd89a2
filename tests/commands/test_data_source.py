from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from reaugkd.commands import data_source as datasource
from reaugkd.runtime.data import Columns


@pytest.mark.parametrize("name", ["glue", "stanfordnlp/sst2", "org/data.v2", "a-b_c"])
def test_ids_of_the_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not datasource.is_local(name)
    (tmp_path / name).mkdir(parents=True)
    assert datasource.is_local(name)  # what is there wins


@pytest.mark.parametrize("name", ["rows.csv", "a/rows.TSV", "./data", "../data", "/data", "a/b/c", "~/data"])
def test_paths_by_their_looks(name: str) -> None:
    assert datasource.is_local(name)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "")  # so that it is restored, whatever is done to it
        monkeypatch.delenv(name)
    return monkeypatch


def asked(monkeypatch: pytest.MonkeyPatch, reachable: bool) -> list[object]:
    hosts: list[object] = []

    def look_up(host: object, port: int) -> None:
        hosts.append(host)
        if not reachable:
            raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return hosts


def test_without_a_network_the_hub_is_not_tried(environment: pytest.MonkeyPatch) -> None:
    hosts = asked(environment, reachable=False)
    datasource.go_offline_if_unreachable("org/name", "/a/path")
    assert hosts == ["huggingface.co"] and os.environ["HF_HUB_OFFLINE"] == "1"


def test_with_a_network_it_is(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HF_ENDPOINT", "https://mirror.example:8443/hf")
    hosts = asked(environment, reachable=True)
    datasource.go_offline_if_unreachable("org/name")
    assert hosts == ["mirror.example"] and "HF_HUB_OFFLINE" not in os.environ


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "https_proxy", "ALL_PROXY", None])
def test_the_users_settings_are_kept(environment: pytest.MonkeyPatch, variable: str | None) -> None:
    hosts = asked(environment, reachable=False)
    if variable is not None:
        environment.setenv(variable, "0")
    datasource.go_offline_if_unreachable("/a/path" if variable is None else "org/name")
    assert hosts == [] and os.environ.get("HF_HUB_OFFLINE") == ("0" if variable == "HF_HUB_OFFLINE" else None)


def test_texts_of_a_file_stop_somewhere_and_bad_rows_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasource, "_MAX_TEXTS", 4)
    (tmp_path / "in.txt").write_text("a\n\nb\nc\nd\n")
    assert datasource.load_texts(str(tmp_path / "in.txt"), None, Columns(), False)[0] == ["a", "b", "c"]
    said = f"note: {tmp_path / 'in.txt'}: 1 of 4 rows left out, which have no usable text\n"
    assert capsys.readouterr().err == said
