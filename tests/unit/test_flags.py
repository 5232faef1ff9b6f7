"""Flags of the command: what is not accepted, and what is said of it."""

import argparse

import pytest

from exporter.flags import parser


@pytest.mark.parametrize(
    "flags",
    [
        *(["--nonsense"], ["--log.level=loud"], ["--demo", "--config.file=x.yml"], ["--config.che"], ["extra"]),
        ["--web.systemd-socket", "--web.listen-address=:1"],
    ],
    ids=" ".join,
)
def test_a_bad_flag(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parser().parse_args(flags)
    assert raised.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("concurrency-exporter: error: ")


VALUES = {"URL": "http://a", "PATH": "/a", "I/N": "0/1", "FILE": "x.yml", "HOST:PORT": ":1"}


@pytest.mark.parametrize(
    "action", [one for one in parser()._actions if one.dest not in {"help", "version"}], ids=lambda one: one.dest
)
def test_a_flag_that_is_given_twice(action: argparse.Action, capsys: pytest.CaptureFixture[str]) -> None:
    """Also with one value twice, and with that of the default. Only addresses may be several."""
    (name,) = action.option_strings
    values = [""] if action.nargs == 0 else [f"={one}" for one in action.choices or [VALUES[str(action.metavar)]]]
    for first, second in ((values[0], values[-1]), (values[-1], values[-1])):
        if action.dest == "web_listen_address":
            assert len(parser().parse_args([name + first, name + second]).web_listen_address) == 2
            continue
        with pytest.raises(SystemExit) as raised:
            parser().parse_args([name + first, name + second])
        assert raised.value.code == 2
        said = f"concurrency-exporter: error: argument {name}: may be given only once"
        assert capsys.readouterr().err.splitlines()[-1] == said


@pytest.mark.parametrize("shard", ["3/3", "1", "1/", "/2", "-1/2", "0/0", "1/2/3", "a/b", "0/1000", " 0/2", "0/٢"])
def test_a_bad_shard(shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parser().parse_args([f"--shard={shard}"])
    assert raised.value.code == 2
    said = f"argument --shard: {shard!r} must have the form I/N: 0/3, 1/3 and 2/3 for three exporters"
    assert capsys.readouterr().err.splitlines()[-1] == f"concurrency-exporter: error: {said}"
