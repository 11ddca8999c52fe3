# Counts the frames of an interface until it is told to end, and prints how many of each: `in|out TAG KIND COUNT`. The kernel takes a
# tag out of a frame before it hands it on, and tells it beside (PACKET_AUXDATA).
import collections, signal, socket, struct, sys

def tag_of(frame, beside):
    for level, kind, data in beside:
        if (level, kind) == (263, 8):
            status, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", data[:20])
            if status & 0x10:
                return tci & 4095, frame[12:]
    if frame[12:14] in (b"\x81\x00", b"\x88\xa8"):
        return struct.unpack(">H", frame[14:16])[0] & 4095, frame[16:]
    return None, frame[12:]

PORTS = {(17, 67): "dhcp", (17, 68): "dhcp", (17, 546): "dhcp6", (17, 547): "dhcp6", (17, 69): "tftp", (6, 8067): "http", (6, 3260): "iscsi"}

def kind_of(rest):
    ether, packet = rest[:2], rest[2:]
    if ether == b"\x08\x00":
        protocol, ports = packet[9], packet[(packet[0] & 15) * 4:][:4]
    elif ether == b"\x86\xdd":
        protocol, ports = packet[6], packet[40:44]
    else:
        return "arp" if ether == b"\x08\x06" else "other"
    if protocol not in (6, 17) or len(ports) < 4:
        return "icmp6" if ether == b"\x86\xdd" else "other"
    return next((PORTS[protocol, p] for p in struct.unpack(">HH", ports) if (protocol, p) in PORTS), "other")

ears = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
ears.setsockopt(263, 8, 1)
# A burst must not be lost.
ears.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
ears.bind((sys.argv[1], 0))
counts = collections.Counter()

def end(*_):
    for (way, tag, kind), n in sorted(counts.items(), key=str):
        print(way, "untagged" if tag is None else tag, kind, n)
    print("lost", struct.unpack("II", ears.getsockopt(263, 6, 8))[1])
    sys.exit(0)

signal.signal(signal.SIGTERM, end)
print("counting", flush=True)
while True:
    frame, beside, _, sender = ears.recvmsg(2048, 256)
    tag, rest = tag_of(frame, beside)
    counts["out" if sender[2] == 4 else "in", tag, kind_of(rest)] += 1
