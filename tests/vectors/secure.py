#!/usr/bin/python3
"""Writes secure.json: a handshake of each form with every secret fixed, its keys, and datagrams, by docs/WIRE.md, the Noise
specification (revision 34) and FIPS 203, with other code than the worker's."""

import hashlib
import hmac
import json
import pathlib
import struct

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305


def public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def dh(private, other):
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))


def blake(data):
    return hashlib.blake2s(data).digest()


def noise_hkdf(key, data, outputs):
    secret, out, last = hmac.digest(key, data, "blake2s"), [], b""
    for number in range(1, outputs + 1):
        last = hmac.digest(secret, last + bytes([number]), "blake2s")
        out.append(last)
    return out


def extract(salt, secret):
    return hmac.digest(salt, secret, "sha256")


def expand(secret, info):
    return hmac.digest(secret, info + b"\x01", "sha256")


class Noise:
    def __init__(self, prologue, responder):
        self.h = self.ck = blake(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
        self.mix_hash(prologue)
        self.mix_hash(responder)

    def mix_hash(self, data):
        self.h = blake(self.h + data)

    def mix_key(self, data):
        self.ck, self.k = noise_hkdf(self.ck, data, 2)
        self.n = 0

    def mix_key_and_hash(self, data):
        self.ck, middle, self.k = noise_hkdf(self.ck, data, 3)
        self.n = 0
        self.mix_hash(middle)

    def seal(self, plain):
        sealed = ChaCha20Poly1305(self.k).encrypt(bytes(4) + struct.pack("<Q", self.n), plain, self.h)
        self.n += 1
        self.mix_hash(sealed)
        return sealed

    def ephemeral(self, e):
        self.mix_hash(public(e))
        self.mix_key(public(e))
        return public(e)


def siphash(key, message):
    """SipHash-2-4 (Aumasson and Bernstein 2012)."""
    words = struct.unpack("<2Q", key)
    v = [word ^ words[at % 2] for at, word in enumerate(struct.unpack(">4Q", b"somepseudorandomlygeneratedbytes"))]

    def turn(word, count):
        return (word << count | word >> 64 - count) & (1 << 64) - 1

    def rounds(count):
        for _ in range(count):
            for a, b, c, d, first, second in (0, 1, 2, 3, 13, 16), (2, 1, 0, 3, 17, 21):
                v[a] = v[a] + v[b] & (1 << 64) - 1
                v[c] = v[c] + v[d] & (1 << 64) - 1
                v[b] = turn(v[b], first) ^ v[a]
                v[d] = turn(v[d], second) ^ v[c]
                v[a] = turn(v[a], 32)

    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) % 256])
    for word, in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return struct.pack("<Q", v[0] ^ v[1] ^ v[2] ^ v[3])


# ML-KEM-768 (FIPS 203), as its algorithms are numbered there. Polynomials are lists of 256 numbers modulo Q.
Q, K = 3329, 3
ZETAS = [pow(17, int(f"{number:07b}"[::-1], 2), Q) for number in range(128)]


def bits(data):
    return [byte >> place & 1 for byte in data for place in range(8)]


def encode(values, width):  # 5
    number = sum(value << width * at for at, value in enumerate(values))
    return number.to_bytes(32 * width, "little")


def compress(values, width):  # 4.7
    return [((value << width) + Q // 2) // Q % (1 << width) for value in values]


def uniform(seed, column, row):  # 7
    stream, out, at = hashlib.shake_128(seed + bytes([column, row])).digest(3 * 700), [], 0
    while len(out) < 256:
        a, b, c = stream[at : at + 3]
        out += [d for d in (a + 256 * (b % 16), b // 16 + 16 * c) if d < Q]
        at += 3
    return out[:256]


def small(seed, number):  # 8, with eta = 2
    b = bits(hashlib.shake_256(seed + bytes([number])).digest(128))
    return [(b[4 * i] + b[4 * i + 1] - b[4 * i + 2] - b[4 * i + 3]) % Q for i in range(256)]


def transform(f):  # 9
    f, number, length = f[:], 1, 128
    while length >= 2:
        for start in range(0, 256, 2 * length):
            zeta, number = ZETAS[number], number + 1
            for j in range(start, start + length):
                f[j], f[j + length] = (f[j] + zeta * f[j + length]) % Q, (f[j] - zeta * f[j + length]) % Q
        length //= 2
    return f


def back(f):  # 10
    f, number, length = f[:], 127, 2
    while length <= 128:
        for start in range(0, 256, 2 * length):
            zeta, number = ZETAS[number], number - 1
            for j in range(start, start + length):
                f[j], f[j + length] = (f[j] + f[j + length]) % Q, zeta * (f[j + length] - f[j]) % Q
        length *= 2
    return [value * 3303 % Q for value in f]


def times(f, g):  # 11
    out = []
    for i in range(128):
        (a, b), (c, d) = f[2 * i : 2 * i + 2], g[2 * i : 2 * i + 2]
        gamma = pow(17, 2 * int(f"{i:07b}"[::-1], 2) + 1, Q)
        out += [(a * c + b * d * gamma) % Q, (a * d + b * c) % Q]
    return out


def plus(*all):
    return [sum(values) % Q for values in zip(*all)]


def kem_keys(d, z):  # 13 and 16: the public key, and the private one
    rho, sigma = (lambda g: (g[:32], g[32:]))(hashlib.sha3_512(d + bytes([K])).digest())
    s = [transform(small(sigma, number)) for number in range(K)]
    e = [transform(small(sigma, K + number)) for number in range(K)]
    t = [plus(*(times(uniform(rho, j, i), s[j]) for j in range(K)), e[i]) for i in range(K)]
    key = b"".join(encode(poly, 12) for poly in t) + rho
    return key, b"".join(encode(poly, 12) for poly in s) + key + hashlib.sha3_256(key).digest() + z, t, rho


def encapsulate(key, t, rho, m):  # 14 and 17: the ciphertext and the secret
    secret, r = (lambda g: (g[:32], g[32:]))(hashlib.sha3_512(m + hashlib.sha3_256(key).digest()).digest())
    y = [transform(small(r, number)) for number in range(K)]
    u = [
        plus(back(plus(*(times(uniform(rho, i, j), y[j]) for j in range(K)))), small(r, K + i)) for i in range(K)
    ]
    message = [bit * ((Q + 1) // 2) for bit in bits(m)]
    v = plus(back(plus(*(times(t[j], y[j]) for j in range(K)))), small(r, 2 * K), message)
    return b"".join(encode(compress(poly, 10), 10) for poly in u) + encode(compress(v, 4), 4), secret


def macs(message, receiver):
    message += siphash(hashlib.sha256(b"ethudp mac0" + receiver + shared + tunnel).digest()[:16], message[:32])
    mac2 = b"ethudp mac2" + receiver + shared + tunnel + psk
    for label, length in (b"ethudp mac1" + receiver, 8), (mac2, 16):
        message += hmac.digest(hashlib.sha256(label).digest(), message, "sha256")[:length]
    return message


i, r, ei, er = (bytes([byte]) * 32 for byte in (1, 2, 0x40, 0x60))
psk, tunnel, d, z, m = b"\x05" * 32, b"tunnel 1", b"\x0a" * 32, b"\x0b" * 32, b"\x0c" * 32
initiator, responder, for_initiations, timestamp = 0x11223344, 0x55667788, 17 << 20, 1700000000000000007
shared = dh(i, public(r))
kem_public, kem_private, t, rho = kem_keys(d, z)
ciphertext, kem_secret = encapsulate(kem_public, t, rho, m)
features = bytes(4)


def kem_message(kind, receiver, key, body):
    head = bytes([kind, 1, 0, 0]) + struct.pack(">I", receiver)
    return head + ChaCha20Poly1305(key).encrypt(bytes(12), body, head)


def session(cipher, aead, secret):
    agreed = bytes([cipher]) + struct.pack(">II", initiator, responder)
    to_responder = expand(secret, b"ethudp data 1 initiator" + agreed)
    frame = bytes(range(20))
    contents = {
        "frame": bytes(4) + frame,
        "frame with a checksum to complete": bytes([0, 6, 0, 34]) + bytes(42) + bytes(range(20)),
        "bundle": bytes([1, 0, 0, 0]) + 2 * (struct.pack(">H", 24) + bytes(4) + frame),
        "fragment": bytes([2, 0]) + struct.pack(">HHHI", 64, 70, 0, 1) + bytes(64),
        "ping": bytes([3, 0, 0, 0]) + b"12345678" + struct.pack(">II", 7, 9),
        "pong": bytes([4, 0, 0, 0]) + b"12345678" + struct.pack(">II", 7, 9),
        "probe": bytes([5, 0]) + struct.pack(">H", 144) + b"12345678" + bytes(100),
        "hello": bytes([6, 0, 0, 0]) + struct.pack(">HH", 1, 5) + b"1.0.0" + struct.pack(">HHB", 2, 1, 0),
        "answer to a probe": bytes([7, 0]) + struct.pack(">H", 144) + b"12345678",
        "unknown": bytes([200, 1, 2]),
    }
    datagrams = []
    for counter, (name, content) in enumerate(contents.items()):
        head = bytes([5, 0, 0, 0]) + struct.pack(">IQ", responder, counter)
        sealed = aead(to_responder).encrypt(bytes(4) + struct.pack(">Q", counter), content, head)
        datagrams.append({"kind": name, "content": content.hex(), "datagram": (head + sealed).hex()})
    to_initiator = expand(secret, b"ethudp data 1 responder" + agreed)
    return {"cipher": cipher, "to_responder": to_responder.hex(), "to_initiator": to_initiator.hex(), "datagrams": datagrams}


def handshake(form):
    header = bytes([1, 1, form, 3]) + struct.pack(">IIQ", initiator, for_initiations, timestamp)
    noise = Noise(b"ethudp secure wire" + tunnel + header, public(r))
    first = noise.ephemeral(ei)
    noise.mix_key(dh(ei, public(r)))
    first += noise.seal(public(i))
    noise.mix_key(shared)
    first += noise.seal((b"" if form else kem_public) + features)

    second = noise.ephemeral(er)
    noise.mix_key(dh(er, public(ei)))
    noise.mix_key(dh(er, public(i)))
    noise.mix_key_and_hash(psk)
    second += noise.seal((b"" if form else ciphertext) + features)

    k1, k2 = noise_hkdf(noise.ck, b"", 2)
    secret = extract(hashlib.sha256(noise.h + kem_public + ciphertext).digest(), kem_secret + k1 + k2)
    messages = {
        "initiation": macs(header + first, public(r)),
        "response": macs(bytes([2, 1, 1, 0]) + struct.pack(">II", responder, initiator) + second, public(i)),
    }
    if form:
        bare = extract(noise.h, k1 + k2)
        messages["kem key"] = kem_message(3, responder, expand(bare, b"ethudp kem 1 initiator"), kem_public)
        messages["kem ciphertext"] = kem_message(4, initiator, expand(bare, b"ethudp kem 1 responder"), ciphertext)
    return {
        **{name: message.hex() for name, message in messages.items()},
        "hash": noise.h.hex(),
        "split": (k1 + k2).hex(),
        "sessions": [session(0, ChaCha20Poly1305, secret), session(1, AESGCM, secret)],
    }


json.dump(
    {
        "initiator": {"private": i.hex(), "public": public(i).hex(), "ephemeral": ei.hex(), "index": initiator},
        "responder": {"private": r.hex(), "public": public(r).hex(), "ephemeral": er.hex(), "index": responder},
        "psk": psk.hex(),
        "tunnel": tunnel.hex(),
        "receiver index of the initiation": for_initiations,
        "timestamp": timestamp,
        "kem": {
            "d": d.hex(),
            "z": z.hex(),
            "m": m.hex(),
            "public": kem_public.hex(),
            "private": kem_private.hex(),
            "ciphertext": ciphertext.hex(),
            "secret": kem_secret.hex(),
        },
        "long": handshake(0),
        "short": handshake(1),
    },
    pathlib.Path(__file__).with_suffix(".json").open("w"),
    indent=1,
)
