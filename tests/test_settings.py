"""Settings: where they come from, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.options import sources_of
from pipeline.errors import SettingsError
from pipeline.serve.listening import tls_context
from pipeline.settings import load_settings, read_secret


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_a_secret_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_text("let-me-in\n")
    file.chmod(mode)
    for read in (read_secret, lambda file: tls_context(file, file)):
        with pytest.raises(SettingsError, match=f"{file}: found rights {mode:o}, .* chmod go-w"):
            read(file)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o440])
def test_a_secret_that_others_may_at_most_read_is_taken(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_text("let-me-in\n")
    file.chmod(mode)
    assert read_secret(file) == "let-me-in"


def test_a_secret_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the secret cannot be read"):
        read_secret(tmp_path / "none")


def test_an_unknown_setting_is_refused_with_the_nearest_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "g.toml"
    file.write_text('seal_evry = 60\nnonsense = "secret"\n')
    with pytest.raises(SettingsError) as error:
        load_settings(file)
    assert str(error.value) == (
        f"{file}: nonsense: no such setting; seal_evry: no such setting; did you mean seal_every?; "
        "docs/settings.md has them all"
    )
    monkeypatch.setenv("GIGAWATCH_SASL_PASSWORD", "let-me-in")
    with pytest.raises(
        SettingsError, match="GIGAWATCH_SASL_PASSWORD: no such setting; did you mean GIGAWATCH_SASL_"
    ):
        load_settings()


def test_what_is_no_setting_of_ours_is_let_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "GIGAWATCH_LOG_LEVEL", "GIGAWATCH_SERVICE_HOST", "GIGAWATCH_SERVICE_PORT_BOARD", "GIGAWATCH_PORT",
        "GIGAWATCH_PORT_8420_TCP_ADDR", "GIGAWATCH_DOOR_SERVICE_PORT", "GIGAWATCHED", "gigawatch_keys",
    ):  # fmt: skip
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("gigawatch_seal_every", "7")
    assert load_settings().seal_every == 7


def test_a_source_on_the_command_line_is_one_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "g.toml"
    file.write_text(
        '[[sources]]\ntopic = "otlp"\nformat = "otlp_proto"\nmapping = ["dcgm", "kueue"]\n'
        'constants = { provider = "halcyon", region = "eu-west" }\nfrom_label = { sku = "modelName" }\n'
    )
    text = (
        "topic=otlp, format=otlp_proto,mapping=dcgm,mapping=kueue,provider=halcyon,constants.region=eu-west,"
        "from_label.sku=modelName"
    )
    assert load_settings(sources=sources_of([text])).sources == load_settings(file).sources
    assert load_settings(file, sources=sources_of(None)).sources[0].topic == "otlp"
    given = load_settings(file, sources=sources_of(["topic=a,format=vector,mapping=dcgm"]))
    assert [source.topic for source in given.sources] == ["a"], "the command line counts before the file"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("otlp", "found 'otlp', expected NAME=VALUE"),
        ("topic=otlp,format=", "found 'format=', expected NAME=VALUE"),
        ("format=vector", "found no topic, expected topic=NAME,format=FORMAT"),
        ("region=eu", "found no topic and no format, expected topic=NAME,format=FORMAT"),
        ("topic=a,topic=b,format=vector", "found topic twice, expected it once"),
        (
            "topic=a,format=vector,where.label=x",
            "found 'where.label', expected constants.NAME or from_label.NAME",
        ),
        ("topic=a,format=vector,constants.=x", "found 'constants.=x', expected NAME=VALUE"),
    ],
)
def test_a_wrong_source_on_the_command_line_is_told_with_its_text(text: str, told: str) -> None:
    with pytest.raises(SettingsError) as error:
        sources_of([text])
    assert f"--source {text!r}: {told}" in str(error.value)
