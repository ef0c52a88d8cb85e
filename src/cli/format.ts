/** How things are shown: sizes, ages, devices with their peers, events. Pure: the time is passed in. */
import { type Json, json } from '../uapi/dialects/json.ts'
import type { DriverEvent, KeyInfo, Link, Peer, PeerKey } from '../uapi/types.ts'

/** A device with its peers, as `ovpn show` tells of it. */
export interface DeviceView {
  link: Link
  peers: Peer[]
}

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** `1.21 MiB`; bytes below 1024 as they are. */
export function formatBytes(bytes: number): string {
  let unit = 0
  let value = bytes
  // What would be shown as 1024.00 belongs to the next unit.
  while (value >= 1023.995 && unit < BYTE_UNITS.length - 1) {
    value /= 1024
    unit++
  }
  return unit === 0 ? `${bytes} B` : `${value.toFixed(2)} ${BYTE_UNITS[unit]}`
}

/** Bits per second: `3.41 Gbit/s`. */
export function formatRate(bytes: number, ms: number): string {
  const bits = ms > 0 ? (bytes * 8000) / ms : 0
  if (bits >= 1e9) return `${(bits / 1e9).toFixed(2)} Gbit/s`
  if (bits >= 1e6) return `${(bits / 1e6).toFixed(1)} Mbit/s`
  return `${(bits / 1e3).toFixed(1)} kbit/s`
}

const AGE_UNITS: [name: string, seconds: number][] = [
  ['year', 365 * 86_400],
  ['day', 86_400],
  ['hour', 3600],
  ['minute', 60],
  ['second', 1],
]

/** `1 hour, 2 minutes`: the two largest units; `0 seconds` for less than one. */
export function formatDuration(ms: number): string {
  let left = Math.max(0, Math.floor(ms / 1000))
  const parts: string[] = []
  for (const [name, seconds] of AGE_UNITS) {
    const count = Math.floor(left / seconds)
    left -= count * seconds
    if (count > 0) parts.push(plural(count, name))
    if (parts.length === 2) break
  }
  return parts.length === 0 ? '0 seconds' : parts.join(', ')
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

/** `192.0.2.1:1194`, `[2001:db8::1]:1194`; with the index of the interface where there is one. */
export function formatEndpoint(address: string, port: number, scope = 0): string {
  if (!address.includes(':')) return `${address}:${port}`
  return `[${address}${scope === 0 ? '' : `%${scope}`}]:${port}`
}

/** Where a peer is; undefined where the driver does not tell (a kernel's does not for TCP). */
function peerEndpoint(peer: Partial<Peer>): string | undefined {
  const { remoteIpv4, remoteIpv6, remoteIpv6ScopeId, remotePort } = peer
  const address = remoteIpv4 ?? remoteIpv6
  if (address === undefined || remotePort === undefined) return undefined
  return formatEndpoint(address, remotePort, remoteIpv6ScopeId)
}

/** `primary: aes-gcm, id 3`, with the epoch where there is one. */
export function formatKeyInfo({ slot, cipherAlg, keyId, epoch }: KeyInfo): string {
  const where = epoch === undefined ? '' : `, epoch ${epoch}`
  return `${slot}: ${cipherAlg}, id ${keyId}${where}`
}

function formatKey({ slot, keyId, cipherAlg, ageMs, packetId, format, epoch }: PeerKey): string {
  const sent = `${plural(packetId, 'packet')} sent${format === 'epoch' ? ` in epoch ${epoch}` : ''}`
  return `${slot}: ${cipherAlg}, id ${keyId}, ${formatDuration(ageMs)} old, ${sent}`
}

function formatDrops(drops: { reason: string; count: number }[]): string {
  return drops.map(({ reason, count }) => `${reason} ${count}`).join(', ')
}

/** One thing per line, `  name: value`; what is undefined is left out. */
function block(head: string, lines: [name: string, value: string | undefined][]): string {
  const shown = lines.filter(([, value]) => value !== undefined)
  return [head, ...shown.map(([name, value]) => `  ${name}: ${value}`), ''].join('\n')
}

export function formatLink(link: Link): string {
  const { rxBytes, rxPackets, txBytes, txPackets, drops, features } = link
  return block(`interface: ${link.name}`, [
    ['index', String(link.ifindex)],
    ['mode', link.mode === 'mp' ? 'mp (many peers)' : 'p2p (one peer)'],
    ['kind', link.kind],
    ['mtu', String(link.mtu)],
    ['ciphers by', link.provider === '' ? undefined : link.provider],
    ['offloads', features === '' ? undefined : features],
    ['threads', link.workers === 0 ? undefined : String(link.workers)],
    ['peers', String(link.peers)],
    [
      'transfer',
      `${formatBytes(rxBytes)} received (${plural(rxPackets, 'packet')}), ` +
        `${formatBytes(txBytes)} sent (${plural(txPackets, 'packet')})`,
    ],
    ['dropped', drops.length === 0 ? undefined : formatDrops(drops)],
  ])
}

export function formatPeer(peer: Peer): string {
  const { id, txId, transport, vpnIpv4, vpnIpv6, localIpv4, localIpv6, localPort } = peer
  const vpn = [vpnIpv4, vpnIpv6].filter((address) => address !== undefined)
  const endpoint = peerEndpoint(peer)
  const local = formatEndpoint(localIpv4 ?? localIpv6 ?? '*', localPort)
  const { keepaliveInterval, keepaliveTimeout, lastRxMs, keys, drops } = peer
  const ago = lastRxMs === undefined ? undefined : `${formatDuration(lastRxMs)} ago`
  return block(`peer: ${id}`, [
    ['sends as', txId === undefined || txId === id ? undefined : String(txId)],
    ['endpoint', endpoint && `${endpoint}${transport === undefined ? '' : ` (${transport})`}`],
    ['local', local],
    ['vpn addresses', vpn.length === 0 ? undefined : vpn.join(', ')],
    ['latest packet', ago],
    [
      'transfer',
      `${formatBytes(peer.vpnRxBytes)} received, ${formatBytes(peer.vpnTxBytes)} sent ` +
        `(on the wire ${formatBytes(peer.linkRxBytes)} and ${formatBytes(peer.linkTxBytes)})`,
    ],
    [
      'keepalive',
      keepaliveInterval === 0 && keepaliveTimeout === 0
        ? undefined
        : `every ${plural(keepaliveInterval, 'second')}, ` +
          `given up after ${plural(keepaliveTimeout, 'second')}`,
    ],
    ...(keys ?? []).map((key): [string, string] => ['key', formatKey(key)]),
    ['dropped', drops === undefined || drops.length === 0 ? undefined : formatDrops(drops)],
  ])
}

/** Interface blocks, each with its peers behind, an empty line between two blocks. */
export function formatShow(devices: DeviceView[]): string {
  return devices
    .flatMap(({ link, peers }) => [formatLink(link), ...peers.map((peer) => formatPeer(peer))])
    .join('\n')
}

/** What `ovpn show --json` prints of a device: the interface's attributes, and the peers in place of their number. */
export function showJson({ link, peers }: DeviceView): Json {
  return {
    ...(json.encodeReply('link-get', link) as object),
    peers: peers.map((peer) => json.encodeReply('peer-get', peer)),
  }
}

/** JSON text for people, that programs read as well. */
export function toJson(value: Json): string {
  return JSON.stringify(value, undefined, 2)
}

/** JSON of one event on one line, `more` in front. */
export function eventJson(event: DriverEvent, more: { [name: string]: Json }): string {
  return JSON.stringify({ ...more, ...(json.encodeEvent(event) as object) })
}

/** What happened, in words; the device is told apart from it. */
export function formatEvent(event: DriverEvent): string {
  switch (event.event) {
    case 'peer-del-ntf':
      return `peer ${event.peer.id} removed: ${event.peer.delReason}`
    case 'peer-float-ntf':
      return `peer ${event.peer.id} moved to ${peerEndpoint(event.peer) ?? 'another address'}`
    case 'key-swap-ntf': {
      const { peerId, keyId } = event.keyconf
      return `peer ${peerId} needs a new key: the packet ids of key ${keyId} are used up`
    }
    case 'packet': {
      const { peerId, packet, eof } = event.packet
      if (eof === true) return `peer ${peerId} ended its stream`
      return `peer ${peerId} control packet ${Buffer.from(packet).toString('hex')}`
    }
  }
}

/** `2026-03-01 17:04:05.678` in local time. */
export function formatTime(date: Date): string {
  const two = (number: number) => String(number).padStart(2, '0')
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
  return `${day} ${time}.${String(date.getMilliseconds()).padStart(3, '0')}`
}
