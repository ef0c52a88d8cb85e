/** Interfaces: creation, what they look like, carrier, MTU, changes, deletion with its notifications. netlink-api 6. */
import { Writer } from '../../../../src/netlink/attribute.ts'
import { NLM_F } from '../../../../src/netlink/message.ts'
import { encodeLink, IFF, type LinkMessage, RTM } from '../../../../src/netlink/route.ts'
import { OUTSIDE } from '../lab.ts'
import type { Stage } from '../stage.ts'

const NEW = NLM_F.CREATE | NLM_F.EXCL

export async function links(stage: Stage): Promise<void> {
  const made: [what: string, link: LinkMessage, flags: number][] = [
    ['without a mode', { name: 'm0', kind: 'ovpn' }, NEW],
    ['mode 0', { name: 'm1', kind: 'ovpn', mode: 0 }, NEW],
    ['mode 1', { name: 'm2', kind: 'ovpn', mode: 1 }, NEW],
    ['mode 2', { name: 'm3', kind: 'ovpn', mode: 2 }, NEW],
    ['mode 255', { name: 'm3', kind: 'ovpn', mode: 255 }, NEW],
    ['a name that is taken', { name: 'm2', kind: 'ovpn', mode: 1 }, NEW],
    ['a name of 15 characters', { name: 'm23456789012345', kind: 'ovpn' }, NEW],
    ['a name of 16 characters', { name: 'm234567890123456', kind: 'ovpn' }, NEW],
    ['an empty name', { name: '', kind: 'ovpn' }, NEW],
    ['a name with a slash', { name: 'a/b', kind: 'ovpn' }, NEW],
    ['a kind that is not there', { name: 'm4', kind: 'ovpn-none' }, NEW],
    ['MTU 67', { name: 'm4', kind: 'ovpn', mtu: 67 }, NEW],
    ['MTU 68', { name: 'm4', kind: 'ovpn', mtu: 68 }, NEW],
    ['MTU 65451', { name: 'm5', kind: 'ovpn', mtu: 65_451 }, NEW],
    ['MTU 65452', { name: 'm6', kind: 'ovpn', mtu: 65_452 }, NEW],
    ['MTU 0', { name: 'm6', kind: 'ovpn', mtu: 0 }, NEW],
    ['without CREATE', { name: 'm7', kind: 'ovpn' }, 0],
    ['up at once', { name: 'm8', kind: 'ovpn', mode: 1, flags: IFF.UP, change: IFF.UP }, NEW],
  ]
  for (const [what, link, flags] of made) {
    await stage.asksRoute(`new, ${what}`, RTM.NEWLINK, flags, encodeLink(link))
  }
  for (const name of ['m0', 'm1', 'm2', 'm4', 'm5', 'm8']) {
    await stage.showsLink(`${name} as made`, stage.deviceNamed(name))
  }
  await oddModes(stage)
  await changes(stage)
}

/** Modes of other widths than the byte they should have. */
async function oddModes(stage: Stage): Promise<void> {
  const withMode = (bytes: number[]) =>
    new Writer(encodeLink({ name: 'm9' }).slice())
      .nest(
        18,
        (info) => {
          info.string(1, 'ovpn')
          info.nest(2, (data) => data.bytes(1, Uint8Array.from(bytes)), { flag: false })
        },
        { flag: false },
      )
      .finish()
  await stage.asksRoute('new, a mode of no bytes', RTM.NEWLINK, NEW, withMode([]))
  await stage.asksRoute('new, a mode of 4 bytes', RTM.NEWLINK, NEW, withMode([1, 0, 0, 0]))
}

async function changes(stage: Stage): Promise<void> {
  const mp = await stage.device('mp', { up: false })
  const p2p = await stage.device('p2p', { up: false })
  const { ifindex: index } = mp
  const rows: [what: string, link: LinkMessage, flags: number][] = [
    ['MTU 1500', { index, mtu: 1500 }, 0],
    ['MTU 67', { index, mtu: 67 }, 0],
    ['MTU 65452', { index, mtu: 65_452 }, 0],
    ['up', { index, flags: IFF.UP, change: IFF.UP }, 0],
    ['with EXCL', { index, mtu: 1400 }, NLM_F.EXCL],
    ['its own kind and mode', { index, kind: 'ovpn', mode: 1 }, 0],
    ['the other mode', { index, kind: 'ovpn', mode: 0 }, 0],
    ['another kind', { index, kind: 'dummy' }, 0],
    ['an index that is not there', { index: 999_999, mtu: 1400 }, 0],
  ]
  for (const [what, link, flags] of rows) {
    await stage.asksRoute(`change, ${what}`, RTM.NEWLINK, flags, encodeLink(link))
  }
  await stage.showsLink('MP after changes', mp)
  stage.lab.ip('link', 'set', p2p.name, 'up')
  await stage.showsLink('P2P, up', p2p)
  const owner = stage.udp('owner', 'inside', '0.0.0.0', 1194)
  const peer = { socket: owner.fd, remoteIpv4: OUTSIDE, remotePort: 2000 }
  await stage.asks('P2P, a peer', 'peer-new', { ifindex: p2p.ifindex, peer: { id: 1, ...peer } })
  await stage.showsLink('P2P, up with a peer', p2p)
  await stage.asks('P2P, another peer', 'peer-new', {
    ifindex: p2p.ifindex,
    peer: { id: 2, ...peer },
  })
  await stage.showsLink('P2P, up with the other peer', p2p)
  await stage.asks('P2P, its peer removed', 'peer-del', { ifindex: p2p.ifindex, peer: { id: 2 } })
  await stage.showsLink('P2P, up without a peer', p2p)
  await stage.asks('P2P, a peer again', 'peer-new', {
    ifindex: p2p.ifindex,
    peer: { id: 1, ...peer },
  })
  await stage.removeDevice('P2P with a peer removed', p2p)
  await stage.asks('a request about the removed device', 'peer-get', {
    ifindex: p2p.ifindex,
    peer: { id: 1 },
  })
  for (const id of [1, 2, 3]) {
    await stage.must('peer-new', {
      ifindex: mp.ifindex,
      peer: { id, ...peer, vpnIpv4: `10.8.0.${id}` },
    })
  }
  await stage.showsLink('MP with peers', mp)
  await stage.removeDevice('MP with three peers removed', mp)
  await stage.traffic('the socket is free again', () => undefined, { extra: () => owner.port })
}
