"""Makes keys and request tokens with PyJWT, as an issuer that others wrote would, and prints them as JSON:
a key set, and tokens by name. Algorithms are those a proxy has to take, and some that it must not."""

import json
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://issuer.test"


def main():
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": "alice", "aud": ["shop"], "iat": now, "exp": now + 600, "groups": ["ops", "dev"]}
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    p256 = ec.generate_private_key(ec.SECP256R1())
    p384 = ec.generate_private_key(ec.SECP384R1())
    p521 = ec.generate_private_key(ec.SECP521R1())
    okp = ed25519.Ed25519PrivateKey.generate()
    keys = []

    def publish(kid, algorithm, key):
        keys.append({**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"})

    publish("rsa", RSAAlgorithm, rsa_key)
    publish("p256", ECAlgorithm, p256)
    publish("p384", ECAlgorithm, p384)
    publish("p521", ECAlgorithm, p521)
    publish("okp", OKPAlgorithm, okp)
    good, bad = {}, {}
    for name in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]:
        good[name] = jwt.encode(claims, rsa_key, name, {"kid": "rsa"})
    good["ES256"] = jwt.encode(claims, p256, "ES256", {"kid": "p256"})
    good["ES384"] = jwt.encode(claims, p384, "ES384", {"kid": "p384"})
    good["EdDSA"] = jwt.encode(claims, okp, "EdDSA", {"kid": "okp"})
    good["no_kid"] = jwt.encode(claims, p256, "ES256")
    bad["ES512"] = jwt.encode(claims, p521, "ES512", {"kid": "p521"})
    bad["none"] = jwt.encode(claims, None, "none", {"kid": "rsa"})
    bad["HS256"] = jwt.encode(claims, keys[0]["n"], "HS256", {"kid": "rsa"})
    bad["other_key"] = jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": "p256"})
    bad["unknown_kid"] = jwt.encode(claims, p256, "ES256", {"kid": "p257"})
    bad["audience"] = jwt.encode({**claims, "aud": "mall"}, p256, "ES256", {"kid": "p256"})
    bad["issuer"] = jwt.encode({**claims, "iss": ISSUER + "/"}, p256, "ES256", {"kid": "p256"})
    bad["expired"] = jwt.encode({**claims, "exp": now - 61}, p256, "ES256", {"kid": "p256"})
    bad["early"] = jwt.encode({**claims, "nbf": now + 300}, p256, "ES256", {"kid": "p256"})
    print(json.dumps({"jwks": {"keys": keys}, "good": good, "bad": bad}))


main()
