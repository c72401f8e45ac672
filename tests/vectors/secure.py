#!/usr/bin/python3
"""Writes secure.json: a handshake of the short form, keys and datagrams by docs/WIRE.md and the Noise specification (revision 34),
with other code than the worker's. What ML-KEM would give are any bytes: they are only hashed and derived from."""

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


def macs(message, receiver, shared):
    message += siphash(hashlib.sha256(b"ethudp mac0" + receiver + shared).digest()[:16], message[:32])
    for label, length in (b"ethudp mac1" + receiver, 8), (b"ethudp mac2" + receiver + shared, 16):
        message += hmac.digest(hashlib.sha256(label).digest(), message, "sha256")[:length]
    return message


i, r, ei, er = (bytes([byte]) * 32 for byte in (1, 2, 0x40, 0x60))
psk, initiator, responder, seconds, nanoseconds = b"\x05" * 32, 0x11223344, 0x55667788, 1700000000, 7
shared = dh(i, public(r))

header = bytes([1, 1, 1, 3]) + struct.pack(">IQI", initiator, seconds, nanoseconds)
noise = Noise(b"ethudp secure wire" + header, public(r))
first = noise.ephemeral(ei)
noise.mix_key(dh(ei, public(r)))
first += noise.seal(public(i))
noise.mix_key(shared)
first += noise.seal(b"")
initiation = macs(header + first, public(r), shared)

second = noise.ephemeral(er)
noise.mix_key(dh(er, public(ei)))
noise.mix_key(dh(er, public(i)))
noise.mix_key_and_hash(psk)
second += noise.seal(b"")
response = macs(bytes([2, 1, 1, 0]) + struct.pack(">II", responder, initiator) + second, public(i), shared)

k1, k2 = noise_hkdf(noise.ck, b"", 2)
kem_public, ciphertext, m = b"\x0a" * 1184, b"\x0b" * 1088, b"\x0c" * 32
bare = extract(noise.h, k1 + k2)


def kem(kind, receiver, label, body):
    head = bytes([kind, 1, 0, 0]) + struct.pack(">I", receiver)
    return head + ChaCha20Poly1305(expand(bare, label)).encrypt(bytes(12), body, head)


secret = extract(hashlib.sha256(noise.h + kem_public + ciphertext).digest(), m + k1 + k2)
sessions = []
for cipher, aead in ((0, ChaCha20Poly1305), (1, AESGCM)):
    agreed = bytes([cipher]) + struct.pack(">II", initiator, responder)
    to_responder = expand(secret, b"ethudp data 1 initiator" + agreed)
    frame = bytes(range(20))
    fragment = bytes([2, 0]) + struct.pack(">HHHI", 64, 70, 0, 1)
    contents = {
        "frame": bytes(4) + frame,
        "bundle": bytes([1, 0, 0, 0]) + 2 * (struct.pack(">H", 24) + bytes(4) + frame),
        "fragment": fragment + bytes(64),
        "ping": bytes([3, 0, 0, 0]) + b"12345678",
        "pong": bytes([4, 0, 0, 0]) + b"12345678",
        "probe": bytes([5, 0, 0, 0]) + b"12345678" + bytes(100),
        "arrived": bytes([6, 0]) + struct.pack(">H", 144) + b"12345678",
    }
    datagrams = []
    for counter, (name, content) in enumerate(contents.items()):
        head = bytes([5, 0, 0, 0]) + struct.pack(">IQ", responder, counter)
        sealed = aead(to_responder).encrypt(bytes(4) + struct.pack(">Q", counter), content, head)
        datagrams.append({"kind": name, "content": content.hex(), "datagram": (head + sealed).hex()})
    to_initiator = expand(secret, b"ethudp data 1 responder" + agreed)
    sessions.append({"cipher": cipher, "to_responder": to_responder.hex(), "to_initiator": to_initiator.hex(), "datagrams": datagrams})

json.dump(
    {
        "initiator": {"private": i.hex(), "ephemeral": ei.hex(), "index": initiator},
        "responder": {"private": r.hex(), "ephemeral": er.hex(), "index": responder},
        "psk": psk.hex(),
        "seconds": seconds,
        "nanoseconds": nanoseconds,
        "initiation": initiation.hex(),
        "response": response.hex(),
        "hash": noise.h.hex(),
        "split": (k1 + k2).hex(),
        "kem": {
            "public": kem_public.hex(),
            "ciphertext": ciphertext.hex(),
            "secret": m.hex(),
            "message3": kem(3, responder, b"ethudp kem 1 initiator", kem_public).hex(),
            "message4": kem(4, initiator, b"ethudp kem 1 responder", ciphertext).hex(),
        },
        "sessions": sessions,
    },
    pathlib.Path(__file__).with_suffix(".json").open("w"),
    indent=1,
)
