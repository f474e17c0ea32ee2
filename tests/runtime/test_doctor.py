from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from pacl.runtime import doctor


def _install_fake_torchvision(site: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (site / "torchvision").mkdir()
    (site / "torchvision" / "__init__.py").write_text(source)
    info = site / "torchvision-0.99.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99.0\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))


def _fact(name: str) -> doctor.Fact:
    return next(fact for fact in doctor.examine() if fact.name == name)


def test_every_fact_is_complete_and_silent(capfd: pytest.CaptureFixture[str]) -> None:
    facts = doctor.examine()
    assert capfd.readouterr() == ("", "")
    names = [fact.name for fact in facts]
    assert len(names) == len(set(names))
    assert {"python", "torch", "transformers", "cpu", "gpu", "bfloat16", "torchvision"} <= set(
        names
    )
    assert {"storybook model", "model hub"} <= set(names)
    for fact in facts:
        assert fact.value
        assert (fact.status == "ok") == (fact.fix == ""), fact


def test_this_environment_can_run() -> None:
    assert [fact for fact in doctor.examine() if fact.status == "fail"] == []


def test_mismatched_torchvision_is_named_with_its_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "operator torchvision::nms does not exist"
    _install_fake_torchvision(tmp_path, monkeypatch, f"raise RuntimeError({message!r})\n")
    fact = _fact("torchvision")
    assert fact.status == "warn"
    assert "0.99.0" in fact.value
    assert message in fact.value
    assert metadata.version("torch") in fact.value
    assert "pip uninstall -y torchvision" in fact.fix
    assert "torchvision" not in sys.modules


def test_timm_without_torchvision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torchvision": None, "timm": "1.0.31"}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, "1"))
    fact = _fact("torchvision")
    assert fact.status == "warn"
    assert "timm needs it" in fact.value


def test_torchvision_that_imports_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install_fake_torchvision(tmp_path, monkeypatch, "")
    assert _fact("torchvision") == doctor.Fact("torchvision", "ok", "0.99.0")


def test_missing_package_fails_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_CORE", ("torch", "surely-not-installed"))
    fact = _fact("surely-not-installed")
    assert fact.status == "fail"
    assert fact.fix == "pip install surely-not-installed"


def test_embedded_model_is_found_or_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_EMBEDDED", (tmp_path / "none", tmp_path))
    assert _fact("storybook model").status == "warn"
    (tmp_path / "config.json").write_text("{}")
    assert _fact("storybook model") == doctor.Fact("storybook model", "ok", str(tmp_path))


def test_hub_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "offline" in _fact("model hub").value
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "allowed" in _fact("model hub").value
