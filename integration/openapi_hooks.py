"""Hooks of schemathesis: requests about things that exist, and checks of every answer.

KNOWN is a JSON object with values for parameters by name. Most requests get known values, so that they
reach further than to an error 404; the others keep what schemathesis has generated.
"""

import json
import os
import zlib

import schemathesis

KNOWN = json.loads(os.environ["KNOWN"])

# Codes of a nimbus that cannot answer at present; everything else from 500 on is a defect.
UNAVAILABLE = {"no_leader", "not_ready"}


def with_known(parameters, share):
    """Replaces values by known ones; which ones depends on the values alone, so that a run can be repeated."""
    for name, value in list((parameters or {}).items()):
        draw = zlib.crc32(repr((name, value)).encode("utf-8", "surrogatepass"))
        if name in KNOWN and draw % 100 < share:
            parameters[name] = KNOWN[name][draw // 100 % len(KNOWN[name])]
    return parameters


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    return with_known(path_parameters, 75)


@schemathesis.hook
def map_query(context, query):
    return with_known(query, 50)


@schemathesis.serializer("application/msgpack")
def as_bytes(context, value):
    """Returns a body of some bytes for the operations whose bodies are no JSON."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@schemathesis.check
def error_says_what_is_wrong(context, response, case):
    """Every error has a code and a message, and none is an error of the server but that of no leader."""
    if response.status_code < 400 or case.method.upper() == "HEAD":
        return
    body = json.loads(response.content)
    assert isinstance(body.get("code"), str) and body["code"], f"an error without a code: {body}"
    assert isinstance(body.get("message"), str) and body["message"], f"an error without a message: {body}"
    if response.status_code >= 500:
        assert body["code"] in UNAVAILABLE, f"an error of the server: {body}"
    if response.status_code == 405:
        assert response.headers.get("allow"), "405 without the header Allow"
