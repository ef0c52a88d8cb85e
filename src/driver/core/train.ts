/**
 * Packets side by side: cutting what the device hands over in one piece (TSO, USO) into IP packets, and gluing packets
 * of one flow into one piece for the device (GRO). Both work in place, so that no payload is copied:
 *
 * - cut: a segment's header is written over the end of the previous segment's payload, which has been sealed by then;
 * - glue: a packet is opened so that its payload lands behind the previous one; what its header overwrites meanwhile
 *   is saved before and put back after.
 *
 * In front of a packet to or from the device stands a virtio_net_hdr (linux/virtio_net.h), little-endian:
 *
 *     | flags 1 | gso type 1 | header length 2 | gso size 2 | checksum start 2 | checksum offset 2 |
 */
import type { PacketMemory } from './memory.ts'
import type { Peer } from './peer.ts'
import { Verdict } from './verdict.ts'

export const VNET_BYTES = 10
/** Largest IP packet: the length fields have 16 bits (jumbograms are not carried). */
export const MAX_PACKET = 65535

const NEEDS_CSUM = 1
const GSO_NONE = 0
const GSO_TCPV4 = 1
const GSO_TCPV6 = 4
const GSO_UDP_L4 = 5
const GSO_ECN = 0x80

const TCP = 6
const UDP = 17
const TCP_CHECKSUM = 16
const UDP_CHECKSUM = 6
const FIN = 0x01
const PSH = 0x08
const ACK = 0x10
const CWR = 0x80

/** Longest header that is cut or glued: IPv6 with some extension headers, TCP with all options. */
const MAX_HEADER = 256
/** Segments of one glued UDP train (UDP_MAX_SEGMENTS before Linux 6.9). */
const MAX_UDP_SEGMENTS = 64

/** Bytes of scratch that a Cutter wants, and a Gluer. */
export const CUTTER_BYTES = MAX_HEADER
export const GLUER_BYTES = VNET_BYTES + MAX_PACKET + MAX_HEADER + MAX_PACKET

/** Sum of the pseudo header (RFC 9293, 3.1; RFC 8200, 8.1) of the packet at `ip`, not complemented. */
function pseudoSum(memory: PacketMemory, ip: number, protocol: number, length: number): number {
  const swapped = ((length & 0xff) << 8) | (length >> 8)
  const start = (protocol << 8) + swapped
  return memory.u8[ip]! >> 4 === 4 ? memory.sum(ip + 12, 8, start) : memory.sum(ip + 8, 32, start)
}

/** Cuts one piece from the device into IP packets with complete checksums. */
export class Cutter {
  /** The present packet. */
  offset = 0
  length = 0
  readonly #memory: PacketMemory
  readonly #header: number
  #type = GSO_NONE
  #single = false
  /** Of every packet: header bytes in all, and of them IP's. */
  #headerBytes = 0
  #ipBytes = 0
  #size = 0
  #payload = 0
  #done = 0
  #left = 0
  #sequence = 0
  #id = 0
  #flags = 0

  /** `header`: offset of CUTTER_BYTES of scratch. */
  constructor(memory: PacketMemory, header: number) {
    this.#memory = memory
    this.#header = header
  }

  /** Takes the piece of `length` bytes behind the virtio_net_hdr at `vnet`; false: the two do not fit each other. */
  begin(vnet: number, length: number): boolean {
    const { u8, view } = this.#memory
    const ip = vnet + VNET_BYTES
    const type = u8[vnet + 1]! & ~GSO_ECN
    const checksumStart = view.getUint16(vnet + 6, true)
    this.#type = type
    if (type === GSO_NONE) {
      this.#single = true
      this.offset = ip
      this.length = length
      if (u8[vnet]! & NEEDS_CSUM) {
        const field = checksumStart + view.getUint16(vnet + 8, true)
        if (field + 2 > length) return false
        const sum = this.#memory.sum(ip + checksumStart, length - checksumStart, 0)
        // All ones instead of zero, which UDP would take for "no checksum" (RFC 768).
        view.setUint16(ip + field, ~sum & 0xffff || 0xffff, true)
      }
      return true
    }
    if (type !== GSO_TCPV4 && type !== GSO_TCPV6 && type !== GSO_UDP_L4) return false
    if (!(u8[vnet]! & NEEDS_CSUM)) return false
    const version = u8[ip]! >> 4
    // The IPv4 header's length is summed over later, so it must be what the two agree on.
    const ipFits = version === 4 ? checksumStart === (u8[ip]! & 15) * 4 : checksumStart >= 40
    const transport = ip + checksumStart
    const transportBytes = type === GSO_UDP_L4 ? 8 : (u8[transport + 12]! >> 4) * 4
    const headerBytes = checksumStart + transportBytes
    const size = view.getUint16(vnet + 4, true)
    if (
      !ipFits ||
      checksumStart < 20 ||
      (type === GSO_TCPV4 && version !== 4) ||
      (type === GSO_TCPV6 && version !== 6) ||
      transportBytes < (type === GSO_UDP_L4 ? 8 : 20) ||
      headerBytes > MAX_HEADER ||
      headerBytes >= length ||
      size === 0
    ) {
      return false
    }
    this.#single = false
    this.#headerBytes = headerBytes
    this.#ipBytes = checksumStart
    this.#size = size
    this.#payload = ip + headerBytes
    this.#done = 0
    this.#left = length - headerBytes
    this.#id = view.getUint16(ip + 4)
    if (type !== GSO_UDP_L4) {
      this.#sequence = view.getUint32(transport + 4)
      this.#flags = u8[transport + 13]!
      view.setUint16(transport + TCP_CHECKSUM, 0)
    } else {
      view.setUint16(transport + UDP_CHECKSUM, 0)
    }
    if (version === 4) view.setUint16(ip + 10, 0)
    u8.copyWithin(this.#header, ip, ip + headerBytes)
    return true
  }

  /** Whether what was taken last, and not made yet, is one packet as it stands. */
  get whole(): boolean {
    return this.#single
  }

  /** Makes the next packet; the one before may be overwritten. False: there is none. */
  next(): boolean {
    if (this.#single) {
      this.#single = false
      return true
    }
    if (this.#left <= 0) return false
    const { u8, view } = this.#memory
    const bytes = Math.min(this.#left, this.#size)
    const headerBytes = this.#headerBytes
    const ip = this.#payload + this.#done - headerBytes
    const first = this.#done === 0
    if (!first) u8.copyWithin(ip, this.#header, this.#header + headerBytes)
    this.#left -= bytes
    this.#done += bytes
    const length = headerBytes + bytes
    const transport = ip + this.#ipBytes
    const transportLength = length - this.#ipBytes
    if (u8[ip]! >> 4 === 4) {
      view.setUint16(ip + 2, length)
      view.setUint16(ip + 4, this.#id)
      this.#id = (this.#id + 1) & 0xffff
      view.setUint16(ip + 10, ~this.#memory.sum(ip, (u8[ip]! & 15) * 4, 0) & 0xffff, true)
    } else {
      view.setUint16(ip + 4, length - 40)
    }
    if (this.#type === GSO_UDP_L4) {
      view.setUint16(transport + 4, transportLength)
      const sum = this.#sum(ip, transport, UDP, transportLength)
      view.setUint16(transport + UDP_CHECKSUM, ~sum & 0xffff || 0xffff, true)
    } else {
      view.setUint32(transport + 4, this.#sequence)
      this.#sequence = (this.#sequence + bytes) >>> 0
      // PSH and FIN end the train, CWR begins it (RFC 3168, 6.1.2: it is sent once).
      let flags = this.#flags
      if (this.#left > 0) flags &= ~(PSH | FIN)
      if (!first) flags &= ~CWR
      u8[transport + 13] = flags
      const sum = this.#sum(ip, transport, TCP, transportLength)
      view.setUint16(transport + TCP_CHECKSUM, ~sum & 0xffff, true)
    }
    this.offset = ip
    this.length = length
    return true
  }

  #sum(ip: number, transport: number, protocol: number, length: number): number {
    return this.#memory.sum(transport, length, pseudoSum(this.#memory, ip, protocol, length))
  }
}

/** Hands a piece of `length` bytes (virtio_net_hdr included) at `offset` to the device; false: it was not taken. */
export type DeviceWrite = (offset: number, length: number) => boolean

/** What a Gluer counts into besides the peers. */
export interface DeviceCounters {
  rxPackets: number
  rxBytes: number
  drop(verdict: Verdict, peer: Peer | undefined, count: number): void
}

/** Glues opened packets and hands them to the device. One at a time: `place`, open to there, then `accept` or `reject`. */
export class Gluer {
  readonly #memory: PacketMemory
  readonly #vnet: number
  readonly #ip: number
  readonly #saved: number
  readonly #spare: number
  readonly #write: DeviceWrite
  readonly #counters: DeviceCounters
  readonly #udp: boolean

  /** The present piece: its length (0: none), packets in it, and what they must have in common. */
  #length = 0
  #packets = 0
  #bytes = 0
  #peer: Peer | undefined
  /** Takes no more packets. */
  #closed = true
  #protocol = 0
  #headerBytes = 0
  #ipBytes = 0
  #size = 0
  #nextSequence = 0
  #nextId = 0
  #push = 0
  /** Where the packet being opened lies. */
  #at = 0

  /** `area`: offset of GLUER_BYTES. `udp`: the device takes UDP trains (TUN_F_USO4/6). */
  constructor(options: {
    memory: PacketMemory
    area: number
    udp: boolean
    write: DeviceWrite
    counters: DeviceCounters
  }) {
    this.#memory = options.memory
    this.#vnet = options.area
    this.#ip = options.area + VNET_BYTES
    this.#saved = this.#ip + MAX_PACKET
    this.#spare = this.#saved + MAX_HEADER
    this.#udp = options.udp
    this.#write = options.write
    this.#counters = options.counters
  }

  /** Where to open a packet to whose plaintext has `length` bytes. */
  place(length: number): number {
    if (this.#length !== 0) {
      const behind = this.#length - this.#headerBytes
      // INVARIANT: the piece's own header is never overwritten, since packets are compared with it.
      if (
        !this.#closed &&
        behind >= this.#headerBytes &&
        length > this.#headerBytes &&
        behind + length <= MAX_PACKET
      ) {
        this.#at = this.#ip + behind
        this.#memory.u8.copyWithin(this.#saved, this.#at, this.#ip + this.#length)
        return this.#at
      }
      this.flush()
    }
    this.#at = this.#ip
    return this.#at
  }

  /** The packet last placed is not for the device. */
  reject(): void {
    if (this.#at !== this.#ip) this.#restore()
  }

  /** The packet last placed, of `length` bytes, is a valid IP packet from `peer` for the device. */
  accept(length: number, peer: Peer): void {
    if (this.#at === this.#ip) {
      this.#start(length, peer)
      return
    }
    const { u8 } = this.#memory
    const at = this.#at
    if (peer === this.#peer && this.#continues(at, length)) {
      const flags = u8[at + this.#ipBytes + 13]!
      this.#restore()
      const payload = length - this.#headerBytes
      this.#length += payload
      this.#bytes += length
      this.#packets++
      if (this.#protocol === TCP) {
        this.#nextSequence = (this.#nextSequence + payload) | 0
        this.#push = flags & PSH
        this.#closed = payload < this.#size || this.#push !== 0
      } else {
        this.#closed = payload < this.#size || this.#packets === MAX_UDP_SEGMENTS
      }
      this.#nextId = (this.#nextId + 1) & 0xffff
      return
    }
    u8.copyWithin(this.#spare, at, at + length)
    this.#restore()
    this.flush()
    u8.copyWithin(this.#ip, this.#spare, this.#spare + length)
    this.#start(length, peer)
  }

  /** Hands over what is there. */
  flush(): void {
    if (this.#length === 0) return
    const { u8, view } = this.#memory
    const vnet = this.#vnet
    if (this.#packets === 1) {
      u8.fill(0, vnet, vnet + VNET_BYTES)
    } else {
      const ip = this.#ip
      const transport = ip + this.#ipBytes
      const transportLength = this.#length - this.#ipBytes
      const v4 = u8[ip]! >> 4 === 4
      const tcp = this.#protocol === TCP
      const field = tcp ? TCP_CHECKSUM : UDP_CHECKSUM
      u8[vnet] = NEEDS_CSUM
      u8[vnet + 1] = tcp ? (v4 ? GSO_TCPV4 : GSO_TCPV6) : GSO_UDP_L4
      view.setUint16(vnet + 2, this.#headerBytes, true)
      view.setUint16(vnet + 4, this.#size, true)
      view.setUint16(vnet + 6, this.#ipBytes, true)
      view.setUint16(vnet + 8, field, true)
      if (v4) {
        view.setUint16(ip + 2, this.#length)
        view.setUint16(ip + 10, 0)
        view.setUint16(ip + 10, ~this.#memory.sum(ip, 20, 0) & 0xffff, true)
      } else {
        view.setUint16(ip + 4, this.#length - 40)
      }
      if (tcp) u8[transport + 13]! |= this.#push
      else view.setUint16(transport + 4, transportLength)
      const sum = pseudoSum(this.#memory, ip, this.#protocol, transportLength)
      view.setUint16(transport + field, sum, true)
    }
    const peer = this.#peer!
    if (this.#write(vnet, VNET_BYTES + this.#length)) {
      peer.vpnRxBytes += this.#bytes
      peer.vpnRxPackets += this.#packets
      this.#counters.rxBytes += this.#bytes
      this.#counters.rxPackets += this.#packets
    } else {
      this.#counters.drop(Verdict.RxDevice, peer, this.#packets)
    }
    this.#length = 0
    this.#peer = undefined
  }

  #restore(): void {
    this.#memory.u8.copyWithin(this.#at, this.#saved, this.#saved + this.#headerBytes)
  }

  /** Begins a piece with the packet of `length` bytes at its start, and finds out whether others may follow. */
  #start(length: number, peer: Peer): void {
    const { u8, view } = this.#memory
    const ip = this.#ip
    this.#length = length
    this.#bytes = length
    this.#packets = 1
    this.#peer = peer
    this.#closed = true
    const ipBytes = u8[ip]! >> 4 === 4 ? 20 : 40
    const protocol = u8[ip + (ipBytes === 20 ? 9 : 6)]!
    if (!this.#plainHeader(ip, length, ipBytes)) return
    const transport = ip + ipBytes
    let headerBytes: number
    if (protocol === TCP) {
      headerBytes = ipBytes + (u8[transport + 12]! >> 4) * 4
      if (headerBytes < ipBytes + 20 || headerBytes >= length) return
      const flags = u8[transport + 13]!
      if (flags !== ACK || (u8[transport + 12]! & 15) !== 0) return
      this.#nextSequence = (view.getInt32(transport + 4) + length - headerBytes) | 0
      this.#push = 0
    } else if (protocol === UDP && this.#udp) {
      headerBytes = ipBytes + 8
      if (headerBytes >= length || !this.#plainUdp(transport, length - ipBytes)) return
    } else {
      return
    }
    if (!this.#sumIsRight(ip, ipBytes, protocol, length)) return
    this.#protocol = protocol
    this.#headerBytes = headerBytes
    this.#ipBytes = ipBytes
    this.#size = length - headerBytes
    this.#nextId = (view.getUint16(ip + 4) + 1) & 0xffff
    this.#closed = false
  }

  /** Whether the packet of `length` bytes at `at` follows the present piece. */
  #continues(at: number, length: number): boolean {
    const { u8, view } = this.#memory
    const ip = this.#ip
    const ipBytes = this.#ipBytes
    const headerBytes = this.#headerBytes
    if (length - headerBytes > this.#size || !this.#plainHeader(at, length, ipBytes)) return false
    if (view.getInt32(at) >>> 16 !== view.getInt32(ip) >>> 16) return false // version, length, traffic class
    if (ipBytes === 20) {
      if (
        view.getUint16(at + 8) !== view.getUint16(ip + 8) || // time to live, protocol
        u8[at + 6] !== u8[ip + 6] ||
        view.getInt32(at + 12) !== view.getInt32(ip + 12) ||
        view.getInt32(at + 16) !== view.getInt32(ip + 16)
      ) {
        return false
      }
      // The identification may only be made up anew where it means nothing (RFC 6864, section 4.1).
      if ((u8[at + 6]! & 0x40) === 0 && view.getUint16(at + 4) !== this.#nextId) return false
    } else {
      if (view.getInt32(at) !== view.getInt32(ip)) return false // flow label
      if (view.getUint16(at + 6) !== view.getUint16(ip + 6)) return false // next header, hop limit
      for (let i = 8; i < 40; i += 4) {
        if (view.getInt32(at + i) !== view.getInt32(ip + i)) return false
      }
    }
    const transport = at + ipBytes
    const other = ip + ipBytes
    if (view.getInt32(transport) !== view.getInt32(other)) return false // ports
    if (this.#protocol === TCP) {
      if (
        view.getInt32(transport + 4) !== this.#nextSequence ||
        view.getInt32(transport + 8) !== view.getInt32(other + 8) || // acknowledgement
        u8[transport + 12] !== u8[other + 12] ||
        (u8[transport + 13]! & ~PSH) !== ACK ||
        view.getUint16(transport + 14) !== view.getUint16(other + 14) || // window
        view.getUint16(transport + 18) !== view.getUint16(other + 18)
      ) {
        return false
      }
      for (let i = 20; i < headerBytes - ipBytes; i += 4) {
        if (view.getInt32(transport + i) !== view.getInt32(other + i)) return false // options
      }
    } else if (!this.#plainUdp(transport, length - ipBytes)) {
      return false
    }
    return this.#sumIsRight(at, ipBytes, this.#protocol, length)
  }

  /** An IP header without options, fragments or trailing bytes, and for IPv4 with a right checksum. */
  #plainHeader(ip: number, length: number, ipBytes: number): boolean {
    const { u8, view } = this.#memory
    if (ipBytes === 40) return view.getUint16(ip + 4) === length - 40
    return (
      u8[ip] === 0x45 &&
      view.getUint16(ip + 2) === length &&
      (view.getUint16(ip + 6) & 0xbfff) === 0 &&
      this.#memory.sum(ip, 20, 0) === 0xffff
    )
  }

  /** A UDP header whose length is that of the packet and that has a checksum. */
  #plainUdp(transport: number, length: number): boolean {
    const { view } = this.#memory
    return (
      view.getUint16(transport + 4) === length && view.getUint16(transport + UDP_CHECKSUM) !== 0
    )
  }

  /** A wrong checksum must reach whoever checks it, so it is never made up anew by gluing. */
  #sumIsRight(ip: number, ipBytes: number, protocol: number, length: number): boolean {
    const transportLength = length - ipBytes
    const pseudo = pseudoSum(this.#memory, ip, protocol, transportLength)
    return this.#memory.sum(ip + ipBytes, transportLength, pseudo) === 0xffff
  }
}
