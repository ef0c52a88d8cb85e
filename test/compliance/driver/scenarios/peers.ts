/** Peers: every combination of addresses, modes and sockets; changes, replacement, lists. netlink-api 5.3. */
import { connectTcp, listenTcp } from '../../../../src/platform/tcp.ts'
import type { PeerNew, PeerSet } from '../../../../src/uapi/types.ts'
import { INSIDE, INSIDE6, OUTSIDE, OUTSIDE_TOO, OUTSIDE6 } from '../lab.ts'
import { openOther, Stream, Udp } from '../sockets.ts'
import type { Device, Stage } from '../stage.ts'

const v4 = { remoteIpv4: OUTSIDE, remotePort: 2000 }
const v6 = { remoteIpv6: OUTSIDE6, remotePort: 2000 }
const mapped = { remoteIpv6: `::ffff:${OUTSIDE}`, remotePort: 2000 }
const vpn = { vpnIpv4: '10.8.0.2' }

/** What a peer may be asked to be, right or wrong, in MP mode and for `peer-set`. */
const addresses: [what: string, peer: Omit<PeerSet, 'id'>][] = [
  ['IPv4', v4],
  ['IPv6', v6],
  ['IPv6, scope id 0', { ...v6, remoteIpv6ScopeId: 0 }],
  ['IPv6, link-local with scope id', { ...v6, remoteIpv6: 'fe80::2', remoteIpv6ScopeId: 2 }],
  ['IPv6, link-local without scope id', { ...v6, remoteIpv6: 'fe80::2' }],
  ['IPv4-mapped', mapped],
  ['IPv4-mapped, scope id', { ...mapped, remoteIpv6ScopeId: 2 }],
  ['both addresses', { ...v4, ...v6 }],
  ['port alone', { remotePort: 2000 }],
  ['address without port', { remoteIpv4: OUTSIDE }],
  ['IPv6 without port', { remoteIpv6: OUTSIDE6 }],
  ['scope id alone', { remoteIpv6ScopeId: 2 }],
  ['IPv4, scope id', { ...v4, remoteIpv6ScopeId: 2 }],
  ['IPv4, local', { ...v4, localIpv4: INSIDE }],
  ['IPv4, local that is not here', { ...v4, localIpv4: '192.0.2.1' }],
  ['IPv4, local 0.0.0.0', { ...v4, localIpv4: '0.0.0.0' }],
  ['IPv4, local IPv6', { ...v4, localIpv6: INSIDE6 }],
  ['IPv4, local mapped', { ...v4, localIpv6: `::ffff:${INSIDE}` }],
  ['IPv6, local', { ...v6, localIpv6: INSIDE6 }],
  ['IPv6, local IPv4', { ...v6, localIpv4: INSIDE }],
  ['IPv6, local mapped', { ...v6, localIpv6: `::ffff:${INSIDE}` }],
  ['IPv4-mapped, local mapped', { ...mapped, localIpv6: `::ffff:${INSIDE}` }],
  ['IPv4-mapped, local IPv6', { ...mapped, localIpv6: INSIDE6 }],
  ['IPv4-mapped, local IPv4', { ...mapped, localIpv4: INSIDE }],
  ['local alone', { localIpv4: INSIDE }],
  ['both locals', { ...v4, localIpv4: INSIDE, localIpv6: INSIDE6 }],
  ['remote 0.0.0.0', { ...v4, remoteIpv4: '0.0.0.0' }],
  ['remote broadcast', { ...v4, remoteIpv4: '255.255.255.255' }],
  ['remote multicast', { ...v4, remoteIpv4: '224.0.0.1' }],
  ['keepalive interval alone', { ...v4, keepaliveInterval: 10 }],
  ['keepalive timeout alone', { ...v4, keepaliveTimeout: 10 }],
  ['keepalive of most seconds', { ...v4, keepaliveInterval: 86_400, keepaliveTimeout: 86_400 }],
  ['keepalive of a second more', { ...v4, keepaliveInterval: 86_401, keepaliveTimeout: 86_401 }],
  ['keepalive 10 and 60', { ...v4, keepaliveInterval: 10, keepaliveTimeout: 60 }],
  ['keepalive 60 and 10', { ...v4, keepaliveInterval: 60, keepaliveTimeout: 10 }],
  ['transmit id', { ...v4, txId: 77 }],
  ['transmit id of all ones', { ...v4, txId: 0xffffff }],
]

const vpnAddresses: [what: string, peer: Omit<PeerSet, 'id'>][] = [
  ['none', {}],
  ['IPv4', { vpnIpv4: '10.8.0.3' }],
  ['IPv6', { vpnIpv6: 'fd08::3' }],
  ['both', { vpnIpv4: '10.8.0.4', vpnIpv6: 'fd08::4' }],
  ['IPv4 of another', { vpnIpv4: '10.8.0.99' }],
  ['IPv6 of another', { vpnIpv6: 'fd08::99' }],
  ['0.0.0.0', { vpnIpv4: '0.0.0.0' }],
  ['::', { vpnIpv6: '::' }],
  ['0.0.0.0 and ::', { vpnIpv4: '0.0.0.0', vpnIpv6: '::' }],
  ['0.0.0.0 and IPv6', { vpnIpv4: '0.0.0.0', vpnIpv6: 'fd08::5' }],
  ['IPv4 and ::', { vpnIpv4: '10.8.0.5', vpnIpv6: '::' }],
  ...[
    '127.0.0.1',
    '127.255.255.255',
    '224.0.0.1',
    '239.1.1.1',
    '240.0.0.1',
    '255.255.255.255',
    '0.0.0.1',
    '169.254.0.1',
  ].map((vpnIpv4): [string, Omit<PeerSet, 'id'>] => [vpnIpv4, { vpnIpv4 }]),
  ...['::1', '::192.0.2.1', '::ffff:192.0.2.1', 'ff02::1', 'fe80::1', 'ff0e::1'].map(
    (vpnIpv6): [string, Omit<PeerSet, 'id'>] => [vpnIpv6, { vpnIpv6 }],
  ),
]

export async function peers(stage: Stage): Promise<void> {
  const device = await stage.device('mp')
  const { ifindex } = device
  // Of both families, so that every address fits.
  const both = stage.udp('both', 'inside', '::', 1195)
  const other = { id: 99, socket: both.fd, vpnIpv4: '10.8.0.99', vpnIpv6: 'fd08::99' }
  await stage.must('peer-new', { ifindex, peer: { ...other, ...v4 } })
  for (const [what, peer] of addresses) {
    await creates(stage, device, what, { id: 1, socket: both.fd, ...vpn, ...peer })
  }
  for (const [what, peer] of vpnAddresses) {
    await creates(stage, device, `VPN ${what}`, { id: 1, socket: both.fd, ...v4, ...peer })
  }
  for (const [what, peer] of addresses) await changes(stage, device, what, both.fd, peer)
  for (const [what, peer] of vpnAddresses)
    await changes(stage, device, `VPN ${what}`, both.fd, peer)
  await ids(stage, device, both)
}

/** Creates peer 1, shows and removes it. */
async function creates(
  stage: Stage,
  { ifindex }: Device,
  what: string,
  peer: PeerNew,
): Promise<void> {
  if (!(await stage.asks(`new, ${what}`, 'peer-new', { ifindex, peer }))) return
  await stage.asks(`new, ${what}, as it is`, 'peer-get', { ifindex, peer: { id: peer.id } })
  await stage.must('peer-del', { ifindex, peer: { id: peer.id } })
}

/** Changes peer 1, that has an address of each family inside, and shows it. */
async function changes(
  stage: Stage,
  { ifindex }: Device,
  what: string,
  socket: number,
  peer: Omit<PeerSet, 'id'>,
): Promise<void> {
  const first = { localIpv4: INSIDE, keepaliveInterval: 20, keepaliveTimeout: 40, ...vpn }
  await stage.must('peer-new', { ifindex, peer: { id: 1, socket, ...v4, ...first } })
  await stage.asks(`set, ${what}`, 'peer-set', { ifindex, peer: { id: 1, ...peer } })
  await stage.asks(`set, ${what}, as it is`, 'peer-get', { ifindex, peer: { id: 1 } })
  await stage.must('peer-del', { ifindex, peer: { id: 1 } })
}

async function ids(stage: Stage, device: Device, { fd: socket }: Udp): Promise<void> {
  const { ifindex } = device
  const peer = (id: number, address: string): PeerNew => ({ id, socket, ...v4, vpnIpv4: address })
  await stage.asks('id 0', 'peer-new', { ifindex, peer: peer(0, '10.8.1.0') })
  await stage.asks('id 0xfffffe', 'peer-new', { ifindex, peer: peer(0xfffffe, '10.8.1.1') })
  await stage.asks('id 0xffffff', 'peer-new', { ifindex, peer: peer(0xffffff, '10.8.1.2') })
  await stage.asks('id taken', 'peer-new', { ifindex, peer: peer(0, '10.8.1.3') })
  await stage.asks('id and address taken', 'peer-new', { ifindex, peer: peer(0, '10.8.0.99') })
  await stage.asksAll('list', ifindex)
  for (const id of [0xffffff, 0xfffffe, 0]) {
    await stage.asks(`removal of ${id}`, 'peer-del', { ifindex, peer: { id } })
  }
  await stage.asks('removal of one that is gone', 'peer-del', { ifindex, peer: { id: 0 } })
  await stage.asks('showing one that is gone', 'peer-get', { ifindex, peer: { id: 0 } })
  await stage.asks('changing one that is gone', 'peer-set', { ifindex, peer: { id: 0, ...v4 } })
  // More than a datagram holds.
  for (let id = 200; id < 260; id++) {
    await stage.must('peer-new', { ifindex, peer: peer(id, `10.8.2.${id - 200}`) })
  }
  await stage.asksAll('a long list', ifindex)
}

export async function pointToPoint(stage: Stage): Promise<void> {
  const { ifindex } = await stage.device('p2p')
  const owner = stage.udp('owner', 'inside', '0.0.0.0', 1194)
  const peer = { id: 5, socket: owner.fd, ...v4 }
  await stage.asksAll('list without a peer', ifindex)
  await stage.asks('new', 'peer-new', { ifindex, peer })
  await stage.asks('as it is', 'peer-get', { ifindex, peer: { id: 5 } })
  await stage.asksAll('list', ifindex)
  await stage.asks('another id', 'peer-get', { ifindex, peer: { id: 6 } })
  await stage.asks('change of another id', 'peer-set', { ifindex, peer: { id: 6, ...v4 } })
  await stage.asks('removal of another id', 'peer-del', { ifindex, peer: { id: 6 } })
  await stage.asks('the same id again', 'peer-new', { ifindex, peer })
  await stage.asks('another in its place', 'peer-new', { ifindex, peer: { ...peer, id: 6 } })
  await stage.asksAll('list after replacement', ifindex)
  await stage.asks('refused for its VPN address', 'peer-new', {
    ifindex,
    peer: { ...peer, ...vpn },
  })
  const zero = { vpnIpv4: '0.0.0.0' }
  await stage.asks('VPN address 0.0.0.0', 'peer-new', { ifindex, peer: { ...peer, ...zero } })
  await stage.asks('change of its VPN address', 'peer-set', { ifindex, peer: { id: 6, ...vpn } })
  await stage.asks('refused for its socket', 'peer-new', {
    ifindex,
    peer: { ...peer, socket: 9999 },
  })
  await stage.asksAll('list after refusals', ifindex)
  await stage.asks('change', 'peer-set', {
    ifindex,
    peer: { id: 6, remoteIpv4: OUTSIDE_TOO, remotePort: 3000 },
  })
  await stage.asksAll('list after the change', ifindex)
  await stage.asks('removal', 'peer-del', { ifindex, peer: { id: 6 } })
  await stage.asksAll('list after removal', ifindex)
}

export async function sockets(stage: Stage): Promise<void> {
  const device = await stage.device('mp')
  const second = await stage.device('mp')
  const { ifindex } = device
  const udp = stage.udp('owner', 'inside', '0.0.0.0', 1194)
  const give = (what: string, socket: number, remote: object = v4) =>
    creates(stage, device, what, { id: 1, socket, ...vpn, ...remote })

  await give('UDP without remote', udp.fd, {})
  await give('closed descriptor', 9999)
  await give('descriptor of all ones', 0xffffffff)
  await give('standard input', 0)
  for (const kind of ['pipe', 'unix', 'icmp'] as const) {
    const { fd } = stage.owns(openOther(kind, stage.lab.inside))
    await give(kind, fd)
    await give(`${kind} without remote`, fd, {})
  }
  const connected = stage.owns(new Udp(stage.lab.inside, '0.0.0.0', 1197))
  connected.connect({ address: OUTSIDE, port: 2000 })
  await give('connected UDP', connected.fd)
  const six = stage.owns(new Udp(stage.lab.inside, INSIDE6, 1198))
  await give('IPv6 socket', six.fd, v6)
  await give('IPv6 socket for IPv4', six.fd, v4)
  await give('IPv4 socket for IPv6', udp.fd, v6)
  await give(
    'socket of another namespace',
    stage.owns(new Udp(stage.lab.outside, OUTSIDE, 1199)).fd,
  )

  await stage.must('peer-new', {
    ifindex,
    peer: { id: 7, socket: udp.fd, ...v4, vpnIpv4: '10.8.0.7' },
  })
  await give('shared UDP', udp.fd)
  await stage.asks('UDP of another device', 'peer-new', {
    ifindex: second.ifindex,
    peer: { id: 1, socket: udp.fd, ...v4, ...vpn },
  })
  await stage.must('peer-del', { ifindex, peer: { id: 7 } })
  await stage.asks('UDP that another device had', 'peer-new', {
    ifindex: second.ifindex,
    peer: { id: 1, socket: udp.fd, ...v4, ...vpn },
  })
  await tcp(stage, device, give)
}

async function tcp(
  stage: Stage,
  device: Device,
  give: (what: string, socket: number, remote?: object) => Promise<void>,
): Promise<void> {
  const { ifindex } = device
  const listener = stage.owns(listenTcp(OUTSIDE, 5000, { netns: stage.lab.outside }))
  await give('listening TCP', listener.fd, {})
  const connect = () => {
    const here = stage.owns(new Stream(connectTcp(OUTSIDE, 5000, { netns: stage.lab.inside })))
    return { here, there: stage.owns(new Stream(listener.accept(1000)!)) }
  }
  const { here, there } = connect()
  await give('TCP with remote', here.fd)
  await give('TCP with local alone', here.fd, { localIpv4: INSIDE })
  const peer = { id: 8, socket: here.fd, vpnIpv4: '10.8.0.8' }
  await stage.asks('TCP', 'peer-new', { ifindex, peer })
  await stage.asks('TCP, as it is', 'peer-get', { ifindex, peer: { id: 8 } })
  await give('TCP in use', here.fd, {})
  await stage.asks('TCP, a remote', 'peer-set', { ifindex, peer: { id: 8, ...v4 } })
  await stage.asks('TCP, keepalive', 'peer-set', {
    ifindex,
    peer: { id: 8, keepaliveInterval: 100, keepaliveTimeout: 300 },
  })
  await stage.asks('TCP, removal', 'peer-del', { ifindex, peer: { id: 8 } })
  await stage.traffic("the stream is its owner's again", () => there.send(Uint8Array.of(1, 2, 3)), {
    extra: () => here.read(),
  })
  await stage.asks('TCP, again', 'peer-new', { ifindex, peer })
  await stage.asks('TCP, removal again', 'peer-del', { ifindex, peer: { id: 8 } })
  const ended = connect()
  ended.there.close()
  await stage.traffic('the other end closes', () => undefined)
  await give('TCP whose other end has closed', ended.here.fd, {})
}
