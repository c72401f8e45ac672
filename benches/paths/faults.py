"""Faults in the middle of a link: neither end loses its carrier, and neither receives an ICMP message.

The words of `Faults` are shared memory. Where datagrams are not delayed, the memory is the map of an eBPF program at a port of the switch.
A cut is one write to memory, so its moment is known to the microsecond. The program needs Linux 6.6 (TCX)."""

import ctypes
import mmap
import os
import platform
import struct

# The words: the faults, then the counters.
CUT, LOSS, LONGEST, RUNS, PACKETS, BYTES, STREAM, DROPPED = range(0, 64, 8)
# Lengths in bytes, with the Ethernet header, of datagrams that carry one frame of the numbered stream. Pings are shorter, probes longer.
STREAM_LENGTHS = (740, 960)
ETHERNET, UDP_HEADERS = 14, 42


class Faults:
    """One direction of a link."""

    def __init__(self, memory=None):
        self.memory = memory or mmap.mmap(-1, mmap.PAGESIZE)

    def get(self, word):
        return struct.unpack_from("q", self.memory, word)[0]

    def set(self, word, value):
        struct.pack_into("q", self.memory, word, value)

    def add(self, word, value=1):
        self.set(word, self.get(word) + value)

    def lose(self, share):
        """Drops datagrams at random, this share of all."""
        self.set(LOSS, round(share * (1 << 32)))

    def pass_up_to(self, mtu):
        """Drops IP packets that are longer; 0 for none."""
        self.set(LONGEST, mtu and mtu + ETHERNET)


SYSTEM_CALL = {"x86_64": 321}.get(platform.machine(), 280)
MAP_CREATE, PROG_LOAD, LINK_CREATE = 0, 5, 28
ARRAY, MMAPABLE, CLASSIFIER, TCX_INGRESS = 2, 1 << 10, 3, 46


def bpf(command, layout, *values):
    attributes = ctypes.create_string_buffer(struct.pack(layout, *values), 128)
    found = ctypes.CDLL(None, use_errno=True).syscall(SYSTEM_CALL, command, attributes, 128)
    if found < 0:
        raise OSError(ctypes.get_errno(), f"bpf: {os.strerror(ctypes.get_errno())}")
    return found


class Assembler:
    """Instructions of eBPF in their order. Labels of jumps are further down."""

    def __init__(self):
        self.code, self.labels = [], {}

    def add(self, operation, to=0, source=0, offset=0, value=0):
        self.code.append((operation, source << 4 | to, offset, value))

    def load(self, to, source, offset):
        self.add(0x79, to, source, offset)

    def load32(self, to, source, offset):
        self.add(0x61, to, source, offset)

    def jump(self, condition, label, left=0, right=0, value=0):
        """To a label, where the condition holds for the register and another one, or a value."""
        operations = {"always": 0x05, "zero": 0x15, "below value": 0xa5, "above value": 0x25, "above": 0x2d, "below": 0xad}
        self.add(operations[condition], left, right, label, value)

    def label(self, name):
        self.labels[name] = len(self.code)

    def count(self, word, register=None):
        """Adds the register, or 1, to a word."""
        if register is None:
            register = 0
            self.add(0xb7, 0, value=1)
        self.add(0xdb, 6, register, word)

    def leave(self, value):
        self.add(0xb7, 0, value=value)
        self.add(0x95)

    def assemble(self):
        def resolve(at, offset):
            return self.labels[offset] - at - 1 if isinstance(offset, str) else offset
        return b"".join(struct.pack("<BBhi", operation, registers, resolve(at, offset), value)
                        for at, (operation, registers, offset, value) in enumerate(self.code))


def program(memory):
    """Drops by the faults, and counts. Registers: 6 the words, 7 the packet, 8 its length, 9 the length of its datagrams."""
    drop, next_program = 2, -1
    packet_length, segment_length = 0, 176  # in struct __sk_buff
    p = Assembler()
    p.add(0xbf, 7, 1)
    p.add(0x18, 6, 2, value=memory)
    p.add(0)
    p.load32(8, 7, packet_length)
    p.load32(9, 7, segment_length)
    p.count(PACKETS)
    p.count(BYTES, 8)
    p.load(1, 6, CUT)
    p.jump("zero", "whole", 1)
    p.jump("always", "drop")
    p.label("whole")
    p.jump("zero", "single", 9)
    p.load(1, 6, RUNS)
    p.jump("zero", "run", 1)
    p.jump("always", "drop")
    p.label("run")
    p.add(0x07, 9, value=UDP_HEADERS)
    p.jump("always", "length")
    p.label("single")
    p.add(0xbf, 9, 8)
    p.label("length")
    p.load(1, 6, LONGEST)
    p.jump("zero", "luck", 1)
    p.jump("above", "drop", 9, 1)
    p.label("luck")
    p.load(1, 6, LOSS)
    p.jump("zero", "pass", 1)
    p.add(0x85, value=7)  # bpf_get_prandom_u32
    p.load(1, 6, LOSS)
    p.jump("below", "drop", 0, 1)
    p.label("pass")
    p.jump("below value", "end", 8, value=STREAM_LENGTHS[0])
    p.jump("above value", "end", 8, value=STREAM_LENGTHS[1])
    p.count(STREAM)
    p.label("end")
    p.leave(next_program)
    p.label("drop")
    p.count(DROPPED)
    p.leave(drop)
    return p.assemble()


def at_port(index):
    """Faults of the packets that arrive at the interface with this index, in the caller's network namespace. The program lives as long
    as the caller."""
    memory = bpf(MAP_CREATE, "IIIII", ARRAY, 4, 64, 1, MMAPABLE)
    code = program(memory)
    text, license_ = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"Dual MIT/GPL")
    loaded = bpf(PROG_LOAD, "IIQQ", CLASSIFIER, len(code) // 8, ctypes.addressof(text), ctypes.addressof(license_))
    link = bpf(LINK_CREATE, "IIII", loaded, index, TCX_INGRESS, 0)
    faults = Faults(mmap.mmap(memory, mmap.PAGESIZE))
    faults.descriptors = [memory, loaded, link]
    return faults


def release(faults):
    """Takes the program from the port."""
    for descriptor in getattr(faults, "descriptors", []):
        os.close(descriptor)
