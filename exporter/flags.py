"""The flags of the command, with the names that every exporter gives them where it has them too."""

import argparse
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from exporter import __version__, logs
from exporter.config import ABOUT
from exporter.output import say
from exporter.shard import WHOLE, Shard

DEFAULT_PORT: Final = 10099


class _Once(argparse.Action):
    """Store the value of a flag, or True of one without, and refuse it a second time.

    argparse itself drops the first value without an error.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002  as argparse calls it
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        given = vars(namespace).setdefault("given", set())
        if self.dest in given:
            raise argparse.ArgumentError(self, "may be given only once")
        given.add(self.dest)
        setattr(namespace, self.dest, True if self.nargs == 0 else values)


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        say(message, file or sys.stderr, end="")


def _shard(text: str) -> Shard:
    match = re.fullmatch(r"([0-9]{1,3})/([0-9]{1,3})", text)
    if not match or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} must have the form I/N: 0/3, 1/3 and 2/3 for three exporters")
    return Shard(int(match[1]), int(match[2]))


_TITLES: Final = [about.title for about in ABOUT.values()]


def _listed(words: Sequence[str], last: str = "and") -> str:
    return f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _variables() -> list[str]:
    """For each system the variable that makes a source, with those that have its credentials."""
    found = []
    for first, *others in (about.environment for about in ABOUT.values() if about.environment):
        credentials = [one.name for one in others if one.key in {"authorization", "basic_auth"}]
        found.append(f"{first.name} (with {_listed(credentials, 'or')})" if credentials else first.name)
    return found


def parser() -> argparse.ArgumentParser:
    """The flags; those of the Prometheus ecosystem have the names that every exporter gives them."""
    parser = _Parser(
        prog="concurrency-exporter",
        description=f"Prometheus exporter for concurrency slots and task queues of {_listed(_TITLES)}.",
        epilog=f"Without --config.file, {_listed(_variables())} each define a source.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=100),
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__} (Python {platform.python_version()})"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--config.file", action=_Once, dest="config_file", type=Path, metavar="FILE", help="configuration file in YAML"
    )
    source.add_argument(
        "--demo",
        action=_Once,
        nargs=0,
        default=False,
        help="poll a built-in demo of Prefect and cloro instead of real servers",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--config.check",
        dest="config_check",
        action=_Once,
        nargs=0,
        default=False,
        help="check the configuration files and list every error; exit status 0 if there is none, 1 otherwise",
    )
    mode.add_argument(
        "--dry-run",
        dest="dry_run",
        action=_Once,
        nargs=0,
        default=False,
        help="poll every source once and print the queues, why their tasks wait, the cost and the failures; exit"
        " status 0 if every source was read completely, 1 otherwise",
    )
    parser.add_argument(
        "--holders",
        action=_Once,
        nargs=0,
        default=False,
        help="with --dry-run, also print the tasks that hold slots by name, of each queue the oldest first",
    )
    parser.add_argument(
        "--shard",
        action=_Once,
        type=_shard,
        default=WHOLE,
        metavar="I/N",
        help="run as shard I of N, counting from 0: the N exporters divide the queues, pools and limits among them",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--web.listen-address",
        action="append",
        dest="web_listen_address",
        metavar="HOST:PORT",
        help=f"address to serve on; may be repeated; an empty HOST means all addresses (default: :{DEFAULT_PORT})",
    )
    where.add_argument(
        "--web.systemd-socket",
        action=_Once,
        nargs=0,
        default=False,
        dest="web_systemd_socket",
        help="serve on the sockets of a systemd socket unit",
    )
    parser.add_argument(
        "--web.external-url",
        action=_Once,
        dest="web_external_url",
        metavar="URL",
        help="URL at which a proxy presents the exporter; its path is the default of --web.route-prefix",
    )
    parser.add_argument(
        "--web.route-prefix",
        action=_Once,
        dest="web_route_prefix",
        metavar="PATH",
        help="path below which everything is served; / if a proxy removes the path of --web.external-url",
    )
    parser.add_argument(
        "--web.config.file",
        action=_Once,
        dest="web_config_file",
        type=Path,
        metavar="FILE",
        help="TLS, users, headers and rate limit of the web server: a file in the format of the Prometheus exporter"
        " toolkit",
    )
    parser.add_argument(
        "--web.enable-lifecycle",
        dest="web_enable_lifecycle",
        action=_Once,
        nargs=0,
        default=False,
        help="reload the configuration on POST /-/reload; SIGHUP always does",
    )
    parser.add_argument(
        "--log.level",
        action=_Once,
        dest="log_level",
        choices=logs.LEVELS,
        default="info",
        help="lowest level to log (default: %(default)s)",
    )
    parser.add_argument(
        "--log.format",
        action=_Once,
        dest="log_format",
        choices=("logfmt", "json"),
        default="logfmt",
        help="format of the log lines (default: %(default)s)",
    )
    return parser
