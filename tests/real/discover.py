# Asks for an address as a machine does that has none: DISCOVER from its card, and waits a second for an offer to it.
import random, socket, struct, sys

interface, mac = sys.argv[1], bytes.fromhex(sys.argv[2].replace(":", ""))
xid = random.randbytes(4)
dhcp = b"\1\1\6\0" + xid + b"\0\0\x80\0" + bytes(16) + mac.ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63"
dhcp += b"\x35\1\1\x37\2\1\3\xff"
udp = struct.pack(">HHHH", 68, 67, 8 + len(dhcp), 0) + dhcp
ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
total = sum(struct.unpack(">10H", ip))
total = (total >> 16) + (total & 0xFFFF)
ip = ip[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + ip[12:]
card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
card.bind((interface, 0))
card.settimeout(1)
card.send(b"\xff" * 6 + mac + b"\x08\0" + ip + udp)
while True:
    packet = card.recv(2000)
    # An OFFER to us: from port 67, our number, message type 2.
    if packet[34:36] == b"\0\x43" and packet[46:50] == xid and b"\x35\1\2" in packet[282:]:
        sys.exit(0)
