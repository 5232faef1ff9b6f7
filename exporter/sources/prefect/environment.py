"""The settings of a source that the variables of Prefect's own client make, by the rules of that client."""

import base64
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError

from exporter.settings.reader import ConfigError

_HEADERS: Final = TypeAdapter(dict[str, str], config=ConfigDict(hide_input_in_errors=True))
_BOOLEAN: Final = TypeAdapter(bool)


def settings(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings for Prefect; the auth string is sent even if a key is set too. Raises `ConfigError`."""
    headers = _custom_headers(variables.get("PREFECT_CLIENT_CUSTOM_HEADERS", "{}"))
    found: dict[str, Any] = {
        "url": variables["PREFECT_API_URL"],
        "http_headers": {name: {"secrets": [value]} for name, value in headers.items()},
    }
    if ui_url := variables.get("PREFECT_UI_URL"):
        found["ui_url"] = ui_url
    if auth_string := variables.get("PREFECT_API_AUTH_STRING"):
        username, colon, password = auth_string.partition(":")
        if colon:
            found["basic_auth"] = {"username": username, "password": password}
        else:  # Prefect's client sends it as it is
            try:
                encoded = base64.b64encode(auth_string.encode()).decode()
            except UnicodeEncodeError:
                mistake = "environment: PREFECT_API_AUTH_STRING: has a character that is not Unicode"
                raise ConfigError([mistake]) from None
            found["authorization"] = {"type": "Basic", "credentials": encoded}
    elif key := variables.get("PREFECT_API_KEY"):
        found["authorization"] = {"credentials": key}
    if _is_set(variables, "PREFECT_API_TLS_INSECURE_SKIP_VERIFY"):
        found["tls_config"] = {"insecure_skip_verify": True}
    elif file := variables.get("PREFECT_API_SSL_CERT_FILE"):
        found["tls_config"] = {"ca_file": file}
    return found


def _custom_headers(text: str) -> dict[str, str]:
    try:
        return _HEADERS.validate_json(text)
    except ValidationError:
        mistake = 'is not a JSON object of texts, like {"X-Name": "value"}'
        raise ConfigError([f"environment: PREFECT_CLIENT_CUSTOM_HEADERS: {mistake}"]) from None


def _is_set(variables: Mapping[str, str], name: str) -> bool:
    try:
        return _BOOLEAN.validate_python(variables.get(name, "false"))
    except ValidationError:
        raise ConfigError([f"environment: {name}: is neither true nor false"]) from None
