"""One target under atheris: started by `python -m tests.fuzz` with the target's name and libFuzzer's arguments."""

import sys

import atheris

WATCHED = ["exporter", "h11", "ruamel", "uvicorn"]
"""What is watched for new ground: our code, and the libraries that read for us."""

# httpcore tries to import it for each lock that it takes; that it is not there is found out faster so.
sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]

with atheris.instrument_imports(include=WATCHED):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
