"""A workload that uses the SPIFFE library for Python. One JSON object per line on stdout.

    client.py x509                 the SVIDs and bundles now
    client.py watch COUNT          the same at once and after each change, COUNT times
    client.py jwt AUDIENCE         a token of each identity, validated by the agent and by the library
    client.py validate AUDIENCE    the token on stdin, validated by the agent

SPIFFE_ENDPOINT_SOCKET names the socket. Exit code 1 with {"error": …} when the answer is no.
"""

import json
import queue
import sys

from spiffe import JwtSource, WorkloadApiClient
from spiffe.svid.jwt_svid import JwtSvid

DEADLINE = 60


def say(**fields):
    print(json.dumps(fields), flush=True)


def context(found):
    def shown(svid):
        return {
            "id": str(svid.spiffe_id),
            "serial": format(svid.leaf.serial_number, "x"),
            "chain": len(svid.cert_chain),
        }

    bundles = {
        str(bundle.trust_domain): len(bundle.x509_authorities)
        for bundle in found.x509_bundle_set.bundles
    }
    say(svids=[shown(svid) for svid in found.x509_svids], bundles=bundles)


def x509(client):
    context(client.fetch_x509_context(timeout=DEADLINE))
    client.fetch_x509_bundles(timeout=DEADLINE)


def watch(client, count):
    found = queue.Queue()
    handler = client.stream_x509_contexts(found.put, found.put, retry_connect=True)
    for _ in range(int(count)):
        update = found.get(timeout=DEADLINE)
        if isinstance(update, Exception):
            raise update
        context(update)
    handler.cancel()


def jwt(client, audience):
    bundles = client.fetch_jwt_bundles(timeout=DEADLINE)
    tokens = client.fetch_jwt_svids({audience}, timeout=DEADLINE)
    validated = []
    for svid in tokens:
        by_agent = client.validate_jwt_svid(svid.token, audience, timeout=DEADLINE)
        bundle = bundles.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
        by_library = JwtSvid.parse_and_validate(svid.token, bundle, {audience})
        assert by_agent.spiffe_id == by_library.spiffe_id == svid.spiffe_id
        validated.append(str(by_library.spiffe_id))
    with JwtSource(timeout_in_seconds=DEADLINE) as source:
        assert source.fetch_svid({audience}).spiffe_id == tokens[0].spiffe_id
    say(
        tokens=[
            {"id": str(svid.spiffe_id), "audience": sorted(svid.audience), "token": svid.token}
            for svid in tokens
        ],
        validated=validated,
        bundles={
            str(bundle.trust_domain): len(bundle.jwt_authorities) for bundle in bundles.bundles
        },
    )


def validate(client, audience):
    token = sys.stdin.read().strip()
    say(id=str(client.validate_jwt_svid(token, audience, timeout=DEADLINE).spiffe_id))


def main():
    verb, *arguments = sys.argv[1:]
    verbs = {"x509": x509, "watch": watch, "jwt": jwt, "validate": validate}
    try:
        with WorkloadApiClient(default_timeout=DEADLINE) as client:
            verbs[verb](client, *arguments)
    except Exception as error:  # whatever it is, the test wants to read it
        say(error=f"{type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
